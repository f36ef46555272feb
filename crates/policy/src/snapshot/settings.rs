//! Settings that workers need, in place.

use super::{ProxyRecord, Range, Section, SettingsRecord, Snapshot, SourceRecord, SourceView};
use crate::cidr::Cidr;
use crate::documents::LeasePolicy;
use std::net::IpAddr;

/// The policy as [`SettingsView::lease_policy`] reads it.
pub(crate) fn policy_code(policy: LeasePolicy) -> u32 {
    match policy {
        LeasePolicy::Share => 1,
        LeasePolicy::Open => 2,
        LeasePolicy::Closed => 3,
    }
}

/// Sizes of the shared-memory region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionSizes {
    /// Counters of limits.
    pub counters: u32,
    /// Requests in flight.
    pub inflight: u32,
    /// Events that the daemon has not read yet.
    pub ring: u32,
    /// Rows of usage per channel × model.
    pub usage: u32,
    /// Worker processes at once.
    pub workers: u32,
}

/// The settings.
#[derive(Clone, Copy, Debug)]
pub struct SettingsView<'a> {
    snapshot: Snapshot<'a>,
    record: Option<&'a SettingsRecord>,
}

impl<'a> SettingsView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>) -> Self {
        Self {
            snapshot,
            record: snapshot.records(Section::Settings).first(),
        }
    }

    fn range(&self, of: impl Fn(&SettingsRecord) -> Range) -> Range {
        self.record.map_or(
            Range {
                start: 0.into(),
                len: 0.into(),
            },
            of,
        )
    }

    /// Where a request says which channel it is, in order.
    pub fn channel_sources(&self) -> impl Iterator<Item = SourceView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        snapshot
            .run::<SourceRecord>(Section::Sources, self.range(|settings| settings.sources))
            .iter()
            .filter_map(move |source| SourceView::from_code(source.kind.get(), snapshot.text(source.name)))
    }

    /// Proxies whose `X-Forwarded-For` is believed.
    pub fn trusted_proxies(&self) -> impl ExactSizeIterator<Item = Cidr> + use<'a> {
        self.snapshot
            .run::<ProxyRecord>(Section::Proxies, self.range(|settings| settings.proxies))
            .iter()
            .map(|proxy| Cidr::from_parts(proxy.network, proxy.bits))
    }

    /// Whether `address` is a proxy whose `X-Forwarded-For` is believed.
    pub fn is_trusted_proxy(&self, address: IpAddr) -> bool {
        self.trusted_proxies().any(|range| range.contains(address))
    }

    /// The least that an output reservation is clamped to, in tokens.
    pub fn min_output_reservation(&self) -> u64 {
        self.record
            .map_or(16, |settings| settings.min_output_reservation.get())
    }

    /// Whether limits hold over all instances together.
    pub fn cluster(&self) -> bool {
        self.record.is_some_and(|settings| settings.cluster.get() != 0)
    }

    /// What happens to limits over all instances when their lease has ended; `None` if each instance limits for itself.
    pub fn lease_policy(&self) -> Option<LeasePolicy> {
        match self.record?.cluster.get() {
            0 => None,
            2 => Some(LeasePolicy::Open),
            3 => Some(LeasePolicy::Closed),
            _ => Some(LeasePolicy::Share),
        }
    }

    /// How long a request waits at most for more of a limit that holds over all instances, milliseconds.
    pub fn lease_wait_ms(&self) -> u64 {
        self.record
            .map_or(0, |settings| settings.lease_wait_ms.get().into())
    }

    /// Answers to requests that began before are to end, whosever they are, Unix milliseconds; 0 for none.
    pub fn end_before_ms(&self) -> u64 {
        self.record.map_or(0, |settings| settings.end_before_ms.get())
    }

    /// The newest instant of this kind, this one or a channel's: what an answer that began later need not look at.
    pub fn newest_end_ms(&self) -> u64 {
        self.record.map_or(0, |settings| settings.newest_end_ms.get())
    }

    /// Whether all requests are refused: what clients are told, and after how many seconds they should come again.
    pub fn maintenance(&self) -> Option<(&'a str, u32)> {
        let record = self.record.filter(|settings| settings.retry_after_s.get() > 0)?;
        Some((self.snapshot.text(record.maintenance), record.retry_after_s.get()))
    }

    /// Sizes of the region.
    pub fn region(&self) -> RegionSizes {
        self.record.map_or(
            RegionSizes {
                counters: 0,
                inflight: 0,
                ring: 0,
                usage: 0,
                workers: 0,
            },
            |settings| RegionSizes {
                counters: settings.counters.get(),
                inflight: settings.inflight.get(),
                ring: settings.ring.get(),
                usage: settings.usage.get(),
                workers: settings.workers.get(),
            },
        )
    }
}
