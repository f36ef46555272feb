//! Conditions on the time of day and the weekday, in a time zone.

use crate::documents::ZonedHours;
use jiff::{
    Timestamp,
    civil::Weekday,
    tz::{Offset, TimeZone, TimeZoneDatabase},
};

const DAY: u32 = 24 * 60;

/// Hours of certain weekdays in a zone.
#[derive(Clone, Debug)]
pub(crate) struct TimeSpan {
    /// Minutes of the day, the end not included; a start after the end crosses midnight.
    start: u32,
    end: u32,
    /// Bit 0 is Monday.
    weekdays: u8,
    zone: TimeZone,
}

impl TimeSpan {
    /// Reads a condition's value; every problem as path below the value and reason.
    pub fn parse(spec: &ZonedHours) -> Result<Self, Vec<(&'static str, String)>> {
        let mut problems = Vec::new();
        let (start, end) = match spec.hours.as_deref().map(hours) {
            None => (0, DAY),
            Some(Some(hours)) => hours,
            Some(None) => {
                problems.push((
                    "hours",
                    "expected two different times such as `09:00-18:00`".to_owned(),
                ));
                (0, DAY)
            }
        };
        let mut weekdays = if spec.weekdays.is_some() { 0 } else { 0x7f };
        for name in spec.weekdays.iter().flatten() {
            match weekday(name) {
                Some(day) => weekdays |= 1 << day,
                None => problems.push((
                    "weekdays",
                    format!("`{name}` is none of mon, tue, wed, thu, fri, sat, sun"),
                )),
            }
        }
        if weekdays == 0 && problems.is_empty() {
            problems.push(("weekdays", "names no day".to_owned()));
        }
        let zone = zone(spec.zone.as_deref().unwrap_or("UTC")).unwrap_or_else(|| {
            problems.push((
                "zone",
                "neither a zone's name such as `Asia/Shanghai` nor an offset such as `+08:00`".to_owned(),
            ));
            TimeZone::UTC
        });
        if problems.is_empty() {
            Ok(Self {
                start,
                end,
                weekdays,
                zone,
            })
        } else {
            Err(problems)
        }
    }

    /// Whether an instant (Unix seconds) lies in the span.
    pub fn contains(&self, now_unix: i64) -> bool {
        let Ok(now) = Timestamp::from_second(now_unix) else {
            return false;
        };
        let local = self.zone.to_datetime(now);
        let minute =
            u32::try_from(local.hour()).unwrap_or(0) * 60 + u32::try_from(local.minute()).unwrap_or(0);
        let today = monday_zero(local.weekday());
        let yesterday = (today + 6) % 7;
        let on = |day: u8| self.weekdays & (1 << day) != 0;
        if self.start < self.end {
            on(today) && (self.start..self.end).contains(&minute)
        } else {
            // Over midnight: the early hours belong to the day before.
            (on(today) && minute >= self.start) || (on(yesterday) && minute < self.end)
        }
    }
}

fn monday_zero(day: Weekday) -> u8 {
    u8::try_from(day.to_monday_zero_offset()).unwrap_or(0)
}

fn weekday(name: &str) -> Option<u8> {
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    days.iter()
        .position(|day| day.eq_ignore_ascii_case(name))
        .and_then(|at| u8::try_from(at).ok())
}

fn hours(text: &str) -> Option<(u32, u32)> {
    let (start, end) = text.split_once('-')?;
    let (start, end) = (minutes(start.trim())?, minutes(end.trim())?);
    (start != end && start < DAY).then_some((start, end))
}

fn minutes(text: &str) -> Option<u32> {
    let (hour, minute) = text.split_once(':')?;
    let digits =
        |text: &str| (text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(());
    digits(hour).and(digits(minute))?;
    let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
    (minute < 60 && hour * 60 + minute <= DAY).then_some(hour * 60 + minute)
}

fn zone(text: &str) -> Option<TimeZone> {
    let sign = match text.as_bytes().first() {
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ if text.eq_ignore_ascii_case("utc") || text == "Z" => return Some(TimeZone::UTC),
        // The bundled database, whatever features others switch on: evaluating a rule reads no file.
        _ => return TimeZoneDatabase::bundled().get(text).ok(),
    };
    let minutes = i32::try_from(minutes(text.get(1..)?)?).ok()?;
    Some(TimeZone::fixed(Offset::from_seconds(sign * minutes * 60).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(hours: Option<&str>, weekdays: Option<&[&str]>, zone: Option<&str>) -> TimeSpan {
        TimeSpan::parse(&ZonedHours {
            hours: hours.map(str::to_owned),
            weekdays: weekdays.map(|days| days.iter().map(|day| (*day).to_owned()).collect()),
            zone: zone.map(str::to_owned),
        })
        .unwrap()
    }

    fn at(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    #[test]
    fn office_hours_in_shanghai() {
        for zone in ["Asia/Shanghai", "+08:00"] {
            let office = span(Some("09:00-18:00"), Some(&["mon", "fri"]), Some(zone));
            // 2026-11-23 is a Monday.
            assert!(office.contains(at("2026-11-23T09:00:00+08:00")));
            assert!(!office.contains(at("2026-11-23T08:59:59+08:00")));
            assert!(!office.contains(at("2026-11-23T18:00:00+08:00")));
            assert!(!office.contains(at("2026-11-24T10:00:00+08:00")));
            assert!(office.contains(at("2026-11-27T01:00:00Z")));
        }
    }

    #[test]
    fn a_night_belongs_to_the_day_it_begins_on() {
        let night = span(Some("22:00-06:00"), Some(&["sun"]), None);
        assert!(night.contains(at("2026-11-22T23:00:00Z")));
        assert!(night.contains(at("2026-11-23T05:59:00Z")));
        assert!(!night.contains(at("2026-11-22T05:00:00Z")));
        assert!(!night.contains(at("2026-11-23T06:00:00Z")));
    }

    #[test]
    fn daylight_saving_counts() {
        let noon = span(Some("12:00-13:00"), None, Some("Europe/Berlin"));
        assert!(noon.contains(at("2026-07-01T10:30:00Z")));
        assert!(noon.contains(at("2026-12-01T11:30:00Z")));
        assert!(!noon.contains(at("2026-12-01T10:30:00Z")));
    }

    #[test]
    fn nonsense_is_named() {
        let spec = ZonedHours {
            hours: Some("9-18".into()),
            weekdays: Some(vec!["monday".into()]),
            zone: Some("Mars/Olympus".into()),
        };
        let paths: Vec<&str> = TimeSpan::parse(&spec)
            .unwrap_err()
            .into_iter()
            .map(|(path, _)| path)
            .collect();
        assert_eq!(paths, ["hours", "weekdays", "zone"]);
        assert!(
            hours("00:00-24:00").is_some()
                && hours("24:00-24:00").is_none()
                && hours("09:00-24:01").is_none()
        );
        assert!(!span(Some("00:00-24:00"), None, None).contains(i64::MAX));
    }
}
