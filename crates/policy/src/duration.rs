//! Durations as documents write them: `250ms`, `1s`, `10m`, `24h`, `7d`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt};

/// A duration in whole milliseconds, written as one number and one unit (`ms`, `s`, `m`, `h`, `d`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(u64);

impl Span {
    /// The longest duration that any document may name: 366 days.
    pub const MAX: Span = Span(366 * 86_400_000);

    /// A duration of `ms` milliseconds.
    pub const fn from_millis(ms: u64) -> Self {
        Span(ms)
    }

    /// Milliseconds.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Reads `text`.
    ///
    /// # Errors
    /// Says what a duration looks like if `text` is none, or is longer than [`Span::MAX`].
    pub fn parse(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let scale = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => {
                return Err("not a duration: expected a number and a unit such as `1s`, `10m`, `24h`".into());
            }
        };
        let number: u64 = number.parse().map_err(|_| {
            "not a duration: expected a whole number before the unit, such as `10m`".to_owned()
        })?;
        number
            .checked_mul(scale)
            .map(Span)
            .filter(|span| *span <= Self::MAX)
            .ok_or_else(|| "duration is longer than 366 days".to_owned())
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scale, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
            // `24h` and `60m` are how people name windows, so a bigger unit must be worth it.
            if self.0 >= scale && self.0.is_multiple_of(scale) && (unit != "d" || self.0 > scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        write!(f, "{}ms", self.0)
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Span::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A whole number and a unit: ms, s, m, h or d; at most 366 days.",
            "pattern": "^[0-9]+(ms|s|m|h|d)$",
            "examples": ["1s", "10m", "24h"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        for (text, ms, printed) in [
            ("250ms", 250, "250ms"),
            ("1s", 1_000, "1s"),
            ("90s", 90_000, "90s"),
            ("10m", 600_000, "10m"),
            ("24h", 86_400_000, "24h"),
            ("7d", 604_800_000, "7d"),
            ("0s", 0, "0ms"),
        ] {
            let span = Span::parse(text).unwrap();
            assert_eq!(
                (span.as_millis(), span.to_string().as_str()),
                (ms, printed),
                "{text}"
            );
        }
        for text in [
            "",
            "10",
            "m",
            "-1s",
            "1.5s",
            "1 s",
            "1w",
            "99999999999999999999s",
            "367d",
            "1s1s",
            "10M",
        ] {
            assert!(Span::parse(text).is_err(), "{text}");
        }
    }
}
