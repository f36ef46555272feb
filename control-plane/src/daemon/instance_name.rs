//! The host's name, and the name of an instance that was given none.

/// The host's name.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_owned()).filter(|n| !n.is_empty())
}

/// The longest part of a host's name in an instance's.
const MOST: usize = 48;

/// A name for an instance that was given none: the host's, and a part of its ledger's number. It is the same after a restart, and
/// another for each state folder of the host.
pub(super) fn unique(ledger: u64) -> String {
    of(host_name().as_deref().unwrap_or("instance"), ledger)
}

fn of(host: &str, ledger: u64) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let host = host.chars().map(|c| if plain(c) { c } else { '-' });
    let host: String = host.take(MOST).collect();
    format!("{host}-{:06x}", ledger >> 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_short_plain_and_different_for_each_ledger() {
        assert_eq!(
            of("gateway1.example", 0x0123_4567_89ab_cdef),
            "gateway1.example-012345"
        );
        assert_eq!(of("a host/x", 0), "a-host-x-000000");
        assert_eq!(of(&"long".repeat(64), u64::MAX).len(), MOST + 7);
        assert_ne!(of("h", 1 << 40), of("h", 2 << 40));
    }
}
