//! The snapshot's layout: a header, then sections of fixed-size little-endian records without padding.
//!
//! ```text
//! Header | section 0 | section 1 | …        offsets from the start of the buffer, in bytes
//! ```
//! A `Str` is a place in the string section, a `Range` a run of records in the section that its field names. Numbers
//! of enumerations are those of [`super::codes`]. Whatever stands in a buffer, reading it is safe: every access is
//! bounds-checked, and a place that leads nowhere reads as empty.

use crate::counting::{CLASSES, PARTS};
use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    little_endian::{I64, U16, U32, U64},
};

/// First bytes of a snapshot.
pub(crate) const MAGIC: [u8; 8] = *b"TGSNAP\r\n";

/// Changes with every change of this module or of the meaning of its fields.
pub(crate) const FORMAT: u32 = 9;

macro_rules! records {
    ($($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
        #[repr(C)]
        pub(crate) struct $name { $(pub $field: $type),* }
    )*};
}

/// The sections, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Settings,
    Sources,
    Proxies,
    Channels,
    ChannelIndex,
    Keys,
    KeyIndex,
    Models,
    ModelNames,
    ModelIndex,
    Countings,
    Patterns,
    Prices,
    Costs,
    Deployments,
    DeploymentIndex,
    Experiments,
    Groups,
    Stretches,
    Providers,
    Credentials,
    Addresses,
    Limits,
    LimitLists,
    Permissions,
    Routes,
    RouteLists,
    RouteWeights,
    StringLists,
    Rules,
    Blobs,
    Strings,
}

pub(crate) const SECTIONS: usize = Section::Strings as usize + 1;

