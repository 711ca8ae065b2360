//! What a process has used, from `/proc`.

pub use crate::support::memory::{peak, reset_peak, resident};
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

/// As many open files as the system lets us and our children have.
pub fn raise_open_files_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raise the limit of open files to its maximum");
}
