//! How a model's requests are spread over its deployments.

use super::Span;
use schemars::JsonSchema;
use serde::Deserialize;

/// How a deployment is picked among those that can serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// At random, in proportion to the weights.
    #[default]
    Weighted,
    /// One after the other in proportion to the weights, evenly interleaved (smooth weighted round robin).
    RoundRobin,
    /// The one with the fewest requests in flight per weight, over all workers of the instance.
    LeastConnections,
    /// The faster of two picked by weight: time to the first byte, a moving average, times the requests in flight.
    Latency,
}

/// What keeps a caller with one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// A request header, in lower case.
    Header(String),
    /// A cookie of the client.
    Cookie(String),
    /// A field of the JSON body.
    Body(String),
    /// The channel.
    Channel,
    /// The client's address.
    ClientIp,
    /// The first kilobyte of the prompt, so that a provider's prefix cache is hit.
    Prompt,
    /// A cookie that the gateway sets and signs.
    Session,
}

/// Which requests of other sites a browser sends the cookie with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SameSite {
    /// Only links that are followed to this site.
    #[default]
    Lax,
    /// None.
    Strict,
    /// All; browsers then want the cookie to be `secure`.
    None,
}

/// The cookie of the affinity `session`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Session {
    /// How long it is good for; renewed with the first answer after half of it. 1 s..=30 d.
    pub lifetime: Span,
    /// Browsers send it over TLS only. Set by itself where the client's connection has TLS; for TLS that ends in front
    /// of this nginx it has to be said.
    pub secure: bool,
    /// Which requests of other sites a browser sends it with.
    pub same_site: SameSite,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            lifetime: Span::from_millis(3_600_000),
            secure: false,
            same_site: SameSite::default(),
        }
    }
}

/// When a deployment that fails is left alone, and when it is tried again.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// Failures in a row, over all workers, that open it; 1..=1,000.
    pub failures: u32,
    /// How long it stays open at first; doubles with each failed trial, up to `max_open`. 100 ms..=1 h.
    pub open: Span,
    /// The longest it stays open. At least `open`, at most 1 h.
    pub max_open: Span,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            failures: 5,
            open: Span::from_millis(2_000),
            max_open: Span::from_millis(60_000),
        }
    }
}

/// How often one request may be tried.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts for one request, the first included, fallback models included; 1..=16.
    pub attempts: u32,
    /// Further attempts allowed per 100 requests of a worker, beside ten a second; 0..=100.
    pub budget_percent: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 8,
            budget_percent: 50,
        }
    }
}

/// How a model's requests are spread over its deployments.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Routing {
    /// How a deployment is picked.
    pub balance: Balance,
    /// What keeps a caller with one deployment: `header.<name>`, `cookie.<name>`, `body.<path>`, `channel`, `client.ip` or
    /// `prompt`. Weights then are shares of callers, and raising one moves only as many callers as it must. `session`: a
    /// cookie that the gateway sets; callers are balanced once and then stay.
    pub affinity: Option<String>,
    /// The cookie of the affinity `session`.
    pub session: Session,
    /// The version that `<model>@latest` means. A deployment's version can be asked for as `<model>@<version>`.
    pub latest: Option<String>,
    /// Percent of the deployments that must be in working order; below it all are used, since then the verdict is more
    /// likely to be wrong than so many deployments. 0..=100.
    pub panic_percent: u32,
    /// How long a deployment that works again takes to reach its full weight, from a tenth of it. 0..=1 h.
    pub slow_start: Span,
    /// When a deployment is left alone.
    pub breaker: Breaker,
    /// How often one request may be tried.
    pub retry: Retry,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            affinity: None,
            session: Session::default(),
            latest: None,
            panic_percent: 20,
            slow_start: Span::from_millis(10_000),
            breaker: Breaker::default(),
            retry: Retry::default(),
        }
    }
}

impl Affinity {
    /// Reads `header.<name>` and its like.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Affinity, String> {
        use crate::rules::{canonical_path, is_token};
        Ok(match text {
            "channel" => Affinity::Channel,
            "client.ip" => Affinity::ClientIp,
            "prompt" => Affinity::Prompt,
            "session" => Affinity::Session,
            _ => match text.split_once('.') {
                Some(("header", name)) if is_token(name) => Affinity::Header(name.to_ascii_lowercase()),
                Some(("cookie", name)) if is_token(name) => Affinity::Cookie(name.to_owned()),
                Some(("body", path)) => Affinity::Body(
                    canonical_path(path)
                        .ok_or_else(|| format!("`{path}` is no path such as `metadata.user_id`"))?,
                ),
                _ => {
                    return Err(format!(
                        "`{text}` is none of `header.<name>`, `cookie.<name>`, `body.<path>`, `channel`, `client.ip`, `prompt`, `session`"
                    ));
                }
            },
        })
    }
}
