//! What one mock answer does, as `key=value` options.
//!
//! Options come from three places, later ones win: the model name behind a `?` (`mock?latency=50ms&tokens=20`; it
//! survives every gateway that maps names), the object `mock` in the JSON body, the header `x-mock` with commas
//! between options. An unknown option is an error, so that a typing mistake in a test cannot pass unnoticed.
//!
//! | option | default | meaning |
//! | --- | --- | --- |
//! | `tokens=N` | 16 | completion tokens per choice, unless `max_tokens` is smaller |
//! | `prompt_tokens=N` | counted | input tokens to count and report |
//! | `ignore_max=yes` | no | produce `tokens` although the request asked for fewer |
//! | `chunks=N` | one per token | text events of a stream |
//! | `usage=yes\|no\|null\|always\|lie:F` | yes | report usage; `always`: also in a stream that did not ask; `lie:F`: times F |
//! | `latency=D` | 0 | wait before the first byte (`20ms`, `1s`, `300us`) |
//! | `slow_headers=D` | 0 | wait after each line of the head |
//! | `interval=D` | 0 | wait between events of a stream |
//! | `hold=N` | none | wait before event N of a stream until `POST /mock/release` |
//! | `status=N` | 200 | answer with an error status |
//! | `body=TEXT` | an error object | body of the error answer |
//! | `retry_after=N` | none | header of the error answer, seconds |
//! | `reset=P`, `close=P`, `hang=P` | none | RST, FIN or silence at a point: `before` any byte, after the `head`, `mid` answer |
//! | `garbage=P` | none | bytes that are not HTTP (`before`), not the body's format (`head`, `mid`), then FIN |
//! | `fail=mid` | none | an error event inside the stream, then its end |
//! | `at=N` | half | which event (stream) or byte (plain) `mid` is |
//! | `tool=yes` | no | call the first tool that is offered, behind the text; costs no tokens |
//! | `big_event=N` | none | one more text event of about N bytes |
//! | `endless=yes` | no | stream text until the client goes away |
//! | `done=no` | yes | end the stream without `[DONE]` / `message_stop` |
//! | `gzip=yes` | no | compress the body, a stream flushed after each event |
//! | `eol=lf\|crlf\|cr` | lf | line ends of events |
//! | `comments=yes` | no | a comment line before each event |
//! | `framing=chunked\|length\|close` | chunked for streams, length else | how the body's end is told |
//! | `keepalive=no` | yes | close the connection after the answer |
//! | `split=A..B` or `split=N` | whole events | cut the body into pieces of that many bytes, each its own chunk and write |
//! | `wire=A..B` or `wire=N` | whole writes | cut the bytes on the wire, head and chunk sizes included |
//! | `seed=N` | 1 | for the pseudo-random cuts of a range |

use std::time::Duration;

/// A point of the answer at which a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Point {
    /// Before any byte of the answer.
    Before,
    /// After the head, before the body.
    Head,
    /// Inside the body.
    Mid,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The connection is reset (RST).
    Reset,
    /// The connection is closed (FIN) although the answer is not complete.
    Close,
    /// Nothing more is sent until the client goes away.
    Hang,
    /// Bytes that do not belong there, then FIN.
    Garbage,
    /// An error event inside the stream.
    Fail,
}

/// Which usage is reported.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UsageReport {
    /// As OpenAI does: always in plain answers, in a stream if `include_usage` was asked for.
    Yes,
    /// Never.
    No,
    /// As `"usage": null`.
    Null,
    /// In streams too, whether asked for or not.
    Always,
    /// The true numbers times this factor, rounded.
    Lie(f64),
}

/// Line ends of server-sent events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eol {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
    /// `\r`
    Cr,
}

impl Eol {
    /// The bytes.
    pub fn text(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
            Self::Cr => "\r",
        }
    }
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// `Transfer-Encoding: chunked`
    Chunked,
    /// `Content-Length`
    Length,
    /// The end of the connection.
    Close,
}

/// Sizes of pieces in bytes: drawn from `from..=to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Smallest piece, at least 1.
    pub from: usize,
    /// Largest piece.
    pub to: usize,
}

