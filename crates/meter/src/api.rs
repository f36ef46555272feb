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
        } else {
            Self::Other
        }
    }

    /// Whether errors and streams have Anthropic's shape.
    #[must_use]
    pub const fn is_anthropic(self) -> bool {
        matches!(self, Self::AnthropicMessages | Self::AnthropicCountTokens)
    }
}

#[cfg(test)]
mod tests {
    use super::Api;

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
            ("/v1/models", Api::Other),
            ("", Api::Other),
        ] {
            assert_eq!(Api::from_path(path), api, "{path}");
        }
    }
}
