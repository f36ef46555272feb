//! Processes as `/proc` shows them, and signals to those that a test started.

use rustix::process::{Pid, Signal, kill_process};
use std::time::Duration;

/// Sends a signal; a process that is gone already is fine.
///
/// # Panics
/// If the id is not that of a process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .expect("a process id");
    let _ = kill_process(pid, signal);
}

/// Whether it exists and is more than a zombie.
pub fn is_alive(pid: u32) -> bool {
    stat_field(pid, 0).is_some_and(|state| state != "Z" && state != "X")
}

/// Child processes that are more than zombies, in the order of their start.
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found: Vec<(u64, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            stat_field(*pid, 1).and_then(|text| text.parse().ok()) == Some(parent) && is_alive(*pid)
        })
        .map(|pid| (stat_number(pid, 19), pid))
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, pid)| pid).collect()
}

/// Its command line, with spaces between the arguments; nginx writes what a process is there.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// CPU time it has used, user and system. Resolution: one scheduler tick where the kernel gives no better.
pub fn cpu_time(pid: u32) -> Duration {
    // The sum over threads of the first field of schedstat: nanoseconds on a CPU.
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return Duration::ZERO;
    };
    let nanoseconds = tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanoseconds)
}

/// Memory of its own and its share of what it shares (PSS), bytes.
pub fn memory(pid: u32) -> u64 {
    proportional(pid, "Pss:")
}

/// A line of `smaps_rollup`, bytes.
fn proportional(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}

/// Memory that belongs to it alone or to it and its kin by fork, its share of that: no files, nothing that processes
/// share by name. Bytes.
pub fn anonymous_memory(pid: u32) -> u64 {
    proportional(pid, "Pss_Anon:")
}

/// Open descriptors.
pub fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A field of `/proc/PID/stat` behind the name: 0 is the state, 1 the parent, 19 the start time.
fn stat_field(pid: u32, field: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain spaces and parentheses: the last one ends it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(field).map(str::to_owned)
}

fn stat_number(pid: u32, field: usize) -> u64 {
    stat_field(pid, field)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait::{PATIENCE, wait_blocking};
    use std::process::Command;

    #[test]
    fn a_child_is_seen_and_killed() {
        let mut child = Command::new("sleep").arg("100").spawn().unwrap();
        let pid = child.id();
        assert!(children(std::process::id()).contains(&pid));
        assert!(
            wait_blocking(PATIENCE, || command_line(pid) == "sleep 100"),
            "{}",
            command_line(pid)
        );
        assert!(is_alive(pid));
        signal(pid, Signal::KILL);
        assert!(!child.wait().unwrap().success());
        assert!(!is_alive(pid));
    }

    #[test]
    fn own_resources_are_read() {
        let own = std::process::id();
        assert!(memory(own) > anonymous_memory(own));
        assert!(anonymous_memory(own) > 0);
        assert!(descriptors(own) >= 3);
        // Some work, so that a coarse clock shows it as well.
        assert!(wait_blocking(PATIENCE, || cpu_time(own) > Duration::ZERO));
    }
}
