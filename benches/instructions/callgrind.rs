//! A program under valgrind's callgrind: starts and ends the counting, and reads what it wrote (the valgrind manual's
//! chapter "Callgrind Format Specification").

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where callgrind writes, and how often it has.
pub struct Callgrind {
    folder: PathBuf,
    dumps: u32,
}

impl Callgrind {
    /// Of one program, which will be run by [`Self::command`].
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            dumps: 0,
        }
    }

    /// What the program is to be run under.
    pub fn command(&self) -> Vec<String> {
        let out = format!("--callgrind-out-file={}", self.out().display());
        let words = ["valgrind", "--tool=callgrind", "-q", &out, &self.pipes()];
        words.map(str::to_owned).to_vec()
    }

    fn out(&self) -> PathBuf {
        self.folder.join("callgrind")
    }

    /// Where it listens for commands.
    fn pipes(&self) -> String {
        format!("--vgdb-prefix={}", self.folder.join("vgdb").display())
    }

    /// What the process executes while `run` runs.
    pub fn count(&mut self, pid: u32, run: impl FnOnce()) -> Profile {
        self.control(pid, "--zero");
        run();
        self.control(pid, "--dump");
        self.dumps += 1;
        let file = self.out().with_extension(self.dumps.to_string());
        let text = fs::read_to_string(&file).expect("read what callgrind wrote");
        fs::remove_file(file).expect("remove what callgrind wrote");
        Profile::read(&text)
    }

    fn control(&self, pid: u32, what: &str) {
        let mut command = Command::new("callgrind_control");
        command.args([&self.pipes(), what, &pid.to_string()]);
        let output = command.output().expect("run callgrind_control");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("OK."),
            "callgrind_control {what}: {said}"
        );
    }
}

/// What a program executed.
#[derive(Debug, Default)]
pub struct Profile {
    /// All instructions.
    pub instructions: u64,
    /// Those of each function, without what it calls.
    own: HashMap<String, u64>,
    /// Caller and callee → how often, and the instructions of that.
    calls: HashMap<(String, String), (u64, u64)>,
}

impl Profile {
    fn read(text: &str) -> Self {
        let mut profile = Self::default();
        let mut names = HashMap::new();
        let (mut function, mut callee) = (String::new(), None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = full_name(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                callee = Some((full_name(&mut names, name), 0));
            } else if let Some(calls) = line.strip_prefix("calls=") {
                let count = calls.split(' ').next().and_then(|count| count.parse().ok());
                let (_, calls) = callee.as_mut().expect("a callee before its calls");
                *calls = count.expect("a number of calls");
            } else if line
                .starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first))
            {
                let cost = line
                    .split(' ')
                    .nth(1)
                    .map_or(0, |cost| cost.parse().expect("a cost"));
                match callee.take() {
                    None => *profile.own.entry(function.clone()).or_default() += cost,
                    Some((callee, calls)) => {
                        let sum = profile.calls.entry((function.clone(), callee)).or_default();
                        *sum = (sum.0 + calls, sum.1 + cost);
                    }
                }
            } else if let Some(totals) = line.strip_prefix("totals: ") {
                profile.instructions = totals.parse().expect("a total");
            }
        }
        profile
    }

    /// How often functions are called that are `wanted` by others that are not.
    pub fn calls(&self, wanted: impl Fn(&str) -> bool) -> u64 {
        let calls = self
            .calls
            .iter()
            .filter(|((caller, callee), _)| wanted(callee) && !wanted(caller));
        calls.map(|(_, (calls, _))| calls).sum()
    }

    /// What a function executes with all that it calls.
    pub fn whole(&self, function: &str) -> u64 {
        let calls = self.calls.iter();
        let calls = calls.filter(|((caller, callee), _)| callee == function && caller != callee);
        calls.map(|(_, (_, cost))| cost).sum()
    }

    /// The functions with the most instructions of their own: those, and with all that they call.
    pub fn dearest(&self, most: usize) -> Vec<(&str, u64, u64)> {
        let own = self.own.iter();
        let mut all: Vec<_> = own.map(|(name, own)| (name.as_str(), *own, 0)).collect();
        all.sort_by_key(|(_, own, _)| std::cmp::Reverse(*own));
        all.truncate(most);
        for (name, own, whole) in &mut all {
            *whole = self.whole(name).max(*own);
        }
        all
    }
}

/// The name that stands as "(number) name" where it comes first, as "(number)" from then on.
fn full_name(names: &mut HashMap<String, String>, text: &str) -> String {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number.to_owned(), name.to_owned());
            name.to_owned()
        }
        None => names
            .get(text)
            .expect("a name that was given before")
            .clone(),
    }
}
