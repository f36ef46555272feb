//! What goes into documents comes out of the snapshot.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that meets the unexpected should end there"
)]

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use support::{base, compile_with, compiled, parse};
use tollgate_policy::{
    ProviderView, RuleSet, Snapshot, SnapshotError,
    documents::{AbortPolicy, Algorithm, CredentialKind, Enforcement, Metric, Protocol},
    per_model_key,
    snapshot::{AffinityView, Scope, SourceView},
};

#[test]
fn channels_carry_what_they_and_their_templates_say() {
    let bytes = compiled(&base()).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    snapshot.verify().unwrap();
    assert_eq!(
        (snapshot.generation(), snapshot.created_unix_ms(), snapshot.size()),
        (7, 1_234, bytes.len())
    );

    let channel = snapshot.channel_by_code(b"wechat001").unwrap();
    assert_eq!(
        (
            channel.code(),
            channel.name(),
            channel.enabled(),
            channel.trusted()
        ),
        ("wechat001", "WeChat", true, false)
    );
    assert_eq!(channel.abort_policy(), AbortPolicy::Reserved);
    assert_eq!(channel.tags().collect::<Vec<_>>(), ["root"]);
    let limits: Vec<_> = channel
        .limits()
        .iter()
        .map(|limit| (limit.name().to_owned(), limit.max()))
        .collect();
    // The channel's own 10-minute limit stands in the place of the template's.
    let expected = [
        ("total_tokens/24h", 1),
        ("input_tokens/10m", 10_000),
        ("input_tokens/20m:each model", 15_000),
        ("connections", 100),
        ("requests/1s", 50),
        ("output_tokens/10m:gpt-4o", 8_000),
    ];
    assert_eq!(limits, expected.map(|(name, max)| (name.to_owned(), max)));
    assert!(
        channel
            .limits()
            .iter()
            .all(|limit| limit.enforcement() == Enforcement::Soft)
    );
    let limits: HashMap<&str, _> = channel
        .limits()
        .iter()
        .map(|limit| (limit.name(), limit))
        .collect();
    let bucket = limits["requests/1s"];
    assert_eq!(
        (bucket.metric(), bucket.algorithm()),
        (Metric::Requests, Algorithm::TokenBucket)
    );
    assert_eq!(
        (bucket.burst(), bucket.window_ms(), bucket.scope()),
        (100, 1_000, Scope::Channel)
    );
    let connections = limits["connections"];
    assert_eq!(
        (connections.algorithm(), connections.window_ms()),
        (Algorithm::Concurrency, 0)
    );
    let output = limits["output_tokens/10m:gpt-4o"];
    assert_eq!(output.scope(), Scope::ChannelModel);
    assert!(output.applies_to("gpt-4o") && !output.applies_to("gpt-4o-audio") && !output.applies_to(""));
    let each = limits["input_tokens/20m:each model"];
    assert!(each.per_model() && each.applies_to("anything"));
    assert_ne!(each.counter_key("gpt-4o"), each.counter_key("qwen-max"));
    let model = snapshot.model(b"gpt-4o").unwrap();
    assert_eq!(
        each.counter_key("gpt-4o"),
        each.counter_key_hashed(model.name_hash())
    );
    assert_eq!(
        each.counter_key("gpt-4o"),
        per_model_key(each.key(), model.name_hash())
    );
    assert_eq!(bucket.counter_key("gpt-4o"), bucket.key());

    for (model, permitted) in [
        ("gpt-4o", true),
        ("qwen-max", true),
        ("gpt-4o-audio", false),
        ("forbidden-1", false),
        ("gpt-3", false),
    ] {
        assert_eq!(channel.permits(model), permitted, "{model}");
    }
    let plain = snapshot.channel_by_code(b"plain").unwrap();
    assert!(plain.trusted() && plain.permits("forbidden-1") && plain.limits().is_empty());
    assert!(snapshot.channel_by_code(b"").is_none() && snapshot.channel_by_code(b"WECHAT001").is_none());
}

