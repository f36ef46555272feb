//! Values that documents write as text: secrets, digests, instants.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::{borrow::Cow, fmt};

/// A provider credential as a document holds it. Prints as `***` and is never serialized.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself: to seal it, never to show it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "writeOnly": true })
    }
}

/// Where a provider's credential comes from; what `CompileInput::seal` turns into ciphertext for the snapshot.
#[derive(Clone, Copy)]
pub enum SecretRef<'a> {
    /// The credential in the clear, to be encrypted.
    Plain(&'a str),
    /// Ciphertext as the daemon wrote it into the document, to be decoded (and, if its key changed, sealed anew).
    Encrypted(&'a str),
    /// The name under which the daemon holds the credential.
    Reference(&'a str),
}

impl fmt::Debug for SecretRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SecretRef::Plain(_) => f.write_str("Plain(***)"),
            SecretRef::Encrypted(_) => f.write_str("Encrypted(***)"),
            SecretRef::Reference(name) => f.debug_tuple("Reference").field(name).finish(),
        }
    }
}

/// A SHA-256 digest, written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sha256Hex(pub [u8; 32]);

impl<'de> Deserialize<'de> for Sha256Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The text is not repeated: people paste the key itself here.
        let malformed = || de::Error::custom("not a SHA-256 digest: expected 64 hexadecimal digits");
        let text = Cow::<str>::deserialize(deserializer)?;
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(malformed());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
        let mut digest = [0; 32];
        for (out, pair) in digest.iter_mut().zip(bytes.chunks_exact(2)) {
            let (Some(high), Some(low)) = (
                pair.first().copied().and_then(digit),
                pair.last().copied().and_then(digit),
            ) else {
                return Err(malformed());
            };
            *out = high << 4 | low;
        }
        Ok(Self(digest))
    }
}

impl JsonSchema for Sha256Hex {
    fn schema_name() -> Cow<'static, str> {
        "Sha256".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" })
    }
}

/// An instant, written as RFC 3339 with an offset (`2027-01-01T00:00:00Z`); held as Unix seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(pub i64);

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>()
            .map(|instant| Self(instant.as_second()))
            .map_err(|_| {
                de::Error::custom(
                    "not an instant: expected RFC 3339 with an offset, such as `2027-01-01T00:00:00Z`",
                )
            })
    }
}

impl JsonSchema for Instant {
    fn schema_name() -> Cow<'static, str> {
        "Instant".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

/// An instant as [`Instant`] is written; held as Unix milliseconds. Years before 1970 read as 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub u64);

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = i64::try_from(self.0).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(milliseconds) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => jiff::Timestamp::MAX.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse::<jiff::Timestamp>()
            .map(|instant| Self(u64::try_from(instant.as_millisecond()).unwrap_or(0)))
            .map_err(|_| {
                de::Error::custom(
                    "not an instant: expected RFC 3339 with an offset, such as `2027-01-01T00:00:00.250Z`",
                )
            })
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret: Secret = serde_json::from_str("\"sk-123\"").unwrap();
        assert_eq!(format!("{secret:?}"), "***");
        assert_eq!(secret.expose(), "sk-123");
        assert_eq!(
            format!("{:?} {:?}", SecretRef::Plain("sk"), SecretRef::Encrypted("sk")),
            "Plain(***) Encrypted(***)"
        );
    }

    #[test]
    fn digests_and_instants_read() {
        let digest: Sha256Hex = serde_json::from_str(&format!("\"{}\"", "0aF".repeat(21) + "1")).unwrap();
        assert_eq!((digest.0[0], digest.0[1]), (0x0a, 0xf0));
        for bad in [
            "\"\"",
            "\"zz\"",
            "3",
            &format!("\"{}\"", "g".repeat(64)),
            &format!("\"{}\"", "é".repeat(32)),
        ] {
            assert!(serde_json::from_str::<Sha256Hex>(bad).is_err());
        }
        let instant: Instant = serde_json::from_str("\"1970-01-01T08:00:01+08:00\"").unwrap();
        assert_eq!(instant.0, 1);
        assert!(serde_json::from_str::<Instant>("\"2027-01-01\"").is_err());
        let moment: Moment = serde_json::from_str("\"1970-01-01T00:00:01.5Z\"").unwrap();
        assert_eq!(moment.0, 1_500);
        assert_eq!(moment.to_string(), "1970-01-01T00:00:01.500Z");
        assert!(serde_json::from_str::<Moment>("\"yesterday\"").is_err());
    }
}
