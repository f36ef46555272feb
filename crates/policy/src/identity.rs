//! Identities: what a limit's usage belongs to, whatever becomes of its maximum, burst, name or configuration version.
//!
//! `key = mix(owner, shape)` where `owner` is the hash of the channel code (0 for models and globals) and `shape` the
//! hash of scope, model pattern, per-model flag, metric, window and algorithm family. All hashes are XXH3-64 with fixed
//! seeds; changing them loses usage, so they are part of the format (see the test that pins them).

use crate::documents::{Algorithm, Limit, Metric, Moment, Relief};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

const NAME_SEED: u64 = 0x746f_6c6c_6761_7465;
const SHAPE_SEED: u64 = 0x746f_6c6c_7368_6170;
const KEY_SEED: u64 = 0x746f_6c6c_006b_6579;
const RESET_SEED: u64 = 0x746f_6c6c_7273_6574;
const MODEL_SEED: u64 = 0x746f_6c6c_6d6f_646c;

/// Hash of a name (channel code, model name): what lookups and identities are made of.
pub fn hash_name(name: &[u8]) -> u64 {
    xxh3_64_with_seed(name, NAME_SEED)
}

/// The row of one of a provider's several credentials in the region, among those of deployments: ids hold no control
/// characters, so none of theirs has this name.
pub fn credential_row(provider: &str, credential: &str) -> u64 {
    hash_name(format!("credential\n{provider}\n{credential}").as_bytes())
}

/// The counter of a per-model limit with the key `key` for the model whose name hashes ([`hash_name`]) to `model`.
pub fn per_model_key(key: u64, model: u64) -> u64 {
    pair(key, model, MODEL_SEED)
}

/// The key of a limit of `shape` owned by `owner`; never 0.
pub(crate) fn limit_key(owner: u64, shape: u64) -> u64 {
    pair(owner, shape, KEY_SEED)
}

fn pair(a: u64, b: u64, seed: u64) -> u64 {
    let mut bytes = [0; 16];
    let (low, high) = bytes.split_at_mut(8);
    low.copy_from_slice(&a.to_le_bytes());
    high.copy_from_slice(&b.to_le_bytes());
    // 0 marks an empty row in the counter table.
    xxh3_64_with_seed(&bytes, seed).max(1)
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'a> {
    Channel,
    Model(&'a str),
    /// By its id.
    Deployment(&'a str),
    Global,
}

/// Algorithms that keep their usage in the same shape, so that one may replace the other and keep the usage: both
/// buckets are one arrival time. The two windows are cut differently.
fn family(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::SlidingWindow => 1,
        Algorithm::FixedWindow => 2,
        Algorithm::TokenBucket | Algorithm::LeakyBucket => 3,
        Algorithm::Concurrency => 4,
    }
}

fn metric(metric: Metric) -> u8 {
    match metric {
        Metric::Connections => 1,
        Metric::Requests => 2,
        Metric::InputTokens => 3,
        Metric::OutputTokens => 4,
        Metric::TotalTokens => 5,
        Metric::Cost => 6,
    }
}

/// The hash of everything in a limit's identity but its channel.
pub(crate) fn limit_shape(limit: &Limit, owner: Owner<'_>) -> u64 {
    let (scope, model) = match owner {
        Owner::Channel => (1, limit.model.as_deref()),
        Owner::Model(name) => (2, Some(name)),
        Owner::Global => (3, limit.model.as_deref()),
        Owner::Deployment(id) => (4, Some(id)),
    };
    let mut bytes = Vec::with_capacity(64);
    bytes.extend([
        scope,
        u8::from(limit.per_model),
        metric(limit.metric),
        family(limit.algorithm()),
    ]);
    bytes.extend(limit.window_ms().to_le_bytes());
    bytes.extend(model.unwrap_or_default().as_bytes());
    xxh3_64_with_seed(&bytes, SHAPE_SEED)
}

/// The shape of a limit that was reset at that instant: an identity of its own, so that what was used before stays with the
/// former one, and whoever settles a request of then cannot touch the new.
pub(crate) fn reset_shape(shape: u64, reset: Moment) -> u64 {
    pair(shape, reset.0, RESET_SEED)
}

/// [`limit_shape`] as a list of reliefs makes it.
pub(crate) fn relieved_shape(shape: u64, relief: Option<&Relief>) -> u64 {
    relief
        .and_then(|relief| relief.reset)
        .map_or(shape, |reset| reset_shape(shape, reset))
}

/// Checksum of a part of a snapshot.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn limit(value: serde_json::Value) -> Limit {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn edits_that_keep_usage_keep_the_shape() {
        let base = json!({"metric": "input_tokens", "max": 10, "window": "10m"});
        let shape = |patch: serde_json::Value| {
            let mut value = base.clone();
            for (key, field) in patch.as_object().unwrap() {
                value[key] = field.clone();
            }
            limit_shape(&limit(value), Owner::Channel)
        };
        let same = shape(json!({}));
        for patch in [
            json!({"max": 11}),
            json!({"name": "x"}),
            json!({"enforcement": "soft"}),
            json!({"on_full": "open"}),
            json!({"window": "600s"}),
            json!({"algorithm": "sliding_window"}),
        ] {
            assert_eq!(shape(patch.clone()), same, "{patch}");
        }
        for patch in [
            json!({"window": "20m"}),
            json!({"metric": "output_tokens"}),
            json!({"model": "a"}),
            json!({"per_model": true}),
            json!({"algorithm": "fixed_window"}),
            json!({"algorithm": "token_bucket"}),
        ] {
            assert_ne!(shape(patch.clone()), same, "{patch}");
        }
        assert_eq!(
            shape(json!({"algorithm": "token_bucket", "burst": 5})),
            shape(json!({"algorithm": "leaky_bucket"}))
        );
    }

    #[test]
    fn each_reset_is_an_identity_of_its_own() {
        let relief = |at| Relief {
            limit: String::new(),
            reset: at,
            add: 5,
            until: Some(Moment(9)),
        };
        let shapes = [None, Some(Moment(1)), Some(Moment(2))].map(|at| relieved_shape(7, Some(&relief(at))));
        assert_eq!(shapes[0], 7, "topping up keeps the usage");
        assert_ne!(shapes[1], 7);
        assert_ne!(shapes[1], shapes[2]);
        assert_eq!((relief(None).added(8), relief(None).added(9)), (5, 0));
    }

    /// Counters survive an upgrade only if these stay what they are.
    #[test]
    fn hashes_are_part_of_the_format() {
        let limit = limit(json!({"metric": "input_tokens", "max": 10, "window": "10m"}));
        let shape = limit_shape(&limit, Owner::Channel);
        let key = limit_key(hash_name(b"wechat001"), shape);
        assert_eq!(
            (
                hash_name(b"wechat001"),
                shape,
                key,
                per_model_key(key, hash_name(b"gpt-4o"))
            ),
            (
                6_221_827_321_425_119_230,
                55_829_079_567_638_069,
                4_388_975_934_000_086_771,
                9_488_562_091_972_073_739
            )
        );
    }
}
