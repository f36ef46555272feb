//! What `/proc` says about a process.

use std::fs;

/// Resources of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Resources {
    /// Processor time used, user and system, seconds.
    pub cpu_seconds: f64,
    /// Resident memory, bytes.
    pub resident_bytes: u64,
    /// Open descriptors; `None` if we may not look.
    pub descriptors: Option<u64>,
    /// Threads.
    pub threads: u64,
}

/// Reads a process's resources; `None` if it is gone. See proc(5): `stat` fields 14, 15 and 20, `status` `VmRSS`.
pub fn resources(pid: u32) -> Option<Resources> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name stands in parentheses and may itself contain blanks and parentheses.
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let field = |n: usize| rest.split(' ').nth(n)?.parse::<u64>().ok();
    let ticks = field(11)? + field(12)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let resident = status.lines().find_map(|line| {
        line.strip_prefix("VmRSS:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<u64>()
            .ok()
    });
    Some(Resources {
        cpu_seconds: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
        resident_bytes: resident.unwrap_or(0) * 1_024,
        descriptors: fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()
            .map(|d| d.count() as u64),
        threads: field(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_resources_and_a_missing_one_has_none() {
        let _open = fs::File::open("/proc/self/stat").unwrap();
        let me = resources(std::process::id()).unwrap();
        assert!(me.resident_bytes > 100_000 && me.threads >= 1 && me.descriptors.unwrap() > 2);
        assert_eq!(resources(u32::MAX), None);
    }
}
