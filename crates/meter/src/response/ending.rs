//! Writes the events that end a stream early and cleanly, in the shape of its API.

use std::fmt::Write;

use super::event::{Phase, StreamState};
use super::usage::Usage;
use crate::Api;
use crate::json::push_json_string;

/// How a stream that is stopped at its reservation shall end.
#[derive(Debug, Clone, Copy)]
pub struct Ending<'a> {
    /// The model's name as the client knows it.
    pub model: &'a str,
    /// Unix time in seconds, used if the upstream has not given one.
    pub now: u64,
    /// The gateway's figures. For OpenAI's chat and completions they are sent only with `include_usage`.
    pub usage: Usage,
    /// Whether the client asked for the usage chunk.
    pub include_usage: bool,
}

fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_json_string(text, &mut out);
    out
}

/// Appends the events with which a stream ends because its output has reached its maximum: `finish_reason: "length"`
/// and `[DONE]`, or what the API has for it. Writes nothing if the stream has ended already. It must stand where an
/// event may begin: after an event's empty line.
pub fn write_early_end(api: Api, state: &StreamState, ending: &Ending<'_>, out: &mut Vec<u8>) {
    if state.phase() == Phase::Done {
        return;
    }
    let mut text = String::new();
    match api {
        Api::AnthropicMessages | Api::AnthropicCountTokens | Api::AnthropicModels => {
            anthropic(state, ending, &mut text);
        }
        Api::GeminiGenerate | Api::GeminiCountTokens | Api::GeminiModels | Api::GeminiOther => {
            gemini(state, ending, &mut text);
        }
        Api::Responses => responses(state, ending, &mut text),
        Api::Completions => openai(state, ending, "text_completion", "cmpl-tollgate", &mut text),
        Api::ChatCompletions | Api::Embeddings | Api::Models | Api::Other => {
            openai(
                state,
                ending,
                "chat.completion.chunk",
                "chatcmpl-tollgate",
                &mut text,
            );
        }
    }
    out.extend_from_slice(text.as_bytes());
}

fn or<'a>(id: &'a str, default: &'a str) -> &'a str {
    if id.is_empty() { default } else { id }
}

fn created(state: &StreamState, ending: &Ending<'_>) -> u64 {
    if state.created() > 0 {
        state.created()
    } else {
        ending.now
    }
}

fn openai(state: &StreamState, ending: &Ending<'_>, object: &str, id: &str, out: &mut String) {
    let mut head = String::from("data: {\"id\":");
    push_json_string(or(state.id(), id), &mut head);
    let _ = write!(
        head,
        ",\"object\":\"{object}\",\"created\":{},\"model\":{},",
        created(state, ending),
        json(ending.model)
    );
    let content = if object == "text_completion" {
        "\"text\":\"\""
    } else {
        "\"delta\":{}"
    };
    for index in state.open_choices() {
        let _ = write!(
            out,
            "{head}\"choices\":[{{\"index\":{index},{content},\"logprobs\":null,\"finish_reason\":\"length\"}}]}}\n\n"
        );
    }
    // The upstream's own usage chunk comes after it has stopped.
    let reported = state.phase() == Phase::Stopped && state.usage().is_some();
    if ending.include_usage && !reported {
        let usage = &ending.usage;
        let _ = write!(
            out,
            "{head}\"choices\":[],\"usage\":{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
             \"prompt_tokens_details\":{{\"cached_tokens\":{}}},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}}}\n\n",
            usage.input.unwrap_or(0),
            usage.output.unwrap_or(0),
            usage.total(),
            usage.cached,
            usage.reasoning,
        );
    }
    out.push_str("data: [DONE]\n\n");
}

