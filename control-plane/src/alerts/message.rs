//! What receivers are sent: our JSON, or what chats take.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tollgate_policy::documents::{AlertRuleName, AlertSeverity, ReceiverKind};

use super::book::{Alert, Notice, State};
use super::reading::Labels;

/// Longest text for a chat, bytes: what the strictest of them takes.
const LONGEST: usize = 3_800;

/// An alert as receivers are told of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AlertNotice")]
pub struct Told {
    /// Different for each thing that is told, and the same when it is told again because nobody answered: who has seen it, has it.
    pub key: String,
    /// Id of the alert: the same while it lasts.
    pub id: String,
    /// `firing` or `resolved`.
    pub state: String,
    /// The rule that watches.
    pub rule: AlertRuleName,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// What it is about.
    pub labels: Labels,
    /// In words.
    pub summary: String,
    /// What was last found while it was so.
    pub value: f64,
    /// From where on it is one.
    pub threshold: f64,
    /// What both are measured in; empty for what is so or not.
    pub unit: String,
    /// When it was first so, Unix milliseconds.
    pub started_ms: u64,
    /// When it was over, Unix milliseconds; null if it is not.
    pub ended_ms: Option<u64>,
    /// How many times it was told before that it fires.
    pub repeat: u32,
}

impl Told {
    /// What a notice says of an alert.
    pub fn of(alert: &Alert, notice: Notice) -> Told {
        let (state, key, repeat) = match notice {
            Notice::Firing(before) => ("firing", format!("{}.{before}", alert.id), before),
            Notice::Resolved => ("resolved", format!("{}.resolved", alert.id), 0),
        };
        let (started_ms, ended_ms) = match alert.state {
            State::Pending { since_ms } => (since_ms, None),
            State::Firing { begun_ms, .. } => (begun_ms, None),
            State::Resolved { begun_ms, at_ms, .. } => (begun_ms, Some(at_ms)),
        };
        Told {
            key,
            id: alert.id.clone(),
            state: state.to_owned(),
            rule: alert.rule,
            severity: alert.severity,
            labels: alert.labels.clone(),
            summary: alert.text.clone(),
            value: alert.value,
            threshold: alert.threshold,
            unit: alert.rule.defaults().threshold.map_or("", |t| t.unit).to_owned(),
            started_ms,
            ended_ms,
            repeat,
        }
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Different for each message, and the same when it is sent again.
    pub id: String,
    /// The instance that sends it.
    pub instance: String,
    /// What is told; nothing for a trial.
    pub alerts: Vec<Told>,
}

/// A message in the form of its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// What is added to the address.
    pub query: String,
    /// Header lines beside the content type.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: Vec<u8>,
}

fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    // A key may have any length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else {
        return Vec::new();
    };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Base64 in a query.
