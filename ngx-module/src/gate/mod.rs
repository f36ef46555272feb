//! The gate: what happens to a request, in terms of snapshot, region and meter. No raw nginx in here; the shell in
//! `crate::ngx` calls these functions from nginx's hooks.
//!
//! | step | file |
//! | --- | --- |
//! | who calls (headers only) | identify |
//! | what is wanted, is it allowed, does it fit | decide, terms |
//! | which model, version, deployment or group | find |
//! | which deployment, with which credentials | route, pool, session, upstream |
//! | one attempt, and what it says of the deployment | attempt |
//! | how is it counted | counting |
//! | what the gateway answers itself | answers, models |
//! | Gemini's API, whose models stand in the path | gemini |
//! | what comes back | response |
//! | a deployment of another protocol | translate |
//! | what it cost | settle |
//! | whether clients should come at all | health |
//! | requests that an operator ends | stop |
//! | counts that take longer than others should wait | slices |

mod answers;
mod attempt;
mod context;
mod counting;
mod credentials;
mod decide;
mod facts;
mod find;
mod gemini;
mod health;
mod identify;
mod memo;
mod models;
mod pool;
mod reply;
mod response;
mod route;
mod scanning;
mod session;
mod settle;
mod sliced;
mod slices;
mod stop;
mod strip;
mod terms;
mod translate;
mod upstream;
mod worker;

pub(crate) use attempt::{
    AnswerHead, HeadVerdict, Outcome, TargetTls, attempt_begins, attempt_ended, connection_kept,
    connection_left, head_arrived, outdated, session_resumed, target,
};
pub(crate) use context::{Context, Field, Stage, Variable};
pub(crate) use credentials::MasterKey;
pub(crate) use decide::{Verdict, count_request, decide, hold_ticket};
pub(crate) use gemini::wants_array;
pub(crate) use health::health;
pub(crate) use identify::begin;
pub(crate) use reply::Reply;
pub(crate) use response::{
    Mode, Piece, Plan, broken_stream, failure, is_overdue, keep_whole, last_event, note_unread,
    response_started, watch_json, watch_sse,
};
pub(crate) use route::next_deployment;
pub(crate) use session::session_cookie;
pub(crate) use settle::{count_unsettled, settle};
pub(crate) use slices::turn;
pub(crate) use stop::is_to_end;
pub(crate) use translate::whole_answer;
pub(crate) use upstream::Trust;
pub(crate) use worker::WorkerState;
