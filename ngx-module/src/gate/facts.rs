//! A request as rules see it.

use std::borrow::Cow;
use std::net::IpAddr;

use tollgate_meter::request::{RequestFacts, Scalar};
use tollgate_policy::{Facts, Snapshot, Value};

use super::identify;
use crate::ngx::request::Request;

pub(super) struct GateFacts<'a> {
    pub request: &'a Request,
    pub body: &'a RequestFacts,
    pub snapshot: Snapshot<'a>,
    pub channel: Option<&'a str>,
    pub model: Option<&'a str>,
}

fn text(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

impl Facts for GateFacts<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.header(name.as_bytes()).map(text)
    }

    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        query(self.request.args(), name)
    }

    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        cookie(self.request.header(b"cookie")?, name).map(text)
    }

    fn body(&self, path_index: usize) -> Option<Value<'_>> {
        Some(match self.body.wanted.get(path_index)?.as_ref()? {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(*b),
            Scalar::Number(n) => Value::Number(*n),
            Scalar::String(s) => Value::String(Cow::Borrowed(s)),
            Scalar::Other => Value::Other,
        })
    }

    fn client_ip(&self) -> Option<IpAddr> {
        client_ip(self.request, self.snapshot)
    }

    fn method(&self) -> &str {
        std::str::from_utf8(self.request.method()).unwrap_or_default()
    }

    fn path(&self) -> &str {
        std::str::from_utf8(self.request.path()).unwrap_or_default()
    }

    fn channel(&self) -> Option<&str> {
        self.channel
    }

    fn model(&self) -> Option<&str> {
        self.model
    }

    fn prompt_bytes(&self) -> u64 {
        self.body.input.text_bytes
    }

    fn now_unix(&self) -> i64 {
        identify::now_unix()
    }
}

/// The client's address: the peer's, or, from the right of X-Forwarded-For, the first that is no trusted proxy.
pub(super) fn client_ip(request: &Request, snapshot: Snapshot<'_>) -> Option<IpAddr> {
    let settings = snapshot.settings();
    let mut address = request.client_ip()?;
    if !settings.is_trusted_proxy(address) {
        return Some(address);
    }
    // Proxies append to the line or add one of their own: the last of the last line is the nearest.
    let lines: Vec<Cow<'_, str>> = request
        .headers()
        .filter(|h| h.name == b"x-forwarded-for")
        .map(|h| text(h.value))
        .collect();
    for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
        let Ok(hop) = hop.trim().parse::<IpAddr>() else {
            break;
        };
        address = hop.to_canonical();
        if !settings.is_trusted_proxy(address) {
            break;
        }
    }
    Some(address)
}

/// A query parameter, percent-decoded.
pub(super) fn query<'a>(args: &'a [u8], name: &str) -> Option<Cow<'a, str>> {
    args.split(|b| *b == b'&').find_map(|pair| {
        let at = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
        let (key, value) = pair.split_at(at);
        (decode(key).as_ref() == name).then(|| decode(value.get(1..).unwrap_or_default()))
    })
}

fn decode(bytes: &[u8]) -> Cow<'_, str> {
    if !bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        return text(bytes);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let digit = |i: usize| tail.get(i).and_then(|b| (*b as char).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// The arguments without a parameter, if they have it.
pub(super) fn without(args: &[u8], name: &str) -> Option<Vec<u8>> {
    let is_it = |pair: &&[u8]| {
        let key = pair.split(|b| *b == b'=').next().unwrap_or_default();
        decode(key).as_ref() == name
    };
    let pairs = || args.split(|b| *b == b'&');
    pairs().any(|pair| is_it(&pair)).then(|| {
        let kept: Vec<&[u8]> = pairs().filter(|pair| !is_it(pair)).collect();
        kept.join(&b'&')
    })
}

/// A cookie's value.
pub(super) fn cookie<'a>(header: &'a [u8], name: &str) -> Option<&'a [u8]> {
    header.split(|b| *b == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let at = pair.iter().position(|b| *b == b'=')?;
        let (key, value) = pair.split_at(at);
        (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
    })
}
