//! The events of a streamed answer, for each API.

use super::answer::{
    Answer, ID, Piece, TOOL_ID, called_tool, gemini, message_item, now, render, report, response_object,
    tool_arguments, usage_value, with_usage,
};
use super::ask::{Api, Ask};
use super::behaviour::UsageReport;
use super::words;
use serde_json::{Value, json};

/// Builds the events of a stream.
pub(super) struct Stream<'a> {
    ask: &'a Ask,
    pieces: Vec<Piece>,
    sequence: u64,
    created: u64,
}

impl<'a> Stream<'a> {
    pub(super) fn new(ask: &'a Ask) -> Self {
        Self {
            ask,
            pieces: Vec::new(),
            sequence: 0,
            created: now(),
        }
    }

    fn event(&mut self, name: Option<&str>, data: &str, tokens: u64, reported: Option<(u64, u64)>) {
        let eol = self.ask.behaviour.eol.text();
        let mut bytes = String::with_capacity(data.len() + 64);
        if self.ask.behaviour.comments {
            bytes.push_str(": the mock is alive");
            bytes.push_str(eol);
        }
        if let Some(name) = name {
            bytes.push_str("event: ");
            bytes.push_str(name);
            bytes.push_str(eol);
        }
        bytes.push_str("data: ");
        bytes.push_str(data);
        bytes.push_str(eol);
        bytes.push_str(eol);
        self.pieces.push(Piece {
            bytes: bytes.into_bytes(),
            tokens,
            reported,
        });
    }

    fn named(&mut self, mut value: Value, tokens: u64, reported: Option<(u64, u64)>) {
        let name = value["type"].as_str().unwrap_or_default().to_owned();
        if self.ask.api == Api::Responses {
            value["sequence_number"] = json!(self.sequence);
            self.sequence += 1;
        }
        self.event(Some(&name), &render(&value), tokens, reported);
    }

    /// All events.
    pub(super) fn answer(mut self) -> Answer {
        let (tokens, cut) = self.ask.completion();
        self.open();
        let first_text = self.pieces.len();
        let produced = self.texts(tokens);
        let repeat = (self.ask.behaviour.endless && self.pieces.len() > first_text).then_some(first_text);
        if repeat.is_none() {
            self.close(produced, cut);
        }
        Answer {
            status: 200,
            content_type: "text/event-stream",
            headers: "Cache-Control: no-cache\r\n".to_owned(),
            pieces: self.pieces,
            repeat,
        }
    }

    fn open(&mut self) {
        let ask = self.ask;
        match ask.api {
            Api::Messages => {
                // Anthropic tells the input at the start, and an output of a few tokens that the end corrects.
                let reported = report(ask, ask.prompt_tokens, 1);
                let message = json!({ "id": format!("msg_{ID}"), "type": "message", "role": "assistant",
                    "model": ask.model, "content": [], "stop_reason": null, "stop_sequence": null });
                let message = with_usage(message, ask, reported);
                self.named(json!({ "type": "message_start", "message": message }), 0, None);
                self.named(
                    json!({ "type": "content_block_start", "index": 0,
                    "content_block": { "type": "text", "text": "" } }),
                    0,
                    None,
                );
                self.named(json!({ "type": "ping" }), 0, None);
            }
            Api::Responses => {
                let response = response_object(ask, "in_progress", false, None);
                self.named(
                    json!({ "type": "response.created", "response": response }),
                    0,
                    None,
                );
                self.named(
                    json!({ "type": "response.in_progress", "response": response }),
                    0,
                    None,
                );
                self.named(json!({ "type": "response.output_item.added", "output_index": 0, "item": {
                    "id": format!("msg_{ID}"), "type": "message", "status": "in_progress", "role": "assistant",
                    "content": [] } }), 0, None);
                self.named(
                    json!({ "type": "response.content_part.added", "item_id": format!("msg_{ID}"),
                    "output_index": 0, "content_index": 0,
                    "part": { "type": "output_text", "text": "", "annotations": [] } }),
                    0,
                    None,
                );
            }
            Api::Completions | Api::Gemini => {}
            _ => {
                for choice in 0..ask.choices {
                    self.chunk(
                        &json!([{ "index": choice, "delta": { "role": "assistant", "content": "" },
                        "finish_reason": null }]),
                        0,
                    );
                }
            }
        }
    }