/// All options of one answer; see the module's table.
#[derive(Clone, Debug, PartialEq)]
pub struct Behaviour {
    /// `tokens`
    pub tokens: u64,
    /// `prompt_tokens`
    pub prompt_tokens: Option<u64>,
    /// `ignore_max`
    pub ignore_max: bool,
    /// `chunks`
    pub chunks: Option<u64>,
    /// `usage`
    pub usage: UsageReport,
    /// `latency`
    pub latency: Duration,
    /// `slow_headers`
    pub slow_headers: Duration,
    /// `interval`
    pub interval: Duration,
    /// `hold`
    pub hold: Option<u64>,
    /// `status`
    pub status: u16,
    /// `body`
    pub body: Option<String>,
    /// `retry_after`
    pub retry_after: Option<u64>,
    /// `reset`, `close`, `hang`, `garbage`, `fail`
    pub fault: Option<(Fault, Point)>,
    /// `at`
    pub at: Option<u64>,
    /// `tool`
    pub tool: bool,
    /// `big_event`
    pub big_event: usize,
    /// `endless`
    pub endless: bool,
    /// `done`
    pub done: bool,
    /// `gzip`
    pub gzip: bool,
    /// `eol`
    pub eol: Eol,
    /// `comments`
    pub comments: bool,
    /// `framing`
    pub framing: Option<Framing>,
    /// `keepalive`
    pub keepalive: bool,
    /// `split`
    pub split: Option<Cut>,
    /// `wire`
    pub wire: Option<Cut>,
    /// `seed`
    pub seed: u64,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            tokens: 16,
            prompt_tokens: None,
            ignore_max: false,
            chunks: None,
            usage: UsageReport::Yes,
            latency: Duration::ZERO,
            slow_headers: Duration::ZERO,
            interval: Duration::ZERO,
            hold: None,
            status: 200,
            body: None,
            retry_after: None,
            fault: None,
            at: None,
            tool: false,
            big_event: 0,
            endless: false,
            done: true,
            gzip: false,
            eol: Eol::Lf,
            comments: false,
            framing: None,
            keepalive: true,
            split: None,
            wire: None,
            seed: 1,
        }
    }
}

impl Behaviour {
    /// Applies the options behind the `?` of a model name.
    ///
    /// # Errors
    /// Names the option that is unknown or whose value cannot be read.
    pub fn apply_query(&mut self, query: &str) -> Result<(), String> {
        self.apply_list(query, '&')
    }

    /// Applies the value of an `x-mock` header.
    ///
    /// # Errors
    /// As [`Self::apply_query`].
    pub fn apply_header(&mut self, value: &str) -> Result<(), String> {
        self.apply_list(value, ',')
    }

    /// Applies the `mock` object of a body; numbers, strings and booleans are taken as text.
    ///
    /// # Errors
    /// As [`Self::apply_query`].
    pub fn apply_json(&mut self, value: &serde_json::Value) -> Result<(), String> {
        let object = value.as_object().ok_or("mock: not an object")?;
        for (key, value) in object {
            match value {
                serde_json::Value::String(text) => self.set(key, text)?,
                other => self.set(key, &other.to_string())?,
            }
        }
        Ok(())
    }

