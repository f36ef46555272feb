//! CPU time of a translation: a request of about 1 KB and an answer of about 600 bytes for each pair, and one event of a
//! stream. `cargo bench -p tollgate-translate`. The target is 10 µs for request and answer together.

use std::hint::black_box;
use std::time::Instant;

use tollgate_translate::{
    Context, Options, Pair, Protocol, StreamTranslator, translate_request, translate_response,
};

const TEXT: &str = "The quarterly report shows that revenue grew by 14 % while costs stayed flat.\\nSummarize it for the \
                    board in three sentences, and name the two largest risks that the authors see. ";

fn openai_request() -> String {
    format!(
        r#"{{"model":"m","stream":false,"max_tokens":512,"temperature":0.7,"stop":["END"],"user":"u-17","messages":[{{"role":"system","content":"You are a careful analyst."}},{{"role":"user","content":"{TEXT}"}},{{"role":"assistant","content":"{TEXT}"}},{{"role":"user","content":[{{"type":"text","text":"{TEXT}"}}]}}],"tools":[{{"type":"function","function":{{"name":"lookup","description":"Looks up a figure","parameters":{{"type":"object","properties":{{"name":{{"type":"string"}},"year":{{"type":"integer"}}}},"required":["name"]}}}}}}]}}"#
    )
}

fn anthropic_request() -> String {
    format!(
        r#"{{"model":"m","max_tokens":512,"temperature":0.7,"stop_sequences":["END"],"system":"You are a careful analyst.","metadata":{{"user_id":"u-17"}},"messages":[{{"role":"user","content":"{TEXT}"}},{{"role":"assistant","content":"{TEXT}"}},{{"role":"user","content":[{{"type":"text","text":"{TEXT}"}}]}}],"tools":[{{"name":"lookup","description":"Looks up a figure","input_schema":{{"type":"object","properties":{{"name":{{"type":"string"}},"year":{{"type":"integer"}}}},"required":["name"]}}}}]}}"#
    )
}

fn answer(pair: Pair) -> String {
    match pair.upstream() {
        Protocol::AnthropicMessages => format!(
            r#"{{"id":"msg_01","type":"message","role":"assistant","model":"claude","content":[{{"type":"text","text":"{TEXT}{TEXT}"}}],"stop_reason":"end_turn","stop_sequence":null,"usage":{{"input_tokens":250,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":90}}}}"#
        ),
        Protocol::Gemini => format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{TEXT}{TEXT}"}}],"role":"model"}},"finishReason":"STOP","index":0}}],"usageMetadata":{{"promptTokenCount":250,"candidatesTokenCount":90,"totalTokenCount":340}},"modelVersion":"gemini-2.5-flash","responseId":"r1"}}"#
        ),
        Protocol::OpenAiChat => format!(
            r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt","choices":[{{"index":0,"message":{{"role":"assistant","content":"{TEXT}{TEXT}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],"usage":{{"prompt_tokens":250,"completion_tokens":90,"total_tokens":340}}}}"#
        ),
    }
}

fn event(pair: Pair) -> &'static str {
    match pair.upstream() {
        Protocol::AnthropicMessages => {
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}\n\n"
        }
        Protocol::Gemini => {
            "data: {\"candidates\":[{\"content\":{\"parts\":[{\"text\":\" token\"}],\"role\":\"model\"},\"index\":0}],\"usageMetadata\":{\"promptTokenCount\":9,\"totalTokenCount\":9},\"modelVersion\":\"gemini-2.5-flash\",\"responseId\":\"r\"}\r\n\r\n"
        }
        Protocol::OpenAiChat => {
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n"
        }
    }
}

/// The best of many short rounds, in nanoseconds per call: a round is shorter than a time slice, so that some are not
/// interrupted even on a busy machine.
fn measure(mut call: impl FnMut()) -> f64 {
    const ROUNDS: u32 = 2_000;
    const CALLS: u32 = 50;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for _ in 0..CALLS {
            call();
        }
        best = best.min(begin.elapsed().as_secs_f64() * 1e9 / f64::from(CALLS));
    }
    best
}

#[expect(clippy::print_stdout, reason = "a benchmark's output")]
fn main() {
    for pair in Pair::ALL {
        let request = if pair.client() == Protocol::AnthropicMessages {
            anthropic_request()
        } else {
            openai_request()
        };
        let answer = answer(pair);
        let options = Options::new(match pair.upstream() {
            Protocol::AnthropicMessages => "claude-sonnet-4-6",
            Protocol::Gemini => "gemini-2.5-flash",
            Protocol::OpenAiChat => "gpt-4o",
        });
        let context = Context {
            id: "request-1".to_owned(),
            created: 1_700_000_000,
            ..Context::default()
        };
        assert!(translate_request(pair, request.as_bytes(), &options).is_ok());
        assert_eq!(
            translate_response(pair, 200, answer.as_bytes(), &context).status,
            200
        );
        let there = measure(|| {
            let _ = black_box(translate_request(pair, black_box(request.as_bytes()), &options));
        });
        let back = measure(|| {
            let _ = black_box(translate_response(
                pair,
                200,
                black_box(answer.as_bytes()),
                &context,
            ));
        });
        let mut stream = StreamTranslator::new(pair, context.clone());
        let mut out = Vec::new();
        let event = event(pair).as_bytes();
        let streamed = measure(|| {
            out.clear();
            stream.push(black_box(event), &mut out);
        });
        assert!(!out.is_empty());
        println!(
            "{pair:?}: request of {} bytes {:.2} us, answer of {} bytes {:.2} us, together {:.2} us; event {streamed:.0} ns",
            request.len(),
            there / 1e3,
            answer.len(),
            back / 1e3,
            (there + back) / 1e3,
        );
    }
}