#[test]
fn keys_lead_to_their_channel() {
    let bytes = compiled(&base()).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let (channel, key) = snapshot.channel_by_key(&[1; 32]).unwrap();
    assert_eq!(
        (channel.code(), key.id(), key.enabled()),
        ("wechat001", "k1", true)
    );
    let expiry = key.expires_unix();
    assert_eq!(expiry, 1_798_761_600);
    assert!(key.valid_at(expiry - 1) && !key.valid_at(expiry));
    assert!(channel.find_key(&[1; 32]).is_some() && channel.find_key(&[2; 32]).is_none());
    assert!(snapshot.channel_by_key(&[2; 32]).is_none());
}

#[test]
fn models_lead_to_deployments_and_providers() {
    let bytes = compiled(&base()).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let model = snapshot.model(b"default").unwrap();
    assert_eq!(
        (model.name(), model.index()),
        ("gpt-4o", snapshot.model(b"gpt-4o").unwrap().index())
    );
    assert_eq!(
        (
            model.max_output_tokens(),
            model.default_max_tokens(),
            model.max_body_bytes()
        ),
        (16_384, 4_096, 16 << 20)
    );
    let counting = model.counting().unwrap();
    assert_eq!(
        (counting.tokenizer(), counting.is_estimate(), counting.factor()),
        ("o200k_base", false, 1_000)
    );
    let limit = model.limits().iter().next().unwrap();
    assert_eq!((limit.scope(), limit.max()), (Scope::Model, 7));
    assert!(limit.applies_to("gpt-4o") && !limit.applies_to("qwen-max"));
    let deployments: Vec<_> = model.deployments().collect();
    assert_eq!(
        deployments
            .iter()
            .map(|d| (d.id(), d.weight()))
            .collect::<Vec<_>>(),
        [("gpt-4o/openai", 100), ("spare", 0)]
    );
    assert_eq!(
        (deployments[0].upstream_model(), deployments[1].upstream_model()),
        ("gpt-4o", "llama")
    );
    assert_eq!(snapshot.deployment(deployments[1].index()).unwrap().id(), "spare");
    assert_eq!(deployments[1].model().unwrap().name(), "gpt-4o");

    let openai = deployments[0].provider().unwrap();
    assert_eq!((openai.id(), openai.protocol()), ("openai", Protocol::Openai));
    assert_eq!(
        (openai.tls(), openai.tls_verify(), openai.tls_name()),
        (true, true, "api.example.com")
    );
    assert_eq!(
        (openai.host(), openai.path_prefix()),
        ("api.example.com:8443", "/openai")
    );
    assert_eq!(
        (openai.credential_kind(), openai.credential_header()),
        (CredentialKind::Bearer, "authorization")
    );
    let sealed = |provider: ProviderView<'_>| -> Vec<(String, Vec<u8>, u32)> {
        let credentials = provider.credentials();
        credentials
            .map(|c| (c.id.to_owned(), c.sealed.to_vec(), c.weight))
            .collect()
    };
    assert_eq!(sealed(openai), [(String::new(), b"sealed openai 14".to_vec(), 1)]);
    assert_eq!((openai.ca_file(), openai.authorities()), ("", &b""[..]));
    let addresses: Vec<String> = openai.addresses().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["192.0.2.1:8443", "[2001:db8::1]:8443"]);
    let local = deployments[1].provider().unwrap();
    assert_eq!(
        (local.tls(), local.host(), local.credential_header()),
        (false, "127.0.0.1:8000", "x-token")
    );
    assert_eq!(
        sealed(local),
        [(String::new(), b"sealed local by vault/local".to_vec(), 1)]
    );

    let qwen = snapshot.model(b"qwen-max").unwrap();
    let counting = qwen.counting().unwrap();
    assert_eq!(
        (
            counting.tokenizer(),
            counting.is_estimate(),
            counting.suspicious_factor()
        ),
        ("o200k_harmony", false, 2_000)
    );
    assert_eq!((qwen.timeouts().idle, qwen.timeouts().total), (5_000, 600_000));
    assert_eq!(qwen.fallback().collect::<Vec<_>>(), ["gpt-4o"]);
    assert_eq!(
        (
            snapshot.models().len(),
            snapshot.deployments().len(),
            snapshot.providers().len()
        ),
        (4, 5, 2)
    );
}