    /// The text events of all choices; returns the tokens in them.
    fn texts(&mut self, tokens: u64) -> u64 {
        let choices = match self.ask.api {
            Api::Messages | Api::Responses | Api::Gemini => 1,
            _ => self.ask.choices,
        };
        let events = self
            .ask
            .behaviour
            .chunks
            .unwrap_or(tokens)
            .clamp(1, tokens.max(1));
        let mut produced = 0;
        let mut done = 0;
        for event in 0..events {
            // The remainder is spread, so that events differ by one token at most.
            let upto = u64::try_from(u128::from(tokens) * u128::from(event + 1) / u128::from(events))
                .unwrap_or(tokens);
            if upto > done {
                let text = words::text(done, upto - done);
                for choice in 0..choices {
                    self.delta(choice, &text, upto - done);
                    produced += upto - done;
                }
                done = upto;
            }
        }
        if self.ask.behaviour.big_event > 0 {
            let count = (self.ask.behaviour.big_event / 6).max(1) as u64;
            let text = words::WORDS
                .first()
                .copied()
                .unwrap_or(" hello")
                .repeat(usize::try_from(count).unwrap_or(1));
            self.delta(0, &text, count);
            produced += count;
        }
        produced
    }

    fn delta(&mut self, choice: u64, text: &str, tokens: u64) {
        match self.ask.api {
            Api::Messages => self.named(
                json!({ "type": "content_block_delta", "index": 0,
                "delta": { "type": "text_delta", "text": text } }),
                tokens,
                None,
            ),
            Api::Responses => self.named(
                json!({ "type": "response.output_text.delta", "item_id": format!("msg_{ID}"),
                "output_index": 0, "content_index": 0, "delta": text, "logprobs": [] }),
                tokens,
                None,
            ),
            Api::Gemini => {
                let value = gemini(self.ask, &json!([{ "text": text }]), None);
                self.event(None, &render(&value), tokens, None);
            }
            Api::Completions => {
                self.chunk(
                    &json!([{ "index": choice, "text": text, "logprobs": null, "finish_reason": null }]),
                    tokens,
                );
            }
            _ => self.chunk(
                &json!([{ "index": choice, "delta": { "content": text }, "finish_reason": null }]),
                tokens,
            ),
        }
    }

    fn chunk_value(&self, choices: &Value) -> Value {
        let (prefix, object) = match self.ask.api {
            Api::Completions => ("cmpl", "text_completion"),
            _ => ("chatcmpl", "chat.completion.chunk"),
        };
        json!({ "id": format!("{prefix}-{ID}"), "object": object, "created": self.created, "model": self.ask.model,
            "choices": choices })
    }

    fn chunk(&mut self, choices: &Value, tokens: u64) {
        let mut value = self.chunk_value(choices);
        if self.ask.include_usage {
            value["usage"] = Value::Null;
        }
        self.event(None, &render(&value), tokens, None);
    }