fn anthropic(state: &StreamState, ending: &Ending<'_>, out: &mut String) {
    let usage = &ending.usage;
    if state.phase() == Phase::Waiting {
        let input = usage
            .input
            .unwrap_or(0)
            .saturating_sub(usage.cached)
            .saturating_sub(usage.cache_creation);
        let _ = write!(
            out,
            "event: message_start\ndata: {{\"type\":\"message_start\",\"message\":{{\"id\":{},\"type\":\"message\",\
             \"role\":\"assistant\",\"model\":{},\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\
             \"usage\":{{\"input_tokens\":{input},\"cache_creation_input_tokens\":{},\
             \"cache_read_input_tokens\":{},\"output_tokens\":0}}}}}}\n\n",
            json(or(state.id(), "msg_tollgate")),
            json(ending.model),
            usage.cache_creation,
            usage.cached,
        );
    }
    if let Some(index) = state.open_block() {
        let _ = write!(
            out,
            "event: content_block_stop\ndata: {{\"type\":\"content_block_stop\",\"index\":{index}}}\n\n"
        );
    }
    if state.phase() < Phase::Stopped {
        let _ = write!(
            out,
            "event: message_delta\ndata: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"max_tokens\",\
             \"stop_sequence\":null}},\"usage\":{{\"output_tokens\":{}}}}}\n\n",
            usage.output.unwrap_or(0),
        );
    }
    out.push_str("event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

/// Gemini's streams have no last event: they end with the connection.
fn gemini(state: &StreamState, ending: &Ending<'_>, out: &mut String) {
    if state.phase() == Phase::Stopped {
        return;
    }
    let usage = &ending.usage;
    out.push_str("data: {\"candidates\":[");
    for (number, index) in state.open_choices().enumerate() {
        let _ = write!(
            out,
            "{}{{\"content\":{{\"parts\":[],\"role\":\"model\"}},\"finishReason\":\"MAX_TOKENS\",\"index\":{index}}}",
            if number > 0 { "," } else { "" },
        );
    }
    let _ = write!(
        out,
        "],\"usageMetadata\":{{\"promptTokenCount\":{},\"candidatesTokenCount\":{},\"totalTokenCount\":{}}}",
        usage.input.unwrap_or(0),
        usage.output.unwrap_or(0),
        usage.total(),
    );
    if !ending.model.is_empty() {
        out.push_str(",\"modelVersion\":");
        push_json_string(ending.model, out);
    }
    if !state.id().is_empty() {
        out.push_str(",\"responseId\":");
        push_json_string(state.id(), out);
    }
    out.push_str("}\n\n");
}

fn responses(state: &StreamState, ending: &Ending<'_>, out: &mut String) {
    let usage = &ending.usage;
    let _ = write!(
        out,
        "event: response.incomplete\ndata: {{\"type\":\"response.incomplete\",\"sequence_number\":{},\
         \"response\":{{\"id\":{},\"object\":\"response\",\"created_at\":{},\"status\":\"incomplete\",\
         \"error\":null,\"incomplete_details\":{{\"reason\":\"max_output_tokens\"}},\"instructions\":null,\
         \"metadata\":{{}},\"model\":{},\"output\":[],\"parallel_tool_calls\":true,\"temperature\":null,\
         \"tool_choice\":\"auto\",\"tools\":[],\"top_p\":null,\"usage\":{{\"input_tokens\":{},\
         \"input_tokens_details\":{{\"cached_tokens\":{}}},\"output_tokens\":{},\
         \"output_tokens_details\":{{\"reasoning_tokens\":{}}},\"total_tokens\":{}}}}}}}\n\n",
        state.last_sequence().saturating_add(1),
        json(or(state.id(), "resp_tollgate")),
        created(state, ending),
        json(ending.model),
        usage.input.unwrap_or(0),
        usage.cached,
        usage.output.unwrap_or(0),
        usage.reasoning,
        usage.total(),
    );
}

/// Appends an error event in the API's shape, after which the stream should end. `code` is a stable identifier
/// (`rate_limit_exceeded`), `message` is for people; neither may hold a secret. Must stand where an event may begin.
pub fn write_error_event(api: Api, state: &StreamState, code: &str, message: &str, out: &mut Vec<u8>) {
    let (code, message) = (json(code), json(message));
    let text = match api {
        _ if api.is_gemini() => format!(
            "data: {{\"error\":{{\"code\":502,\"message\":{message},\"status\":\"INTERNAL\",\"details\":[{{\
             \"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"reason\":{code},\"domain\":\"tollgate\"}}]}}}}\n\n"
        ),
        _ if api.is_anthropic() => {
            format!(
                "event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":{code},\"message\":{message}}}}}\n\n"
            )
        }
        Api::Responses => format!(
            "event: error\ndata: {{\"type\":\"error\",\"sequence_number\":{},\"code\":{code},\"message\":{message},\
             \"param\":null}}\n\n",
            state.last_sequence().saturating_add(1)
        ),
        _ => format!(
            "data: {{\"error\":{{\"message\":{message},\"type\":{code},\"param\":null,\"code\":{code}}}}}\n\n"
        ),
    };
    out.extend_from_slice(text.as_bytes());
}
