//! Which wire protocol a request speaks.

/// The API of a request, read off its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Api {
    /// OpenAI `POST /v1/chat/completions`.
    ChatCompletions,
    /// OpenAI `POST /v1/completions`.
    Completions,
    /// OpenAI `POST /v1/responses`.
    Responses,
    /// OpenAI `POST /v1/embeddings`.
    Embeddings,
    /// Anthropic `POST /v1/messages`.
    AnthropicMessages,
    /// Anthropic `POST /v1/messages/count_tokens`.
    AnthropicCountTokens,
    /// OpenAI `GET /v1/models` and `GET /v1/models/{model}`.
    Models,
    /// The same in Anthropic's shape. The path does not tell them apart: whoever sees the header lines does.
    AnthropicModels,
    /// Gemini `POST …/models/{model}:generateContent` and `:streamGenerateContent`.
    GeminiGenerate,
    /// Gemini `POST …/models/{model}:countTokens`.
    GeminiCountTokens,
    /// Gemini `GET /v1beta/models` and `GET /v1beta/models/{model}`.
    GeminiModels,
    /// Any other path of Gemini's API; the model may stand in it.
    GeminiOther,
    /// Anything else: `model` and `stream` are read if the body has them, all strings count as input.
    Other,
}

impl Api {
    /// Classifies a request path by its end, so that any prefix a location adds does not matter. A query string
    /// and trailing slashes are ignored.
    #[must_use]
    pub fn from_path(path: &str) -> Self {
        let path = path
            .split(['?', '#'])
            .next()
            .unwrap_or(path)
            .trim_end_matches('/');
        if path.ends_with("/chat/completions") {
            Self::ChatCompletions
        } else if path.ends_with("/completions") {
            Self::Completions
        } else if path.ends_with("/responses") {
            Self::Responses
        } else if path.ends_with("/embeddings") {
            Self::Embeddings
        } else if path.ends_with("/v1/messages/count_tokens") {
            Self::AnthropicCountTokens
        } else if path.ends_with("/v1/messages") {
            Self::AnthropicMessages
        } else if let Some(call) = GeminiCall::parse(path) {
            call.api()
        } else if is_gemini_path(path) {
            match path.rsplit_once("/models") {
                Some((_, "")) => Self::GeminiModels,
                Some((_, rest)) if rest.starts_with('/') => Self::GeminiModels,
                _ => Self::GeminiOther,
            }
        } else if path.ends_with("/models") || path.contains("/v1/models/") {
            Self::Models
        } else {
            Self::Other
        }
    }

    /// Whether errors and streams have Anthropic's shape.
    #[must_use]
    pub const fn is_anthropic(self) -> bool {
        matches!(
            self,
            Self::AnthropicMessages | Self::AnthropicCountTokens | Self::AnthropicModels
        )
    }

    /// Whether errors and streams have Google's shape, and an API key may stand in the query.
    #[must_use]
    pub const fn is_gemini(self) -> bool {
        matches!(
            self,
            Self::GeminiGenerate | Self::GeminiCountTokens | Self::GeminiModels | Self::GeminiOther
        )
    }

    /// Whether an answer has output tokens, so that they can be bounded and have to be counted.
    #[must_use]
    pub const fn produces(self) -> bool {
        matches!(
            self,
            Self::ChatCompletions
                | Self::Completions
                | Self::Responses
                | Self::AnthropicMessages
                | Self::GeminiGenerate
        )
    }

    /// Whether the request only asks how many tokens it has.
    #[must_use]
    pub const fn counts_only(self) -> bool {
        matches!(self, Self::AnthropicCountTokens | Self::GeminiCountTokens)
    }

    /// Whether the request asks which models there are, if it is a `GET`.
    #[must_use]
    pub const fn lists_models(self) -> bool {
        matches!(self, Self::Models | Self::AnthropicModels | Self::GeminiModels)
    }

    /// Whether the body can be anything, a file or nothing at all.
    #[must_use]
    pub const fn takes_any_body(self) -> bool {
        self.lists_models() || matches!(self, Self::GeminiOther | Self::Other)
    }
}

