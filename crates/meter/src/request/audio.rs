//! How long audio in a request lasts, from the header of its base64 and never by decoding it.
//!
//! WAV says its bytes a second (RIFF "fmt " chunk); MP3's first frame its bits a second (ISO/IEC 11172-3, table of
//! bit rates), which is right for constant rates. Anything else is taken for the leanest codec in use, so that its length
//! is never under-estimated.

use super::image::decode_base64;

/// Bytes a second of the leanest audio that is sent: speech codecs at 16 kbit/s.
const LEANEST: u64 = 2_000;
/// Base64 characters that are read.
const HEADER: usize = 16 * 1024;

/// The longest that audio of this many base64 characters can last, in thousandths of a second.
pub(super) const fn longest(characters: u64) -> u64 {
    milliseconds(characters, LEANEST)
}

const fn milliseconds(characters: u64, bytes_a_second: u64) -> u64 {
    let bytes = characters.saturating_mul(3) / 4;
    bytes.saturating_mul(1_000).div_ceil(bytes_a_second)
}

/// How long the audio lasts, in thousandths of a second, and whether that is only the longest it can be.
pub(super) fn duration(base64: &[u8]) -> (u64, bool) {
    let characters = u64::try_from(base64.len()).unwrap_or(u64::MAX);
    let mut header = Vec::new();
    decode_base64(
        base64.get(..base64.len().min(HEADER)).unwrap_or_default(),
        &mut header,
    );
    // What claims a rate below the leanest would be cheaper than the bound knows: it is not believed.
    match wav_rate(&header).or_else(|| mp3_rate(&header)) {
        Some(rate) if rate > LEANEST => {
            let length = milliseconds(characters, rate);
            // A rate that nothing real has would make long audio free.
            (length, rate > 8 << 20)
        }
        _ => (longest(characters), true),
    }
}

/// Bytes a second of a WAV file.
fn wav_rate(header: &[u8]) -> Option<u64> {
    if header.get(..4)? != b"RIFF" || header.get(8..12)? != b"WAVE" {
        return None;
    }
    let mut at = 12_usize;
    loop {
        let (name, rest) = header.get(at..)?.split_at_checked(4)?;
        let size = u32::from_le_bytes(*rest.first_chunk()?);
        if name == b"fmt " {
            let rate = u32::from_le_bytes(*rest.get(12..)?.first_chunk()?);
            return (rate > 0).then_some(rate.into());
        }
        at = at.checked_add(8)?.checked_add(usize::try_from(size).ok()?)?;
    }
}

/// Bytes a second of an MP3 (layer III) file's first frame.
fn mp3_rate(header: &[u8]) -> Option<u64> {
    // An ID3v2 tag: its length in four digits of seven bits.
    let at = match header.get(..10) {
        Some([b'I', b'D', b'3', _, _, _, a, b, c, d]) => {
            [a, b, c, d].into_iter().fold(10, |sum: usize, digit| {
                // The ten bytes of the head are added once, behind the shifts.
                ((sum - 10) << 7 | usize::from(digit & 0x7f)) + 10
            })
        }
        _ => 0,
    };
    let frame: &[u8; 4] = header.get(at..)?.first_chunk()?;
    let [0xff, version, bits, _] = *frame else {
        return None;
    };
    let kilobits = |row: [u16; 16]| row.get(usize::from(bits >> 4)).copied().unwrap_or(0);
    let rate = match version & 0xfe {
        0xfa => kilobits([
            0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0,
        ]),
        0xf2 | 0xe2 => kilobits([0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0]),
        _ => return None,
    };
    (rate > 0).then_some(u64::from(rate) * 125)
}

#[cfg(test)]
mod tests {
    use super::super::image::tests::base64;
    use super::*;

    fn wav(rate: u32, seconds: usize) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVELIST\x04\0\0\0abcdfmt \x10\0\0\0\x01\0\x01\0\x80\xbb\0\0".to_vec();
        file.extend(rate.to_le_bytes());
        file.extend(b"\x02\0\x10\0data\0\0\0\0");
        file.resize(file.len() + rate as usize * seconds, 0);
        file
    }

    #[test]
    fn lengths_come_from_headers() {
        let of = |bytes: &[u8]| duration(base64(bytes).as_bytes());
        let (ten_seconds, guessed) = of(&wav(48_000, 10));
        assert!(
            (10_000..10_010).contains(&ten_seconds) && !guessed,
            "{ten_seconds}"
        );
        let mut mp3 = b"ID3\x04\0\0\0\0\x01\x02".to_vec();
        mp3.resize(10 + 130, 0);
        mp3.extend(b"\xff\xfb\x90\0");
        mp3.resize(16_000 * 3, 0);
        let (three_seconds, guessed) = of(&mp3);
        assert!(
            (2_999..3_002).contains(&three_seconds) && !guessed,
            "{three_seconds}"
        );
        assert_eq!(of(&[7; 2_000]), (1_001, true));
        assert_eq!(duration(b""), (0, true));
        assert!(of(&wav(100_000_000, 0)).1, "no such rate");
    }

    proptest::proptest! {
        #[test]
        fn nothing_lasts_longer_than_the_bound(bytes: Vec<u8>, kind in 0..3) {
            let mut file = match kind { 0 => wav(48_000, 0), 1 => b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90".to_vec(), _ => Vec::new() };
            file.extend(bytes);
            let text = base64(&file);
            proptest::prop_assert!(duration(text.as_bytes()).0 <= longest(text.len() as u64));
        }
    }
}
