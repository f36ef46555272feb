//! The newest lines of every instance's request log, in a List for each in Redis, so that any instance can show them all.
//!
//! An instance writes its own list alone and in order: a script adds lines only behind the one that is known to be the
//! newest there, so nothing stands there twice, whatever comes late. What Redis loses is written again, as far back as one
//! round goes. Under more traffic than a round takes, the lines between are in the instance's own log only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Script, Shared, SharedError};
use crate::config::StatusWatch;
use crate::ledger::{Facts, Filter, RequestQuery, RequestRecord, RequestSearch, SqliteReader, StoreError};

static PUSH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("recent.lua")));

/// Which lists there are.
const LISTS: &str = "{requests}:instances";
/// Time between two looks at the log.
const ROUND: Duration = Duration::from_secs(2);
/// Most lines written in a round: what shows traffic must not become a part of it.
const MOST: usize = 500;
/// Lines read from ledger or List at a time.
const PAGE: usize = 250;
/// After so long without a line a list goes.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Most lines looked at for an answer.
const MOST_LOOKED_AT: usize = 100_000;

/// A line of the List.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    instance: String,
    #[serde(flatten)]
    record: RequestRecord,
}

/// A line of some instance's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentLine {
    /// The instance.
    pub instance: String,
    /// The line's number in its log.
    pub number: i64,
    /// The line.
    pub record: RequestRecord,
}

/// Where a page ends: in each list, the number of the oldest line that has been given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecentCursor(HashMap<String, i64>);

impl RecentCursor {
    /// Reads what [`std::fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<RecentCursor> {
        let part = |part: &str| {
            let (list, number) = part.split_once('.')?;
            Some((list.to_owned(), number.parse().ok()?))
        };
        text.split('-').map(part).collect::<Option<_>>().map(RecentCursor)
    }
}

impl std::fmt::Display for RecentCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = self.0.iter().map(|(list, n)| format!("{list}.{n}")).collect();
        parts.sort_unstable();
        f.write_str(&parts.join("-"))
    }
}

fn list(name: &str) -> String {
    format!("{{requests}}:of:{name}")
}

/// A line as it stands in the List: only what is not empty.
fn encode(instance: &str, number: i64, record: RequestRecord) -> Result<Vec<u8>, serde_json::Error> {
    let instance = instance.to_owned();
    let mut value = serde_json::to_value(Entry { instance, record })?;
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, value| !(value.is_null() || *value == "" || *value == 0));
    }
    Ok(format!("{number} {value}").into_bytes())
}

/// `None` for what is none of ours, such as a newer version's.
fn decode(line: &[u8]) -> Option<RecentLine> {
    let (number, json) = std::str::from_utf8(line).ok()?.split_once(' ')?;
    let Entry { instance, record } = serde_json::from_str(json).ok()?;
    Some(RecentLine {
        instance,
        number: number.parse().ok()?,
        record,
    })
}

/// What metrics tell.
#[derive(Debug, Default)]
pub struct RecentFigures {
    /// Lines written since the start.
    pub lines: AtomicU64,
    /// Rounds that ended with an error.
    pub failures: AtomicU64,
}

/// Keeps this instance's list up to date.
pub struct RecentWriter {
    shared: Shared,
    ledger: Arc<SqliteReader>,
    config: StatusWatch,
    instance: String,
    /// The list's name: the number of the ledger, for line numbers are its own.
    name: String,
    /// The newest line in the list.
    newest: i64,
    figures: Arc<RecentFigures>,
}

