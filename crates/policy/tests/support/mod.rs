//! A small configuration to bend, and the way through the crate.
#![allow(dead_code, reason = "each test file uses a part")]

use serde_json::{Value, json};
use std::net::SocketAddr;
use tollgate_policy::{CompileInput, Documents, Problem, SecretRef, compile, validate};

/// Documents by kind.
pub fn base() -> Value {
    json!({
        "channels": [
            { "code": "wechat001", "name": "WeChat", "extends": "standard",
              "keys": [{ "id": "k1", "sha256": "01".repeat(32), "expires_at": "2027-01-01T00:00:00Z" }],
              "models": { "allow": ["gpt-4o*", "qwen-max"], "deny": ["gpt-4o-audio"] },
              "limits": [
                { "metric": "connections", "max": 100 },
                { "metric": "requests", "max": 50, "window": "1s", "algorithm": "token_bucket", "burst": 100 },
                { "metric": "input_tokens", "max": 10000, "window": "10m" },
                { "metric": "output_tokens", "max": 8000, "window": "10m", "model": "gpt-4o" } ] },
            { "code": "plain", "trusted": true }
        ],
        "templates": [
            { "name": "root", "models": { "deny": ["forbidden*"] }, "tags": ["root"],
              "limits": [{ "metric": "total_tokens", "max": 1, "window": "24h" }] },
            { "name": "standard", "extends": "root", "abort_policy": "reserved", "enforcement": "soft",
              "limits": [{ "metric": "input_tokens", "max": 5, "window": "10m" },
                         { "metric": "input_tokens", "max": 15000, "window": "20m", "per_model": true }] }
        ],
        "models": [
            { "name": "gpt-4o", "aliases": ["default"], "limits": [{ "metric": "connections", "max": 7 }],
              "deployments": [{ "provider": "openai", "version": "v1" },
                              { "id": "spare", "provider": "local", "upstream_model": "llama", "weight": 0 }] },
            { "name": "qwen-max", "deployments": [{ "provider": "local" }], "fallback": ["gpt-4o"],
              "timeouts": { "idle": "5s" }, "tokenizer": "o200k_harmony" },
            { "name": "gpt-4o-audio", "deployments": [{ "provider": "local" }] },
            { "name": "forbidden-1", "deployments": [{ "provider": "local" }] }
        ],
        "providers": [
            { "id": "openai", "protocol": "openai", "base_url": "https://api.example.com:8443/openai/",
              "credentials": { "type": "bearer", "key": "sk-very-secret" } },
            { "id": "local", "protocol": "anthropic", "base_url": "http://127.0.0.1:8000",
              "credentials": { "type": "header", "name": "X-Token", "key_ref": "vault/local" } }
        ],
        "rules": [
            { "name": "no huge completions", "priority": 100,
              "when": { "all": [{ "field": "header.ChannelCode", "op": "matches", "value": "wechat*" },
                                { "field": "body.max_tokens", "op": "gt", "value": 4096 }] },
              "then": { "deny": { "status": 400, "code": "max_tokens_exceeded", "message": "at most 4096" } } },
            { "name": "night", "template": "cap at", "with": { "hours": "22:00-06:00", "cap": 256 } }
        ],
        "rule_templates": [
            { "name": "cap at", "parameters": [{ "name": "hours" }, { "name": "cap", "default": 100 }],
              "when": { "field": "time", "value": { "hours": "${hours}" } },
              "then": { "cap_max_tokens": "${cap}", "tag": "cap-${cap}" } }
        ],
        "settings": { "trusted_proxies": ["10.0.0.0/8"],
                      "channel_source": [{ "header": "ChannelCode" }, { "body": "metadata.tags[1]" }, { "api_key": true }],
                      "limits": [{ "metric": "requests", "max": 1000, "window": "1s" }] }
    })
}

pub fn parse(documents: &Value) -> (Documents, Vec<Problem>) {
    let texts: Vec<(String, Vec<u8>)> = documents
        .as_object()
        .unwrap()
        .iter()
        .map(|(kind, content)| {
            (
                format!("tollgate.{kind}.json"),
                serde_json::to_vec(&json!({ kind.as_str(): content })).unwrap(),
            )
        })
        .collect();
    let files: Vec<(String, &[u8])> = texts
        .iter()
        .map(|(name, bytes)| (name.clone(), bytes.as_slice()))
        .collect();
    Documents::parse(&files)
}

/// Everything that is found in the documents.
pub fn problems(documents: &Value) -> Vec<Problem> {
    let (parsed, mut problems) = parse(documents);
    problems.extend(validate(&parsed));
    problems
}

pub fn compiled(documents: &Value) -> Result<Vec<u8>, Vec<Problem>> {
    let (parsed, problems) = parse(documents);
    assert!(problems.is_empty(), "{problems:?}");
    compile_with(&parsed, 7)
}

pub fn compile_with(documents: &Documents, generation: u64) -> Result<Vec<u8>, Vec<Problem>> {
    compile(
        documents,
        &CompileInput {
            generation,
            created_unix_ms: 1_234,
            resolved: &|id| match id {
                "openai" => vec![
                    "192.0.2.1:8443".parse::<SocketAddr>().unwrap(),
                    "[2001:db8::1]:8443".parse().unwrap(),
                ],
                _ => vec!["127.0.0.1:8000".parse().unwrap()],
            },
            authorities: &|path| Ok(format!("certificates of {path}").into_bytes()),
            counting: tollgate_policy::CountingInput::default(),
            seal: &|id, secret| match secret {
                SecretRef::Plain(text) => Ok(format!("sealed {id} {}", text.len()).into_bytes()),
                SecretRef::Encrypted(_) => Err("wrong master key".to_owned()),
                SecretRef::Reference(name) => Ok(format!("sealed {id} by {name}").into_bytes()),
            },
        },
    )
}
