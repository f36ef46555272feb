//! What tokens cost.

use crate::identity::hash_name;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::{borrow::Cow, fmt};

/// An amount of money: a decimal with at most six places, as a number or, so that no program on the way rounds it, as a
/// text. Kept in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u32);

impl Amount {
    /// The largest: 4,000.
    pub const MAX: u32 = 4_000 * 1_000_000;

    /// Millionths.
    pub const fn millionths(self) -> u32 {
        self.0
    }

    /// Reads `0.15`, `3`, `12.5`.
    ///
    /// # Errors
    /// Says what an amount looks like.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let dangling = text.ends_with('.') || whole.is_empty();
        if dangling || !digits(whole) || !digits(places) || places.len() > 6 {
            return Err("not an amount: expected a decimal with at most six places, such as `0.15`".into());
        }
        let millionths = format!("{whole}{places:0<6}").parse().ok();
        millionths
            .filter(|millionths| *millionths <= Self::MAX)
            .map(Self)
            .ok_or_else(|| "an amount is at most 4000".into())
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = Amount;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a decimal number or a text with one")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                Amount::parse(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Amount, E> {
                Amount::parse(&number.to_string()).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Amount, E> {
                Amount::parse(&number.to_string()).map_err(E::custom)
            }
            // The shortest decimal that reads as this number is what was written.
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Amount, E> {
                Amount::parse(&number.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["number", "string"],
            "description": "A decimal from 0 to 4000 with at most six places.",
            "examples": [0.15, "2.50"]
        })
    }
}

/// What a million tokens cost, by kind.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// Input tokens.
    pub input: Amount,
    /// Input tokens that came from the provider's cache; as `input` by default.
    pub cached_input: Option<Amount>,
    /// Output tokens.
    pub output: Amount,
    /// Output tokens spent on reasoning; as `output` by default.
    pub reasoning: Option<Amount>,
    /// Three letters (ISO 4217); the same in the whole configuration.
    #[serde(default = "usd")]
    pub currency: String,
}

fn usd() -> String {
    "USD".to_owned()
}

impl Price {
    /// Millionths per million tokens: input, cached input, output, reasoning.
    pub fn per_million(&self) -> [u32; 4] {
        [
            self.input,
            self.cached_input.unwrap_or(self.input),
            self.output,
            self.reasoning.unwrap_or(self.output),
        ]
        .map(Amount::millionths)
    }

    /// Changes if and only if the price does. 24 bits, never 0.
    pub fn version(&self) -> u32 {
        let mut bytes = self.currency.clone().into_bytes();
        for part in self.per_million() {
            bytes.extend_from_slice(&part.to_le_bytes());
        }
        ((hash_name(&bytes) & 0xff_ffff) as u32).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_exact() {
        for (text, millionths) in [
            ("0.15", 150_000),
            ("3", 3_000_000),
            ("0.000001", 1),
            ("4000", 4_000_000_000),
        ] {
            assert_eq!(Amount::parse(text).unwrap().millionths(), millionths, "{text}");
        }
        for text in ["", ".5", "1.", "-1", "1e3", "0.0000001", "4000.1", "1,5", "1 "] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
        for (json, millionths) in [
            ("0.1", 100_000),
            ("\"0.30\"", 300_000),
            ("2", 2_000_000),
            ("0.0375", 37_500),
        ] {
            let amount: Amount = serde_json::from_str(json).unwrap();
            assert_eq!(amount.millionths(), millionths, "{json}");
        }
        assert!(serde_json::from_str::<Amount>("-0.5").is_err());
    }

    #[test]
    fn a_version_changes_with_the_price_and_with_nothing_else() {
        let price = |json: &str| serde_json::from_str::<Price>(json).unwrap().version();
        let plain = price(r#"{"input":1,"output":2}"#);
        assert_eq!(
            plain,
            price(r#"{"input":"1.0","output":2,"cached_input":1,"reasoning":2,"currency":"USD"}"#)
        );
        for other in [
            r#"{"input":1,"output":2.5}"#,
            r#"{"input":1,"output":2,"currency":"EUR"}"#,
        ] {
            assert_ne!(plain, price(other));
        }
    }
}
