//! Requests that an operator has ended: the channel's, or everybody's, that began before an instant of the configuration.

use tollgate_shm::Class;

use super::context::Context;
use super::reply::{ErrorKind, Reply};
use super::worker::WorkerState;

/// How clients tell such an end from others.
pub(super) const CODE: &str = "ended_by_operator";
pub(super) const MESSAGE: &str = "the operator of the gateway has ended this request";

/// Whether the configuration that is in force now wants the request to end. What began after the newest order, as nearly
/// all requests have, is told from one comparison.
pub(crate) fn is_to_end(w: &WorkerState, context: &Context) -> bool {
    let Some(generation) = w.generation() else {
        return false;
    };
    if !generation.began_by(context.start_ms, generation.newest_end_ms) {
        return false;
    }
    let snapshot = generation.snapshot();
    let own = context
        .channel_view()
        .and_then(|channel| snapshot.channel_by_code(channel.code().as_bytes()))
        .map_or(0, |channel| channel.end_before_ms());
    generation.began_by(context.start_ms, own.max(snapshot.settings().end_before_ms()))
}

/// The answer to a request that is ended before it has one.
pub(super) fn reply(context: &mut Context) -> Reply {
    let kind = ErrorKind::Unavailable;
    let reply = Reply::error(context.api, 503, kind, CODE, MESSAGE, context.request_id());
    context.refuse(Class::Rule, reply)
}
