//! Records in the Redis that the instances share: one hash a table, all with one tag, changed by one script.

use std::sync::LazyLock;

use tokio::runtime::Handle;

use super::records::{Expected, Record, Records, RecordsError, Table};
use crate::shared::{Script, Shared, SharedError};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("records.lua")));

/// How long sessions and failed logins are kept at least, milliseconds; everything else for ever.
const MOMENTARY_MS: u64 = 7 * 86_400_000;

/// The shared store. Its calls block on the runtime that it was made in: not to be called on one of its own threads.
#[derive(Clone)]
pub struct RedisRecords {
    shared: Shared,
    runtime: Handle,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Which history of records this is.
    pub lineage: String,
    /// How many changes there were.
    pub clock: u64,
    /// The records.
    pub records: Vec<(Table, Record)>,
}

fn fail(action: &'static str) -> impl Fn(SharedError) -> RecordsError {
    move |source| RecordsError {
        action,
        source: source.into(),
    }
}

fn encode(record: &Record, version: u64) -> Vec<u8> {
    let ends = record.expires_ms.map_or("-".to_owned(), |ms| ms.to_string());
    let mut text = format!("{version} {ends} ").into_bytes();
    text.extend_from_slice(&record.value);
    text
}

fn decode(key: String, text: &[u8]) -> Option<Record> {
    let mut parts = text.splitn(3, |byte| *byte == b' ');
    let version = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    let expires_ms = match std::str::from_utf8(parts.next()?).ok()? {
        "-" => None,
        ends => Some(ends.parse().ok()?),
    };
    Some(Record {
        key,
        version,
        value: parts.next()?.to_vec(),
        expires_ms,
    })
}

fn is_there(record: &Record, now_ms: u64) -> bool {
    record.expires_ms.is_none_or(|ends| ends > now_ms)
}

impl RedisRecords {
    /// The records in this Redis.
    pub fn new(shared: Shared, runtime: Handle) -> RedisRecords {
        RedisRecords { shared, runtime }
    }

    fn key(&self, rest: &str) -> String {
        self.shared.key(&format!("{{accounts}}:{rest}"))
    }

    fn script(&self, tables: &[Table], arguments: &[Vec<u8>]) -> Result<u64, SharedError> {
        let mut keys = vec![self.key("lineage"), self.key("clock")];
        keys.extend(tables.iter().map(|t| self.key(t.name())));
        let answer: String = self
            .runtime
            .block_on(self.shared.script(&SCRIPT, &keys, arguments))?;
        Ok(answer.parse().unwrap_or(0))
    }

    /// Lineage and clock; `None` if there is nothing.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub fn state(&self) -> Result<Option<(String, u64)>, SharedError> {
        let mut command = redis::cmd("MGET");
        command.arg(self.key("lineage")).arg(self.key("clock"));
        let (lineage, clock): (Option<String>, Option<u64>) =
            self.runtime.block_on(self.shared.query(&command))?;
        Ok(lineage.map(|lineage| (lineage, clock.unwrap_or(0))))
    }

    /// Everything but failed logins, at one moment.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub fn content(&self) -> Result<Content, SharedError> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        pipe.cmd("GET").arg(self.key("lineage"));
        pipe.cmd("GET").arg(self.key("clock"));
        for table in Table::KEPT {
            pipe.cmd("HGETALL").arg(self.key(table.name()));
        }
        type Hash = Vec<(String, Vec<u8>)>;
        type Found = (Option<String>, Option<u64>, Hash, Hash, Hash, Hash, Hash, Hash);
        let (lineage, clock, a, b, c, d, e, f): Found = self.runtime.block_on(self.shared.pipe(&pipe))?;
        let mut content = Content {
            lineage: lineage.unwrap_or_default(),
            clock: clock.unwrap_or(0),
            records: Vec::new(),
        };
        for (table, hash) in Table::KEPT.into_iter().zip([a, b, c, d, e, f]) {
            let records = hash.into_iter().filter_map(|(key, text)| decode(key, &text));
            content.records.extend(records.map(|record| (table, record)));
        }
        Ok(content)
    }

    /// Puts this in the place of everything, unless there is another lineage, or the same at a later clock; whether it was done.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub fn replace(&self, content: &Content) -> Result<bool, SharedError> {
        let mut arguments = vec![
            b"replace".to_vec(),
            content.lineage.clone().into_bytes(),
            content.clock.to_string().into_bytes(),
        ];
        for table in Table::KEPT {
            let records = content.records.iter().filter(|(of, _)| *of == table);
            arguments.push(records.clone().count().to_string().into_bytes());
            for (_, record) in records {
                arguments.push(record.key.clone().into_bytes());
                arguments.push(encode(record, record.version));
            }
        }
        Ok(self.script(&Table::KEPT, &arguments)? == 1)
    }
}

impl Records for RedisRecords {
    fn get(&self, table: Table, key: &str, now_ms: u64) -> Result<Option<Record>, RecordsError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.key(table.name())).arg(key);
        let found: Option<Vec<u8>> = self
            .runtime
            .block_on(self.shared.query(&command))
            .map_err(fail("read an account's record"))?;
        let record = found.and_then(|text| decode(key.to_owned(), &text));
        Ok(record.filter(|record| is_there(record, now_ms)))
    }

    fn list(&self, table: Table, now_ms: u64) -> Result<Vec<Record>, RecordsError> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.key(table.name()));
        let found: Vec<(String, Vec<u8>)> = self
            .runtime
            .block_on(self.shared.query(&command))
            .map_err(fail("list the accounts' records"))?;
        let records = found.into_iter().filter_map(|(key, text)| decode(key, &text));
        let mut records: Vec<Record> = records.filter(|record| is_there(record, now_ms)).collect();
        records.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(records)
    }

    fn put(
        &self,
        table: Table,
        record: &Record,
        expected: Expected,
        now_ms: u64,
    ) -> Result<Option<u64>, RecordsError> {
        let expected = match expected {
            Expected::Absent => "absent".to_owned(),
            Expected::Anything => "any".to_owned(),
            Expected::Version(version) => version.to_string(),
        };
        let kept = if table.is_momentary() { MOMENTARY_MS } else { 0 };
        let arguments = [
            b"put".to_vec(),
            record.key.clone().into_bytes(),
            record.value.clone(),
            record
                .expires_ms
                .map_or("-".to_owned(), |ms| ms.to_string())
                .into_bytes(),
            expected.into_bytes(),
            now_ms.to_string().into_bytes(),
            kept.to_string().into_bytes(),
        ];
        let version = self
            .script(&[table], &arguments)
            .map_err(fail("write an account's record"))?;
        Ok((version > 0).then_some(version))
    }

    fn remove(&self, table: Table, key: &str) -> Result<bool, RecordsError> {
        let arguments = [b"remove".to_vec(), key.as_bytes().to_vec()];
        let removed = self.script(&[table], &arguments);
        Ok(removed.map_err(fail("remove an account's record"))? > 0)
    }

    fn prune(&self, now_ms: u64) -> Result<(), RecordsError> {
        for table in Table::ALL {
            let arguments = [b"prune".to_vec(), now_ms.to_string().into_bytes()];
            self.script(&[table], &arguments)
                .map_err(fail("forget expired records"))?;
        }
        Ok(())
    }
}
