//! What memory a process has, from `/proc`.

use std::fs;

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
