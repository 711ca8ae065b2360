//! Owns finding PostgreSQL's server programs on this machine, and installing them when there are none.
//! Knows nothing of clusters: [`super::sandbox`] runs what is found here. Start at [`Programs::find_or_install`].

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The oldest major version that pgring works with: older ones have no row filters in publications.
pub const VERSION_MIN: u32 = 15;

/// Names the folder to use instead of a search.
pub const OVERRIDE_VARIABLE: &str = "PGRING_PG_BIN";

const NEEDED: [&str; 2] = ["postgres", "initdb"];

/// A folder that holds `postgres` and `initdb`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    directory: PathBuf,
    version: u32,
}

/// Why there are no programs to use.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// The override points elsewhere.
    #[error("{OVERRIDE_VARIABLE} is \"{}\", which does not hold postgres and initdb of version {VERSION_MIN} or newer", .0.display())]
    Override(PathBuf),
    /// Nothing found, and nobody allowed to install.
    #[error("no PostgreSQL {VERSION_MIN} or newer was found; {}", advice(.0.as_deref()))]
    Missing(Option<String>),
    /// The package manager failed.
    #[error("\"{command}\" failed: {reason}")]
    Install {
        /// What was run.
        command: String,
        /// Its last words.
        reason: String,
    },
}

fn advice(command: Option<&str>) -> String {
    match command {
        Some(command) => {
            format!("install it (\"{command}\"), or name its folder in {OVERRIDE_VARIABLE}")
        }
        None => format!("install it, or name its folder in {OVERRIDE_VARIABLE}"),
    }
}

impl Programs {
    /// The programs of this machine; when there are none, the system's package manager installs them: without
    /// asking when root and not on a terminal, after a yes on a terminal, and not at all otherwise.
    ///
    /// # Errors
    /// When the override is wrong, or nothing is there and nothing could be installed.
    pub fn find_or_install() -> Result<Self, ProgramsError> {
        if let Some(programs) = Self::find()? {
            return Ok(programs);
        }
        let root = rustix::process::geteuid().is_root();
        let Some(installer) = Installer::of_this_machine() else {
            return Err(ProgramsError::Missing(None));
        };
        let command = installer.command_line(root);
        let on_terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let allowed = if on_terminal {
            is_agreed(&command)
        } else {
            root
        };
        if !allowed {
            return Err(ProgramsError::Missing(Some(command)));
        }
        installer.run(root)?;
        Self::find()?.ok_or(ProgramsError::Missing(None))
    }

    /// The programs of this machine, newest version first among the usual folders; `None` when there are none.
    ///
    /// # Errors
    /// When the override names a folder that does not hold them.
    pub fn find() -> Result<Option<Self>, ProgramsError> {
        if let Some(directory) =
            std::env::var_os(OVERRIDE_VARIABLE).filter(|value| !value.is_empty())
        {
            let directory = PathBuf::from(directory);
            return Self::within(&directory)
                .map(Some)
                .ok_or(ProgramsError::Override(directory));
        }
        Ok(candidates()
            .iter()
            .find_map(|directory| Self::within(directory)))
    }

    fn within(directory: &Path) -> Option<Self> {
        // A folder of links (Debian's /usr/local/bin) may lack the rest: go where the program really is.
        let postgres = directory.join("postgres").canonicalize().ok()?;
        let directory = postgres.parent()?.to_owned();
        if !NEEDED
            .iter()
            .all(|program| directory.join(program).is_file())
        {
            return None;
        }
        let version = version(&output(Command::new(&postgres).arg("--version"))?)?;
        (version >= VERSION_MIN).then_some(Self { directory, version })
    }

    /// The path of one program, such as `initdb`.
    pub fn path(&self, program: &str) -> PathBuf {
        self.directory.join(program)
    }

    /// The major version.
    pub fn version(&self) -> u32 {
        self.version
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    if let Some(directory) = output(Command::new("pg_config").arg("--bindir")) {
        found.push(directory.into());
    }
    let versioned = [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr/libexec", "postgresql", ""),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
    ];
    for (parent, prefix, below) in versioned {
        found.extend(
            newest_first(Path::new(parent), prefix)
                .into_iter()
                .map(|directory| directory.join(below)),
        );
    }
    found.push("/usr/local/pgsql/bin".into());
    found
}

/// The folders `<parent>/<prefix><number>`, greatest number first.
fn newest_first(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut numbered: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            Some((
                entry
                    .file_name()
                    .to_str()?
                    .strip_prefix(prefix)?
                    .parse()
                    .ok()?,
                entry.path(),
            ))
        })
        .collect();
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    numbered.into_iter().map(|(_, path)| path).collect()
}

