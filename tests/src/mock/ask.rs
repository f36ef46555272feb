//! What a request asks of the mock: the API, the model, whether to stream, how many tokens.

use super::behaviour::Behaviour;
use super::words;
use serde_json::Value;

/// The API shape, told by the end of the path so that any prefix may stand before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Api {
    /// `/chat/completions`
    Chat,
    /// `/completions`
    Completions,
    /// `/responses`
    Responses,
    /// `/embeddings`
    Embeddings,
    /// `/models`
    Models,
    /// `/messages`
    Messages,
    /// `/messages/count_tokens`
    CountTokens,
    /// `/models/{model}:generateContent`, `:streamGenerateContent?alt=sse`
    Gemini,
}

impl Api {
    /// The API of a path without its query.
    pub fn from_path(path: &str) -> Option<Self> {
        [
            ("/chat/completions", Self::Chat),
            ("/completions", Self::Completions),
            ("/responses", Self::Responses),
            ("/embeddings", Self::Embeddings),
            ("/models", Self::Models),
            ("/messages", Self::Messages),
            ("/messages/count_tokens", Self::CountTokens),
            (":generateContent", Self::Gemini),
            (":streamGenerateContent", Self::Gemini),
        ]
        .into_iter()
        .find_map(|(end, api)| path.ends_with(end).then_some(api))
    }

    /// Whether errors have Anthropic's shape.
    pub fn is_anthropic(self) -> bool {
        matches!(self, Self::Messages | Self::CountTokens)
    }
}

/// A request, understood.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The API.
    pub api: Api,
    /// The model as asked for, options included: it is echoed in the answer.
    pub model: String,
    /// How to answer.
    pub behaviour: Behaviour,
    /// Whether the answer is a stream.
    pub stream: bool,
    /// `stream_options.include_usage`
    pub include_usage: bool,
    /// The smallest of the request's spellings of `max_tokens`.
    pub max_tokens: Option<u64>,
    /// Choices.
    pub choices: u64,
    /// Input tokens, counted or told by the option.
    pub prompt_tokens: u64,
    /// Texts to embed.
    pub inputs: u64,
    /// The first tool that is offered.
    pub tool: Option<String>,
}

/// The model's name without its options: what statistics are kept by.
pub fn base_model(model: &str) -> &str {
    model.split_once('?').map_or(model, |(base, _)| base)
}

impl Ask {
    /// Reads a request; `default_tokens` holds where it does not say how many to produce.
    ///
    /// # Errors
    /// Says what a real endpoint would answer 400 for, or which option is wrong.
    pub fn read(
        path: &str,
        header: Option<&str>,
        body: &[u8],
        default_tokens: u64,
    ) -> Result<Self, (Option<Api>, String)> {
        let api = Api::from_path(path).ok_or_else(|| (None, format!("no such path: {path}")))?;
        Self::read_body(api, path, header, body, default_tokens).map_err(|message| (Some(api), message))
    }

    fn read_body(
        api: Api,
        path: &str,
        header: Option<&str>,
        body: &[u8],
        default_tokens: u64,
    ) -> Result<Self, String> {
        let body: Value = match api {
            Api::Models => Value::Null,
            _ => serde_json::from_slice(body).map_err(|error| format!("body: {error}"))?,
        };
        let model = match api {
            Api::Gemini => model_in_path(path),
            _ => body["model"].as_str().unwrap_or("mock").to_owned(),
        };
        let mut behaviour = Behaviour {
            tokens: default_tokens,
            ..Behaviour::default()
        };
        if let Some((_, query)) = model.split_once('?') {
            behaviour.apply_query(query)?;
        }
        if let Some(options) = body.get("mock") {
            behaviour.apply_json(options)?;
        }
        if let Some(options) = header {
            behaviour.apply_header(options)?;
        }
        let max_tokens = ["max_tokens", "max_completion_tokens", "max_output_tokens"]
            .iter()
            .filter_map(|key| body[*key].as_u64())
            .chain(body["generationConfig"]["maxOutputTokens"].as_u64())
            .chain(body["generationConfig"]["max_output_tokens"].as_u64())
            .min();
        if api == Api::Messages && max_tokens.is_none() {
            return Err("max_tokens: Field required".to_owned());
        }
        let prompt_tokens = behaviour
            .prompt_tokens
            .unwrap_or_else(|| prompt_tokens(api, &body));
        Ok(Self {
            api,
            behaviour,
            stream: body["stream"].as_bool().unwrap_or(false) || path.ends_with(":streamGenerateContent"),
            include_usage: body["stream_options"]["include_usage"].as_bool().unwrap_or(false),
            max_tokens,
            choices: body["n"].as_u64().unwrap_or(1).max(1),
            prompt_tokens,
            inputs: match &body["input"] {
                Value::Array(list) if !list.first().is_some_and(Value::is_number) => list.len() as u64,
                _ => 1,
            },
            tool: [
                "/tools/0/function/name",
                "/tools/0/name",
                "/tools/0/functionDeclarations/0/name",
            ]
            .iter()
            .find_map(|pointer| body.pointer(pointer)?.as_str().map(str::to_owned)),
            model,
        })
    }

