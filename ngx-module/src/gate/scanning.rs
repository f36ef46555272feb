//! A body is scanned: at once, or in slices if that takes longer than others should wait. What is found goes to the decider.

use std::rc::Rc;
use std::time::Instant;

use tollgate_meter::Api;
use tollgate_meter::request::{RequestFacts, ScanError, scan, scan_pausing};
use tollgate_policy::snapshot::SourceView;
use tollgate_shm::Class;

use super::decide::{Decider, Step};
use super::identify;
use super::reply::{ErrorKind, Reply};
use super::sliced::{self, Slice, Sliced};
use super::slices::AT_ONCE;
use super::worker::{Generation, Rules};
use crate::ngx::request::Request;

/// The scan of a long body.
pub(super) struct Scanning {
    scan: Sliced<Scanned>,
    /// Bytes of the body.
    length: usize,
    /// The body, where it does not lie in memory in one piece.
    copy: Option<Vec<u8>>,
    scanned: Option<Scanned>,
}

/// What a scan has found, and whether the body is one to be used.
type Scanned = (RequestFacts, Result<(), ScanError>);

impl Scanning {
    /// Scans on until about `until`; true at the end.
    pub fn slice(&mut self, body: &[u8], until: Instant) -> bool {
        let body = self.copy.as_deref().unwrap_or(body);
        match self.scan.run(body, until) {
            Slice::NotYet => false,
            Slice::Done(scanned) => {
                self.scanned = Some(scanned);
                true
            }
            Slice::Lost => true,
        }
    }
}

impl Decider<'_> {
    /// Scans a body, and says how long it is; `None` for one that is scanned in slices.
    pub(super) fn begin_scan(
        &mut self,
        request: &Request,
        generation: &Rc<Generation>,
    ) -> Result<Option<usize>, Reply> {
        // Which model is asked for is not known yet, but what no model takes is not even read.
        let (length, most) = (request.body_len(), generation.largest_body);
        if length > most && !self.context.api.takes_any_body() {
            let text = format!("the body has {length} bytes, no model takes more than {most}");
            return Err(self.fail(Class::Client, 413, ErrorKind::TooLarge, "body_too_large", &text));
        }
        if length <= sliced::AT_ONCE as u64 {
            return self.scan_body(request, &generation.rules).map(Some);
        }
        let Ok(body) = request.body(self.scratch) else {
            return Err(self.unreadable());
        };
        if !is_scanned(self.context.api, body) {
            self.facts.clear();
            return Ok(Some(body.len()));
        }
        let (api, rules, mut facts) = (
            self.context.api,
            Rc::clone(&generation.rules),
            std::mem::take(self.facts),
        );
        let scan = Sliced::new(body, move |body, pause| {
            let result = scan_pausing(body, api, &rules.paths, &mut facts, pause);
            (facts, result)
        });
        let Some(scan) = scan else {
            return Err(self.out_of_memory());
        };
        let in_place = request.body_in_place().is_some();
        let mut scanning = Scanning {
            scan,
            length: body.len(),
            copy: (!in_place).then(|| std::mem::take(self.scratch)),
            scanned: None,
        };
        let body = request.body_in_place().unwrap_or_default();
        if scanning.slice(body, Instant::now() + AT_ONCE) {
            return self.scanned(scanning).map(Some);
        }
        self.keep(Step::Scan(scanning));
        Ok(None)
    }

    /// Takes over what a scan in slices has found.
    pub(super) fn scanned(&mut self, scanning: Scanning) -> Result<usize, Reply> {
        let Some((facts, result)) = scanning.scanned else {
            return Err(self.fail(
                Class::Internal,
                500,
                ErrorKind::Internal,
                "internal",
                "the body could not be scanned",
            ));
        };
        *self.facts = facts;
        result.map_err(|e| self.invalid_body(&e))?;
        self.note_stream();
        Ok(scanning.length)
    }

    fn unreadable(&mut self) -> Reply {
        self.fail(
            Class::Internal,
            500,
            ErrorKind::Internal,
            "body_unreadable",
            "the request body cannot be read back",
        )
    }

    fn invalid_body(&mut self, error: &ScanError) -> Reply {
        self.fail(
            Class::Client,
            400,
            ErrorKind::InvalidRequest,
            "invalid_body",
            &error.to_string(),
        )
    }

    fn note_stream(&mut self) {
        self.context.stream = self.facts.stream
            || self
                .context
                .gemini
                .as_deref()
                .is_some_and(|call| call.is_stream());
    }

    /// Scans a body in one go.
    pub(super) fn scan_body(&mut self, request: &Request, rules: &Rules) -> Result<usize, Reply> {
        let Ok(body) = request.body(self.scratch) else {
            return Err(self.unreadable());
        };
        self.facts.clear();
        let len = body.len();
        if !is_scanned(self.context.api, body) {
            return Ok(len);
        }
        if let Err(error) = scan(body, self.context.api, &rules.paths, self.facts) {
            return Err(self.invalid_body(&error));
        }
        self.note_stream();
        Ok(len)
    }

    pub(super) fn channel_from_body(&mut self, request: &Request) -> Result<(), Reply> {
        let generation = Rc::clone(&self.context.generation);
        for source in generation.snapshot().settings().channel_sources() {
            let SourceView::Body(path) = source else { continue };
            let Ok(path) = tollgate_meter::request::FieldPath::parse(path) else {
                continue;
            };
            let mut facts = RequestFacts::new();
            let Ok(body) = request.body(self.scratch) else {
                continue;
            };
            if scan(body, self.context.api, &[path], &mut facts).is_err() {
                continue;
            }
            if let Some(Some(tollgate_meter::request::Scalar::String(code))) = facts.wanted.first() {
                self.context.channel =
                    Some(identify::from_body(self.context, request, code).inspect_err(|_| {
                        self.context.class = Class::Client;
                    })?);
                return Ok(());
            }
        }
        self.context.class = Class::Client;
        Err(identify::no_channel(self.context))
    }
}

/// Whether a body is scanned: other paths may carry anything (files, nothing at all), of which only what looks like a JSON
/// object is.
fn is_scanned(api: Api, body: &[u8]) -> bool {
    !api.takes_any_body() || body.trim_ascii_start().first() == Some(&b'{')
}
