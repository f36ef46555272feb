//! Following the chain.

use rusqlite::Connection;
use schemars::JsonSchema;
use serde::Serialize;

use super::entry::{GENESIS, hash, hex};
use super::head::Head;

/// Most faults that are told.
const MOST: usize = 100;

/// Something that the daemon did not write like this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AuditFault")]
pub struct Fault {
    /// The row; 0 for the log as a whole.
    pub seq: u64,
    /// What is wrong.
    pub reason: String,
}

/// What following the chain has shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "AuditVerdict")]
pub struct Verdict {
    /// Whether nothing was edited, removed or put elsewhere.
    pub intact: bool,
    /// Number of rows.
    pub rows: u64,
    /// What is wrong, at most 100.
    pub faults: Vec<Fault>,
}

/// Follows the chain from its beginning and compares its end with the head.
pub(super) fn follow(db: &Connection, head: &Head) -> rusqlite::Result<Verdict> {
    let mut faults = Vec::new();
    let mut fault = |seq: u64, reason: String| {
        if faults.len() < MOST {
            faults.push(Fault { seq, reason });
        }
    };
    let (mut rows, mut expected, mut last) = (0u64, 1u64, GENESIS);
    let mut at_head: Option<String> = matches!(head, Head::Rows(0, _)).then(|| hex(&GENESIS));
    let mut statement = db.prepare("SELECT seq, entry, hash FROM audit ORDER BY seq")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let seq = row.get::<_, i64>(0)?.cast_unsigned();
        let text: String = row.get(1)?;
        let stored: Vec<u8> = row.get(2)?;
        if seq != expected {
            fault(
                seq,
                format!("rows {expected} to {} are missing", seq.wrapping_sub(1)),
            );
        }
        if stored != hash(&last, seq, &text) {
            fault(
                seq,
                "its hash does not follow from its text and the row before: edited, or put elsewhere".into(),
            );
        }
        // Go on from what is stored: one edited row is one fault.
        last = stored.try_into().unwrap_or(GENESIS);
        if matches!(head, Head::Rows(n, _) if *n == seq) {
            at_head = Some(hex(&last));
        }
        (rows, expected) = (rows + 1, seq.wrapping_add(1));
    }
    match head {
        Head::Missing => fault(
            0,
            "the head is missing: nobody can say whether rows are missing at the end".into(),
        ),
        Head::Foreign => fault(0, "the head was not written with this master key".into()),
        Head::Rows(n, _) if at_head.is_none() => {
            fault(
                0,
                format!("the head says {n} rows, and row {n} is not there: rows were removed at the end"),
            );
        }
        Head::Rows(n, hash) if at_head.as_ref() != Some(hash) => {
            fault(
                *n,
                "its hash is not the one that the head says: the chain was written anew".into(),
            );
        }
        Head::Rows(..) => {}
    }
    Ok(Verdict {
        intact: faults.is_empty(),
        rows,
        faults,
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Audit, AuditQuery, Entry, Outcome};
    use super::*;
    use crate::secrets::MasterKey;
    use std::path::Path;

    fn key() -> MasterKey {
        MasterKey::from_bytes([9; 32])
    }

    fn filled(folder: &Path, rows: u64) -> Audit {
        let audit = Audit::open(folder, &key()).unwrap();
        for n in 1..=rows {
            let entry = Entry {
                actor: format!("a{}", n % 2),
                target: format!("t{n}"),
                ..Entry::default()
            };
            assert_eq!(audit.append(entry).unwrap(), n);
        }
        audit
    }

    /// Somebody with the file and a tool, who knows how to get rid of triggers.
    fn tamper(folder: &Path, sql: &str) {
        let db = Connection::open(folder.join("audit.db")).unwrap();
        db.execute_batch("DROP TRIGGER audit_is_not_edited; DROP TRIGGER audit_is_not_cut;")
            .unwrap();
        db.execute_batch(sql).unwrap();
    }

    #[test]
    fn whatever_is_done_to_the_rows_shows() {
        let cases = [
            (
                "UPDATE audit SET entry = replace(entry, 't3', 't9') WHERE seq = 3",
                "edited",
            ),
            ("UPDATE audit SET hash = zeroblob(32) WHERE seq = 3", "edited"),
            ("DELETE FROM audit WHERE seq = 3", "missing"),
            ("DELETE FROM audit WHERE seq = 1", "missing"),
            ("DELETE FROM audit WHERE seq >= 5", "removed at the end"),
            ("DELETE FROM audit", "removed at the end"),
            (
                "UPDATE audit SET seq = 100 WHERE seq = 2; UPDATE audit SET seq = 2 WHERE seq = 3;
                 UPDATE audit SET seq = 3 WHERE seq = 100",
                "put elsewhere",
            ),
            (
                "DELETE FROM audit WHERE seq = 3; UPDATE audit SET seq = seq - 1 WHERE seq > 3",
                "put elsewhere",
            ),
        ];
        for (sql, reason) in cases {
            let dir = tempfile::tempdir().unwrap();
            let audit = filled(dir.path(), 5);
            assert!(audit.verify().unwrap().intact);
            drop(audit);
            tamper(dir.path(), sql);
            let verdict = Audit::verify_folder(dir.path(), &key()).unwrap();
            assert!(!verdict.intact, "{sql}");
            assert!(
                verdict.faults.iter().any(|f| f.reason.contains(reason)),
                "{sql}: {verdict:?}"
            );
        }
    }

    #[test]
    fn a_chain_that_was_written_anew_shows_by_the_head() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 3));
        let head = std::fs::read(dir.path().join("audit.head")).unwrap();
        for name in ["audit.db", "audit.db-wal", "audit.db-shm", "audit.head"] {
            let _ = std::fs::remove_file(dir.path().join(name));
        }
        drop(filled(dir.path(), 2));
        let other = filled(dir.path(), 0);
        other
            .append(Entry {
                actor: "mallory".into(),
                ..Entry::default()
            })
            .unwrap();
        assert!(other.verify().unwrap().intact);
        // With the true head, or one that they made with another key, it does not pass.
        std::fs::write(dir.path().join("audit.head"), &head).unwrap();
        assert!(!other.verify().unwrap().intact);
        drop(other);
        assert!(
            !Audit::verify_folder(dir.path(), &MasterKey::from_bytes([8; 32]))
                .unwrap()
                .intact
        );
        std::fs::remove_file(dir.path().join("audit.head")).unwrap();
        assert!(!Audit::verify_folder(dir.path(), &key()).unwrap().intact);
    }

    #[test]
    fn a_head_that_is_behind_is_no_fault_and_the_chain_goes_on_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        drop(filled(dir.path(), 2));
        let head = std::fs::read(dir.path().join("audit.head")).unwrap();
        drop(filled(dir.path(), 0));
        let audit = Audit::open(dir.path(), &key()).unwrap();
        audit.append(Entry::default()).unwrap();
        // The daemon was killed between the row and the head.
        std::fs::write(dir.path().join("audit.head"), head).unwrap();
        let verdict = audit.verify().unwrap();
        assert!(verdict.intact && verdict.rows == 3, "{verdict:?}");
    }

    #[test]
    fn rows_are_found_and_floods_counted() {
        let dir = tempfile::tempdir().unwrap();
        let audit = filled(dir.path(), 10);
        let rows = |q: AuditQuery| {
            audit
                .rows(&q)
                .unwrap()
                .rows
                .iter()
                .map(|r| r.seq)
                .collect::<Vec<_>>()
        };
        let all = AuditQuery {
            limit: 3,
            ..AuditQuery::default()
        };
        assert_eq!(rows(all.clone()), [10, 9, 8]);
        assert_eq!(
            rows(AuditQuery {
                before: Some(8),
                ..all.clone()
            }),
            [7, 6, 5]
        );
        assert_eq!(
            rows(AuditQuery {
                actor: Some("a0".into()),
                ..all.clone()
            }),
            [10, 8, 6]
        );
        assert_eq!(
            rows(AuditQuery {
                target: Some("t4".into()),
                ..all.clone()
            }),
            [4]
        );
        assert_eq!(
            rows(AuditQuery {
                search: Some("T10".into()),
                ..all.clone()
            }),
            [10]
        );
        // A search for a text looks at so many rows at a time, and goes on.
        let mut query = AuditQuery {
            search: Some("T1".into()),
            ..all.clone()
        };
        let mut pages = Vec::new();
        loop {
            let page = audit.rows(&query).unwrap();
            pages.push(page.rows.iter().map(|r| r.seq).collect::<Vec<_>>());
            let Some(next) = page.next else { break };
            query.before = Some(next);
        }
        assert_eq!(pages, [vec![10], vec![], vec![1]]);
        assert_eq!(
            rows(AuditQuery {
                from_ms: Some(u64::MAX),
                ..all.clone()
            }),
            [0u64; 0]
        );
        for _ in 0..500 {
            audit
                .denied(Entry {
                    actor: "eve".into(),
                    status: 403,
                    ..Entry::default()
                })
                .unwrap();
        }
        let denied = AuditQuery {
            outcome: Some(Outcome::Denied),
            ..all
        };
        assert_eq!(rows(denied.clone()), [11]);
        audit.settle(true).unwrap();
        assert_eq!(audit.rows(&denied).unwrap().rows[0].entry.repeated, 499);
        assert!(audit.verify().unwrap().intact);
        let edited = audit.opened_for_tests("UPDATE audit SET entry = '{}'");
        assert!(edited.unwrap_err().to_string().contains("only added to"));
    }
}