#[test]
fn secrets_are_not_in_the_snapshot() {
    let bytes = compiled(&base()).unwrap();
    assert!(!bytes.windows(14).any(|window| window == b"sk-very-secret"));
    let (documents, _) = parse(&base());
    assert!(!format!("{documents:?}").contains("sk-very-secret"));
}

#[test]
fn settings_arrive() {
    let bytes = compiled(&base()).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let settings = snapshot.settings();
    let sources: Vec<_> = settings.channel_sources().collect();
    assert_eq!(
        sources,
        [
            SourceView::Header("channelcode"),
            SourceView::Body("metadata.tags.1"),
            SourceView::ApiKey
        ]
    );
    assert!(
        settings.is_trusted_proxy("10.1.2.3".parse().unwrap())
            && !settings.is_trusted_proxy("11.1.2.3".parse().unwrap())
    );
    assert_eq!(
        (settings.min_output_reservation(), settings.region().counters),
        (16, 131_072)
    );
    let global: Vec<_> = snapshot.global_limits().iter().collect();
    assert_eq!(
        (global.len(), global[0].scope(), global[0].name()),
        (1, Scope::Global, "requests/1s")
    );

    let bytes = compiled(&json!({})).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let sources: Vec<_> = snapshot.settings().channel_sources().collect();
    assert_eq!(sources, [SourceView::Header("channelcode"), SourceView::ApiKey]);
    assert!(snapshot.channel_by_code(b"x").is_none() && snapshot.model(b"").is_none());
    assert!(RuleSet::decode(snapshot.rules_blob()).unwrap().is_empty());
}

/// Keys of the limits of one channel, by metric and window.
fn keys(documents: &Value) -> HashMap<(Metric, u64, String, bool), u64> {
    let bytes = compiled(documents).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let channel = snapshot.channel_by_code(b"wechat001").unwrap();
    let keys = channel.limits().iter().map(|limit| {
        (
            (
                limit.metric(),
                limit.window_ms(),
                limit.model_pattern().to_owned(),
                limit.per_model(),
            ),
            limit.key(),
        )
    });
    keys.collect()
}

#[test]
fn usage_survives_edits() {
    let before = keys(&base());
    let mut edited = base();
    for limit in edited["channels"][0]["limits"].as_array_mut().unwrap() {
        limit["max"] = json!(3);
        limit["on_full"] = json!("open");
        limit["name"] = json!(format!("renamed {}", limit["metric"]));
    }
    edited["channels"][0]["limits"].as_array_mut().unwrap().reverse();
    edited["channels"][0]["name"] = json!("Other name");
    edited["channels"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({ "code": "first", "trusted": true }));
    edited["models"].as_array_mut().unwrap().reverse();
    edited["templates"][1]["limits"].as_array_mut().unwrap().remove(0);
    assert_eq!(keys(&edited), before);
    // Another channel with the same limits has other keys.
    let mut renamed = base();
    renamed["channels"][0]["code"] = json!("wechat001x");
    renamed["channels"][1]["code"] = json!("wechat001");
    renamed["channels"][1]["extends"] = json!("standard");
    let other = keys(&renamed);
    assert!(
        before
            .keys()
            .all(|limit| other.get(limit) == before.get(limit) || !other.contains_key(limit))
    );
    let bytes = compiled(&renamed).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let mut all = HashSet::new();
    for channel in snapshot.channels() {
        assert!(
            channel
                .limits()
                .iter()
                .all(|limit| limit.key() != 0 && all.insert(limit.key()))
        );
    }
}

#[test]
fn the_rules_checksum_follows_the_rules_alone() {
    let checksum = |documents: &Value| {
        Snapshot::open(&compiled(documents).unwrap())
            .unwrap()
            .rules_checksum()
    };
    let before = checksum(&base());
    let mut edited = base();
    edited["channels"][0]["name"] = json!("x");
    edited["rules"].as_array_mut().unwrap().reverse();
    assert_eq!(checksum(&edited), before);
    edited["rule_templates"][0]["then"]["tag"] = json!("other");
    assert_ne!(checksum(&edited), before);
}

