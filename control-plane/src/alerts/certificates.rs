//! How long the certificates hold that an instance shows or trusts.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tollgate_policy::Snapshot;
use tollgate_policy::documents::{AlertRuleName, Settings};

use super::reading::Reading;

/// Longest file that is read, bytes.
const MOST: u64 = 1 << 20;
/// What ends later than this is not told of, seconds.
const FAR: i64 = 366 * 86_400;

/// A value of DER: its tag, its content, and what comes after it. ITU-T X.690, 8.1; lengths of up to four bytes.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if *first >= 0x80 {
        let (digits, after) = rest.split_at_checked(usize::from(first & 0x7f))?;
        if digits.is_empty() || digits.len() > 4 {
            return None;
        }
        length = digits.iter().fold(0, |n, digit| n << 8 | usize::from(*digit));
        rest = after;
    }
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

/// Days since 1970 of a date (proleptic Gregorian, H. Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// `UTCTime` or `GeneralizedTime` as certificates have them (RFC 5280, 4.1.2.5), Unix seconds.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match tag {
        0x17 => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2_000 + year } else { 1_900 + year }, rest)
        }
        0x18 => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    if rest.len() != 10 {
        return None;
    }
    let two = |at: usize| rest.get(at..at + 2)?.parse::<i64>().ok();
    let date = days(year, two(0)?, two(2)?);
    Some(date * 86_400 + two(4)? * 3_600 + two(6)? * 60 + two(8)?)
}

/// When a certificate ends, Unix seconds (RFC 5280, 4.1).
fn not_after(der: &[u8]) -> Option<i64> {
    let (_, certificate, _) = value(der)?;
    let (_, mut rest, _) = value(certificate)?;
    // A version stands there for all but the first one.
    if rest.first() == Some(&0xa0) {
        rest = value(rest)?.2;
    }
    // Serial number, algorithm, issuer.
    for _ in 0..3 {
        rest = value(rest)?.2;
    }
    let (_, validity, _) = value(rest)?;
    let (_, _, rest) = value(validity)?;
    let (tag, text, _) = value(rest)?;
    time(tag, text)
}

/// Of the certificates in PEM, how many there are, and when the first one ends.
fn first_end(pem: &[u8]) -> Option<(usize, i64)> {
    let mut ends = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        ends.push(not_after(&certificate.ok()?)?);
    }
    Some((ends.len(), *ends.iter().min()?))
}

/// The files with certificates that an instance shows or trusts, each with what it is for.
pub fn files(
    tls: Option<&Path>,
    settings: &Settings,
    snapshot: Option<&Snapshot<'_>>,
) -> Vec<(PathBuf, String)> {
    let mut found: Vec<(PathBuf, String)> = Vec::new();
    let mut add = |path: &Path, what: String| {
        if !found.iter().any(|(known, _)| known == path) {
            found.push((path.to_owned(), what));
        }
    };
    if let Some(path) = tls {
        add(path, "the admin port".to_owned());
    }
    for provider in snapshot.into_iter().flat_map(|snapshot| snapshot.providers()) {
        if !provider.ca_file().is_empty() {
            add(
                Path::new(provider.ca_file()),
                format!("provider {}", provider.id()),
            );
        }
    }
    if let Some(path) = settings.redis.as_ref().and_then(|redis| redis.ca_file.as_deref()) {
        add(Path::new(path), "Redis".to_owned());
    }
    if let Some(path) = settings
        .api
        .oidc
        .as_ref()
        .and_then(|oidc| oidc.ca_file.as_deref())
    {
        add(Path::new(path), "sign-in".to_owned());
    }
    for receiver in &settings.alerts.receivers {
        if let Some(path) = &receiver.ca_file {
            add(Path::new(path), format!("receiver {}", receiver.name));
        }
    }
    found
}

/// What of these files ends within a year. What cannot be read says so elsewhere: the program that needs it does.
pub fn look(files: &[(PathBuf, String)], instance: &str, now: i64) -> Vec<Reading> {
    let mut found = Vec::new();
    for (path, what) in files {
        let short = std::fs::metadata(path).is_ok_and(|meta| meta.len() <= MOST);
        let Some(pem) = short.then(|| std::fs::read(path).ok()).flatten() else {
            continue;
        };
        let Some((count, end)) = first_end(&pem) else {
            continue;
        };
        let left = end.saturating_sub(now);
        if left > FAR {
            continue;
        }
        let days = left as f64 / 86_400.0;
        let file = path.display().to_string();
        let one = match count {
            1 => "the certificate".to_owned(),
            n => format!("one of the {n} certificates"),
        };
        let when = match left {
            ..=0 => "has expired".to_owned(),
            _ => format!("expires in {days:.1} days"),
        };
        let text = format!("{one} in {file} of instance {instance}, for {what}, {when}");
        let labels = [("instance", instance), ("file", &file)];
        found.push(Reading::new(
            AlertRuleName::CertificateExpiring,
            &labels,
            days,
            text,
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn pem(year: i32, month: u8, day: u8) -> String {
        let mut params = CertificateParams::new(vec!["gateway.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(1_975, 1, 1);
        params.not_after = date_time_ymd(year, month, day);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_first_end_of_a_file_is_found() {
        // Before and after the year from which on times are written with four digits.
        for (date, unix) in [
            ((2026, 2, 28), 1_772_236_800),
            ((2024, 2, 29), 1_709_164_800),
            ((2049, 12, 31), 2_524_521_600),
            ((2051, 3, 1), 2_561_241_600),
        ] {
            assert_eq!(first_end(pem(date.0, date.1, date.2).as_bytes()), Some((1, unix)));
        }
        let both = pem(2051, 3, 1) + &pem(2026, 2, 28);
        assert_eq!(first_end(both.as_bytes()), Some((2, 1_772_236_800)));
        assert_eq!(first_end(b"no certificate"), None);
        let der = CertificateDer::from_pem_slice(both.as_bytes()).unwrap();
        for cut in 0..150 {
            let _ = not_after(&der[..cut]);
        }
    }

    #[test]
    fn what_ends_is_said_of_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (soon, late) = (dir.path().join("soon.pem"), dir.path().join("late.pem"));
        std::fs::write(&soon, pem(2026, 2, 28)).unwrap();
        std::fs::write(&late, pem(2040, 1, 1)).unwrap();
        let files = [
            (soon.clone(), "the admin port".to_owned()),
            (late, "provider p".to_owned()),
            (dir.path().join("missing.pem"), "Redis".to_owned()),
        ];
        let found = look(&files, "one", 1_772_236_800 - 3 * 86_400);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].value, &found[0].labels["instance"]),
            (3.0, &"one".to_owned())
        );
        assert_eq!(found[0].labels["file"], soon.display().to_string());
        assert!(
            found[0].text.ends_with("for the admin port, expires in 3.0 days"),
            "{}",
            found[0].text
        );
        let found = look(&files, "one", 1_772_236_800 + 5);
        assert!(
            found[0].text.ends_with("has expired") && found[0].value < 0.0,
            "{}",
            found[0].text
        );
    }
}