/// Whether a segment of the path is one of the versions that only Gemini's API has.
fn is_gemini_path(path: &str) -> bool {
    path.split('/')
        .any(|segment| segment == "v1beta" || segment == "v1alpha")
}

/// A call of Gemini's API that names its model in the path: `/v1beta/models/{model}:{method}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GeminiCall<'p> {
    /// `v1beta`, or what else stands before `models`.
    pub version: &'p str,
    /// The model's name.
    pub model: &'p str,
    /// `generateContent` and its like.
    pub method: &'p str,
}

impl<'p> GeminiCall<'p> {
    /// Takes a path without its query apart; `None` if it is no such call.
    #[must_use]
    pub fn parse(path: &'p str) -> Option<Self> {
        let (rest, method) = path.rsplit_once(':')?;
        // A name may have slashes and colons of its own: the collection is the first one after the version.
        let (before, model) = rest.split_once("/models/")?;
        let version = before.rsplit('/').next()?;
        let is_method = match version {
            // OpenAI's API has this version too, and models with colons in their names.
            "v1" => ["Content", "Tokens", "Contents"]
                .iter()
                .any(|end| method.ends_with(end)),
            _ => version.starts_with('v') && method.bytes().all(|byte| byte.is_ascii_alphabetic()),
        };
        (is_method && !model.is_empty() && !method.is_empty()).then_some(Self {
            version,
            model,
            method,
        })
    }

    /// Which API it is.
    #[must_use]
    pub fn api(&self) -> Api {
        match self.method {
            "generateContent" | "streamGenerateContent" => Api::GeminiGenerate,
            "countTokens" => Api::GeminiCountTokens,
            _ => Api::GeminiOther,
        }
    }

    /// Whether it asks for a stream.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        self.method == "streamGenerateContent"
    }
}

#[cfg(test)]
mod tests {
    use super::{Api, GeminiCall};

    #[test]
    fn path_decides_by_its_end() {
        for (path, api) in [
            ("/v1/chat/completions", Api::ChatCompletions),
            (
                "/openai/deployments/x/chat/completions?api-version=1",
                Api::ChatCompletions,
            ),
            ("/v1/completions/", Api::Completions),
            ("/v1/responses", Api::Responses),
            ("/v1/responses/resp_1", Api::Other),
            ("/v1/embeddings", Api::Embeddings),
            ("/anthropic/v1/messages", Api::AnthropicMessages),
            ("/v1/messages/count_tokens", Api::AnthropicCountTokens),
            ("/messages", Api::Other),
            ("/v1/models", Api::Models),
            ("/v1/models/org/name", Api::Models),
            ("/v1/fine_tuning/jobs", Api::Other),
            (
                "/v1beta/models/gemini-2.5-flash:generateContent",
                Api::GeminiGenerate,
            ),
            (
                "/x/v1/models/a:b:streamGenerateContent?alt=sse",
                Api::GeminiGenerate,
            ),
            ("/v1beta/models/m:countTokens", Api::GeminiCountTokens),
            ("/v1beta/models/m:embedContent", Api::GeminiOther),
            ("/v1beta/models", Api::GeminiModels),
            ("/v1beta/models/m", Api::GeminiModels),
            ("/upload/v1beta/files", Api::GeminiOther),
            ("/v1/models/ft:gpt-4o:org", Api::Models),
            ("", Api::Other),
        ] {
            assert_eq!(Api::from_path(path), api, "{path}");
        }
    }

    #[test]
    fn a_call_of_gemini_names_version_model_and_method() {
        let call = GeminiCall::parse("/gw/v1beta/models/org/m:x:streamGenerateContent").unwrap();
        assert_eq!(
            (call.version, call.model, call.method, call.is_stream()),
            ("v1beta", "org/m:x", "streamGenerateContent", true)
        );
        for path in [
            "/v1beta/models/m",
            "/v1beta/models/:generateContent",
            "/v1beta/models/m:",
            "/models/m:generateContent",
            "m:generateContent",
        ] {
            assert_eq!(GeminiCall::parse(path), None, "{path}");
        }
    }
}