    /// Completion tokens of each choice and whether they were cut by the request's maximum.
    pub fn completion(&self) -> (u64, bool) {
        match self.max_tokens {
            Some(max) if max < self.behaviour.tokens && !self.behaviour.ignore_max => (max, true),
            _ => (self.behaviour.tokens, false),
        }
    }
}

/// Input tokens by OpenAI's cookbook formula: 3 for each message, the tokens of its role, name (1 more) and texts, and
/// 3 for the answer's start. Anthropic: 6 instead of the last 3, and `system` without overhead, like the Responses
/// API's `instructions`. Texts alone for completions and embeddings; token ids count as themselves.
///
/// The gateway counts by the same published formulas; a test compares the two.
fn prompt_tokens(api: Api, body: &Value) -> u64 {
    match api {
        Api::Chat => 3 + messages(&body["messages"]),
        Api::Messages | Api::CountTokens => 6 + content_of(&body["system"]) + messages(&body["messages"]),
        Api::Responses => {
            let input = match &body["input"] {
                Value::String(text) => 3 + words::count(text),
                list => messages(list),
            };
            3 + content_of(&body["instructions"]) + input
        }
        Api::Completions => texts(&body["prompt"]),
        Api::Embeddings => texts(&body["input"]),
        Api::Models => 0,
        Api::Gemini => {
            let parts = |content: &Value| content_of(&content["parts"]);
            let contents = body["contents"].as_array();
            parts(&body["systemInstruction"]) + contents.map_or(0, |list| list.iter().map(parts).sum())
        }
    }
}

/// The percent-decoded model of a Gemini path.
fn model_in_path(path: &str) -> String {
    let last = path.rsplit('/').next().unwrap_or_default();
    let encoded = last.split(':').next().unwrap_or_default();
    let mut pieces = encoded.split('%');
    let mut model = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).unwrap_or((piece, ""));
        model.push(char::from(u8::from_str_radix(digits, 16).unwrap_or(b'?')));
        model.push_str(rest);
    }
    model
}

fn messages(list: &Value) -> u64 {
    let Some(list) = list.as_array() else { return 0 };
    list.iter()
        .map(|message| {
            let name = message["name"].as_str().map_or(0, |name| words::count(name) + 1);
            3 + message["role"].as_str().map_or(0, words::count) + content_of(&message["content"]) + name
        })
        .sum()
}

fn content_of(value: &Value) -> u64 {
    match value {
        Value::String(text) => words::count(text),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part["text"].as_str())
            .map(words::count)
            .sum(),
        _ => 0,
    }
}

