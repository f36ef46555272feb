//! Address ranges such as `10.0.0.0/8` or `2001:db8::/32`; a bare address is a range of one.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv6Addr},
};

/// An address range. IPv4 and its IPv6-mapped form (`::ffff:10.0.0.1`) are the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr {
    /// First address, as IPv6 (IPv4 mapped).
    network: u128,
    /// Significant bits of `network`, 0..=128.
    bits: u8,
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

fn mask(bits: u8) -> u128 {
    match bits {
        0 => 0,
        bits => u128::MAX << (128 - u32::from(bits.min(128))),
    }
}

impl Cidr {
    /// Reads `address` or `address/bits`. Bits beyond the prefix are ignored.
    ///
    /// # Errors
    /// Says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| "not an address range: expected such as `10.0.0.0/8`".to_owned())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse::<u8>()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or_else(|| format!("prefix length must be 0..={width}"))?,
        };
        let bits = bits + (128 - width);
        Ok(Self {
            network: mapped(address) & mask(bits),
            bits,
        })
    }

    /// Whether `address` lies in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        mapped(address) & mask(self.bits) == self.network
    }

    /// The first address as 16 bytes (IPv4 mapped) and the prefix length among its 128 bits.
    pub(crate) fn to_parts(self) -> ([u8; 16], u8) {
        (self.network.to_be_bytes(), self.bits)
    }

    pub(crate) fn from_parts(network: [u8; 16], bits: u8) -> Self {
        let bits = bits.min(128);
        Self {
            network: u128::from_be_bytes(network) & mask(bits),
            bits,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = Ipv6Addr::from(self.network);
        match network.to_ipv4_mapped() {
            Some(v4) if self.bits >= 96 => write!(f, "{v4}/{}", self.bits - 96),
            _ => write!(f, "{network}/{}", self.bits),
        }
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cidr::parse(&Cow::<str>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "An address or an address range.",
            "examples": ["10.0.0.0/8", "2001:db8::/32", "127.0.0.1"]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_should() {
        for (range, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("::/0", "8.8.8.8", true),
            ("2001:db8::/32", "2001:db8:1::", true),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
        ] {
            let cidr = Cidr::parse(range).unwrap();
            assert_eq!(
                cidr.contains(address.parse().unwrap()),
                expected,
                "{range} {address}"
            );
            let (network, bits) = cidr.to_parts();
            assert_eq!(Cidr::from_parts(network, bits), cidr);
            assert_eq!(Cidr::parse(&cidr.to_string()).unwrap(), cidr);
        }
        for text in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "x",
            "10.0.0.0/",
            "10.0.0.0/-1",
        ] {
            assert!(Cidr::parse(text).is_err(), "{text}");
        }
    }
}