fn escaped(text: &str) -> String {
    text.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

/// The signature of our own webhook: HMAC-SHA256 over `<seconds>.<body>`.
pub fn signature(secret: &[u8], seconds: u64, body: &[u8]) -> String {
    let mac = mac(secret, &[seconds.to_string().as_bytes(), b".", body]);
    format!("t={seconds},v1={}", hex(&mac))
}

impl Message {
    /// A message of what is told.
    pub fn new(instance: &str, alerts: Vec<Told>) -> Message {
        let mut hash = Sha256::new();
        for told in &alerts {
            hash.update(&told.key);
            hash.update([0]);
        }
        let id = hex(hash.finalize().get(..12).unwrap_or_default());
        Message {
            id,
            instance: instance.to_owned(),
            alerts,
        }
    }

    /// A message that only shows that messages arrive.
    pub fn trial(instance: &str, id: String) -> Message {
        Message {
            id,
            instance: instance.to_owned(),
            alerts: Vec::new(),
        }
    }

    fn json(&self, now_ms: u64) -> Value {
        json!({
            "version": 1,
            "id": self.id,
            "sent_ms": now_ms,
            "instance": self.instance,
            "test": self.alerts.is_empty(),
            "alerts": self.alerts,
        })
    }

    /// One line for each alert, with what a chat takes for bold around the first words.
    fn lines(&self, bold: &str, clean: fn(&str) -> String) -> String {
        if self.alerts.is_empty() {
            let instance = clean(&self.instance);
            return format!("{bold}[TEST]{bold} Tollgate {instance}: messages of this gateway arrive here");
        }
        let mut text = String::new();
        for told in &self.alerts {
            let word = match told.state.as_str() {
                "resolved" => "RESOLVED",
                _ => match told.severity {
                    AlertSeverity::Critical => "CRITICAL",
                    AlertSeverity::Warning => "WARNING",
                    AlertSeverity::Info => "INFO",
                },
            };
            let (rule, summary) = (told.rule.name(), clean(&told.summary));
            let line = format!("{bold}[{word}]{bold} {rule}: {summary}");
            if text.len() + line.len() > LONGEST {
                text.push_str("\n\n…");
                break;
            }
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&line);
        }
        text
    }

    /// The message as it goes over the wire.
    pub fn post(&self, kind: ReceiverKind, secret: Option<&[u8]>, now_ms: u64) -> Post {
        let mut post = Post {
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
        };
        let seconds = now_ms / 1_000;
        let body = match kind {
            ReceiverKind::Webhook => {
                let body = self.json(now_ms).to_string().into_bytes();
                post.headers.push(("Tollgate-Delivery", self.id.clone()));
                if let Some(secret) = secret {
                    let signature = signature(secret, seconds, &body);
                    post.headers.push(("Tollgate-Signature", signature));
                }
                post.body = body;
                return post;
            }
            ReceiverKind::Slack => json!({ "text": self.lines("*", |text| {
                text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
            }) }),
            ReceiverKind::Dingtalk => {
                if let Some(secret) = secret {
                    let time = now_ms.to_string();
                    let sign = STANDARD.encode(mac(secret, &[time.as_bytes(), b"\n", secret]));
                    post.query = format!("timestamp={time}&sign={}", escaped(&sign));
                }
                json!({ "msgtype": "markdown",
                    "markdown": { "title": "Tollgate", "text": self.lines("**", str::to_owned) } })
            }
            ReceiverKind::Feishu => {
                let mut body = json!({ "msg_type": "text",
                    "content": { "text": self.lines("", str::to_owned) } });
                if let (Some(secret), Some(fields)) = (secret, body.as_object_mut()) {
                    let time = seconds.to_string();
                    let key = [time.as_bytes(), b"\n", secret].concat();
                    fields.insert("timestamp".into(), time.into());
                    fields.insert("sign".into(), STANDARD.encode(mac(&key, &[])).into());
                }
                body
            }
            ReceiverKind::Wecom => json!({ "msgtype": "markdown",
                "markdown": { "content": self.lines("**", str::to_owned) } }),
        };
        post.body = body.to_string().into_bytes();
        post
    }
}

/// Whether an answer means that the message was taken: chats answer 200 to what they refuse, and say so in the body.
///
/// # Errors
/// Why not.
pub fn taken(kind: ReceiverKind, status: u16, body: &[u8]) -> Result<(), String> {
    if !(200..300).contains(&status) {
        return Err(format!("answered {status}"));
    }
    let field = match kind {
        ReceiverKind::Webhook | ReceiverKind::Slack => return Ok(()),
        ReceiverKind::Dingtalk | ReceiverKind::Wecom => "errcode",
        ReceiverKind::Feishu => "code",
    };
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    match said.get(field).and_then(Value::as_i64) {
        None | Some(0) => Ok(()),
        Some(code) => {
            let text = said.get("errmsg").or(said.get("msg")).and_then(Value::as_str);
            let text: String = text.unwrap_or_default().chars().take(200).collect();
            Err(format!("refused it with code {code}: {text}"))
        }
    }
}