fn texts(value: &Value) -> u64 {
    match value {
        Value::String(text) => words::count(text),
        Value::Number(_) => 1,
        Value::Array(list) => list.iter().map(texts).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ask(path: &str, body: &Value) -> Ask {
        Ask::read(path, None, body.to_string().as_bytes(), 16).unwrap()
    }

    #[test]
    fn chat_counts_by_the_cookbook() {
        let body = json!({ "model": "mock", "messages": [
            { "role": "system", "content": " hello hello" },
            { "role": "user", "name": " river", "content": [{ "type": "text", "text": " the water" }] } ] });
        // (3 + 1 + 2) + (3 + 1 + 2 + 1 + 1) + 3
        assert_eq!(ask("/v1/chat/completions", &body).prompt_tokens, 17);
    }

    #[test]
    fn other_apis_count_their_texts() {
        let completions = json!({ "prompt": [" hello the", [1, 2, 3]] });
        assert_eq!(ask("/v1/completions", &completions).prompt_tokens, 5);
        let embeddings = json!({ "input": [" hello", " the water"] });
        let embeddings = ask("/prefix/v1/embeddings", &embeddings);
        assert_eq!((embeddings.prompt_tokens, embeddings.inputs), (3, 2));
        let messages = json!({ "max_tokens": 5, "system": " hello", "messages": [{ "role": "user", "content": " hello" }] });
        assert_eq!(ask("/v1/messages", &messages).prompt_tokens, 6 + 1 + 3 + 1 + 1);
    }

    /// tiktoken's own tables behind the gateway's walk over the body.
    struct Reference;

    impl tollgate_meter::TokenCounter for Reference {
        fn count(&mut self, text: &str) -> u64 {
            words::count(text)
        }
    }

    #[test]
    fn the_gateway_counts_the_same_input() {
        let talk = json!([{ "role": "system", "content": "Be brief." },
            { "role": "user", "name": "Ada", "content": [{ "type": "text", "text": "水有多冷? Wie kalt?" },
                { "type": "text", "text": "<|endoftext|>  \n\n\tint x = 42;" }] },
            { "role": "assistant", "content": "It's cold." }, { "role": "user", "content": "\"Why\"? \u{1f30a}" }]);
        for (path, body) in [
            ("/v1/chat/completions", json!({ "messages": talk })),
            ("/v1/completions", json!({ "prompt": "Wie kalt ist das Wasser?" })),
            ("/v1/completions", json!({ "prompt": ["a b c", "d"] })),
            ("/v1/completions", json!({ "prompt": [[1, 2, 3], [4]] })),
            ("/v1/embeddings", json!({ "input": ["a b c", "水"] })),
            (
                "/v1/responses",
                json!({ "input": "How cold?", "instructions": "Be brief." }),
            ),
            ("/v1/responses", json!({ "input": talk })),
            (
                "/v1/messages",
                json!({ "max_tokens": 9, "system": "Be brief.", "messages": talk }),
            ),
        ] {
            let text = body.to_string();
            let api = tollgate_meter::Api::from_path(path);
            let mut formula = tollgate_meter::request::Formula::default();
            if api.is_anthropic() {
                formula.parts[tollgate_meter::request::Part::Request as usize] = 6;
            }
            let counted =
                tollgate_meter::request::count_input(text.as_bytes(), api, &formula, &mut Reference).unwrap();
            assert_eq!(ask(path, &body).prompt_tokens, counted.tokens, "{path} {text}");
        }
    }

    #[test]
    fn the_smallest_maximum_wins() {
        let body = json!({ "model": "mock?tokens=50", "max_tokens": 20, "max_completion_tokens": 10 });
        assert_eq!(ask("/v1/chat/completions", &body).completion(), (10, true));
        let body = json!({ "model": "mock?tokens=50&ignore_max=yes", "max_tokens": 20 });
        assert_eq!(ask("/v1/chat/completions", &body).completion(), (50, false));
    }

    #[test]
    fn wrong_requests_are_told() {
        assert!(Ask::read("/v1/nothing", None, b"{}", 16).unwrap_err().0.is_none());
        assert!(
            Ask::read("/v1/chat/completions", None, b"{", 16)
                .unwrap_err()
                .1
                .contains("body")
        );
        assert!(
            Ask::read("/v1/messages", None, b"{}", 16)
                .unwrap_err()
                .1
                .contains("max_tokens")
        );
        assert!(
            Ask::read("/v1/completions", Some("no=such"), b"{}", 16)
                .unwrap_err()
                .1
                .contains("unknown option")
        );
    }
}