impl RecentWriter {
    /// A writer of what `ledger`, a connection of its own, has.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn new(
        shared: Shared,
        ledger: SqliteReader,
        config: StatusWatch,
        instance: String,
    ) -> Result<RecentWriter, StoreError> {
        Ok(RecentWriter {
            name: format!("{:016x}", ledger.origin()?),
            shared,
            ledger: Arc::new(ledger),
            config,
            instance,
            newest: 0,
            figures: Arc::default(),
        })
    }

    /// How it goes.
    pub fn figures(&self) -> Arc<RecentFigures> {
        Arc::clone(&self.figures)
    }

    /// Writes until it is time to end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
            let most = self.config.borrow().settings.request_log.cluster_rows;
            if most == 0 || !self.shared.is_configured() {
                continue;
            }
            tokio::select! {
                written = self.round(most) => if let Err(error) = written {
                    // Said by those who write what must not be lost.
                    tracing::debug!(%error, "the newest requests are not in Redis");
                    self.figures.failures.fetch_add(1, Relaxed);
                },
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// The lines that the list lacks, the oldest first.
    async fn lacking(&self, after: i64) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        let ledger = Arc::clone(&self.ledger);
        let read = move || {
            let mut lines: Vec<(i64, RequestRecord)> = Vec::new();
            while lines.len() < MOST {
                let query = RequestQuery {
                    before: lines.last().map(|(number, _)| *number),
                    limit: PAGE,
                    ..RequestQuery::default()
                };
                let page = ledger.requests(&query)?;
                let found = page.len();
                lines.extend(page.into_iter().take_while(|(number, _)| *number > after));
                if found < PAGE || lines.last().is_none_or(|(number, _)| *number <= after + 1) {
                    break;
                }
            }
            lines.truncate(MOST);
            lines.reverse();
            Ok(lines)
        };
        tokio::task::spawn_blocking(read).await.map_err(|e| StoreError {
            action: "read the request log",
            source: e.into(),
        })?
    }

    async fn round(&mut self, most: u64) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let lines = self.lacking(self.newest).await?;
        if lines.is_empty() {
            return Ok(());
        }
        let (count, last) = (lines.len() as u64, lines.last().map_or(0, |(number, _)| *number));
        let head = [
            self.name.clone(),
            self.newest.to_string(),
            most.to_string(),
            KEPT.as_millis().to_string(),
        ];
        let mut arguments: Vec<Vec<u8>> = head.into_iter().map(String::into_bytes).collect();
        for (number, record) in lines {
            arguments.push(encode(&self.instance, number, record)?);
        }
        let keys = [self.shared.key(&list(&self.name)), self.shared.key(LISTS)];
        let newest: String = self.shared.script(&PUSH, &keys, &arguments).await?;
        self.newest = newest.parse()?;
        if self.newest == last {
            self.figures.lines.fetch_add(count, Relaxed);
        }
        Ok(())
    }
}

/// Reads all instances' lists.
#[derive(Clone)]
pub struct RecentReader {
    shared: Shared,
}

/// One list, read page by page as its lines are needed.
struct Reading {
    name: String,
    key: String,
    /// Lines of the List that have been read.
    offset: usize,
    ended: bool,
    /// Number of the oldest line that has been looked at. New lines push others into the next page while it is read.
    reached: i64,
    /// Lines that fit, the oldest first.
    lines: Vec<RecentLine>,
}

/// Whether a line is one of those that are asked for.
fn fits(q: &RequestSearch, filter: &Filter, record: &RequestRecord) -> bool {
    let same = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|w| w == value);
    same(&q.channel, &record.channel)
        && same(&q.model, &record.model)
        && same(&q.experiment, &record.experiment)
        && same(&q.group, &record.group)
        && same(&q.deployment, &record.deployment)
        && filter.fits(&Facts::of(record))
}

impl RecentReader {
    /// A reader of what is written over this connection.
    pub fn new(shared: Shared) -> RecentReader {
        RecentReader { shared }
    }

    /// Whether there is a Redis to read from.
    pub fn is_configured(&self) -> bool {
        self.shared.is_configured()
    }

    /// A page of what all instances have, newest first, of channels that `sees` accepts; and where it ends, if it is not
    /// the last. `q.before` means nothing here.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn search(
        &self,
        q: &RequestSearch,
        before: &RecentCursor,
        sees: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<(Vec<RecentLine>, Option<RecentCursor>), SharedError> {
        let Some(filter) = Filter::of(q) else {
            return Ok((Vec::new(), None));
        };
        let lists = self.shared.key(LISTS);
        let names: Vec<String> = self
            .shared
            .query(redis::cmd("ZRANGEBYSCORE").arg(lists).arg("-inf").arg("+inf"))
            .await?;
        let mut lists: Vec<Reading> = names
            .into_iter()
            .map(|name| Reading {
                key: self.shared.key(&list(&name)),
                reached: before.0.get(&name).copied().unwrap_or(i64::MAX),
                name,
                offset: 0,
                ended: false,
                lines: Vec::new(),
            })
            .collect();
        let (mut page, mut cursor, mut looked_at) = (Vec::new(), before.clone(), 0);
        while page.len() < q.limit {
            for reading in &mut lists {
                while reading.lines.is_empty() && !reading.ended && looked_at < MOST_LOOKED_AT {
                    looked_at += self.more(reading, (q, &filter), sees).await?;
                }
            }
            let unread = |reading: &&Reading| reading.lines.is_empty() && !reading.ended;
            if lists.iter().any(|reading| unread(&reading)) {
                // The rest is for another answer.
                let ends = lists
                    .iter()
                    .filter(unread)
                    .map(|of| (of.name.clone(), of.reached));
                cursor.0.extend(ends);
                return Ok((page, Some(cursor)));
            }
            let newest = lists
                .iter_mut()
                .filter(|reading| !reading.lines.is_empty())
                .max_by_key(|reading| reading.lines.last().map(|line| line.record.time_ms));
            let Some(newest) = newest else {
                return Ok((page, None));
            };
            if let Some(line) = newest.lines.pop() {
                cursor.0.insert(newest.name.clone(), line.number);
                page.push(line);
            }
        }
        Ok((page, Some(cursor)))
    }

