//! Who a process is: pid and start time in one word, so that a reused pid is never mistaken for its predecessor.

use std::fs;

/// A process, packed into one nonzero `u64`: 22 bits pid, 40 bits start time in clock ticks since boot
/// (`/proc/<pid>/stat` field 22). The two top bits are left for the state of the slot that carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity(u64);

const PID_BITS: u32 = 22;
const START_BITS: u32 = 40;

impl Identity {
    /// The calling process. Read anew on each call: a forked child is another process.
    pub fn current() -> Identity {
        let pid = std::process::id();
        Identity::of(pid).unwrap_or(Identity(u64::from(pid).max(1)))
    }

    /// The live process with this pid; `None` when there is none (a zombie counts as none).
    pub fn of(pid: u32) -> Option<Identity> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command name stands in parentheses and may itself contain blanks and parentheses.
        let rest = stat.get(stat.rfind(')')? + 2..)?;
        let mut fields = rest.split(' ');
        if matches!(fields.next()?, "Z" | "X") {
            return None;
        }
        let start: u64 = fields.nth(18)?.parse().ok()?;
        let pid = u64::from(pid) & ((1 << PID_BITS) - 1);
        Some(Identity((start & ((1 << START_BITS) - 1)) << PID_BITS | pid))
    }

    /// Its pid.
    pub fn pid(self) -> u32 {
        (self.0 & ((1 << PID_BITS) - 1)) as u32
    }

    /// Whether that very process still runs.
    pub fn is_alive(self) -> bool {
        Identity::of(self.pid()) == Some(self)
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    pub(crate) fn from_word(word: u64) -> Identity {
        Identity(word & ((1 << (PID_BITS + START_BITS)) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_alive_and_stable() {
        let me = Identity::current();
        assert_eq!(me, Identity::current());
        assert_eq!(me.pid(), std::process::id());
        assert!(me.is_alive());
    }

    #[test]
    fn a_dead_child_is_not_alive() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let id = Identity::of(child.id()).unwrap();
        assert!(id.is_alive());
        child.kill().unwrap();
        // Killed but not yet waited for: a zombie holds nothing any more.
        while Identity::of(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(!id.is_alive());
        child.wait().unwrap();
        assert!(!id.is_alive());
    }
}
