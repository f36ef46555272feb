//! A request as it is described for a dry run, and as rules see it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value as Json;
use tollgate_meter::request::{RequestFacts, Scalar};
use tollgate_policy::{Facts, Snapshot, Value};

/// A request.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// Method; POST by default.
    #[serde(default = "post")]
    pub method: String,
    /// Path, with the query if there is one; `/v1/chat/completions` by default.
    #[serde(default = "chat")]
    pub path: String,
    /// Header lines.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// JSON body; a text is taken as the body's raw text.
    #[serde(default)]
    pub body: Json,
    /// Address of the client; 127.0.0.1 by default.
    #[serde(default = "loopback")]
    pub client_ip: IpAddr,
    /// When, Unix seconds; now by default.
    #[serde(default)]
    pub time: Option<i64>,
}

fn post() -> String {
    "POST".into()
}

fn chat() -> String {
    "/v1/chat/completions".into()
}

fn loopback() -> IpAddr {
    IpAddr::from([127, 0, 0, 1])
}

impl Default for ExplainRequest {
    fn default() -> Self {
        ExplainRequest {
            method: post(),
            path: chat(),
            headers: BTreeMap::new(),
            body: Json::Null,
            client_ip: loopback(),
            time: None,
        }
    }
}

impl ExplainRequest {
    /// A header by its name in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The path without the query.
    pub fn plain_path(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// A query parameter, decoded.
    pub fn query(&self, name: &str) -> Option<String> {
        let (_, args) = self.path.split_once('?')?;
        args.split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key) == name).then(|| decoded(value))
        })
    }

    /// A cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.header("cookie")?.split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// The body's bytes.
    pub fn body_bytes(&self) -> Vec<u8> {
        match &self.body {
            Json::Null => Vec::new(),
            Json::String(text) => text.clone().into_bytes(),
            other => other.to_string().into_bytes(),
        }
    }

    /// When it comes, Unix seconds.
    pub fn unix_seconds(&self) -> i64 {
        self.time.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
        })
    }

    /// The client's address: the first from the right of X-Forwarded-For that is no trusted proxy.
    pub(super) fn forwarded_ip(&self, snapshot: &Snapshot<'_>) -> IpAddr {
        let settings = snapshot.settings();
        let mut address = self.client_ip;
        if !settings.is_trusted_proxy(address) {
            return address;
        }
        for hop in self.header("x-forwarded-for").unwrap_or_default().rsplit(',') {
            let Ok(hop) = hop.trim().parse::<IpAddr>() else {
                break;
            };
            address = hop.to_canonical();
            if !settings.is_trusted_proxy(address) {
                break;
            }
        }
        address
    }
}

fn decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        let digit = |i: usize| tail.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or(b'%'));
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The request as rules see it.
pub(super) struct DryFacts<'a> {
    pub request: &'a ExplainRequest,
    pub scanned: &'a RequestFacts,
    pub snapshot: Snapshot<'a>,
    pub channel: Option<&'a str>,
    pub model: Option<&'a str>,
}

impl Facts for DryFacts<'_> {
    fn header(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.header(name).map(Cow::Borrowed)
    }
    fn query(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.query(name).map(Cow::Owned)
    }
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>> {
        self.request.cookie(name).map(Cow::Borrowed)
    }
    fn body(&self, path_index: usize) -> Option<Value<'_>> {
        Some(match self.scanned.wanted.get(path_index)?.as_ref()? {
            Scalar::Null => Value::Null,
            Scalar::Bool(b) => Value::Bool(*b),
            Scalar::Number(n) => Value::Number(*n),
            Scalar::String(s) => Value::String(Cow::Borrowed(s)),
            Scalar::Other => Value::Other,
        })
    }
    fn client_ip(&self) -> Option<IpAddr> {
        Some(self.request.forwarded_ip(&self.snapshot))
    }
    fn method(&self) -> &str {
        &self.request.method
    }
    fn path(&self) -> &str {
        self.request.plain_path()
    }
    fn channel(&self) -> Option<&str> {
        self.channel
    }
    fn model(&self) -> Option<&str> {
        self.model
    }
    fn prompt_bytes(&self) -> u64 {
        self.scanned.input.text_bytes
    }
    fn now_unix(&self) -> i64 {
        self.request.unix_seconds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_request_are_found() {
        let request: ExplainRequest = serde_json::from_str(
            r#"{"path": "/v1/x?a=1&n%61me=%E4%BD%A0+b", "headers": {"Cookie": "k=v; channel = x; c=d=e"}}"#,
        )
        .unwrap();
        assert_eq!(request.plain_path(), "/v1/x");
        assert_eq!(request.query("name").as_deref(), Some("你 b"));
        assert_eq!(request.query("b"), None);
        assert_eq!(request.cookie("c"), Some("d=e"));
        assert!(request.body_bytes().is_empty());
    }
}