/// The first line of what a program prints; `None` if it cannot be run.
fn output(command: &mut Command) -> Option<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(
        String::from_utf8(output.stdout)
            .ok()?
            .lines()
            .next()?
            .trim()
            .to_owned(),
    )
}

/// `15` of `postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)`.
fn version(line: &str) -> Option<u32> {
    let number = line
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn is_agreed(command: &str) -> bool {
    eprint!(
        "No PostgreSQL {VERSION_MIN} or newer was found. Install it with \"{command}\"? [Y/n] "
    );
    let mut answer = String::new();
    let read = std::io::stderr()
        .flush()
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    matches!(read, Ok(1..))
        && matches!(
            answer.trim().to_ascii_lowercase().as_str(),
            "" | "y" | "yes"
        )
}

/// A package manager and what to ask of it, one command after the other.
struct Installer {
    commands: &'static [&'static [&'static str]],
    as_root: bool,
}

const INSTALLERS: [(&str, Installer); 4] = [
    (
        "apt-get",
        Installer {
            commands: &[
                &["apt-get", "-o", "DPkg::Lock::Timeout=300", "update"],
                &[
                    "apt-get",
                    "-o",
                    "DPkg::Lock::Timeout=300",
                    "install",
                    "-y",
                    "postgresql",
                ],
            ],
            as_root: true,
        },
    ),
    (
        "dnf",
        Installer {
            commands: &[&[
                "dnf",
                "install",
                "-y",
                "postgresql-server",
                "postgresql-contrib",
            ]],
            as_root: true,
        },
    ),
    (
        "apk",
        Installer {
            commands: &[&[
                "apk",
                "add",
                "postgresql",
                "postgresql-client",
                "postgresql-contrib",
            ]],
            as_root: true,
        },
    ),
    (
        "brew",
        Installer {
            commands: &[&["brew", "install", "postgresql@17"]],
            as_root: false,
        },
    ),
];

impl Installer {
    fn of_this_machine() -> Option<&'static Self> {
        let path = std::env::var_os("PATH")?;
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let there = |program: &str| folders.iter().any(|folder| folder.join(program).is_file());
        INSTALLERS
            .iter()
            .find(|(program, _)| there(program))
            .map(|(_, installer)| installer)
    }

    fn words(&self, words: &[&'static str], root: bool) -> Vec<&'static str> {
        let sudo: &[&str] = if self.as_root && !root {
            &["sudo"]
        } else {
            &[]
        };
        [sudo, words].concat()
    }

    fn command_line(&self, root: bool) -> String {
        let lines: Vec<String> = self
            .commands
            .iter()
            .map(|words| self.words(words, root).join(" "))
            .collect();
        lines.join(" && ")
    }

    fn run(&self, root: bool) -> Result<(), ProgramsError> {
        // No questions from debconf where nobody answers.
        let environment = HashMap::from([(
            OsString::from("DEBIAN_FRONTEND"),
            OsString::from("noninteractive"),
        )]);
        for words in self.commands {
            let words = self.words(words, root);
            let failed = |reason: String| ProgramsError::Install {
                command: words.join(" "),
                reason,
            };
            eprintln!("running {}", words.join(" "));
            let mut command = Command::new(words[0]);
            command
                .args(&words[1..])
                .envs(&environment)
                .stdout(Stdio::null());
            let output = command
                .stderr(Stdio::piped())
                .output()
                .map_err(|error| failed(error.to_string()))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let last = said
                    .lines()
                    .rev()
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or("it said nothing");
                return Err(failed(format!("{} ({last})", output.status)));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_prints() {
        assert_eq!(
            version("postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)"),
            Some(15)
        );
        assert_eq!(version("postgres (PostgreSQL) 9.6.24"), Some(9));
        assert_eq!(version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(version("postgres"), None);
    }

    #[test]
    fn folders_are_tried_from_the_newest_version_by_number() {
        let parent = std::env::temp_dir().join(format!("pgring-programs-{}", std::process::id()));
        for name in ["pgsql-9", "pgsql-16", "pgsql-15", "pgsql-next", "other"] {
            std::fs::create_dir_all(parent.join(name)).unwrap();
        }
        let found = newest_first(&parent, "pgsql-");
        std::fs::remove_dir_all(&parent).unwrap();
        assert_eq!(
            found,
            ["pgsql-16", "pgsql-15", "pgsql-9"].map(|name| parent.join(name))
        );
    }

    #[test]
    fn others_than_root_install_with_sudo_except_by_brew() {
        let (_, apt) = &INSTALLERS[0];
        assert!(apt.command_line(false).starts_with("sudo apt-get "));
        assert!(apt.command_line(true).starts_with("apt-get "));
        let (_, brew) = &INSTALLERS[3];
        assert_eq!(brew.command_line(false), "brew install postgresql@17");
    }
}
