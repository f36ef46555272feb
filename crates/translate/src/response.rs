//! Whole answers: read from the upstream's protocol, written in the client's.

use crate::answer::{Fault, Piece};
use crate::error::{error_body, read_error};
use crate::json::Json;
use crate::request::Ask;
use crate::{Pair, Protocol, anthropic, gemini, openai};

/// What an answer needs to know beyond the upstream's bytes.
#[derive(Debug, Clone, Default)]
pub struct Context {
    /// The gateway's id of the request: answers and tool calls without an id of their own get one made of it.
    pub id: String,
    /// The model's name that the client shall see; `None`: the upstream's.
    pub model: Option<String>,
    /// Unix time in seconds, for OpenAI's `created`.
    pub created: u64,
    /// What the client asked for, from [`crate::Translated::ask`].
    pub ask: Ask,
}

/// A whole answer for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status: the upstream's, except that an unreadable success becomes 502 and Anthropic's 529 and OpenAI's 503
    /// become each other.
    pub status: u16,
    /// A JSON body.
    pub body: Vec<u8>,
}

/// The beginning of every id of a tool call that the gateway made up because the upstream gives none.
pub(crate) const MADE_UP_TOOL_ID: &str = "call_tg_";

impl Context {
    /// A number that differs from request to request (FNV-1a of its id), so that made-up ids do not meet again in one
    /// conversation; short, because OpenAI allows 40 characters.
    pub(crate) fn seed(&self) -> u64 {
        self.id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    }

    pub(crate) fn tool_id(&self, slot: usize) -> String {
        format!("{MADE_UP_TOOL_ID}{:016x}_{slot}", self.seed())
    }
}

/// Translates a whole JSON answer, an error as well as a success.
///
/// A body that is no answer in the upstream's protocol becomes an error in the client's, with status 502.
#[must_use]
pub fn translate_response(pair: Pair, status: u16, body: &[u8], context: &Context) -> Answer {
    if !(200..300).contains(&status) {
        return error(pair, status, &read_error(pair.upstream(), Some(status), body));
    }
    match success(pair, body, context) {
        Ok(body) => Answer { status, body },
        Err(fault) => error(pair, 502, &fault),
    }
}

fn error(pair: Pair, status: u16, fault: &Fault) -> Answer {
    let status = match (pair.client(), status) {
        (Protocol::OpenAiChat, 529) => 503,
        (Protocol::AnthropicMessages, 503) => 529,
        // Redirects and the like never come from a model.
        (_, 0..400) => 502,
        _ => status,
    };
    Answer {
        status,
        body: error_body(
            pair.client(),
            fault.kind,
            fault.code.as_deref(),
            &fault.message,
            None,
        ),
    }
}

fn success(pair: Pair, body: &[u8], context: &Context) -> Result<Vec<u8>, Fault> {
    let json = Json::parse(body).map_err(|_| Fault::malformed("the deployment's answer is not JSON"))?;
    match pair.client() {
        Protocol::AnthropicMessages => {
            let mut writer = anthropic::WholeWriter::new(context);
            read(pair.upstream(), json, &mut |piece| writer.piece(piece))?;
            Ok(writer.finish())
        }
        Protocol::OpenAiChat | Protocol::Gemini => {
            let mut writer = openai::WholeWriter::new(context);
            read(pair.upstream(), json, &mut |piece| writer.piece(piece))?;
            Ok(writer.finish())
        }
    }
}

fn read<'a>(upstream: Protocol, json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    match upstream {
        Protocol::OpenAiChat => openai::read_whole(json, emit),
        Protocol::AnthropicMessages => anthropic::read_whole(json, emit),
        Protocol::Gemini => gemini::read_whole(json, emit),
    }
}
