//! Providers.

use super::{Context, Named, Path, check_name, health};
use crate::{
    documents::{Connections, CredentialKind, Endpoint, Entry, Key, Location, Provider, TlsVersion},
    rules::is_token,
    text::Secret,
};

/// Keys of one provider.
const MOST_KEYS: usize = 64;

/// Headers that a credential must not replace: they frame the request or belong to the connection.
const RESERVED_HEADERS: [&str; 7] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
];

pub(super) fn check(context: &mut Context<'_>) {
    let documents = context.documents;
    context.unique(documents.providers.iter().map(|entry| Named {
        key: entry.value.id.as_str(),
        at: &entry.at,
        path: Path::Field("id"),
        what: "a provider of this id",
    }));
    for entry in &documents.providers {
        let Entry { value: provider, at } = entry;
        check_name(context, at, "id", &provider.id, 64);
        check_url(context, at, provider);
        check_credentials(context, at, provider);
        check_connections(context, at, &provider.connections);
        health::check(context, at, provider);
        if let Some(host) = &provider.host_header {
            let valid = !host.is_empty()
                && host.len() <= 255
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte));
            if !valid {
                context.error(at, "host_header", "must be a host, with a port if need be");
            }
        }
    }
}

fn check_url(context: &mut Context<'_>, at: &Location, provider: &Provider) {
    let endpoint = match Endpoint::parse(&provider.base_url) {
        Ok(endpoint) => endpoint,
        Err(reason) => return context.error(at, "base_url", reason),
    };
    let tls = &provider.tls;
    if endpoint.tls {
        if !tls.verify {
            context.warning(
                at,
                "tls.verify",
                "whoever answers is taken for the provider and gets its credential",
            );
        }
        if tls
            .server_name
            .as_deref()
            .is_some_and(|name| name.is_empty() || name.len() > 253 || !name.is_ascii())
        {
            context.error(at, "tls.server_name", "must be a host name in ASCII");
        }
        if tls.ca_file.as_deref().is_some_and(|file| !file.starts_with('/')) {
            context.error(at, "tls.ca_file", "must be an absolute path");
        }
        if tls.ca_file.is_some() && !tls.verify {
            context.warning(at, "tls.ca_file", "makes no difference: `verify` is false");
        }
    } else {
        if tls.server_name.is_some() || tls.ca_file.is_some() || tls.min_version != TlsVersion::default() {
            context.error(at, "tls", "makes no difference: base_url is `http`");
        }
        let local = endpoint.host == "localhost"
            || endpoint
                .host
                .parse()
                .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        if provider.credentials.kind != CredentialKind::None && !local {
            context.warning(
                at,
                "base_url",
                "the credential travels unencrypted: base_url is `http`",
            );
        }
    }
}

fn check_connections(context: &mut Context<'_>, at: &Location, connections: &Connections) {
    if connections.max_idle > 65_536 {
        context.error(at, "connections.max_idle", "must be 0..=65536");
    }
    if !(1_000..=3_600_000).contains(&connections.idle_timeout.as_millis()) {
        context.error(at, "connections.idle_timeout", "must be 1s..=1h");
    }
    if !(1..=1_000_000).contains(&connections.max_requests) {
        context.error(at, "connections.max_requests", "must be 1..=1000000");
    }
}

fn check_credentials(context: &mut Context<'_>, at: &Location, provider: &Provider) {
    let credentials = &provider.credentials;
    let given = [
        credentials.key.is_some(),
        credentials.encrypted.is_some(),
        credentials.key_ref.is_some(),
        !credentials.keys.is_empty(),
    ];
    let given = given.into_iter().filter(|given| *given).count();
    match (credentials.kind, given) {
        (CredentialKind::None, 0) => {}
        (CredentialKind::None, _) => {
            context.error(
                at,
                "credentials.type",
                "`none` sends no credential, but one is given",
            );
        }
        (_, 1) => {}
        (_, 0) => context.error(
            at,
            "credentials",
            "one of `key`, `encrypted`, `key_ref`, `keys` is missing",
        ),
        _ => context.error(
            at,
            "credentials",
            "only one of `key`, `encrypted`, `key_ref`, `keys` can be given",
        ),
    }
    check_plain(context, at, "credentials.key", credentials.key.as_ref());
    check_keys(context, at, &credentials.keys);
    match (credentials.kind, credentials.name.as_deref()) {
        (CredentialKind::Header, None) => {
            context.error(
                at,
                "credentials.name",
                "missing: which header carries the credential?",
            );
        }
        (CredentialKind::Header, Some(name)) => {
            if !is_token(name) || name.len() > 128 {
                context.error(at, "credentials.name", "is no header name");
            } else if RESERVED_HEADERS
                .iter()
                .any(|reserved| reserved.eq_ignore_ascii_case(name))
            {
                context.error(at, "credentials.name", "this header cannot carry a credential");
            }
        }
        (_, Some(_)) => context.error(at, "credentials.name", "only `\"type\": \"header\"` has a name"),
        (_, None) => {}
    }
}

fn check_plain(context: &mut Context<'_>, at: &Location, field: &str, key: Option<&Secret>) {
    let plain = key.map(|key| key.expose());
    if plain.is_some_and(|key| key.is_empty() || key.len() > 4096 || key.chars().any(char::is_control)) {
        context.error(at, field, "must be 1..=4096 bytes without control characters");
    }
}

fn check_keys(context: &mut Context<'_>, at: &Location, keys: &[Key]) {
    if keys.len() > MOST_KEYS {
        context.error(at, "credentials.keys", format!("at most {MOST_KEYS} keys"));
    }
    for (index, key) in keys.iter().enumerate() {
        let field = |name: &str| format!("credentials.keys[{index}].{name}");
        check_name(context, at, field("id"), &key.id, 64);
        if keys.iter().take(index).any(|other| other.id == key.id) {
            context.error(at, field("id"), "another key of the provider has this id");
        }
        let given = [key.key.is_some(), key.encrypted.is_some(), key.key_ref.is_some()];
        if given.into_iter().filter(|given| *given).count() != 1 {
            let field = format!("credentials.keys[{index}]");
            context.error(
                at,
                &field,
                "exactly one of `key`, `encrypted`, `key_ref` is needed",
            );
        }
        check_plain(context, at, &field("key"), key.key.as_ref());
        if !(1..=1_000).contains(&key.weight) {
            context.error(at, field("weight"), "must be 1..=1000");
        }
    }
}