    /// Reads on in a list; returns how many lines it looked at.
    async fn more(
        &self,
        reading: &mut Reading,
        (q, filter): (&RequestSearch, &Filter),
        sees: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<usize, SharedError> {
        let mut command = redis::cmd("LRANGE");
        command
            .arg(&reading.key)
            .arg(reading.offset)
            .arg(reading.offset + PAGE - 1);
        let found: Vec<Vec<u8>> = self.shared.query(&command).await?;
        reading.offset += found.len();
        reading.ended = found.len() < PAGE;
        let decoded = found.iter().filter_map(|line| decode(line));
        let mut lines: Vec<RecentLine> = decoded.filter(|line| line.number < reading.reached).collect();
        reading.reached = lines
            .iter()
            .map(|line| line.number)
            .fold(reading.reached, i64::min);
        lines.retain(|line| sees(&line.record.channel) && fits(q, filter, &line.record));
        lines.sort_by_key(|line| line.number);
        reading.lines = lines;
        Ok(found.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::flag_bit;

    #[test]
    fn lines_come_back_and_say_nothing_that_is_empty() {
        let record = RequestRecord {
            time_ms: 7,
            channel: "wechat001".to_owned(),
            status: 200,
            first_token_us: Some(3),
            flags: "stream,shadow".to_owned(),
            ..RequestRecord::default()
        };
        let line = encode("one", 12, record.clone()).unwrap();
        assert!(line.len() < 150, "{}", String::from_utf8_lossy(&line));
        let instance = "one".to_owned();
        let number = 12;
        assert_eq!(
            decode(&line),
            Some(RecentLine {
                instance,
                number,
                record
            })
        );
        assert_eq!(decode(b"12 {}"), None);
        assert_eq!(decode(b"\xff 1"), None);
    }

    #[test]
    fn cursors_come_back() {
        let cursor = RecentCursor(HashMap::from([("ab".to_owned(), 3), ("cd".to_owned(), 40)]));
        assert_eq!(cursor.to_string(), "ab.3-cd.40");
        assert_eq!(RecentCursor::parse("ab.3-cd.40"), Some(cursor));
        for wrong in ["", "ab", "ab.x", "ab.3-"] {
            assert_eq!(RecentCursor::parse(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn lines_fit_by_each_of_their_parts() {
        let record = RequestRecord {
            channel: "c".to_owned(),
            flags: "stream,attempt".to_owned(),
            class: "limit".to_owned(),
            status: 429,
            time_ms: 100,
            ..RequestRecord::default()
        };
        let any = RequestSearch {
            attempts: true,
            ..RequestSearch::default()
        };
        let fits = |q: &RequestSearch| Filter::of(q).is_some_and(|filter| super::fits(q, &filter, &record));
        assert!(fits(&any));
        let misfits = [
            RequestSearch {
                attempts: false,
                ..any.clone()
            },
            RequestSearch {
                channel: Some("d".to_owned()),
                ..any.clone()
            },
            RequestSearch {
                status: Some(200),
                ..any.clone()
            },
            RequestSearch {
                flags: flag_bit("cut").unwrap(),
                ..any.clone()
            },
            RequestSearch {
                from_ms: Some(101),
                ..any.clone()
            },
            RequestSearch {
                to_ms: Some(100),
                ..any.clone()
            },
            RequestSearch {
                class: Some("ok".to_owned()),
                ..any.clone()
            },
            RequestSearch {
                class: Some("no class".to_owned()),
                ..any.clone()
            },
            RequestSearch {
                id: Some("0".repeat(31) + "1"),
                ..any.clone()
            },
        ];
        for wrong in misfits {
            assert!(!fits(&wrong), "{wrong:?}");
        }
    }
}