#[test]
fn shared_limits_are_stored_once() {
    let channels = |n: usize| -> Value {
        let list: Vec<Value> = (0..n)
            .map(|n| json!({ "code": format!("c{n:05}"), "trusted": true, "extends": "standard" }))
            .collect();
        let mut documents = base();
        documents["channels"] = json!(list);
        documents
    };
    let (few, many) = (
        compiled(&channels(64)).unwrap().len(),
        compiled(&channels(1_088)).unwrap().len(),
    );
    // Record, code and index slots; nothing for limits and permissions.
    assert!(
        (many - few) / 1_024 < 120,
        "{} bytes a channel",
        (many - few) / 1_024
    );
}

#[test]
fn foreign_buffers_are_refused_with_a_reason() {
    let bytes = compiled(&base()).unwrap();
    assert_eq!(Snapshot::open(&[]).unwrap_err(), SnapshotError::Truncated);
    assert_eq!(
        Snapshot::open(b"something else entirely").unwrap_err(),
        SnapshotError::NotASnapshot
    );
    assert_eq!(
        Snapshot::open(&bytes[..bytes.len() - 1]).unwrap_err(),
        SnapshotError::Truncated
    );
    let mut newer = bytes.clone();
    newer[16] = 99;
    assert_eq!(
        Snapshot::open(&newer).unwrap_err(),
        SnapshotError::Format {
            found: 99,
            expected: 9
        }
    );
    let mut longer = bytes.clone();
    longer.extend([0; 4096]);
    Snapshot::open(&longer).unwrap().verify().unwrap();
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(
        Snapshot::open(&flipped).unwrap().verify().unwrap_err(),
        SnapshotError::Checksum
    );
    let mut mangled = bytes.clone();
    *mangled.last_mut().unwrap() = 0xff;
    assert_eq!(Snapshot::open(&mangled).unwrap_err(), SnapshotError::Text);
}

#[test]
fn a_credential_that_cannot_be_sealed_is_a_problem() {
    let mut documents = base();
    documents["providers"][0]["credentials"] = json!({ "type": "bearer", "encrypted": "AAAA" });
    let problems = compiled(&documents).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].path, "providers[0].credentials");
    assert!(problems[0].reason.contains("wrong master key"));
}

/// Reads everything that there is to read.
fn walk(snapshot: Snapshot<'_>) -> usize {
    let mut seen = 0_usize;
    let mut text = |text: &str| seen = seen.wrapping_add(text.len());
    for channel in snapshot.channels() {
        text(channel.code());
        text(channel.name());
        channel.tags().for_each(&mut text);
        let _ = (
            channel.permits("gpt-4o"),
            channel.abort_policy(),
            channel.find_key(&[1; 32]).is_some(),
        );
        channel.keys().for_each(|key| text(key.id()));
        for limit in channel.limits() {
            text(limit.name());
            let _ = (
                limit.applies_to("gpt-4o"),
                limit.counter_key("gpt-4o"),
                limit.metric(),
                limit.algorithm(),
            );
            let _ = (limit.scope(), limit.on_full(), limit.enforcement());
        }
    }
    for model in snapshot.models() {
        text(model.name());
        model.aliases().for_each(&mut text);
        model.fallback().for_each(&mut text);
        let _ = (model.timeouts(), model.limits().iter().count());
        for deployment in model.deployments() {
            text(deployment.id());
            let _ = deployment.model().is_some();
            if let Some(provider) = deployment.provider() {
                text(provider.host());
                let _ = (
                    provider.addresses().count(),
                    provider.credentials().map(|c| c.sealed.len()).sum::<usize>(),
                    provider.authorities().len(),
                    provider.credential_kind(),
                );
            }
        }
    }
    let settings = snapshot.settings();
    let _ = (
        settings.channel_sources().count(),
        settings.is_trusted_proxy([10, 0, 0, 1].into()),
        settings.region(),
    );
    let _ = (
        snapshot.channel_by_code(b"wechat001").is_some(),
        snapshot.channel_by_key(&[1; 32]).is_some(),
    );
    let _ = (
        snapshot.model(b"default").is_some(),
        snapshot.global_limits().iter().count(),
    );
    let _ = RuleSet::decode(snapshot.rules_blob());
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever stands in the file, reading it ends and does not panic; a changed byte is noticed.
    #[test]
    fn corruption_is_survived_and_noticed(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..20),
        in_header in any::<bool>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let original = CORRUPTED.with(Clone::clone);
        let mut bytes = original.clone();
        let range = if in_header { 368 } else { bytes.len() };
        for (at, mask) in flips {
            bytes[at.index(range)] ^= mask;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(snapshot) = Snapshot::open(&bytes) {
            walk(snapshot);
            prop_assert!(snapshot.verify().is_err() || bytes == original);
        }
    }

    #[test]
    fn any_bytes_are_no_danger(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        if let Ok(snapshot) = Snapshot::open(&bytes) {
            walk(snapshot);
        }
        let _ = RuleSet::decode(&bytes);
    }
}

