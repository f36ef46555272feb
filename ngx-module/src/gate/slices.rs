//! Exact counts of inputs, made in slices: no request holds the event loop for long because it has to be counted.
//!
//! Two kinds wait for their turn: requests near a limit, whose upper bound is not good enough and which are not admitted
//! before they are counted (`crate::ngx::counting` keeps them), and finished requests whose upstream has not said what
//! they used ([`Unsettled`]). A turn of the event loop gives them a time, not a number of bytes: the worst text takes ten
//! times as long as prose, and a slow machine ten times as long as a fast one.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tollgate_meter::Api;
use tollgate_meter::counting::ModelCounter;
use tollgate_meter::request::{Formula, InputSteps, ScanError, count_input};

use super::settle::Unsettled;
use super::sliced::{self, Slice, Sliced};

/// Bytes counted between two looks at the clock: some 50 µs of the worst text.
const STEP: usize = 1024;
/// Bodies up to this size are counted at once: 0.1 ms of the worst text.
const SMALL: usize = 2 * 1024;
/// Bodies above this size wait for a turn of their own before they are walked: the turn that they came in has scanned them.
const WALKED_LATER: usize = 64 * 1024;
/// How long a body is counted in the turn that it came in.
pub(super) const AT_ONCE: Duration = Duration::from_micros(200);
/// Bytes of bodies that finished requests may keep for counting. What does not fit is charged by its upper bound.
const MOST_KEPT: usize = 64 << 20;

/// How long a turn of the event loop counts if so many are waiting: more the more wait, so that they do not pile up.
pub(crate) fn turn(waiting: usize) -> Duration {
    Duration::from_micros(100) * u32::try_from(waiting).unwrap_or(u32::MAX).clamp(1, 7)
}

/// One body's count, as far as it has come.
pub(crate) struct SlicedCount {
    api: Api,
    /// The walk over a long body that notes what is to be counted.
    walk: Option<Sliced<Result<InputSteps, ScanError>>>,
    steps: Option<InputSteps>,
    /// The body, where it does not stay in memory in one piece.
    copy: Option<Vec<u8>>,
}

/// What came of a slice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Counted {
    /// It takes longer.
    NotYet,
    /// The input's tokens.
    Tokens(u64),
    /// Nothing says how the model is counted, or the body is not what it was.
    Impossible,
}

impl SlicedCount {
    /// Begins to count; what is quickly counted is counted at once.
    pub fn begin(
        api: Api,
        body: &[u8],
        formula: &Formula,
        counter: &mut ModelCounter<'_>,
    ) -> (SlicedCount, Counted) {
        let mut sliced = SlicedCount {
            api,
            walk: None,
            steps: None,
            copy: None,
        };
        let counted = if body.len() <= SMALL {
            count_input(body, api, formula, counter)
                .map_or(Counted::Impossible, |count| Counted::Tokens(count.tokens))
        } else if body.len() > WALKED_LATER {
            Counted::NotYet
        } else {
            sliced.slice(body, formula, counter, Instant::now() + AT_ONCE)
        };
        (sliced, counted)
    }

    /// Keeps the body.
    pub fn keep(&mut self, body: Vec<u8>) {
        self.copy = Some(body);
    }

    /// Bytes that it keeps.
    pub fn kept(&self) -> usize {
        self.copy.as_ref().map_or(0, Vec::len)
    }

    /// Counts until about `until`, in the body that was kept or in `body`.
    pub fn slice(
        &mut self,
        body: &[u8],
        formula: &Formula,
        counter: &mut ModelCounter<'_>,
        until: Instant,
    ) -> Counted {
        let body = self.copy.as_deref().unwrap_or(body);
        let steps = match &mut self.steps {
            Some(steps) => steps,
            None => match walked(&mut self.walk, body, self.api, formula, until) {
                Slice::NotYet => return Counted::NotYet,
                Slice::Done(Ok(steps)) => {
                    self.walk = None;
                    self.steps.insert(steps)
                }
                Slice::Done(Err(_)) | Slice::Lost => return Counted::Impossible,
            },
        };
        loop {
            if let Some(count) = steps.step(body, counter, STEP) {
                return Counted::Tokens(count.tokens);
            }
            if Instant::now() >= until {
                return Counted::NotYet;
            }
        }
    }
}

/// Walks a body, a long one in slices.
fn walked(
    walk: &mut Option<Sliced<Result<InputSteps, ScanError>>>,
    body: &[u8],
    api: Api,
    formula: &Formula,
    until: Instant,
) -> Slice<Result<InputSteps, ScanError>> {
    if walk.is_none() && body.len() > sliced::AT_ONCE {
        let formula = *formula;
        *walk = Sliced::new(body, move |body, pause| {
            InputSteps::begin_pausing(body, api, &formula, pause)
        });
    }
    match walk {
        Some(walk) => walk.run(body, until),
        None => Slice::Done(InputSteps::begin(body, api, formula)),
    }
}

/// Finished requests that are counted before they are settled.
#[derive(Default)]
pub(crate) struct UnsettledQueue {
    waiting: VecDeque<Box<Unsettled>>,
    bytes: usize,
}

impl UnsettledQueue {
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a body of that size may wait.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= MOST_KEPT
    }

    pub fn push(&mut self, unsettled: Box<Unsettled>) {
        self.bytes += unsettled.bytes();
        self.waiting.push_back(unsettled);
    }

    pub fn pop(&mut self) -> Option<Box<Unsettled>> {
        let unsettled = self.waiting.pop_front()?;
        self.bytes -= unsettled.bytes();
        Some(unsettled)
    }
}
