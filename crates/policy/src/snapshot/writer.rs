//! Builds a snapshot: collects records, shares equal texts, lists and limits, lays the sections out.

use super::{
    AddressRecord, ChannelRecord, CountingRecord, CredentialRecord, DeploymentRecord, ExperimentRecord,
    Extent, FORMAT, GroupRecord, Header, KeyRecord, LimitRecord, MAGIC, ModelNameRecord, ModelRecord,
    PatternRecord, PermissionRecord, PriceRecord, ProviderRecord, ProxyRecord, Range, RouteRecord,
    RouteWeightRecord, SECTIONS, Section, SettingsRecord, Slot, SourceRecord, Str, StretchRecord, UNCHECKED,
    intern::{Interner, hash_of},
    key_hash, slot_of,
};
use crate::identity::{checksum, hash_name};
use zerocopy::{Immutable, IntoBytes, little_endian::U32};

/// More of something than 32 bits count.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// A list of records in which equal runs are stored once.
struct Shared<T> {
    records: Vec<T>,
    ranges: Vec<Range>,
    known: Interner,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            ranges: Vec::new(),
            known: Interner::default(),
        }
    }
}

impl<T: Copy + PartialEq + IntoBytes + Immutable> Shared<T> {
    fn run(&mut self, items: &[T]) -> Result<Range, TooLarge> {
        let same = |at: usize| {
            self.ranges
                .get(at)
                .is_some_and(|range| super::run(&self.records, *range) == items)
        };
        match self.known.find(hash_of(items), same) {
            Ok(at) => usize::try_from(at)
                .ok()
                .and_then(|at| self.ranges.get(at))
                .copied()
                .ok_or(TooLarge),
            Err(key) => {
                let range = range(self.records.len(), items.len())?;
                self.known.add(key, small(self.ranges.len())?);
                self.records.extend_from_slice(items);
                self.ranges.push(range);
                Ok(range)
            }
        }
    }
}

/// A list of records in which equal ones are stored once.
struct Unique<T> {
    records: Vec<T>,
    known: Interner,
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            known: Interner::default(),
        }
    }
}

impl<T: PartialEq + IntoBytes + Immutable> Unique<T> {
    fn id(&mut self, record: T) -> Result<U32, TooLarge> {
        let same = |at: usize| self.records.get(at) == Some(&record);
        match self.known.find(hash_of(&record), same) {
            Ok(id) => Ok(id.into()),
            Err(key) => {
                let id = small(self.records.len())?;
                self.known.add(key, id);
                self.records.push(record);
                Ok(id.into())
            }
        }
    }
}

pub(crate) fn small(number: usize) -> Result<u32, TooLarge> {
    u32::try_from(number).map_err(|_| TooLarge)
}

fn range(start: usize, len: usize) -> Result<Range, TooLarge> {
    // The end must fit as well.
    small(start.checked_add(len).ok_or(TooLarge)?)?;
    Ok(Range {
        start: small(start)?.into(),
        len: small(len)?.into(),
    })
}

#[derive(Default)]
pub(crate) struct Writer {
    pub settings: Option<SettingsRecord>,
    pub sources: Vec<SourceRecord>,
    pub proxies: Vec<ProxyRecord>,
    pub channels: Vec<ChannelRecord>,
    pub keys: Vec<KeyRecord>,
    pub models: Vec<ModelRecord>,
    pub model_names: Vec<ModelNameRecord>,
    pub countings: Vec<CountingRecord>,
    pub patterns: Vec<PatternRecord>,
    pub prices: Vec<PriceRecord>,
    pub costs: Vec<PriceRecord>,
    pub deployments: Vec<DeploymentRecord>,
    pub experiments: Vec<ExperimentRecord>,
    pub groups: Vec<GroupRecord>,
    pub stretches: Vec<StretchRecord>,
    pub providers: Vec<ProviderRecord>,
    pub credentials: Vec<CredentialRecord>,
    pub addresses: Vec<AddressRecord>,
    pub rules: Vec<u8>,
    limits: Unique<LimitRecord>,
    limit_lists: Shared<U32>,
    permissions: Unique<PermissionRecord>,
    routes: Unique<RouteRecord>,
    route_lists: Shared<U32>,
    route_weights: Shared<RouteWeightRecord>,
    string_lists: Shared<Str>,
    strings: Shared<u8>,
    blobs: Shared<u8>,
}

impl Writer {
    pub fn text(&mut self, text: &str) -> Result<Str, TooLarge> {
        let Range { start, len } = self.strings.run(text.as_bytes())?;
        Ok(Str { offset: start, len })
    }

    pub fn blob(&mut self, bytes: &[u8]) -> Result<Str, TooLarge> {
        let Range { start, len } = self.blobs.run(bytes)?;
        Ok(Str { offset: start, len })
    }