thread_local! {
    static CORRUPTED: Vec<u8> = compiled(&base()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The tables in the buffer answer as a map does, for codes that are there and for codes that are not.
    #[test]
    fn lookups_agree_with_a_map(codes in proptest::collection::hash_set("[a-zé0-9]{1,8}", 0..200), strangers in proptest::collection::vec("[a-zé0-9]{0,8}", 50)) {
        let codes: Vec<String> = codes.into_iter().collect();
        let channels: Vec<Value> = codes.iter().enumerate().map(|(n, code)| json!({
            "code": code, "keys": [{ "id": "k", "sha256": format!("{n:064x}") }, { "id": "l", "sha256": format!("f{n:063x}") }]
        })).collect();
        let models: Vec<Value> = codes.iter().map(|code| json!({
            "name": format!("m{code}"), "aliases": [format!("n{code}")], "deployments": [{ "provider": "p" }]
        })).collect();
        let documents = json!({ "channels": channels, "models": models, "providers": [
            { "id": "p", "protocol": "other", "base_url": "http://localhost" }] });
        let (parsed, problems) = parse(&documents);
        prop_assert!(problems.is_empty());
        let bytes = compile_with(&parsed, 1).unwrap();
        let snapshot = Snapshot::open(&bytes).unwrap();
        let map: HashMap<&str, usize> = codes.iter().enumerate().map(|(n, code)| (code.as_str(), n)).collect();
        for code in codes.iter().chain(&strangers) {
            let found = snapshot.channel_by_code(code.as_bytes()).map(|channel| channel.index() as usize);
            prop_assert_eq!(found, map.get(code.as_str()).copied());
            for name in [format!("m{code}"), format!("n{code}")] {
                let found = snapshot.model(name.as_bytes()).map(|model| model.index() as usize);
                prop_assert_eq!(found, map.get(code.as_str()).copied());
            }
        }
        for (n, code) in codes.iter().enumerate() {
            let mut digest = [0; 32];
            digest[24..].copy_from_slice(&(n as u64).to_be_bytes());
            let (channel, key) = snapshot.channel_by_key(&digest).unwrap();
            prop_assert_eq!((channel.code(), key.id()), (code.as_str(), "k"));
            digest[0] = 0xf0;
            prop_assert_eq!(snapshot.channel_by_key(&digest).unwrap().1.id(), "l");
        }
    }
}

/// Templates of one position in two files are two templates, also for what they share.
#[test]
fn templates_in_shards_keep_their_limits_apart() {
    let template = |name: &str, max: u64| {
        json!({ "templates": [{ "name": name, "limits": [{ "metric": "connections", "max": max }] }] })
            .to_string()
    };
    let channels = json!({ "channels": [
        { "code": "a", "trusted": true, "extends": "one" }, { "code": "b", "trusted": true, "extends": "two" },
        { "code": "c", "trusted": true, "extends": "one" } ] });
    let texts = [
        ("tollgate.templates.x.json", template("one", 1)),
        ("tollgate.templates.y.json", template("two", 2)),
        ("tollgate.channels.json", channels.to_string()),
    ];
    let files: Vec<(String, &[u8])> = texts
        .iter()
        .map(|(name, text)| ((*name).to_owned(), text.as_bytes()))
        .collect();
    let (documents, problems) = tollgate_policy::Documents::parse(&files);
    assert!(problems.is_empty(), "{problems:?}");
    let bytes = compile_with(&documents, 1).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let maxima: Vec<u64> = snapshot
        .channels()
        .map(|channel| channel.limits().iter().next().unwrap().max())
        .collect();
    assert_eq!(maxima, [1, 2, 1]);
}

mod counting {
    use super::*;
    use tollgate_policy::documents::Images;
    use tollgate_policy::{CountingInput, Documents, VocabularyFile, compile};

    fn with_rules(rules: serde_json::Value) -> serde_json::Value {
        let mut documents = base();
        documents["tokenizers"] = rules;
        documents
    }

    fn house() -> serde_json::Value {
        json!([
            { "name": "house", "models": ["qwen*"], "factor": 1.25, "minimum": 2, "maximum": 900,
              "patterns": [{ "pattern": "\\d{16}", "tokens": 48 }], "family": "llama3",
              "overheads": { "message": 9 }, "images": { "fixed": { "tokens": 77 } } },
            { "name": "later", "models": ["qwen-max", "gpt-4o-audio"], "characters": { "cjk": 3.0 } }
        ])
    }

    #[test]
    fn the_first_rule_of_a_model_counts_and_fills_in_what_it_says() {
        let bytes = compiled(&with_rules(house())).unwrap();
        let snapshot = Snapshot::open(&bytes).unwrap();
        let of = |name: &str| snapshot.model(name.as_bytes()).unwrap().counting().unwrap();
        let house = of("qwen-max");
        // The model's own tokenizer wins over every rule's.
        assert_eq!((house.rule(), house.tokenizer()), ("house", "o200k_harmony"));
        assert_eq!((house.minimum(), house.maximum()), (2, 900));
        assert_eq!(house.patterns().collect::<Vec<_>>(), [(r"\d{16}", 48_000)]);
        // 48 tokens of 16 bytes are more than a token a byte.
        assert_eq!(house.most_per_byte(), 3_000);
        assert_eq!(&house.parts()[..3], [5, 9, 1]);
        assert_eq!(house.images(), Images::Fixed { tokens: 77 });
        let later = of("gpt-4o-audio");
        assert_eq!(
            (later.rule(), later.tokenizer(), later.is_estimate()),
            ("later", "", true)
        );
        assert_eq!(
            (later.ratios().unwrap()[1], later.most_per_byte()),
            (3_000, 2_000)
        );
        assert_eq!((of("gpt-4o").rule(), of("gpt-4o").ratios()), ("", None));
    }

    #[test]
    fn a_version_changes_with_what_is_counted_and_with_nothing_else() {
        let version = |documents: &serde_json::Value, name: &str| {
            let bytes = compiled(documents).unwrap();
            let snapshot = Snapshot::open(&bytes).unwrap();
            snapshot
                .model(name.as_bytes())
                .unwrap()
                .counting()
                .unwrap()
                .version()
        };
        let before = version(&with_rules(house()), "qwen-max");
        assert!((1..1 << 24).contains(&before));
        let mut renamed = with_rules(house());
        renamed["tokenizers"][0]["name"] = json!("other");
        renamed["settings"]["suspicious_usage_factor"] = json!(3);
        assert_eq!(version(&renamed, "qwen-max"), before);
        for (path, value) in [
            ("/tokenizers/0/patterns/0/tokens", json!(49)),
            ("/tokenizers/0/patterns/0/pattern", json!(r"\d{15}")),
            ("/tokenizers/0/maximum", json!(901)),
            ("/tokenizers/0/overheads/message", json!(8)),
        ] {
            let mut changed = with_rules(house());
            *changed.pointer_mut(path).unwrap() = value;
            assert_ne!(version(&changed, "qwen-max"), before, "{path}");
            assert_eq!(version(&changed, "gpt-4o"), version(&base(), "gpt-4o"));
        }
    }

    #[test]
    fn a_tokenizer_that_is_not_there_is_stood_in_for_until_it_is() {
        let mut documents = base();
        documents["models"][1]["tokenizer"] = json!("acme");
        let (parsed, problems): (Documents, _) = parse(&documents);
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!(parsed.tokenizers(), [("acme".to_owned(), true)]);
        let input = |counting| tollgate_policy::CompileInput {
            generation: 1,
            created_unix_ms: 0,
            resolved: &|_| Vec::new(),
            authorities: &|_| Ok(Vec::new()),
            counting,
            seal: &|_, _| Ok(Vec::new()),
        };
        let found = |name: &str| {
            (name == "acme").then(|| VocabularyFile {
                file: "acme.1.tgv".to_owned(),
                source: 5,
                growth: 3,
            })
        };
        let learned = |model: &str| (model == "qwen-max").then_some(1_300);
        let without = compile(
            &parsed,
            &input(CountingInput {
                learned: &learned,
                ..CountingInput::default()
            }),
        )
        .unwrap();
        let with = compile(
            &parsed,
            &input(CountingInput {
                vocabulary: &found,
                learned: &learned,
            }),
        )
        .unwrap();
        let of = |bytes| {
            Snapshot::open(bytes)
                .unwrap()
                .model(b"qwen-max")
                .unwrap()
                .counting()
                .unwrap()
        };
        let (without, with) = (of(&without), of(&with));
        assert_eq!(
            (
                without.tokenizer(),
                without.wanted_tokenizer(),
                without.is_estimate(),
                without.learns()
            ),
            ("o200k_base", "acme", true, true)
        );
        assert_eq!((without.factor(), without.vocabulary()), (1_300, None));
        assert_eq!(
            (
                with.tokenizer(),
                with.is_estimate(),
                with.factor(),
                with.vocabulary()
            ),
            ("acme", false, 1_000, Some(("acme.1.tgv", 5)))
        );
        assert_eq!(with.most_per_byte(), 3_000);
        assert_ne!(with.version(), without.version());
    }

    #[test]
    fn every_mistake_in_a_rule_is_named() {
        let documents = with_rules(json!([
            { "name": "a", "models": [], "tokenizer": "../x", "characters": { "cjk": -1.0 }, "factor": 0,
              "minimum": 9, "maximum": 3, "images": { "tiles": { "base": 9_999_999, "per_tile": 1 } },
              "patterns": [{ "pattern": "(", "tokens": 1 }, { "pattern": "a*", "tokens": -1 }] },
            { "name": "a", "models": ["nothing-*"] }
        ]));
        let problems = support::problems(&documents);
        let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
        for path in [
            "models",
            "tokenizer",
            "characters",
            "characters.cjk",
            "factor",
            "maximum",
            "images",
            "patterns[0].pattern",
            "patterns[1].pattern",
            "patterns[1].tokens",
        ] {
            assert!(
                paths.contains(&format!("tokenizers[0].{path}").as_str()),
                "{path}: {paths:?}"
            );
        }
        assert!(paths.contains(&"tokenizers[1].name") && paths.contains(&"tokenizers[1].models[0]"));
    }
}

#[test]
fn experiments_routes_and_deployments_are_found() {
    let mut documents = base();
    documents["models"][0]["experiment"] = json!({ "name": "e", "by": "header.X-User", "header": "X-Group", "groups": [
        { "name": "a", "share": 50, "set_deployment": "spare", "cap_max_tokens": 9 },
        { "name": "b", "share": 49.9, "set_model": "qwen-max" } ] });
    documents["models"][1]["experiment"] = json!({ "name": "off", "enabled": false, "by": "channel", "groups": [
        { "name": "all", "share": 100 } ] });
    documents["templates"][0]["routes"] = json!([{ "model": "*", "fallback": ["qwen-max"] }]);
    documents["templates"][1]["routes"] =
        json!([{ "model": "qwen*", "deployment": "qwen-max/local", "fallback": [] }]);
    documents["channels"][0]["routes"] =
        json!([{ "model": "gpt-4o", "weights": { "spare": 7 }, "version": "v1" }]);
    let bytes = compiled(&documents).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    snapshot.verify().unwrap();

    let spare = snapshot.deployment_by_id("spare").unwrap();
    assert_eq!(spare.id(), "spare");
    assert_eq!(spare.model().unwrap().name(), "gpt-4o");
    assert_eq!(snapshot.deployments().count(), 5);
    for deployment in snapshot.deployments() {
        assert_eq!(
            snapshot.deployment_by_id(deployment.id()).unwrap().index(),
            deployment.index()
        );
    }
    assert!(snapshot.deployment_by_id("sparse").is_none());

    let model = snapshot.model(b"gpt-4o").unwrap();
    let experiment = model.experiment().unwrap();
    assert_eq!((experiment.name(), experiment.header()), ("e", "X-Group"));
    assert_eq!(experiment.by(), Some(AffinityView::Header("x-user")));
    assert_eq!(experiment.model().unwrap().index(), model.index());
    let groups: Vec<_> = experiment.groups().collect();
    assert_eq!(
        groups.iter().map(|g| (g.name(), g.share())).collect::<Vec<_>>(),
        [("a", 50_000), ("b", 49_900)]
    );
    assert_eq!(groups[0].deployment().unwrap().id(), "spare");
    assert_eq!(
        (groups[0].cap_max_tokens(), groups[1].cap_max_tokens()),
        (Some(9), None)
    );
    assert_eq!(groups[1].model().unwrap().name(), "qwen-max");
    assert!(groups[0].model().is_none() && groups[1].deployment().is_none());
    let mut counts = [0_u32; 3];
    for user in 0..10_000 {
        let group = experiment.group_of(tollgate_policy::hash_name(format!("user {user}").as_bytes()));
        if let Some(group) = group {
            assert_eq!(snapshot.group(group.index()).unwrap().name(), group.name());
            assert_eq!(group.experiment().unwrap().name(), "e");
        }
        counts[group.map_or(2, |g| usize::from(g.name() == "b"))] += 1;
    }
    assert!(
        counts[0].abs_diff(5_000) < 300 && counts[1].abs_diff(4_990) < 300 && counts[2] > 0,
        "{counts:?}"
    );
    assert!(
        snapshot.model(b"qwen-max").unwrap().experiment().is_none(),
        "it is switched off"
    );

    let channel = snapshot.channel_by_code(b"wechat001").unwrap();
    let patterns: Vec<_> = channel.routes().map(|route| route.pattern()).collect();
    assert_eq!(patterns, ["gpt-4o", "qwen*", "*"], "the nearest first");
    let own = channel.route("gpt-4o").unwrap();
    assert_eq!(own.weights(&model), Some(vec![0, 7]));
    assert_eq!(
        (own.version(&model), own.fallback().is_none()),
        (Some("v1"), true)
    );
    let qwen = snapshot.model(b"qwen-max").unwrap();
    let inherited = channel.route("qwen-max").unwrap();
    assert_eq!(inherited.deployment(&qwen).unwrap().id(), "qwen-max/local");
    assert!(inherited.deployment(&model).is_none(), "another model's");
    assert_eq!(inherited.fallback().unwrap().count(), 0);
    assert_eq!((inherited.weights(&qwen), inherited.version(&qwen)), (None, None));
    let others = channel.route("gpt-4o-audio").unwrap();
    assert_eq!(others.fallback().unwrap().collect::<Vec<_>>(), ["qwen-max"]);
    assert!(
        snapshot
            .channel_by_code(b"plain")
            .unwrap()
            .route("gpt-4o")
            .is_none()
    );
}

#[test]
fn a_providers_keys_certificates_and_connections_come_out() {
    let mut documents = base();
    documents["providers"][0]["credentials"] = json!({ "type": "bearer", "keys": [
        { "id": "one", "key": "sk-1" }, { "id": "two", "key_ref": "vault/two", "weight": 7 }] });
    documents["providers"][0]["tls"] = json!({ "ca_file": "/etc/ca.pem", "min_version": "1.3" });
    documents["providers"][0]["connections"] =
        json!({ "max_idle": 5, "idle_timeout": "20s", "max_requests": 9 });
    let bytes = compiled(&documents).unwrap();
    let snapshot = Snapshot::open(&bytes).unwrap();
    let openai = snapshot.provider(0).unwrap();
    let keys: Vec<_> = openai.credentials().map(|c| (c.id, c.sealed, c.weight)).collect();
    assert_eq!(
        keys,
        [
            ("one", &b"sealed openai 4"[..], 1),
            ("two", &b"sealed openai by vault/two"[..], 7)
        ]
    );
    assert_eq!(openai.authorities(), b"certificates of /etc/ca.pem");
    assert!(openai.tls_1_3_only());
    let connections = openai.connections();
    assert_eq!(
        (
            connections.max_idle,
            connections.idle_ms,
            connections.max_requests
        ),
        (5, 20_000, 9)
    );
    let local = snapshot.provider(1).unwrap();
    assert!(local.authorities().is_empty() && !local.tls_1_3_only());
    assert_eq!(local.connections().max_idle, 256);
}
