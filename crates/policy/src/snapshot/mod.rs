//! A compiled configuration: one immutable buffer, read in place by workers, looked up by hash, without a pass over it.

mod channel;
mod codes;
mod counting;
mod experiment;
mod intern;
mod limit;
mod model;
mod price;
mod records;
mod route;
mod settings;
pub(crate) mod writer;

pub use channel::{ChannelView, KeyView};
pub use codes::{AffinityView, Scope, SourceView};
pub(crate) use codes::{Code, ModelMatch};
pub use counting::CountingView;
pub(crate) use counting::images_code;
pub use experiment::{ExperimentView, GroupView};
pub use limit::{LimitIter, LimitList, LimitView};
pub use model::{
    ConnectionsView, CredentialView, DeploymentView, ModelView, ProviderView, RoutingView, SessionView,
    TimeoutsMs,
};
pub use price::{PriceView, Rates};
pub(crate) use records::*;
pub use route::RouteView;
pub(crate) use settings::policy_code;
pub use settings::{RegionSizes, SettingsView};

use crate::identity::{checksum, hash_name};
use std::fmt;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, little_endian::U32};

/// Why a buffer is no snapshot that this version can read. Whoever wrote or copied the file is at fault; reading it again
/// does not help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// Shorter than its header, or than its header says.
    Truncated,
    /// Something else than a snapshot.
    NotASnapshot,
    /// Written by another version.
    Format {
        /// The format found.
        found: u32,
        /// The format that this version reads.
        expected: u32,
    },
    /// A section lies outside the buffer or holds a part of a record.
    Section,
    /// A text is not UTF-8.
    Text,
    /// The content is not what was written.
    Checksum,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::Truncated => f.write_str("snapshot is truncated"),
            SnapshotError::NotASnapshot => f.write_str("not a snapshot"),
            SnapshotError::Format { found, expected } => {
                write!(
                    f,
                    "snapshot has format {found}, this version reads format {expected}"
                )
            }
            SnapshotError::Section => f.write_str("snapshot has a section out of bounds"),
            SnapshotError::Text => f.write_str("snapshot has a text that is not UTF-8"),
            SnapshotError::Checksum => f.write_str("snapshot's checksum does not match its content"),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// A snapshot in a buffer. Copies are references.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    /// The string section: known to be UTF-8, so that no access has to look again.
    strings: &'a str,
}

impl fmt::Debug for Snapshot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("generation", &self.generation())
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

/// The header's bytes before the part that the checksum covers.
pub(crate) const UNCHECKED: usize = 16;