    fn apply_list(&mut self, list: &str, separator: char) -> Result<(), String> {
        for option in list
            .split(separator)
            .map(str::trim)
            .filter(|option| !option.is_empty())
        {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("{option}: not key=value"))?;
            self.set(key.trim(), value.trim())?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let bad = || format!("{key}: cannot read {value:?}");
        match key {
            "tokens" | "completion_tokens" => self.tokens = number(value).ok_or_else(bad)?,
            "prompt_tokens" => self.prompt_tokens = Some(number(value).ok_or_else(bad)?),
            "ignore_max" => self.ignore_max = flag(value).ok_or_else(bad)?,
            "chunks" => self.chunks = Some(number(value).ok_or_else(bad)?.max(1)),
            "usage" => self.usage = usage(value).ok_or_else(bad)?,
            "latency" => self.latency = duration(value).ok_or_else(bad)?,
            "slow_headers" => self.slow_headers = duration(value).ok_or_else(bad)?,
            "interval" => self.interval = duration(value).ok_or_else(bad)?,
            "hold" => self.hold = Some(number(value).ok_or_else(bad)?),
            "status" => self.status = value.parse().map_err(|_| bad())?,
            "body" => self.body = Some(value.to_owned()),
            "retry_after" => self.retry_after = Some(number(value).ok_or_else(bad)?),
            "reset" => self.fault = Some((Fault::Reset, point(value).ok_or_else(bad)?)),
            "close" | "truncate" => self.fault = Some((Fault::Close, point(value).ok_or_else(bad)?)),
            "hang" => self.fault = Some((Fault::Hang, point(value).ok_or_else(bad)?)),
            "garbage" => self.fault = Some((Fault::Garbage, point(value).ok_or_else(bad)?)),
            "fail" => self.fault = Some((Fault::Fail, point(value).ok_or_else(bad)?)),
            "at" => self.at = Some(number(value).ok_or_else(bad)?),
            "big_event" => self.big_event = value.parse().map_err(|_| bad())?,
            "tool" => self.tool = flag(value).ok_or_else(bad)?,
            "endless" => self.endless = flag(value).ok_or_else(bad)?,
            "done" => self.done = flag(value).ok_or_else(bad)?,
            "gzip" => self.gzip = flag(value).ok_or_else(bad)?,
            "eol" => self.eol = eol(value).ok_or_else(bad)?,
            "comments" => self.comments = flag(value).ok_or_else(bad)?,
            "framing" => self.framing = Some(framing(value).ok_or_else(bad)?),
            "keepalive" => self.keepalive = flag(value).ok_or_else(bad)?,
            "split" => self.split = Some(cut(value).ok_or_else(bad)?),
            "wire" => self.wire = Some(cut(value).ok_or_else(bad)?),
            "seed" => self.seed = number(value).ok_or_else(bad)?,
            _ => return Err(format!("{key}: unknown option")),
        }
        Ok(())
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" | "1" => Some(true),
        "no" | "false" | "0" => Some(false),
        _ => None,
    }
}

/// `20ms`, `300us`, `1s`, `1.5s`; a bare number is milliseconds.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let seconds = match unit {
        "us" => 1e-6,
        "ms" | "" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(digits.parse::<f64>().ok()? * seconds).ok()
}

fn usage(text: &str) -> Option<UsageReport> {
    match text {
        "yes" => Some(UsageReport::Yes),
        "no" => Some(UsageReport::No),
        "null" => Some(UsageReport::Null),
        "always" => Some(UsageReport::Always),
        _ => text.strip_prefix("lie:")?.parse().ok().map(UsageReport::Lie),
    }
}

fn point(text: &str) -> Option<Point> {
    match text {
        "before" => Some(Point::Before),
        "head" => Some(Point::Head),
        "mid" => Some(Point::Mid),
        _ => None,
    }
}

fn eol(text: &str) -> Option<Eol> {
    match text {
        "lf" => Some(Eol::Lf),
        "crlf" => Some(Eol::CrLf),
        "cr" => Some(Eol::Cr),
        _ => None,
    }
}

fn framing(text: &str) -> Option<Framing> {
    match text {
        "chunked" => Some(Framing::Chunked),
        "length" => Some(Framing::Length),
        "close" => Some(Framing::Close),
        _ => None,
    }
}

fn cut(text: &str) -> Option<Cut> {
    let (from, to) = match text.split_once("..") {
        Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        None => {
            let size = text.parse().ok()?;
            (size, size)
        }
    };
    (from >= 1 && to >= from).then_some(Cut { from, to })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_sources_win() {
        let mut behaviour = Behaviour::default();
        behaviour.apply_query("latency=50ms&chunks=1&tokens=20").unwrap();
        behaviour
            .apply_json(&serde_json::json!({ "tokens": 30, "gzip": true, "eol": "crlf" }))
            .unwrap();
        behaviour.apply_header("tokens=40, split=1..7").unwrap();
        assert_eq!(behaviour.latency, Duration::from_millis(50));
        assert_eq!(behaviour.chunks, Some(1));
        assert_eq!(behaviour.tokens, 40);
        assert!(behaviour.gzip);
        assert_eq!(behaviour.eol, Eol::CrLf);
        assert_eq!(behaviour.split, Some(Cut { from: 1, to: 7 }));
    }

    #[test]
    fn mistakes_are_named() {
        for (option, named) in [
            ("tokenz=1", "tokenz"),
            ("split=0", "split"),
            ("latency=1h", "latency"),
            ("gzip", "gzip"),
        ] {
            let error = Behaviour::default().apply_header(option).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("300us"), Some(Duration::from_micros(300)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("7"), Some(Duration::from_millis(7)));
        assert_eq!(duration("-1s"), None);
    }
}