records! {
    /// Where a section lies.
    struct Extent { offset: U64, len: U64 }

    /// A text in the string section, or bytes in the blob section.
    struct Str { offset: U32, len: U32 }

    /// A run of records.
    struct Range { start: U32, len: U32 }

    /// `checksum` is the XXH3-64 of everything after it.
    struct Header {
        magic: [u8; 8],
        checksum: U64,
        format: U32,
        sections: U32,
        generation: U64,
        created_unix_ms: U64,
        total_len: U64,
        rules_checksum: U64,
        extents: [Extent; SECTIONS],
    }

    struct SettingsRecord {
        min_output_reservation: U64,
        counters: U32,
        inflight: U32,
        ring: U32,
        usage: U32,
        workers: U32,
        // 0 if limits are each instance's own; else the policy of leases: see `settings.rs`.
        cluster: U32,
        lease_wait_ms: U32,
        sources: Range,
        proxies: Range,
        limits: Range,
        end_before_ms: U64,
        newest_end_ms: U64,
        maintenance: Str,
        retry_after_s: U32,
    }

    struct SourceRecord { kind: U32, name: Str }

    struct ProxyRecord { network: [u8; 16], bits: u8, reserved: [u8; 3] }

    /// A slot of an open-addressing table with linear probing; `entry` 0 is empty, else the record's index + 1. `tag`
    /// is the upper half of the hash whose lower half chose the slot.
    struct Slot { tag: U32, entry: U32 }

    struct ChannelRecord {
        hash: U64,
        code: Str,
        name: Str,
        keys: Range,
        limits: Range,
        tags: Range,
        routes: Range,
        permission: U32,
        flags: u8,
        abort_policy: u8,
        reserved: [u8; 2],
        end_before_ms: U64,
    }

    struct KeyRecord {
        sha256: [u8; 32],
        expires_unix: I64,
        channel: U32,
        id: Str,
        flags: u8,
        reserved: [u8; 3],
    }

    struct ModelRecord {
        hash: U64,
        name: Str,
        aliases: Range,
        fallback: Range,
        deployments: Range,
        limits: Range,
        max_output_tokens: U64,
        default_max_tokens: U64,
        max_body_bytes: U64,
        connect_ms: U64,
        first_token_ms: U64,
        idle_ms: U64,
        total_ms: U64,
        affinity_name: Str,
        latest: Str,
        slow_start_ms: U32,
        breaker_failures: U32,
        breaker_open_ms: U32,
        breaker_max_open_ms: U32,
        session_s: U32,
        experiment: U32,
        balance: u8,
        affinity: u8,
        panic_percent: u8,
        attempts: u8,
        retry_percent: u8,
        session_flags: u8,
        same_site: u8,
        reserved: u8,
    }

    /// How the model at the same position is counted.
    struct CountingRecord {
        rule: Str,
        tokenizer: Str,
        wanted: Str,
        file: Str,
        source: U64,
        minimum: U64,
        maximum: U64,
        patterns: Range,
        version: U32,
        factor: U32,
        most_per_byte: U32,
        suspicious_factor: U32,
        audio_second: U32,
        ratios: [U32; CLASSES],
        parts: [U32; PARTS],
        images: [U32; 2],
        images_kind: u8,
        flags: u8,
        reserved: [u8; 2],
    }

    /// What a pattern's matches count, in thousandths of a token.
    struct PatternRecord { pattern: Str, units: U32 }

    /// What the model, or the deployment, at the same position costs; version 0 for no price.
    struct PriceRecord { per_million: [U32; 4], version: U32, currency: Str }

    /// A model's name or alias.
    struct ModelNameRecord { name: Str, model: U32 }

    struct DeploymentRecord {
        id: Str,
        limits: Range,
        upstream_model: Str,
        version: Str,
        model: U32,
        provider: U32,
        weight: U32,
        flags: u8,
        reserved: [u8; 3],
    }

    /// `by` is a number of an affinity.
    struct ExperimentRecord {
        salt: U64,
        name: Str,
        header: Str,
        by_name: Str,
        groups: Range,
        stretches: Range,
        model: U32,
        by: u8,
        reserved: [u8; 3],
    }

    /// `deployment` and `set_model` are a position + 1, 0 for none.
    struct GroupRecord {
        cap: U64,
        name: Str,
        version: Str,
        deployment: U32,
        set_model: U32,
        share: U32,
        experiment: U32,
    }

    /// `group` is its place in the experiment + 1, 0 for none.
    struct StretchRecord { end: U32, group: U32 }

    /// `deployment` is a position + 1, 0 for none.
    struct RouteRecord {
        model: Str,
        version: Str,
        fallback: Range,
        weights: Range,
        deployment: U32,
        flags: u8,
        reserved: [u8; 3],
    }

    struct RouteWeightRecord { deployment: U32, weight: U32 }

    struct ProviderRecord {
        id: Str,
        host: Str,
        tls_name: Str,
        ca_file: Str,
        authorities: Str,
        path_prefix: Str,
        credential_header: Str,
        credentials: Range,
        addresses: Range,
        max_idle: U32,
        idle_ms: U32,
        max_requests: U32,
        protocol: u8,
        credential_kind: u8,
        flags: u8,
        reserved: u8,
    }

    struct CredentialRecord { id: Str, sealed: Str, weight: U32 }

    /// IPv4 stands mapped into IPv6.
    struct AddressRecord { ip: [u8; 16], port: U16, v4: u8, reserved: u8 }

    struct LimitRecord {
        shape: U64,
        window_ms: U64,
        max: U64,
        burst: U64,
        max_delay_ms: U64,
        name: Str,
        model: Str,
        metric: u8,
        algorithm: u8,
        enforcement: u8,
        scope: u8,
        model_match: u8,
        per_model: u8,
        on_full: u8,
        reserved: u8,
    }

    struct PermissionRecord { allow: Range, deny: Range }
}

/// Bits of `flags`.
pub(crate) mod flag {
    pub(crate) const ENABLED: u8 = 1;
    pub(crate) const TRUSTED: u8 = 2;
    pub(crate) const TLS: u8 = 4;
    pub(crate) const TLS_VERIFY: u8 = 8;
    pub(crate) const ESTIMATE: u8 = 16;
    pub(crate) const LEARNS: u8 = 32;
    pub(crate) const RATIOS: u8 = 64;
    /// A route of its own says which models stand in.
    pub(crate) const FALLBACK: u8 = 1;
    /// A cookie is for TLS only.
    pub(crate) const SECURE: u8 = 1;
    pub(crate) const TLS_1_3: u8 = 128;
}
