//! What the documents say.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use tollgate_policy::Documents;
use tollgate_policy::documents::{
    Channel, ChannelSource, CredentialKind, Enforcement, Entry, Limit, Location, OnFull, Provider, Settings,
    Template, TlsVersion,
};

use super::{Finding, Risk};

/// How the admin API is reached, where that is not in the documents.
#[derive(Clone, Copy, Debug, Default)]
pub struct Api {
    /// Where it listens; what the settings say by default.
    pub listen: Option<SocketAddr>,
    /// Whether it speaks TLS.
    pub tls: bool,
}

/// Templates that extend each other in a circle are errors; here they only must not take forever.
const DEEPEST: usize = 64;

struct Looking {
    now_s: i64,
    found: Vec<Finding>,
}

impl Looking {
    fn add(
        &mut self,
        at: &Location,
        path: &str,
        (code, risk): (&'static str, Risk),
        what: String,
        advice: &'static str,
    ) {
        self.found.push(Finding {
            code,
            risk,
            place: at.document.to_string(),
            path: at.path(path),
            what,
            advice,
        });
    }
}

/// Everything that is found. `now_s` is the present, Unix seconds.
pub fn of_documents(documents: &Documents, api: Api, now_s: i64) -> Vec<Finding> {
    let mut looking = Looking {
        now_s,
        found: Vec::new(),
    };
    let settings = documents.settings();
    let templates: HashMap<&str, &Template> = documents
        .templates
        .iter()
        .map(|t| (t.value.name.as_str(), &t.value))
        .collect();
    let global = !settings.limits.is_empty();
    for entry in &documents.channels {
        channel(&mut looking, entry, &templates, global);
    }
    for entry in &documents.templates {
        limits(
            &mut looking,
            &entry.at,
            &entry.value.limits,
            entry.value.enforcement,
        );
    }
    for entry in &documents.models {
        limits(&mut looking, &entry.at, &entry.value.limits, None);
    }
    for entry in &documents.providers {
        provider(&mut looking, entry);
    }
    let written = documents.settings.as_ref();
    of_settings(&mut looking, written, &settings, api);
    looking.found
}

/// The limits of a channel's templates.
fn inherits_limits(channel: &Channel, templates: &HashMap<&str, &Template>) -> bool {
    let mut next = channel.extends.as_deref();
    for _ in 0..DEEPEST {
        let Some(template) = next.and_then(|name| templates.get(name)) else {
            return false;
        };
        if !template.limits.is_empty() {
            return true;
        }
        next = template.extends.as_deref();
    }
    false
}

fn channel(
    looking: &mut Looking,
    Entry { value: channel, at }: &Entry<Channel>,
    templates: &HashMap<&str, &Template>,
    global: bool,
) {
    if !channel.enabled {
        return;
    }
    let code = &channel.code;
    if channel.trusted {
        let risk = if channel.keys.is_empty() {
            Risk::High
        } else {
            Risk::Medium
        };
        let what = format!("whoever knows the code `{code}` is this channel");
        let advice = "give it a key (`POST /channels/{code}/keys`) and take `trusted` away";
        looking.add(at, "trusted", ("channel_without_key", risk), what, advice);
    }
    for (index, key) in channel.keys.iter().enumerate() {
        let path = format!("keys[{index}].expires_at");
        let id = &key.id;
        match key.expires_at {
            None => {
                let what = format!("the key `{id}` of `{code}` never expires");
                let advice = "give it an end and rotate it before";
                looking.add(at, &path, ("key_without_end", Risk::Low), what, advice);
            }
            Some(end) if end.0 <= looking.now_s => {
                let what = format!("the key `{id}` of `{code}` has expired");
                looking.add(at, &path, ("key_expired", Risk::Low), what, "remove it");
            }
            Some(_) => {}
        }
    }
    if channel.limits.is_empty() && !global && !inherits_limits(channel, templates) {
        let what = format!("nothing limits what `{code}` may use");
        let advice = "give it limits, or a template that has some";
        looking.add(
            at,
            "limits",
            ("channel_without_limits", Risk::Medium),
            what,
            advice,
        );
    }
    limits(looking, at, &channel.limits, channel.enforcement);
}

fn limits(looking: &mut Looking, at: &Location, limits: &[Limit], default: Option<Enforcement>) {
    for (index, limit) in limits.iter().enumerate() {
        if limit.enforcement.or(default) == Some(Enforcement::Soft) {
            let what = format!("a limit of {} is soft: it can be exceeded", limit.metric.name());
            let path = format!("limits[{index}].enforcement");
            let advice = "use `strict` where the maximum must hold";
            looking.add(at, &path, ("soft_limit", Risk::Low), what, advice);
        }
        if limit.on_full == OnFull::Open {
            let what = "requests pass uncounted while the counter table is full".to_owned();
            let path = format!("limits[{index}].on_full");
            let advice = "use `closed`, and a larger `region.counters`";
            looking.add(at, &path, ("limit_opens", Risk::Medium), what, advice);
        }
    }
}

/// Host of a URL, without brackets, port and path.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Whether it stays on this machine.
fn is_local(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn provider(looking: &mut Looking, Entry { value: provider, at }: &Entry<Provider>) {
    let (id, url) = (&provider.id, provider.base_url.as_str());
    let encrypted = url.starts_with("https://");
    if !encrypted && !is_local(url) {
        let what = format!("prompts and the credential go to `{id}` in the clear");
        let advice = "use an `https` address";
        looking.add(at, "base_url", ("provider_in_clear", Risk::High), what, advice);
    }
    if encrypted && !provider.tls.verify {
        let what = format!("anybody on the way can be `{id}`: its certificate is not verified");
        let advice = "trust its certificate by `ca_file` instead";
        looking.add(
            at,
            "tls.verify",
            ("provider_unverified", Risk::High),
            what,
            advice,
        );
    }
    if encrypted && provider.tls.min_version == TlsVersion::V1_2 && !is_local(url) {
        let what = format!("TLS 1.2 is spoken with `{id}` if it has nothing newer");
        let advice = "ask for `1.3` if it speaks that";
        looking.add(at, "tls.min_version", ("tls_1_2", Risk::Low), what, advice);
    }
    let credentials = &provider.credentials;
    let several = credentials.keys.iter().any(|key| key.key.is_some());
    if credentials.key.is_some() || several {
        let what = format!("the credential of `{id}` stands in the clear");
        let advice = "let the daemon seal it, or use `tollgate seal` or `key_ref`";
        looking.add(
            at,
            "credentials",
            ("credential_in_clear", Risk::High),
            what,
            advice,
        );
    }
    if credentials.kind == CredentialKind::None && !is_local(url) {
        let what = format!("`{id}` is called without a credential");
        let advice = "give it one if it can check one";
        looking.add(
            at,
            "credentials.type",
            ("provider_without_credential", Risk::Low),
            what,
            advice,
        );
    }
}

fn of_settings(looking: &mut Looking, written: Option<&Entry<Settings>>, settings: &Settings, api: Api) {
    let mut add = |path: &str, kind: (&'static str, Risk), what: String, advice: &'static str| {
        let (place, path) = match written {
            Some(entry) => (entry.at.document.to_string(), entry.at.path(path)),
            None => (String::new(), format!("settings.{path}")),
        };
        looking.found.push(Finding {
            code: kind.0,
            risk: kind.1,
            place,
            path,
            what,
            advice,
        });
    };
    let listen = api.listen.or_else(|| settings.api.listen.parse().ok());
    if let Some(address) = listen.filter(|a| !a.ip().to_canonical().is_loopback()) {
        if api.tls {
            let what = format!("the admin API can be reached from other machines at {address}");
            let advice = "listen on loopback, or let a firewall say who may";
            add("api.listen", ("admin_port_open", Risk::Low), what, advice);
        } else {
            let what =
                format!("the admin API listens on {address} in the clear: passwords can be read on the way");
            let advice = "use `--tls-cert` and `--tls-key`, or listen on loopback";
            add("api.listen", ("admin_without_tls", Risk::High), what, advice);
        }
    }
    for (index, proxy) in settings.trusted_proxies.iter().enumerate() {
        let wide = proxy.contains(IpAddr::from([8, 8, 8, 8])) || proxy.contains(IpAddr::from([1, 1, 1, 1]));
        if wide {
            let path = format!("trusted_proxies[{index}]");
            let what = "anybody may say where a request comes from".to_owned();
            let advice = "name the proxies' own addresses";
            add(&path, ("proxies_too_wide", Risk::High), what, advice);
        }
    }
    for (index, source) in settings.channel_source.iter().enumerate() {
        if let ChannelSource::Query(name) = source {
            let path = format!("channel_source[{index}]");
            let what = format!("the query parameter `{name}` says who is calling; it ends up in logs");
            let advice = "use a header or the API key";
            add(&path, ("channel_in_query", Risk::Low), what, advice);
        }
    }
    if let Some(redis) = &settings.redis {
        let far = redis.urls.iter().any(|url| !is_local(url));
        if redis
            .urls
            .iter()
            .any(|url| url.starts_with("redis://") && !is_local(url))
        {
            let what = "limits and accounts go to Redis in the clear".to_owned();
            add(
                "redis.urls",
                ("redis_in_clear", Risk::Medium),
                what,
                "use `rediss://`",
            );
        }
        if redis.password_ref.is_none() && far {
            let what = "Redis asks nobody who they are".to_owned();
            let advice = "give it a password or an ACL user, and name it by `password_ref`";
            add(
                "redis.password_ref",
                ("redis_without_password", Risk::Medium),
                what,
                advice,
            );
        }
    }
    if settings.testing.short_windows {
        let what = "a setting for tests is on".to_owned();
        add(
            "testing.short_windows",
            ("testing", Risk::Low),
            what,
            "take it away",
        );
    }
    if settings.backup.is_none() {
        let what = "no backups are made".to_owned();
        let advice = "set `backup`, and keep the master key elsewhere";
        add("backup", ("no_backups", Risk::Low), what, advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn found(documents: &[(&str, Value)], api: Api) -> Vec<(&'static str, Risk, String)> {
        let files: Vec<(String, Vec<u8>)> = documents
            .iter()
            .map(|(kind, value)| {
                let key = kind.split('.').next().unwrap();
                (
                    format!("tollgate.{kind}.json"),
                    json!({key: value}).to_string().into_bytes(),
                )
            })
            .collect();
        let files: Vec<(String, &[u8])> = files.iter().map(|(n, b)| (n.clone(), b.as_slice())).collect();
        let (parsed, problems) = Documents::parse(&files);
        assert!(problems.iter().all(|p| !p.is_error()), "{problems:?}");
        of_documents(&parsed, api, 1_800_000_000)
            .into_iter()
            .map(|f| (f.code, f.risk, f.path))
            .collect()
    }

    #[test]
    fn a_careless_configuration_is_told_everything() {
        let digest = "0".repeat(64);
        let open = Api {
            listen: Some("0.0.0.0:9180".parse().unwrap()),
            tls: false,
        };
        let found = found(
            &[
                (
                    "channels",
                    json!([
                    {"code": "a", "trusted": true},
                    {"code": "b", "keys": [{"id": "k", "sha256": digest},
                        {"id": "old", "sha256": digest, "expires_at": "2020-01-01T00:00:00Z"}],
                     "limits": [{"metric": "requests", "max": 1, "window": "1s", "enforcement": "soft", "on_full": "open"}]},
                    {"code": "off", "trusted": true, "enabled": false}]),
                ),
                (
                    "providers",
                    json!([
                    {"id": "clear", "protocol": "openai", "base_url": "http://llm.example", "credentials": {"type": "bearer", "key": "sk-x"}},
                    {"id": "any", "protocol": "openai", "base_url": "https://llm.example", "tls": {"verify": false}}]),
                ),
                (
                    "settings",
                    json!({"trusted_proxies": ["0.0.0.0/0"], "channel_source": [{"query": "c"}],
                    "redis": {"urls": ["redis://redis.example:6379"]}, "testing": {"short_windows": true}}),
                ),
            ],
            open,
        );
        let mut codes: Vec<&str> = found.iter().map(|(code, ..)| *code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(
            codes,
            [
                "admin_without_tls",
                "channel_in_query",
                "channel_without_key",
                "channel_without_limits",
                "credential_in_clear",
                "key_expired",
                "key_without_end",
                "limit_opens",
                "no_backups",
                "provider_in_clear",
                "provider_unverified",
                "provider_without_credential",
                "proxies_too_wide",
                "redis_in_clear",
                "redis_without_password",
                "soft_limit",
                "testing",
                "tls_1_2",
            ],
            "{found:?}"
        );
        let at = |code: &str| found.iter().find(|(c, ..)| *c == code).unwrap();
        assert_eq!(
            at("channel_without_key"),
            &("channel_without_key", Risk::High, "channels[0].trusted".into())
        );
        assert_eq!(at("soft_limit").2, "channels[1].limits[0].enforcement");
        assert_eq!(
            found
                .iter()
                .filter(|(code, ..)| *code == "channel_without_key")
                .count(),
            1,
            "{found:?}"
        );
    }

    #[test]
    fn a_careful_configuration_is_told_nothing() {
        let found = found(
            &[
                (
                    "templates",
                    json!([{"name": "t", "limits": [{"metric": "connections", "max": 9}]}, {"name": "u", "extends": "t"}]),
                ),
                (
                    "channels",
                    json!([{"code": "a", "extends": "u",
                    "keys": [{"id": "k", "sha256": "0".repeat(64), "expires_at": "2099-01-01T00:00:00Z"}]}]),
                ),
                (
                    "providers",
                    json!([
                    {"id": "p", "protocol": "openai", "base_url": "https://llm.example", "tls": {"min_version": "1.3"},
                     "credentials": {"type": "bearer", "key_ref": "p"}},
                    {"id": "local", "protocol": "openai", "base_url": "http://[::1]:8000/v1"}]),
                ),
                (
                    "settings",
                    json!({"trusted_proxies": ["10.0.0.0/8"], "backup": {},
                    "redis": {"urls": ["rediss://redis.example:6379"], "password_ref": "redis"}}),
                ),
            ],
            Api::default(),
        );
        assert_eq!(found, []);
    }

    #[test]
    fn hosts_are_found_in_any_url() {
        for (url, local) in [
            ("http://localhost:1/x", true),
            ("redis://user:pass@127.0.0.1:6379/0", true),
            ("http://[::1]:8000", true),
            ("http://127.example.com", false),
            ("http://localhost.example.com", false),
        ] {
            assert_eq!(is_local(url), local, "{url}");
        }
    }
}
