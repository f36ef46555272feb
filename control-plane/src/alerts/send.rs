//! Sends messages to receivers. Blocks.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tollgate_policy::SecretRef;
use tollgate_policy::documents::{AlertReceiver, StoredSecret};
use zeroize::Zeroizing;

use super::message::{Message, taken};
use crate::config::receiver_id;
use crate::outgoing::agent;
use crate::secrets::Sealer;

/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest answer that is looked at.
const LONGEST: u64 = 64 << 10;

/// What messages are sent with.
pub struct Sender {
    sealer: Sealer,
    /// Knows the certificates that the system trusts.
    agent: Mutex<Option<ureq::Agent>>,
}

/// Unix milliseconds.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

impl Sender {
    /// Opens receivers' secrets with this.
    pub fn new(sealer: Sealer) -> Sender {
        Sender {
            sealer,
            agent: Mutex::default(),
        }
    }

    fn agent(&self, ca_file: Option<&str>) -> Result<ureq::Agent, String> {
        if ca_file.is_some() {
            return agent(ca_file.map(Path::new), PATIENCE);
        }
        let mut known = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = &*known {
            return Ok(agent.clone());
        }
        let new = agent(None, PATIENCE)?;
        *known = Some(new.clone());
        Ok(new)
    }

    fn open(&self, receiver: &str, field: &str, secret: &StoredSecret) -> Result<Zeroizing<String>, String> {
        let id = receiver_id(receiver, field);
        let said = |e: &dyn std::fmt::Display| format!("its `{field}` cannot be opened: {e}");
        match secret.source() {
            Some(SecretRef::Plain(text)) => Ok(Zeroizing::new(text.to_owned())),
            Some(SecretRef::Reference(name)) => self.sealer.folder.named(name),
            Some(SecretRef::Encrypted(text)) => {
                let key = &self.sealer.key;
                let sealed = key.check_text(&id, text).map_err(|e| said(&e))?;
                let bytes = key.open(&id, &sealed).map_err(|e| said(&e))?;
                let text = std::str::from_utf8(&bytes).map_err(|e| said(&e))?;
                Ok(Zeroizing::new(text.to_owned()))
            }
            None => Err(format!("its `{field}` says nothing")),
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Why it was not taken, without the receiver's secrets.
    pub fn send(&self, receiver: &AlertReceiver, message: &Message) -> Result<(), String> {
        let name = &receiver.name;
        let open = |field, secret: &Option<StoredSecret>| {
            secret.as_ref().map(|s| self.open(name, field, s)).transpose()
        };
        let secret = open("secret", &receiver.secret)?;
        let hidden = open("secret_url", &receiver.secret_url)?;
        let shown = receiver.url.as_deref();
        let url = hidden.as_ref().map(|u| u.as_str()).or(shown);
        let url = url.ok_or("it has no address")?;
        let post = message.post(receiver.kind, secret.as_ref().map(|s| s.as_bytes()), unix_ms());
        let address = match post.query.as_str() {
            "" => url.to_owned(),
            query if url.contains('?') => format!("{url}&{query}"),
            query => format!("{url}?{query}"),
        };
        let address = Zeroizing::new(address);
        let mut request = self
            .agent(receiver.ca_file.as_deref())?
            .post(address.as_str())
            .header("Content-Type", "application/json")
            .header("User-Agent", concat!("tollgate/", env!("CARGO_PKG_VERSION")));
        for (name, value) in &post.headers {
            request = request.header(*name, value);
        }
        // An error may repeat the address, or a part of it.
        let told = |error: ureq::Error| match error {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => "its address is none".to_owned(),
            other => match other.to_string() {
                text if hidden.is_none() || !repeats(&text, url) => text,
                _ => "it cannot be reached".to_owned(),
            },
        };
        let mut answer = request.send(post.body.as_slice()).map_err(told)?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(LONGEST).read_to_vec();
        taken(receiver.kind, status, &body.unwrap_or_default())
    }
}

/// Whether a text holds a part of an address beyond its host.
fn repeats(text: &str, url: &str) -> bool {
    let parts = url.split(['/', '?', '&', '=']).skip(3);
    parts
        .filter(|part| part.len() > 3)
        .any(|part| text.contains(part))
}