    fn close(&mut self, produced: u64, cut: bool) {
        let ask = self.ask;
        let reported = report(ask, ask.prompt_tokens, produced);
        match ask.api {
            Api::Messages => {
                self.named(json!({ "type": "content_block_stop", "index": 0 }), 0, None);
                let mut reason = if cut { "max_tokens" } else { "end_turn" };
                if let Some(name) = called_tool(ask) {
                    reason = "tool_use";
                    let block = json!({ "type": "tool_use", "id": TOOL_ID, "name": name, "input": {} });
                    self.named(
                        json!({ "type": "content_block_start", "index": 1, "content_block": block }),
                        0,
                        None,
                    );
                    for part in tool_parts() {
                        let delta = json!({ "type": "input_json_delta", "partial_json": part });
                        self.named(
                            json!({ "type": "content_block_delta", "index": 1, "delta": delta }),
                            0,
                            None,
                        );
                    }
                    self.named(json!({ "type": "content_block_stop", "index": 1 }), 0, None);
                }
                let mut delta = json!({ "type": "message_delta",
                    "delta": { "stop_reason": reason, "stop_sequence": null } });
                if let Some((_, output)) = reported {
                    delta["usage"] = json!({ "output_tokens": output });
                } else if ask.behaviour.usage == UsageReport::Null {
                    delta["usage"] = Value::Null;
                }
                self.named(delta, 0, reported);
                if ask.behaviour.done {
                    self.named(json!({ "type": "message_stop" }), 0, None);
                }
            }
            Api::Responses => {
                let text = words::text(0, ask.completion().0);
                let item = format!("msg_{ID}");
                self.named(
                    json!({ "type": "response.output_text.done", "item_id": item, "output_index": 0,
                    "content_index": 0, "text": text, "logprobs": [] }),
                    0,
                    None,
                );
                self.named(
                    json!({ "type": "response.content_part.done", "item_id": item, "output_index": 0,
                    "content_index": 0, "part": { "type": "output_text", "text": text, "annotations": [] } }),
                    0,
                    None,
                );
                self.named(
                    json!({ "type": "response.output_item.done", "output_index": 0,
                    "item": message_item(&text, "completed") }),
                    0,
                    None,
                );
                if ask.behaviour.done {
                    let (kind, status) = if cut {
                        ("response.incomplete", "incomplete")
                    } else {
                        ("response.completed", "completed")
                    };
                    let response = with_usage(response_object(ask, status, cut, Some(&text)), ask, reported);
                    self.named(json!({ "type": kind, "response": response }), 0, reported);
                }
            }
            Api::Gemini => {
                let parts = match called_tool(ask) {
                    Some(name) => {
                        json!([{ "functionCall": { "name": name, "args": tool_arguments() } }])
                    }
                    None => json!([]),
                };
                let last = gemini(ask, &parts, Some(if cut { "MAX_TOKENS" } else { "STOP" }));
                self.event(None, &render(&with_usage(last, ask, reported)), 0, reported);
            }
            api => {
                let mut finish = if cut { "length" } else { "stop" };
                if let Some(name) = called_tool(ask).filter(|_| api == Api::Chat) {
                    finish = "tool_calls";
                    let call = json!({ "index": 0, "id": TOOL_ID, "type": "function",
                        "function": { "name": name, "arguments": "" } });
                    let parts =
                        tool_parts().map(|part| json!({ "index": 0, "function": { "arguments": part } }));
                    for call in std::iter::once(call).chain(parts) {
                        let delta = json!({ "tool_calls": [call] });
                        self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }]), 0);
                    }
                }
                for choice in 0..ask.choices {
                    let choice = if api == Api::Completions {
                        json!([{ "index": choice, "text": "", "logprobs": null, "finish_reason": finish }])
                    } else {
                        json!([{ "index": choice, "delta": {}, "finish_reason": finish }])
                    };
                    self.chunk(&choice, 0);
                }
                if (ask.include_usage || ask.behaviour.usage == UsageReport::Always)
                    && let Some(usage) = usage_value(ask, reported)
                {
                    let mut value = self.chunk_value(&json!([]));
                    value["usage"] = usage;
                    self.event(None, &render(&value), 0, reported);
                }
                if ask.behaviour.done {
                    self.event(None, "[DONE]", 0, None);
                }
            }
        }
    }
}

/// The arguments of a tool call in two pieces.
fn tool_parts() -> [String; 2] {
    let mut first = tool_arguments().to_string();
    let second = first.split_off(first.len() / 2);
    [first, second]
}

/// The event with which a stream fails inside (`fail=mid`).
pub(super) fn error_event(ask: &Ask) -> Vec<u8> {
    let message = "the mock was asked to fail";
    let mut stream = Stream::new(ask);
    match ask.api {
        Api::Messages => stream.named(
            json!({ "type": "error", "error": { "type": "overloaded_error", "message": message } }),
            0,
            None,
        ),
        Api::Gemini => {
            let value = json!({ "error": { "code": 503, "message": message, "status": "UNAVAILABLE" } });
            stream.event(None, &render(&value), 0, None);
        }
        Api::Responses => {
            stream.named(
                json!({ "type": "error", "code": "server_error", "message": message, "param": null }),
                0,
                None,
            );
        }
        _ => {
            let value = json!({ "error": { "message": message, "type": "server_error", "param": null, "code": null } });
            stream.event(None, &render(&value), 0, None);
        }
    }
    stream.pieces.pop().map_or_else(Vec::new, |piece| piece.bytes)
}
