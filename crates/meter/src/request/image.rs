//! What an image costs, from its size and never from the length of its base64.
//!
//! Formulas: OpenAI "Images and vision" guide (tiles of 512 px with a base and a price per tile; patches of 32 px with
//! a multiplier), Anthropic "Vision" guide (patches of 28 px with a cap), Google "Understand and count tokens" and
//! "Image understanding" (258 tokens a tile), Qwen2-VL and its successors (areas of 28 px).

/// How a model prices images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePrice {
    /// The same for each.
    Fixed {
        /// Tokens.
        tokens: u32,
    },
    /// `base + per_tile x tiles` after scaling into 2048 x 2048 and then the shorter side to 768; `low` detail: `base`.
    Tiles {
        /// Tokens of any image.
        base: u32,
        /// Tokens of a tile.
        per_tile: u32,
    },
    /// Patches of 32 px, at most `cap`, times `percent` / 100.
    Patches {
        /// Most patches.
        cap: u32,
        /// Hundredths of a token per patch.
        percent: u32,
    },
    /// Areas of 28 px, at most `cap`, a token each.
    Areas {
        /// Most areas.
        cap: u32,
    },
    /// Crops: one if both sides are at most 384 px, else squares of two thirds of the shorter side (256 to 768 px).
    Crops {
        /// Tokens of a crop.
        per_crop: u32,
        /// Most crops.
        most: u32,
    },
}

/// Tiles of the largest picture after scaling: 768 x 2048 px.
const MAX_TILES: u64 = 8;

impl ImagePrice {
    /// The most that one image can cost.
    #[must_use]
    pub fn upper_bound(self) -> u64 {
        match self {
            Self::Fixed { tokens } => tokens.into(),
            Self::Tiles { base, per_tile } => u64::from(base) + u64::from(per_tile) * MAX_TILES,
            Self::Patches { cap, percent } => (u64::from(cap) * u64::from(percent)).div_ceil(100),
            Self::Areas { cap } => cap.into(),
            Self::Crops { per_crop, most } => u64::from(per_crop) * u64::from(most),
        }
    }

    /// The cost of an image; `None` for an unknown size is the upper bound. Low detail matters only where a guide gives it
    /// a price of its own.
    #[must_use]
    pub fn cost(self, size: Option<(u32, u32)>, low_detail: bool) -> u64 {
        if low_detail && let Self::Tiles { base, .. } = self {
            return base.into();
        }
        let Some((width, height)) = size else {
            return self.upper_bound();
        };
        let (width, height) = (u64::from(width.max(1)), u64::from(height.max(1)));
        let areas = |side| width.div_ceil(side).saturating_mul(height.div_ceil(side));
        match self {
            Self::Fixed { tokens } => tokens.into(),
            Self::Tiles { base, per_tile } => u64::from(base) + u64::from(per_tile) * tiles(width, height),
            Self::Patches { cap, percent } => (areas(32).min(cap.into()) * u64::from(percent)).div_ceil(100),
            Self::Areas { cap } => areas(28).min(cap.into()),
            Self::Crops { per_crop, most } => {
                let side = (width.min(height) * 2 / 3).clamp(256, 768);
                let small = width.max(height) <= 384;
                let crops = if small { 1 } else { areas(side).min(most.into()) };
                u64::from(per_crop) * crops
            }
        }
    }
}

/// Tiles of 512 px after both scaling steps. Integer arithmetic: sizes round down as pixels do.
fn tiles(mut width: u64, mut height: u64) -> u64 {
    let longer = width.max(height);
    if longer > 2048 {
        (width, height) = (width * 2048 / longer, height * 2048 / longer);
    }
    let shorter = width.min(height);
    if shorter > 768 {
        (width, height) = (width * 768 / shorter, height * 768 / shorter);
    }
    (width.max(1).div_ceil(512) * height.max(1).div_ceil(512)).min(MAX_TILES)
}

/// Base64 characters of a data URL that are read for the header (36 KB of picture: JPEG's frame header stands behind
/// its metadata).
const HEADER_CHARACTERS: usize = 48 * 1024;

