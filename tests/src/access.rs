//! The access log of [`crate::gateway::HTTP`]: what a request was charged, as operators see it.

use crate::nginx::Nginx;
use crate::wait::{PATIENCE, wait_until};
use std::collections::BTreeMap;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Status sent to the client.
    pub status: u16,
    fields: BTreeMap<String, String>,
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let (status, rest) = line.split_once(' ')?;
        let fields = rest
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Some(Self {
            status: status.parse().ok()?,
            fields,
        })
    }

    /// A field's text.
    ///
    /// # Panics
    /// If the log has no such field.
    pub fn get(&self, name: &str) -> &str {
        self.fields
            .get(name)
            .unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    /// A field's number.
    ///
    /// # Panics
    /// If it is not there or no number.
    pub fn number(&self, name: &str) -> u64 {
        let text = self.get(name);
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is not a number"))
    }

    /// Input tokens, output tokens and where the figures come from.
    pub fn charged(&self) -> (u64, u64, &str) {
        (self.number("input"), self.number("output"), self.get("source"))
    }
}

/// Waits for that many lines of a channel and returns them all: nginx writes them after the answer was sent.
///
/// # Panics
/// If they do not come.
pub async fn entries(nginx: &Nginx, channel: &str, count: usize) -> Vec<Entry> {
    let read = || -> Vec<Entry> {
        let log = nginx.access_log();
        // A line that is being written does not count yet.
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        let all = whole.lines().filter_map(Entry::read);
        all.filter(|entry| entry.get("channel") == channel).collect()
    };
    wait_until("lines in the access log", PATIENCE, || read().len() >= count).await;
    read()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let entry = Entry::read("200 channel=a model=m input=3 output=7 source=upstream").unwrap();
        assert_eq!((entry.status, entry.get("model")), (200, "m"));
        assert_eq!(entry.charged(), (3, 7, "upstream"));
    }
}
