//! Throttling of logins. An attempt counts as a failure from its beginning, so that many at once gain nothing; a success
//! takes that back.

use serde::{Deserialize, Serialize};

use super::records::{Expected, Record, Records, RecordsError, Table};

/// Failures are forgotten after this time without another.
const FORGOTTEN_MS: u64 = 3_600_000;

/// Failures of one kind.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Failures {
    count: u32,
    until_ms: u64,
}

/// What is counted, how many failures are free, and the longest wait after more, milliseconds.
///
/// A name alone is slowed down late and little, because otherwise anybody could keep its owner out; an address that
/// tries one name is slowed down soon.
fn counted(name: &str, address: &str) -> [(String, u32, u64); 3] {
    [
        (format!("both:{name}|{address}"), 5, 300_000),
        (format!("address:{address}"), 20, 300_000),
        (format!("name:{name}"), 100, 30_000),
    ]
}

/// Notes an attempt.
///
/// # Errors
/// `Ok(Err(ms))`: it must not be made before that time, Unix milliseconds.
pub(super) fn begin(
    records: &dyn Records,
    name: &str,
    address: &str,
    now_ms: u64,
) -> Result<Result<(), u64>, RecordsError> {
    for (key, free, longest) in counted(name, address) {
        if let Err(until) = note(records, &key, free, longest, now_ms)? {
            return Ok(Err(until));
        }
    }
    Ok(Ok(()))
}

fn note(
    records: &dyn Records,
    key: &str,
    free: u32,
    longest_ms: u64,
    now_ms: u64,
) -> Result<Result<(), u64>, RecordsError> {
    loop {
        let present = records.get(Table::Throttles, key, now_ms)?;
        let expected = present
            .as_ref()
            .map_or(Expected::Absent, |r| Expected::Version(r.version));
        let mut failures: Failures = present
            .and_then(|r| serde_json::from_slice(&r.value).ok())
            .unwrap_or_default();
        if failures.until_ms > now_ms {
            return Ok(Err(failures.until_ms));
        }
        failures.count = failures.count.saturating_add(1);
        let beyond = failures.count.saturating_sub(free).min(20);
        let wait_ms = if failures.count < free {
            0
        } else {
            (1_000 << beyond).min(longest_ms)
        };
        failures.until_ms = now_ms.saturating_add(wait_ms);
        let record = Record {
            key: key.to_owned(),
            version: 0,
            value: serde_json::to_vec(&failures).unwrap_or_default(),
            expires_ms: Some(now_ms.saturating_add(FORGOTTEN_MS)),
        };
        if records
            .put(Table::Throttles, &record, expected, now_ms)?
            .is_some()
        {
            return Ok(Ok(()));
        }
    }
}

/// Forgets the failures of a name from an address: it was its owner.
pub(super) fn succeeded(records: &dyn Records, name: &str, address: &str) -> Result<(), RecordsError> {
    for (key, ..) in counted(name, address) {
        records.remove(Table::Throttles, &key)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::SqliteRecords;
    use super::*;

    #[test]
    fn waits_grow_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let records = SqliteRecords::open(&dir.path().join("a.db")).unwrap();
        let mut now = 1_000_000;
        let mut waits = Vec::new();
        for _ in 0..14 {
            match begin(&records, "admin", "192.0.2.1", now).unwrap() {
                Ok(()) => waits.push(0),
                Err(until) => {
                    waits.push(until - now);
                    now = until;
                    assert_eq!(begin(&records, "admin", "192.0.2.1", now).unwrap(), Ok(()));
                }
            }
        }
        assert_eq!(&waits[..6], [0, 0, 0, 0, 0, 1_000]);
        assert_eq!(&waits[6..9], [2_000, 4_000, 8_000]);
        assert!(waits.iter().all(|w| *w <= 300_000));
        // Another address is not kept out, and neither is the owner after having signed in.
        assert_eq!(begin(&records, "admin", "192.0.2.2", now).unwrap(), Ok(()));
        succeeded(&records, "admin", "192.0.2.1").unwrap();
        assert_eq!(begin(&records, "admin", "192.0.2.1", now).unwrap(), Ok(()));
    }

    #[test]
    fn an_address_that_tries_many_names_is_slowed_down_too() {
        let dir = tempfile::tempdir().unwrap();
        let records = SqliteRecords::open(&dir.path().join("a.db")).unwrap();
        let mut allowed = 0;
        for n in 0..100 {
            allowed += u32::from(begin(&records, &format!("n{n}"), "192.0.2.1", 5).unwrap().is_ok());
        }
        assert_eq!(allowed, 20);
    }
}