impl<'a> Snapshot<'a> {
    /// Takes `bytes` as a snapshot. Looks at the header, at the sections' bounds and whether the texts are UTF-8;
    /// [`Snapshot::verify`] looks at the content. Bytes after the snapshot's end are ignored.
    ///
    /// # Errors
    /// If the buffer is no snapshot of this format.
    pub fn open(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        if bytes.get(..MAGIC.len()).is_some_and(|magic| magic != MAGIC) {
            return Err(SnapshotError::NotASnapshot);
        }
        let (header, _) = Header::ref_from_prefix(bytes).map_err(|_| SnapshotError::Truncated)?;
        if header.format.get() != FORMAT {
            return Err(SnapshotError::Format {
                found: header.format.get(),
                expected: FORMAT,
            });
        }
        let len = usize::try_from(header.total_len.get()).map_err(|_| SnapshotError::Truncated)?;
        let bytes = bytes.get(..len).ok_or(SnapshotError::Truncated)?;
        if usize::try_from(header.sections.get()) != Ok(SECTIONS) || len < size_of::<Header>() {
            return Err(SnapshotError::Section);
        }
        let mut snapshot = Self {
            bytes,
            header,
            strings: "",
        };
        for extent in &header.extents {
            snapshot.extent(extent).ok_or(SnapshotError::Section)?;
        }
        let whole = snapshot.is_whole::<SettingsRecord>(Section::Settings)
            && snapshot.is_whole::<SourceRecord>(Section::Sources)
            && snapshot.is_whole::<ProxyRecord>(Section::Proxies)
            && snapshot.is_whole::<ChannelRecord>(Section::Channels)
            && snapshot.is_whole::<Slot>(Section::ChannelIndex)
            && snapshot.is_whole::<KeyRecord>(Section::Keys)
            && snapshot.is_whole::<Slot>(Section::KeyIndex)
            && snapshot.is_whole::<ModelRecord>(Section::Models)
            && snapshot.is_whole::<ModelNameRecord>(Section::ModelNames)
            && snapshot.is_whole::<Slot>(Section::ModelIndex)
            && snapshot.is_whole::<CountingRecord>(Section::Countings)
            && snapshot.is_whole::<PatternRecord>(Section::Patterns)
            && snapshot.is_whole::<PriceRecord>(Section::Prices)
            && snapshot.is_whole::<PriceRecord>(Section::Costs)
            && snapshot.is_whole::<DeploymentRecord>(Section::Deployments)
            && snapshot.is_whole::<Slot>(Section::DeploymentIndex)
            && snapshot.is_whole::<ExperimentRecord>(Section::Experiments)
            && snapshot.is_whole::<GroupRecord>(Section::Groups)
            && snapshot.is_whole::<StretchRecord>(Section::Stretches)
            && snapshot.is_whole::<ProviderRecord>(Section::Providers)
            && snapshot.is_whole::<CredentialRecord>(Section::Credentials)
            && snapshot.is_whole::<AddressRecord>(Section::Addresses)
            && snapshot.is_whole::<LimitRecord>(Section::Limits)
            && snapshot.is_whole::<zerocopy::little_endian::U32>(Section::LimitLists)
            && snapshot.is_whole::<PermissionRecord>(Section::Permissions)
            && snapshot.is_whole::<RouteRecord>(Section::Routes)
            && snapshot.is_whole::<U32>(Section::RouteLists)
            && snapshot.is_whole::<RouteWeightRecord>(Section::RouteWeights)
            && snapshot.is_whole::<Str>(Section::StringLists)
            && snapshot.records::<SettingsRecord>(Section::Settings).len() == 1;
        if !whole {
            return Err(SnapshotError::Section);
        }
        snapshot.strings =
            std::str::from_utf8(snapshot.section(Section::Strings)).map_err(|_| SnapshotError::Text)?;
        Ok(snapshot)
    }

    /// Compares the content with its checksum; reads all of it (about 10 GB/s).
    ///
    /// # Errors
    /// [`SnapshotError::Checksum`] if they differ.
    pub fn verify(&self) -> Result<(), SnapshotError> {
        let content = self.bytes.get(UNCHECKED..).unwrap_or_default();
        if checksum(content) == self.header.checksum.get() {
            Ok(())
        } else {
            Err(SnapshotError::Checksum)
        }
    }

    /// Number of the configuration, as given to `compile`.
    pub fn generation(&self) -> u64 {
        self.header.generation.get()
    }

    /// When it was compiled, in Unix milliseconds, as given to `compile`.
    pub fn created_unix_ms(&self) -> u64 {
        self.header.created_unix_ms.get()
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// What workers need of the settings.
    pub fn settings(&self) -> SettingsView<'a> {
        SettingsView::new(*self)
    }

