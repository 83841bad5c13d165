//! Calendar dates: `YYYY-MM-DD` in and out, without a time or a zone.

use time::{
    Date, OffsetDateTime, Time, format_description::BorrowedFormatItem, macros::format_description,
};

const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const INSTANT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// What [`parse_month`] accepts, as a regular expression of ECMA-262.
pub const MONTH_PATTERN: &str = "^(?!0000)[0-9]{4}-(0[1-9]|1[0-2])$";

/// A `YYYY-MM-DD` date of the years 0001 to 9999 that exists in the Gregorian calendar.
pub fn parse_date(text: &str) -> Option<Date> {
    let shaped = text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    // Year 0000 is valid in ISO 8601 and unknown to Postgres.
    Date::parse(text, DAY).ok().filter(|date| date.year() >= 1)
}

/// A date as `YYYY-MM-DD`.
pub fn format_date(date: Date) -> String {
    date.format(DAY).expect("every date has a year, a month and a day")
}

/// A time of day, `HH:MM` from 00:00 to 23:59.
pub fn parse_time(text: &str) -> Option<Time> {
    let shaped = text.len() == 5
        && text.bytes().enumerate().all(|(at, byte)| match at {
            2 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
    if !shaped {
        return None;
    }
    Time::from_hms(text[..2].parse().ok()?, text[3..].parse().ok()?, 0).ok()
}

/// A time of day as `HH:MM`.
pub fn format_time(time: Time) -> String {
    format!("{:02}:{:02}", time.hour(), time.minute())
}

/// An instant in UTC with milliseconds (RFC 3339).
pub fn format_instant(instant: OffsetDateTime) -> String {
    instant
        .to_offset(time::UtcOffset::UTC)
        .format(INSTANT)
        .expect("every instant has these components")
}

/// The first and the last day of a `YYYY-MM` month.
pub fn parse_month(text: &str) -> Option<(Date, Date)> {
    if text.len() != 7 {
        return None;
    }
    let first = parse_date(&format!("{text}-01"))?;
    let last = first.replace_day(first.month().length(first.year())).ok()?;
    Some((first, last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn refuses_what_is_not_a_day() {
        for bad in [
            "2026-02-29",
            "2026-13-01",
            "2026-00-10",
            "2026-04-31",
            "0000-01-01",
            "2026-1-01",
            "20260101",
            "+2026-01-01",
            "2026-01-01T00:00:00Z",
            " 2026-01-01",
            "２０２６-01-01",
            "",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        assert!(parse_date("2024-02-29").is_some());
    }

    #[test]
    fn a_month_ends_where_the_calendar_says() {
        let days =
            |text| parse_month(text).map(|(first, last)| (format_date(first), format_date(last)));
        assert_eq!(days("2024-02"), Some(("2024-02-01".into(), "2024-02-29".into())));
        assert_eq!(days("9999-12"), Some(("9999-12-01".into(), "9999-12-31".into())));
        for bad in ["2024-2", "2024-13", "2024-02-01", "24-02-1", ""] {
            assert_eq!(days(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_accepted_comes_back_unchanged(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}") {
            if let Some(date) = parse_date(&text) {
                prop_assert_eq!(format_date(date), text);
            }
        }

        #[test]
        fn a_time_comes_back_unchanged(text in "[0-9]{2}:[0-9]{2}") {
            if let Some(time) = parse_time(&text) {
                prop_assert_eq!(format_time(time), text);
            }
        }

        #[test]
        fn never_panics(text in ".{0,12}") {
            let _ = (parse_date(&text), parse_month(&text), parse_time(&text));
        }
    }
}
