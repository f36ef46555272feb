//! What holds for any body and any stream, however they are cut.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn chunked(length: usize) -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..=length, 0..12).prop_map(|mut cuts| {
        cuts.sort_unstable();
        cuts
    })
}

fn answer_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        3 => ".{0,12}".prop_map(Value::from),
        // Past every step of the search for a string's end, with what must not be taken for a key.
        1 => "[ -~]{0,90}(\"usage\":\\{\"prompt_tokens\":9\\}|é)[ -~]{0,40}".prop_map(Value::from),
        2 => (0_u32..5000).prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "choices",
        "message",
        "delta",
        "content",
        "text",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "usage",
        "prompt_tokens",
        "completion_tokens",
        "input_tokens",
        "output_tokens",
        "total_tokens",
        "prompt_tokens_details",
        "cached_tokens",
        "cache_read_input_tokens",
        "output",
        "input",
        "error",
        "model",
        "id",
        "index",
        "finish_reason",
        "summary",
        "type",
        "a key that is longer than any key with a role",
    ]);
    leaf.prop_recursive(6, 48, 6, move |inner| {
        prop_oneof![
            2 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            4 => prop::collection::btree_map(key.clone(), inner, 0..6).prop_map(|map| Value::Object(
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn protocols() -> impl Strategy<Value = Api> {
    prop::sample::select(vec![Api::ChatCompletions, Api::Responses, Api::AnthropicMessages])
}

/// Texts of the answer joined, as the fast way finds them.
fn whole_text(body: &[u8], api: Api) -> (Answer, String) {
    let mut sink = String::new();
    let answer = JsonWatch::whole(body, api, &mut sink);
    (answer, sink)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_chunking_reads_a_body_alike(
        (body, cuts) in (answer_json(), any::<bool>()).prop_flat_map(|(value, pretty)| {
            let body = if pretty { serde_json::to_vec_pretty(&value).unwrap() } else { serde_json::to_vec(&value).unwrap() };
            let length = body.len();
            (Just(body), chunked(length))
        }),
        api in protocols(),
    ) {
        let (one, text) = split(&body, api, &[]);
        prop_assert_eq!(split(&body, api, &cuts), (one, text.clone()));
        let every: Vec<usize> = (0..body.len()).collect();
        prop_assert_eq!(split(&body, api, &every), (one, text.clone()));
        let (whole, whole_text) = whole_text(&body, api);
        prop_assert!(!whole.malformed && !one.malformed);
        prop_assert_eq!((whole.usage, whole.error, whole.model), (one.usage, one.error, one.model));
        if !whole.error && !whole.usage.is_some_and(|usage| usage.is_complete()) {
            prop_assert_eq!(whole_text, text);
        }
    }

    #[test]
    fn any_bytes_in_any_chunks_never_panic(
        (body, cuts) in (answer_json(), any::<prop::sample::Index>(), any::<u8>()).prop_flat_map(|(value, at, byte)| {
            let mut body = serde_json::to_vec(&value).unwrap();
            let at = at.index(body.len());
            body[at] = byte;
            let length = body.len();
            (Just(body), chunked(length))
        }),
        api in protocols(),
    ) {
        let one = split(&body, api, &[]);
        prop_assert_eq!(&split(&body, api, &cuts), &one);
        // Both readers judge the syntax alike, and find the same in what is none.
        let (whole, text) = whole_text(&body, api);
        prop_assert_eq!((whole.malformed, whole.usage, whole.error), (one.0.malformed, one.0.usage, one.0.error));
        if whole.malformed {
            prop_assert_eq!(text, "");
        }
    }

    #[test]
    fn invalid_utf8_reads_alike_in_any_chunks(
        text in prop::collection::vec(prop_oneof![
            any::<u8>().prop_filter("plain", |byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\').prop_map(|byte| vec![byte]),
            "[^\\p{Cc}\"\\\\]".prop_map(String::into_bytes),
            prop::sample::select(vec!["\\ud83d", "\\ude00", "\\u00e9", "\\n"]).prop_map(|escape| escape.as_bytes().to_vec()),
        ], 0..20),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let body = [&br#"{"choices":[{"text":""#[..], &text.concat(), b"\"}]}"].concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
        cuts.sort_unstable();
        let (answer, text) = split(&body, Api::Completions, &cuts);
        let (whole, whole_text) = whole_text(&body, Api::Completions);
        prop_assert_eq!((answer, text), (whole, whole_text));
    }

    #[test]
    fn any_chunking_reads_a_stream_alike(
        which in 0..3_usize,
        line_end in prop::sample::select(vec!["\n", "\r\n", "\r"]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        bom: bool,
        bound in prop_oneof![Just(1_usize << 18), 0..400_usize],
    ) {
        let (api, stream) = [
            (Api::ChatCompletions, chat_stream()),
            (Api::AnthropicMessages, anthropic_stream()),
            (Api::Responses, responses_stream()),
        ][which].clone();
        let stream = format!("{}{}", if bom { "\u{feff}" } else { "" }, stream.replace('\n', line_end));
        let stream = stream.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.sort_unstable();
        let one = read(stream, api, &[], 1 << 18);
        let every: Vec<usize> = (0..stream.len()).collect();
        for cuts in [&cuts, &every] {
            let split = read(stream, api, cuts, 1 << 18);
            prop_assert_eq!(&split.facts, &one.facts);
            prop_assert_eq!(&split.state, &one.state);
            prop_assert_eq!(&split.text, &one.text);
            prop_assert_eq!(&split.passed, stream);
            // Whatever the bound, no byte is lost.
            prop_assert_eq!(&read(stream, api, cuts, bound).passed, stream);
        }
        prop_assert_eq!(one.facts.len(), [8, 11, 7][which]);
    }

    #[test]
    fn any_event_never_panics(bytes: Vec<u8>, json in answer_json(), name in "[a-z._]{0,12}", api in protocols()) {
        let mut state = StreamState::new();
        inspect(&bytes, api, &mut state, &mut NoText);
        let event = format!("event: {name}\ndata: {json}\n\n");
        prop_assert!(!inspect(event.as_bytes(), api, &mut state, &mut NoText).malformed || !json.is_object());
        let mut out = Vec::new();
        write_early_end(api, &state, &ending(true), &mut out);
        if !out.is_empty() {
            data(&out);
        }
    }

    /// Boundaries by the state machine are those that the specification's line rules give.
    #[test]
    fn boundaries_follow_the_line_rules(stream in "[a\\r\\n]{0,40}", cuts in prop::collection::vec(0..=40_usize, 0..6)) {
        let bytes = stream.as_bytes();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let mut splitter = SseSplitter::new();
        let mut found = Vec::new();
        let mut start = 0;
        for cut in cuts {
            let mut at = start;
            while let Some(end) = splitter.next_boundary(&bytes[at..cut]) {
                at += end;
                found.push(at);
            }
            start = cut;
        }
        // The reference: ends of all empty lines.
        let mut want = Vec::new();
        let (mut at, mut line) = (0, 0);
        while at < bytes.len() {
            let end = match (bytes[at], bytes.get(at + 1)) {
                (b'\r', Some(b'\n')) => at + 2,
                (b'\r' | b'\n', _) => at + 1,
                _ => { at += 1; continue }
            };
            if at == line { want.push(end) }
            at = end;
            line = end;
        }
        prop_assert_eq!(found.len(), want.len());
        for (found, want) in found.iter().zip(&want) {
            // A cut between CR and LF ends the event at the CR.
            prop_assert!(found == want || (*found + 1 == *want && bytes[*found - 1] == b'\r' && bytes[*found] == b'\n'));
        }
    }
}
