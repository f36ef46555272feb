//! Channels and their keys, in place.

use super::{
    ChannelRecord, Code, KeyRecord, LimitList, PermissionRecord, RouteRecord, RouteView, Section, Snapshot,
    flag,
};
use crate::{documents::AbortPolicy, glob::glob_matches};
use std::fmt;
use zerocopy::little_endian::U32;

/// A channel.
#[derive(Clone, Copy)]
pub struct ChannelView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a ChannelRecord,
    index: u32,
}

impl<'a> ChannelView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a ChannelRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The channel code.
    pub fn code(&self) -> &'a str {
        self.snapshot.text(self.record.code)
    }

    /// [`crate::hash_name`] of the code: the same in every generation.
    pub fn code_hash(&self) -> u64 {
        self.record.hash.get()
    }

    /// What people call it; may be empty.
    pub fn name(&self) -> &'a str {
        self.snapshot.text(self.record.name)
    }

    /// Whether it may call at all.
    pub fn enabled(&self) -> bool {
        self.record.flags & flag::ENABLED != 0
    }

    /// Whether the code alone identifies it.
    pub fn trusted(&self) -> bool {
        self.record.flags & flag::TRUSTED != 0
    }

    /// Its keys.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = KeyView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        snapshot
            .run(Section::Keys, self.record.keys)
            .iter()
            .map(move |record| KeyView::new(snapshot, record))
    }

    /// Its key of that digest. Whether that is enabled and not expired is the caller's question.
    pub fn find_key(&self, sha256: &[u8; 32]) -> Option<KeyView<'a>> {
        self.keys().find(|key| key.sha256() == sha256)
    }

    /// Whether it may call the model of that (canonical) name: allowed by a glob, denied by none.
    pub fn permits(&self, model: &str) -> bool {
        let permissions = self.snapshot.records::<PermissionRecord>(Section::Permissions);
        let Some(permission) = usize::try_from(self.record.permission.get())
            .ok()
            .and_then(|at| permissions.get(at))
        else {
            return false;
        };
        self.snapshot
            .texts(permission.allow)
            .any(|pattern| glob_matches(pattern, model))
            && !self
                .snapshot
                .texts(permission.deny)
                .any(|pattern| glob_matches(pattern, model))
    }

    /// Its own limits, inherited ones among them.
    pub fn limits(&self) -> LimitList<'a> {
        LimitList::new(self.snapshot, self.record.limits, self.record.hash.get())
    }

    /// Its own routes, inherited ones after its own.
    pub fn routes(&self) -> impl Iterator<Item = RouteView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        let routes = snapshot.records::<RouteRecord>(Section::Routes);
        snapshot
            .run::<U32>(Section::RouteLists, self.record.routes)
            .iter()
            .filter_map(move |id| {
                let record = routes.get(usize::try_from(id.get()).ok()?)?;
                Some(RouteView::new(snapshot, record, id.get()))
            })
    }

    /// The route that counts for the model of that (canonical) name.
    pub fn route(&self, model: &str) -> Option<RouteView<'a>> {
        self.routes().find(|route| route.applies_to(model))
    }

    /// What a client that goes away is charged.
    pub fn abort_policy(&self) -> AbortPolicy {
        AbortPolicy::from_code(self.record.abort_policy, AbortPolicy::Counted)
    }

    /// Answers to its requests that began before are to end, Unix milliseconds; 0 for none.
    pub fn end_before_ms(&self) -> u64 {
        self.record.end_before_ms.get()
    }

    /// Free labels.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        self.snapshot.texts(self.record.tags)
    }
}

impl fmt::Debug for ChannelView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelView")
            .field("index", &self.index)
            .field("code", &self.code())
            .finish_non_exhaustive()
    }
}

/// A key of a channel.
#[derive(Clone, Copy)]
pub struct KeyView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a KeyRecord,
}

impl<'a> KeyView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a KeyRecord) -> Self {
        Self { snapshot, record }
    }

    /// What logs call it.
    pub fn id(&self) -> &'a str {
        self.snapshot.text(self.record.id)
    }

    /// SHA-256 of the key.
    pub fn sha256(&self) -> &'a [u8; 32] {
        &self.record.sha256
    }

    /// From when on it is refused, in Unix seconds; 0 never.
    pub fn expires_unix(&self) -> i64 {
        self.record.expires_unix.get()
    }

    /// Whether it is not switched off.
    pub fn enabled(&self) -> bool {
        self.record.flags & flag::ENABLED != 0
    }

    /// Whether it is enabled and not expired at `now_unix` (seconds).
    pub fn valid_at(&self, now_unix: i64) -> bool {
        self.enabled() && (self.expires_unix() == 0 || now_unix < self.expires_unix())
    }
}

impl fmt::Debug for KeyView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyView")
            .field("id", &self.id())
            .finish_non_exhaustive()
    }
}
