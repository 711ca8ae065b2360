//! What a process has used, from `/proc`.

use rustix::process::{Resource, getrlimit, setrlimit};
use std::fs;
use std::time::Duration;

/// User and system time of a process and its threads so far, in the scheduler's own nanoseconds: `stat` counts in
/// ticks of 10 ms.
pub fn cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    // A thread may end between the two looks.
    let nanoseconds = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// Resident memory now, in kB.
pub fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most that was resident since [`reset_peak`], in kB.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// Lets the peak start again from what is resident now.
pub fn reset_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("reset a process's peak");
}

fn status(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let value = status.lines().find_map(|line| line.strip_prefix(field));
    let number = value.and_then(|value| value.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {field} in\n{status}"))
}

/// As many open files as the system lets us and our children have.
pub fn raise_open_files_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raise the limit of open files to its maximum");
}
