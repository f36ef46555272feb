//! Ports that no other test takes.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;

/// Below the range from which the kernel takes ports for outgoing connections: a port that is free now cannot be
/// taken by a client before the server listens.
const RANGE: RangeInclusive<u16> = 10_000..=29_999;

/// A port on the loopback interface, held against other test processes by a locked file as long as this lives.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Finds a free one.
    ///
    /// # Panics
    /// If there is none.
    pub fn free() -> Self {
        let found = Self::search(|number| Some([Self::locked(number)?]));
        let [port] = found;
        port
    }

    /// Finds two free ones, the second `distance` above the first, for servers that insist on it.
    ///
    /// # Panics
    /// As [`Self::free`].
    pub fn pair(distance: u16) -> [Self; 2] {
        Self::search(|number| Some([Self::locked(number)?, Self::locked(number + distance)?]))
    }

    /// This very port, if it is free.
    fn locked(number: u16) -> Option<Self> {
        let folder = std::env::temp_dir().join("tollgate-test-ports");
        std::fs::create_dir_all(&folder).expect("a folder for port locks");
        let lock = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(folder.join(number.to_string()))
            .ok()?;
        let free = lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        free.then_some(Self { number, _lock: lock })
    }

    fn search<T>(mut found: impl FnMut(u16) -> Option<T>) -> T {
        let span = RANGE.end() - RANGE.start() + 1;
        // Different processes begin at different places, so that they seldom ask for the same lock.
        let begin = std::process::id().wrapping_mul(97) % u32::from(span);
        for step in 0..u32::from(span) {
            let number =
                RANGE.start() + u16::try_from((begin + step) % u32::from(span)).expect("within the range");
            if let Some(found) = found(number) {
                return found;
            }
        }
        panic!("no free port in {RANGE:?}");
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:number`
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_while_held() {
        let (first, second) = (Port::free(), Port::free());
        assert_ne!(first.number(), second.number());
        let [low, high] = Port::pair(1_000);
        assert_eq!(low.number() + 1_000, high.number());
    }
}