    pub fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t str>) -> Result<Range, TooLarge> {
        let places = texts
            .into_iter()
            .map(|text| self.text(text))
            .collect::<Result<Vec<_>, _>>()?;
        self.string_lists.run(&places)
    }

    pub fn limit(&mut self, record: LimitRecord) -> Result<U32, TooLarge> {
        self.limits.id(record)
    }

    pub fn limit_list(&mut self, ids: &[U32]) -> Result<Range, TooLarge> {
        self.limit_lists.run(ids)
    }

    pub fn permission(&mut self, record: PermissionRecord) -> Result<U32, TooLarge> {
        self.permissions.id(record)
    }

    pub fn route(&mut self, record: RouteRecord) -> Result<U32, TooLarge> {
        self.routes.id(record)
    }

    pub fn route_list(&mut self, ids: &[U32]) -> Result<Range, TooLarge> {
        self.route_lists.run(ids)
    }

    pub fn route_weights(&mut self, weights: &[RouteWeightRecord]) -> Result<Range, TooLarge> {
        self.route_weights.run(weights)
    }

    /// The run that the last `len` records of a list of `total` make.
    pub fn tail(total: usize, len: usize) -> Result<Range, TooLarge> {
        range(total.saturating_sub(len), len)
    }

    /// Lays everything out.
    pub fn finish(self, generation: u64, created_unix_ms: u64) -> Result<Vec<u8>, TooLarge> {
        let channel_index = table(self.channels.iter().map(|channel| channel.hash.get()))?;
        let key_index = table(self.keys.iter().map(|key| key_hash(&key.sha256)))?;
        let model_index = {
            let strings = &self.strings.records;
            table(
                self.model_names
                    .iter()
                    .map(|name| hash_name(super::bytes_at(strings, name.name))),
            )?
        };
        let deployment_index = {
            let strings = &self.strings.records;
            table(
                self.deployments
                    .iter()
                    .map(|deployment| hash_name(super::bytes_at(strings, deployment.id))),
            )?
        };
        let settings: Vec<SettingsRecord> = self.settings.into_iter().collect();
        let sections: [(Section, &[u8]); SECTIONS] = [
            (Section::Settings, bytes_of(&settings)),
            (Section::Sources, bytes_of(&self.sources)),
            (Section::Proxies, bytes_of(&self.proxies)),
            (Section::Channels, bytes_of(&self.channels)),
            (Section::ChannelIndex, bytes_of(&channel_index)),
            (Section::Keys, bytes_of(&self.keys)),
            (Section::KeyIndex, bytes_of(&key_index)),
            (Section::Models, bytes_of(&self.models)),
            (Section::ModelNames, bytes_of(&self.model_names)),
            (Section::ModelIndex, bytes_of(&model_index)),
            (Section::Countings, bytes_of(&self.countings)),
            (Section::Patterns, bytes_of(&self.patterns)),
            (Section::Prices, bytes_of(&self.prices)),
            (Section::Costs, bytes_of(&self.costs)),
            (Section::Deployments, bytes_of(&self.deployments)),
            (Section::DeploymentIndex, bytes_of(&deployment_index)),
            (Section::Experiments, bytes_of(&self.experiments)),
            (Section::Groups, bytes_of(&self.groups)),
            (Section::Stretches, bytes_of(&self.stretches)),
            (Section::Providers, bytes_of(&self.providers)),
            (Section::Credentials, bytes_of(&self.credentials)),
            (Section::Addresses, bytes_of(&self.addresses)),
            (Section::Limits, bytes_of(&self.limits.records)),
            (Section::LimitLists, bytes_of(&self.limit_lists.records)),
            (Section::Permissions, bytes_of(&self.permissions.records)),
            (Section::Routes, bytes_of(&self.routes.records)),
            (Section::RouteLists, bytes_of(&self.route_lists.records)),
            (Section::RouteWeights, bytes_of(&self.route_weights.records)),
            (Section::StringLists, bytes_of(&self.string_lists.records)),
            (Section::Rules, &self.rules),
            (Section::Blobs, &self.blobs.records),
            (Section::Strings, &self.strings.records),
        ];
        let mut extents = [Extent {
            offset: 0.into(),
            len: 0.into(),
        }; SECTIONS];
        let mut end = size_of::<Header>();
        for ((section, content), extent) in sections.iter().zip(&mut extents) {
            debug_assert!(
                sections
                    .get(*section as usize)
                    .is_some_and(|(at, _)| at == section)
            );
            *extent = Extent {
                offset: (end as u64).into(),
                len: (content.len() as u64).into(),
            };
            end += content.len();
        }
        let mut header = Header {
            magic: MAGIC,
            checksum: 0.into(),
            format: FORMAT.into(),
            sections: small(SECTIONS)?.into(),
            generation: generation.into(),
            created_unix_ms: created_unix_ms.into(),
            total_len: (end as u64).into(),
            rules_checksum: checksum(&self.rules).into(),
            extents,
        };
        let mut buffer = Vec::with_capacity(end);
        buffer.extend_from_slice(header.as_bytes());
        for (_, content) in sections {
            buffer.extend_from_slice(content);
        }
        header.checksum = checksum(buffer.get(UNCHECKED..).unwrap_or_default()).into();
        if let (Some(start), Some(head)) = (buffer.get_mut(..UNCHECKED), header.as_bytes().get(..UNCHECKED)) {
            start.copy_from_slice(head);
        }
        Ok(buffer)
    }
}

fn bytes_of<T: IntoBytes + Immutable>(records: &[T]) -> &[u8] {
    records.as_bytes()
}

/// An open-addressing table at most half full.
fn table(hashes: impl ExactSizeIterator<Item = u64>) -> Result<Vec<Slot>, TooLarge> {
    let size = hashes
        .len()
        .checked_mul(2)
        .and_then(usize::checked_next_power_of_two)
        .ok_or(TooLarge)?;
    // `slot_of` addresses 2^32 slots.
    small(size)?;
    let mask = size.max(1) - 1;
    let mut slots = vec![
        Slot {
            tag: 0.into(),
            entry: 0.into()
        };
        size.max(1)
    ];
    for (index, hash) in hashes.enumerate() {
        let (tag, mut at) = slot_of(hash, mask);
        loop {
            match slots.get_mut(at) {
                Some(slot) if slot.entry.get() == 0 => {
                    *slot = Slot {
                        tag: tag.into(),
                        entry: (small(index)? + 1).into(),
                    };
                    break;
                }
                Some(_) => at = (at + 1) & mask,
                None => return Err(TooLarge),
            }
        }
    }
    Ok(slots)
}
