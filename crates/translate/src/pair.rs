//! Which protocols there are and which pairs can be translated.

/// A wire protocol of model providers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// OpenAI `POST /v1/chat/completions`, and the many servers compatible with it.
    OpenAiChat,
    /// Anthropic `POST /v1/messages`.
    AnthropicMessages,
    /// Gemini `POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent`.
    Gemini,
}

/// A client's protocol and a deployment's protocol between which there is a translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pair {
    /// The client speaks OpenAI chat completions, the deployment Anthropic messages.
    OpenAiToAnthropic,
    /// The client speaks OpenAI chat completions, the deployment Gemini generateContent.
    OpenAiToGemini,
    /// The client speaks Anthropic messages, the deployment OpenAI chat completions.
    AnthropicToOpenAi,
    /// The client speaks Anthropic messages, the deployment Gemini generateContent.
    AnthropicToGemini,
}

impl Pair {
    /// Every pair there is.
    pub const ALL: [Self; 4] = [
        Self::OpenAiToAnthropic,
        Self::OpenAiToGemini,
        Self::AnthropicToOpenAi,
        Self::AnthropicToGemini,
    ];

    /// The pair of two protocols; `None` if they are the same or nothing translates between them.
    #[must_use]
    pub const fn new(client: Protocol, upstream: Protocol) -> Option<Self> {
        match (client, upstream) {
            (Protocol::OpenAiChat, Protocol::AnthropicMessages) => Some(Self::OpenAiToAnthropic),
            (Protocol::OpenAiChat, Protocol::Gemini) => Some(Self::OpenAiToGemini),
            (Protocol::AnthropicMessages, Protocol::OpenAiChat) => Some(Self::AnthropicToOpenAi),
            (Protocol::AnthropicMessages, Protocol::Gemini) => Some(Self::AnthropicToGemini),
            _ => None,
        }
    }

    /// What the client speaks.
    #[must_use]
    pub const fn client(self) -> Protocol {
        match self {
            Self::OpenAiToAnthropic | Self::OpenAiToGemini => Protocol::OpenAiChat,
            Self::AnthropicToOpenAi | Self::AnthropicToGemini => Protocol::AnthropicMessages,
        }
    }

    /// What the deployment speaks.
    #[must_use]
    pub const fn upstream(self) -> Protocol {
        match self {
            Self::OpenAiToAnthropic => Protocol::AnthropicMessages,
            Self::OpenAiToGemini | Self::AnthropicToGemini => Protocol::Gemini,
            Self::AnthropicToOpenAi => Protocol::OpenAiChat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Pair, Protocol};

    #[test]
    fn a_pair_is_made_of_its_two_protocols_and_no_other_exists() {
        let all = [
            Protocol::OpenAiChat,
            Protocol::AnthropicMessages,
            Protocol::Gemini,
        ];
        let mut found = Vec::new();
        for client in all {
            for upstream in all {
                if let Some(pair) = Pair::new(client, upstream) {
                    assert_eq!((pair.client(), pair.upstream()), (client, upstream));
                    found.push(pair);
                }
            }
        }
        assert_eq!(found, Pair::ALL);
    }
}