    /// The channel of that code.
    pub fn channel_by_code(&self, code: &[u8]) -> Option<ChannelView<'a>> {
        let channels = self.records::<ChannelRecord>(Section::Channels);
        let strings = self.strings.as_bytes();
        let index = self.probe(Section::ChannelIndex, hash_name(code), |index| {
            channels
                .get(index)
                .is_some_and(|channel| bytes_at(strings, channel.code) == code)
        })?;
        self.channel(index)
    }

    /// The channel that has a key of that digest. Whether the key is enabled and not expired is the caller's question.
    pub fn channel_by_key(&self, sha256: &[u8; 32]) -> Option<(ChannelView<'a>, KeyView<'a>)> {
        let keys = self.records::<KeyRecord>(Section::Keys);
        let index = self.probe(Section::KeyIndex, key_hash(sha256), |index| {
            keys.get(index).is_some_and(|key| key.sha256 == *sha256)
        })?;
        let key = keys.get(usize::try_from(index).ok()?)?;
        Some((self.channel(key.channel.get())?, KeyView::new(*self, key)))
    }

    /// The channel at a position. Positions differ between generations.
    pub fn channel(&self, index: u32) -> Option<ChannelView<'a>> {
        let record = self
            .records(Section::Channels)
            .get(usize::try_from(index).ok()?)?;
        Some(ChannelView::new(*self, record, index))
    }

    /// All channels.
    pub fn channels(&self) -> impl ExactSizeIterator<Item = ChannelView<'a>> + use<'a> {
        let snapshot = *self;
        numbered(self.records(Section::Channels), move |record, index| {
            ChannelView::new(snapshot, record, index)
        })
    }

    /// The model of that name or alias.
    pub fn model(&self, name: &[u8]) -> Option<ModelView<'a>> {
        let names = self.records::<ModelNameRecord>(Section::ModelNames);
        let strings = self.strings.as_bytes();
        let index = self.probe(Section::ModelIndex, hash_name(name), |index| {
            names
                .get(index)
                .is_some_and(|record| bytes_at(strings, record.name) == name)
        })?;
        self.model_at(names.get(usize::try_from(index).ok()?)?.model.get())
    }

    /// The model at a position.
    pub fn model_at(&self, index: u32) -> Option<ModelView<'a>> {
        let record = self.records(Section::Models).get(usize::try_from(index).ok()?)?;
        Some(ModelView::new(*self, record, index))
    }

    /// All models.
    pub fn models(&self) -> impl ExactSizeIterator<Item = ModelView<'a>> + use<'a> {
        let snapshot = *self;
        numbered(self.records(Section::Models), move |record, index| {
            ModelView::new(snapshot, record, index)
        })
    }

    /// The deployment at a position.
    pub fn deployment(&self, index: u32) -> Option<DeploymentView<'a>> {
        let record = self
            .records(Section::Deployments)
            .get(usize::try_from(index).ok()?)?;
        Some(DeploymentView::new(*self, record, index))
    }

    /// The deployment of that id.
    pub fn deployment_by_id(&self, id: &str) -> Option<DeploymentView<'a>> {
        let deployments = self.records::<DeploymentRecord>(Section::Deployments);
        let strings = self.strings.as_bytes();
        let index = self.probe(Section::DeploymentIndex, hash_name(id.as_bytes()), |index| {
            deployments
                .get(index)
                .is_some_and(|deployment| bytes_at(strings, deployment.id) == id.as_bytes())
        })?;
        self.deployment(index)
    }

    /// The route at a position.
    pub fn route(&self, index: u32) -> Option<RouteView<'a>> {
        let record = self.records(Section::Routes).get(usize::try_from(index).ok()?)?;
        Some(RouteView::new(*self, record, index))
    }

    /// All experiments.
    pub fn experiments(&self) -> impl ExactSizeIterator<Item = ExperimentView<'a>> + use<'a> {
        let snapshot = *self;
        self.records(Section::Experiments)
            .iter()
            .map(move |record| ExperimentView::new(snapshot, record))
    }

    /// The group of an experiment at a position.
    pub fn group(&self, index: u32) -> Option<GroupView<'a>> {
        let record = self.records(Section::Groups).get(usize::try_from(index).ok()?)?;
        Some(GroupView::new(*self, record, index))
    }

    /// All groups of all experiments.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = GroupView<'a>> + use<'a> {
        let snapshot = *self;
        numbered(self.records(Section::Groups), move |record, index| {
            GroupView::new(snapshot, record, index)
        })
    }

    /// All deployments.
    pub fn deployments(&self) -> impl ExactSizeIterator<Item = DeploymentView<'a>> + use<'a> {
        let snapshot = *self;
        numbered(self.records(Section::Deployments), move |record, index| {
            DeploymentView::new(snapshot, record, index)
        })
    }

    /// The provider at a position.
    pub fn provider(&self, index: u32) -> Option<ProviderView<'a>> {
        let record = self
            .records(Section::Providers)
            .get(usize::try_from(index).ok()?)?;
        Some(ProviderView::new(*self, record, index))
    }

    /// All providers.
    pub fn providers(&self) -> impl ExactSizeIterator<Item = ProviderView<'a>> + use<'a> {
        let snapshot = *self;
        numbered(self.records(Section::Providers), move |record, index| {
            ProviderView::new(snapshot, record, index)
        })
    }

    /// Limits over everything.
    pub fn global_limits(&self) -> LimitList<'a> {
        let range = self
            .records::<SettingsRecord>(Section::Settings)
            .first()
            .map(|settings| settings.limits);
        LimitList::new(
            *self,
            range.unwrap_or(Range {
                start: 0.into(),
                len: 0.into(),
            }),
            0,
        )
    }

    /// The rules, for [`crate::RuleSet::decode`].
    pub fn rules_blob(&self) -> &'a [u8] {
        self.section(Section::Rules)
    }

    /// Changes if and only if the rules do: a decoded [`crate::RuleSet`] may be kept as long as this stays.
    pub fn rules_checksum(&self) -> u64 {
        self.header.rules_checksum.get()
    }

    fn extent(&self, extent: &Extent) -> Option<&'a [u8]> {
        let offset = usize::try_from(extent.offset.get()).ok()?;
        let len = usize::try_from(extent.len.get()).ok()?;
        self.bytes.get(offset..offset.checked_add(len)?)
    }

    fn section(&self, section: Section) -> &'a [u8] {
        self.header
            .extents
            .get(section as usize)
            .and_then(|extent| self.extent(extent))
            .unwrap_or_default()
    }

    fn is_whole<T>(&self, section: Section) -> bool {
        self.section(section).len().is_multiple_of(size_of::<T>())
    }

    fn records<T: FromBytes + KnownLayout + Immutable + Unaligned>(&self, section: Section) -> &'a [T] {
        <[T]>::ref_from_bytes(self.section(section)).unwrap_or(&[])
    }

    fn run<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        section: Section,
        range: Range,
    ) -> &'a [T] {
        run(self.records(section), range)
    }

    fn text(&self, place: Str) -> &'a str {
        text_at(self.strings, place)
    }

    fn blob(&self, place: Str) -> &'a [u8] {
        bytes_at(self.section(Section::Blobs), place)
    }

    fn texts(&self, range: Range) -> impl ExactSizeIterator<Item = &'a str> + use<'a> {
        let strings = self.strings;
        self.run::<Str>(Section::StringLists, range)
            .iter()
            .map(move |place| text_at(strings, *place))
    }

    fn probe(&self, table: Section, hash: u64, is_it: impl Fn(usize) -> bool) -> Option<u32> {
        let slots = self.records::<Slot>(table);
        let mask = slots
            .len()
            .checked_sub(1)
            .filter(|_| slots.len().is_power_of_two())?;
        let (tag, mut at) = slot_of(hash, mask);
        for _ in 0..slots.len() {
            let slot = slots.get(at)?;
            let index = slot.entry.get().checked_sub(1)?;
            if slot.tag.get() == tag && usize::try_from(index).is_ok_and(&is_it) {
                return Some(index);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

/// Tag and first slot of a hash, in a table of `mask + 1` slots.
#[expect(
    clippy::cast_possible_truncation,
    reason = "both halves of the hash are meant"
)]
pub(crate) fn slot_of(hash: u64, mask: usize) -> (u32, usize) {
    ((hash >> 32) as u32, hash as u32 as usize & mask)
}

/// A digest is a hash already, but documents may hold made-up ones that differ in their last digits only.
pub(crate) fn key_hash(sha256: &[u8; 32]) -> u64 {
    hash_name(sha256)
}

fn bytes_at(strings: &[u8], place: Str) -> &[u8] {
    let (Ok(offset), Ok(len)) = (
        usize::try_from(place.offset.get()),
        usize::try_from(place.len.get()),
    ) else {
        return &[];
    };
    offset
        .checked_add(len)
        .and_then(|end| strings.get(offset..end))
        .unwrap_or_default()
}

fn text_at(strings: &str, place: Str) -> &str {
    let (start, len) = (place.offset.get() as usize, place.len.get() as usize);
    start
        .checked_add(len)
        .and_then(|end| strings.get(start..end))
        .unwrap_or_default()
}

fn run<T>(records: &[T], range: Range) -> &[T] {
    let (Ok(start), Ok(len)) = (
        usize::try_from(range.start.get()),
        usize::try_from(range.len.get()),
    ) else {
        return &[];
    };
    start
        .checked_add(len)
        .and_then(|end| records.get(start..end))
        .unwrap_or_default()
}

fn numbered<'a, T, V>(records: &'a [T], view: impl Fn(&'a T, u32) -> V) -> impl ExactSizeIterator<Item = V> {
    records
        .iter()
        .enumerate()
        .map(move |(index, record)| view(record, u32::try_from(index).unwrap_or(u32::MAX)))
}