/// Width and height of a picture in a `data:` URL, read from its PNG, GIF, WebP or JPEG header. `None` for other URLs,
/// other formats and headers that cannot be read. `raw` may hold JSON's `\/` escapes.
pub(crate) fn data_url_size(raw: &[u8]) -> Option<(u32, u32)> {
    let comma = memchr::memchr(b',', raw.get(..raw.len().min(256))?)?;
    let (head, data) = raw.split_at(comma);
    if !head.get(..5)?.eq_ignore_ascii_case(b"data:") || !head.ends_with(b"base64") {
        return None;
    }
    base64_size(data.get(1..)?)
}

/// The same for bare base64.
pub(crate) fn base64_size(data: &[u8]) -> Option<(u32, u32)> {
    let data = data.get(..data.len().min(HEADER_CHARACTERS))?;
    // All but JPEG need 30 bytes only.
    let mut header = Vec::with_capacity(48);
    decode_base64(data.get(..data.len().min(64))?, &mut header);
    if header.starts_with(&[0xff, 0xd8]) {
        header.clear();
        decode_base64(data, &mut header);
        return jpeg_size(&header);
    }
    header_size(&header)
}

pub(super) fn decode_base64(data: &[u8], out: &mut Vec<u8>) {
    let mut bits = 0_u32;
    let mut have = 0;
    for &byte in data {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'\\' => continue,
            _ => return,
        };
        bits = (bits << 6) | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have).to_le_bytes()[0]);
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn le16(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

fn header_size(header: &[u8]) -> Option<(u32, u32)> {
    let at = |range: std::ops::Range<usize>| header.get(range).unwrap_or_default();
    let size = if at(0..8) == b"\x89PNG\r\n\x1a\n" && at(12..16) == b"IHDR" {
        let be32 = |at| Some(u32::from_be_bytes(*header.get(at..)?.first_chunk()?));
        (be32(16)?, be32(20)?)
    } else if at(0..4) == b"GIF8" {
        (le16(header, 6)?, le16(header, 8)?)
    } else if at(0..4) == b"RIFF" && at(8..12) == b"WEBP" {
        match at(12..16) {
            b"VP8 " => (le16(header, 26)? & 0x3fff, le16(header, 28)? & 0x3fff),
            b"VP8L" => {
                let bits = u32::from_le_bytes(*header.get(21..)?.first_chunk()?);
                ((bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1)
            }
            b"VP8X" => {
                let le24 = |at| Some(le16(header, at)? | (u32::from(*header.get(at + 2)?) << 16));
                (le24(24)? + 1, le24(27)? + 1)
            }
            _ => return None,
        }
    } else {
        return None;
    };
    (size.0 > 0 && size.1 > 0).then_some(size)
}

/// Walks JPEG segments to the frame header (SOF).
fn jpeg_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut at = 2;
    loop {
        while *bytes.get(at)? == 0xff && *bytes.get(at + 1)? == 0xff {
            at += 1;
        }
        if *bytes.get(at)? != 0xff {
            return None;
        }
        match *bytes.get(at + 1)? {
            0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => {
                let size = (be16(bytes, at + 7)?, be16(bytes, at + 5)?);
                return (size.0 > 0 && size.1 > 0).then_some(size);
            }
            0x01 | 0xd0..=0xd8 => at += 2,
            0xd9 | 0xda => return None,
            _ => at += 2 + (be16(bytes, at + 2)? as usize).max(2),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::{ImagePrice, base64_size, data_url_size};

    const GPT_4O: ImagePrice = ImagePrice::Tiles {
        base: 85,
        per_tile: 170,
    };

    #[test]
    fn published_examples() {
        assert_eq!(GPT_4O.cost(Some((1024, 1024)), false), 765);
        assert_eq!(GPT_4O.cost(Some((2048, 4096)), false), 1105);
        assert_eq!(GPT_4O.cost(Some((512, 512)), false), 255);
        assert_eq!(GPT_4O.cost(Some((2048, 2048)), false), 765);
        assert_eq!(GPT_4O.cost(Some((4096, 8192)), true), 85);
        assert_eq!(GPT_4O.cost(None, false), 1445);
        let mini = ImagePrice::Patches {
            cap: 1536,
            percent: 162,
        };
        assert_eq!(mini.cost(Some((1024, 1024)), false), 1659);
        let claude = ImagePrice::Areas { cap: 1568 };
        assert_eq!(claude.cost(Some((200, 200)), false), 64);
        assert_eq!(claude.cost(Some((4000, 4000)), false), 1568);
        let gemini = ImagePrice::Crops {
            per_crop: 258,
            most: 64,
        };
        assert_eq!(gemini.cost(Some((384, 200)), true), 258);
        assert_eq!(gemini.cost(Some((960, 540)), false), 6 * 258);
    }

    proptest::proptest! {
        #[test]
        fn no_image_costs_more_than_the_bound(width: u32, height: u32, low: bool, unknown: bool, a in 0_u32..10_000, b in 0_u32..10_000) {
            let size = (!unknown).then_some((width, height));
            for price in [
                GPT_4O,
                ImagePrice::Fixed { tokens: a },
                ImagePrice::Tiles { base: a, per_tile: b },
                ImagePrice::Patches { cap: a, percent: b },
                ImagePrice::Areas { cap: a },
                ImagePrice::Crops { per_crop: a, most: b.max(1) },
            ] {
                proptest::prop_assert!(price.cost(size, low) <= price.upper_bound(), "{price:?}");
            }
        }

        #[test]
        fn random_headers_never_panic(data in "(data:image/png;base64,)?(iVBORw0KGgo|/9j/|R0lGODlh|UklGR)?[A-Za-z0-9+/\\\\]{0,200}") {
            let _ = data_url_size(data.as_bytes());
            let _ = base64_size(data.as_bytes());
        }
    }

    pub(in super::super) fn base64(bytes: &[u8]) -> String {
        const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for chunk in bytes.chunks(3) {
            let mut word = [0; 4];
            word[1..=chunk.len()].copy_from_slice(chunk);
            let bits = u32::from_be_bytes(word);
            for index in 0..4 {
                if index > chunk.len() {
                    out.push('=');
                } else {
                    out.push(char::from(LETTERS[(bits >> (18 - 6 * index)) as usize & 63]));
                }
            }
        }
        out
    }

    #[test]
    fn sizes_are_read_from_headers() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x02\x80\0\0\x01\xe0\x08\x06";
        let gif = b"GIF89a\x80\x02\xe0\x01\xf7\0\0";
        let webp_lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01";
        let mut webp_lossless = b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f".to_vec();
        webp_lossless.extend_from_slice(&(639_u32 | 479 << 14).to_le_bytes());
        let webp_extended = b"RIFF\0\0\0\0WEBPVP8X\0\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        let mut jpeg = b"\xff\xd8\xff\xe1".to_vec();
        jpeg.extend_from_slice(&20_002_u16.to_be_bytes());
        jpeg.extend_from_slice(&[7; 20_000]);
        jpeg.extend_from_slice(b"\xff\xc2\0\x11\x08\x01\xe0\x02\x80\x03");
        for picture in [&png[..], gif, webp_lossy, &webp_lossless, webp_extended, &jpeg] {
            let data = base64(picture);
            assert_eq!(base64_size(data.as_bytes()), Some((640, 480)), "{data:.40}");
            let url = format!("data:image/x;base64,{data}");
            assert_eq!(data_url_size(url.as_bytes()), Some((640, 480)));
            assert_eq!(
                data_url_size(url.replace('/', "\\/").as_bytes()),
                Some((640, 480))
            );
        }
        assert_eq!(data_url_size(b"https://example.com/a.png"), None);
        assert_eq!(data_url_size(b"data:image/png;base64,AAAA"), None);
        assert_eq!(data_url_size(b""), None);
    }
}
