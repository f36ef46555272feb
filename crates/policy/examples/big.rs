//! Compiles a large configuration and prints what it costs: `cargo run --profile fast --example big [channels]`.
//!
//! Three kinds of channels: with five limits of their own whose maxima all differ (nothing can be shared), with five
//! limits that many share, and from a template.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::{
    fmt::Write,
    hint::black_box,
    time::{Duration, Instant},
};
use tollgate_policy::{CompileInput, Documents, Snapshot, Validated};

/// Lookups that are timed, so many that the clock's grain does not matter.
const LOOKUPS: usize = 1_000_000;

fn documents(channels: usize, kind: &str) -> Vec<(String, String)> {
    let mut text = String::from("{\"channels\":[");
    for n in 0..channels {
        let comma = if n == 0 { "" } else { "," };
        let max = if kind == "own" { 1_000 + n } else { 1_000 };
        let _ = write!(
            text,
            "{comma}{{\"code\":\"channel{n:06}\",\"name\":\"Channel {n}\",\"keys\":[{{\"id\":\"k1\",\"sha256\":\"{n:064x}\"}}]"
        );
        if kind == "template" {
            text.push_str(",\"extends\":\"standard\"}");
        } else {
            let _ = write!(
                text,
                ",\"models\":{{\"allow\":[\"model-*\"]}},\"limits\":{}}}",
                limits(max)
            );
        }
    }
    text.push_str("]}");
    let template = format!(
        "{{\"templates\":[{{\"name\":\"standard\",\"models\":{{\"allow\":[\"model-*\"]}},\"limits\":{}}}]}}",
        limits(1_000)
    );
    let models: Vec<String> = (0..20)
        .map(|n| format!("{{\"name\":\"model-{n}\",\"deployments\":[{{\"provider\":\"p\"}}]}}"))
        .collect();
    let providers =
        "{\"providers\":[{\"id\":\"p\",\"protocol\":\"openai\",\"base_url\":\"http://127.0.0.1:9\"}]}";
    vec![
        ("tollgate.channels.json".to_owned(), text),
        ("tollgate.templates.json".to_owned(), template),
        (
            "tollgate.models.json".to_owned(),
            format!("{{\"models\":[{}]}}", models.join(",")),
        ),
        ("tollgate.providers.json".to_owned(), providers.to_owned()),
    ]
}

fn limits(max: usize) -> String {
    format!(
        "[{{\"metric\":\"connections\",\"max\":{max}}},\
         {{\"metric\":\"requests\",\"max\":{max},\"window\":\"1s\",\"algorithm\":\"token_bucket\"}},\
         {{\"metric\":\"input_tokens\",\"max\":{max},\"window\":\"10m\"}},\
         {{\"metric\":\"input_tokens\",\"max\":{max},\"window\":\"20m\"}},\
         {{\"metric\":\"output_tokens\",\"max\":{max},\"window\":\"10m\",\"model\":\"model-1\"}}]"
    )
}

/// Time on the processor, so that a busy machine tells no lies; the clock's time where there is no /proc.
fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let on_cpu = || -> Option<u64> {
        std::fs::read_to_string("/proc/thread-self/schedstat")
            .ok()?
            .split(' ')
            .next()?
            .parse()
            .ok()
    };
    let (start, before) = (Instant::now(), on_cpu());
    let result = work();
    let elapsed = start.elapsed();
    match (before, on_cpu()) {
        (Some(before), Some(after)) => (result, Duration::from_nanos(after.saturating_sub(before))),
        _ => (result, elapsed),
    }
}

fn main() {
    let channels = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(100_000);
    println!("{channels} channels, 5 limits each");
    for kind in ["own", "shared", "template"] {
        let texts = documents(channels, kind);
        let size: usize = texts.iter().map(|(_, text)| text.len()).sum();
        let files: Vec<(String, &[u8])> = texts
            .iter()
            .map(|(name, text)| (name.clone(), text.as_bytes()))
            .collect();
        let ((documents, problems), parse) = timed(|| Documents::parse(&files));
        assert!(problems.is_empty(), "{problems:?}");
        let ((validated, problems), validation) = timed(|| Validated::new(&documents));
        assert!(problems.is_empty(), "{:?}", problems.first());
        let validated = validated.unwrap();
        let input = CompileInput {
            generation: 1,
            created_unix_ms: 0,
            resolved: &|_| vec!["127.0.0.1:9".parse().unwrap()],
            authorities: &|_| Ok(Vec::new()),
            counting: tollgate_policy::CountingInput::default(),
            seal: &|_, _| Ok(Vec::new()),
        };
        let (bytes, compilation) = timed(|| validated.compile(&input).unwrap());
        let (snapshot, open) = timed(|| Snapshot::open(&bytes).unwrap());
        let (_, verify) = timed(|| snapshot.verify().unwrap());
        let codes: Vec<String> = (0..channels)
            .map(|n| format!("channel{:06}", n * 7_919 % channels))
            .collect();
        let (_, lookup) = timed(|| {
            for code in codes.iter().cycle().take(LOOKUPS) {
                assert!(black_box(&snapshot).channel_by_code(code.as_bytes()).is_some());
            }
        });
        let (limits, request) = timed(|| {
            let mut limits = 0_usize;
            for code in codes.iter().cycle().take(LOOKUPS) {
                let snapshot = Snapshot::open(black_box(&bytes)).unwrap();
                let channel = snapshot.channel_by_code(code.as_bytes()).unwrap();
                let model = snapshot.model(b"model-1").unwrap();
                assert!(channel.permits(model.name()));
                for limit in channel
                    .limits()
                    .into_iter()
                    .chain(model.limits())
                    .chain(snapshot.global_limits())
                {
                    if limit.applies_to(model.name()) {
                        limits += 1;
                        black_box((limit.counter_key_hashed(model.name_hash()), limit.max()));
                    }
                }
            }
            limits
        });
        let each = |duration: Duration| duration.as_nanos() / LOOKUPS as u128;
        println!(
            "{kind:>9}: JSON {:.1} MB, parse {parse:.0?}, validate {validation:.0?}, compile {compilation:.0?}, snapshot {:.1} MB, open {open:.1?}, verify {verify:.1?}, lookup {} ns, \
             open + lookup + permission + {} limits {} ns",
            size as f64 / 1e6,
            bytes.len() as f64 / 1e6,
            each(lookup),
            limits / LOOKUPS,
            each(request),
        );
    }
}
