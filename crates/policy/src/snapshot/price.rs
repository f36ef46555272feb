//! Prices, in place.

use super::{PriceRecord, Section, Snapshot};

/// What tokens cost: millionths of the currency's unit per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Input, cached input, output, reasoning.
    pub per_million: [u32; 4],
    /// Of the price's content.
    pub version: u32,
}

impl Rates {
    /// What a request comes to, in millionths of the currency's unit, rounded once. `cached` is part of `input`,
    /// `reasoning` of `output`.
    pub fn cost(&self, input: u64, cached: u64, output: u64, reasoning: u64) -> u64 {
        let [plain, from_cache, written, thought] = self.per_million.map(u128::from);
        let (cached, reasoning) = (cached.min(input), reasoning.min(output));
        let sum = u128::from(input - cached) * plain
            + u128::from(cached) * from_cache
            + u128::from(output - reasoning) * written
            + u128::from(reasoning) * thought;
        u64::try_from((sum + 500_000) / 1_000_000).unwrap_or(u64::MAX)
    }

    /// The most that an input and an output token cost.
    pub fn most(&self) -> [u32; 2] {
        let [plain, from_cache, written, thought] = self.per_million;
        [plain.max(from_cache), written.max(thought)]
    }
}

/// A price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceView<'a> {
    /// The figures.
    pub rates: Rates,
    /// Three letters.
    pub currency: &'a str,
}

/// The price at a position of a section of prices, if it has one.
pub(super) fn price<'a>(snapshot: Snapshot<'a>, section: Section, index: u32) -> Option<PriceView<'a>> {
    let record = snapshot
        .records::<PriceRecord>(section)
        .get(usize::try_from(index).ok()?)?;
    let rates = Rates {
        per_million: record.per_million.map(|part| part.get()),
        version: record.version.get(),
    };
    (rates.version != 0).then(|| PriceView {
        rates,
        currency: snapshot.text(record.currency),
    })
}

#[cfg(test)]
mod tests {
    use super::Rates;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_rounded_once() {
        let rates = Rates {
            per_million: [150_000, 75_000, 600_000, 600_000],
            version: 1,
        };
        // 1000 × 0.15 + 500 × 0.60 in millionths.
        assert_eq!(rates.cost(1_000, 0, 500, 0), 450);
        assert_eq!(rates.cost(1_000, 1_000, 500, 500), 375);
        assert_eq!(rates.cost(3, 0, 0, 0), 0);
        assert_eq!(rates.cost(4, 0, 0, 0), 1);
        let dear = Rates {
            per_million: [u32::MAX; 4],
            version: 1,
        };
        assert_eq!(dear.cost(u64::MAX, 0, u64::MAX, 0), u64::MAX);
        // More from the cache than there was counts as all of it.
        assert_eq!(rates.cost(1_000, 5_000, 0, 0), 75);
    }

    proptest! {
        #[test]
        fn no_request_costs_more_than_its_tokens_can(
            per_million: [u32; 4], input in 0..1_u64 << 40, output in 0..1_u64 << 40, cached: u64, reasoning: u64,
        ) {
            let rates = Rates { per_million, version: 1 };
            let [most_in, most_out] = rates.most();
            let part = |tokens: u64, price: u32| (u128::from(tokens) * u128::from(price)).div_ceil(1_000_000);
            let bound = part(input, most_in) + part(output, most_out);
            prop_assert!(u128::from(rates.cost(input, cached, output, reasoning)) <= bound);
        }
    }
}
