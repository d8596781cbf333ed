//! Financial years and invoice numbers, both pure: which series a day belongs to, and how its numbers look.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use chrono_tz::Tz;

/// How a number is written: texts around `{prefix}`, `{year}` and `{seq}` or `{seq:5}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberFormat {
    pattern: String,
    seq_placeholder: String,
    digits_min: usize,
}

impl NumberFormat {
    /// Reads a format; `None` unless each of the three placeholders is there exactly once, and nothing else in braces.
    pub fn parse(pattern: &str) -> Option<Self> {
        let start = pattern.find("{seq")?;
        let end = start + pattern[start..].find('}')?;
        let seq_placeholder = pattern[start..=end].to_owned();
        let digits_min = match &pattern[start + "{seq".len()..end] {
            "" => 1,
            digits => digits.strip_prefix(':')?.parse().ok().filter(|digits| (1..=18).contains(digits))?,
        };
        let once = |placeholder: &str| pattern.matches(placeholder).count() == 1;
        let whole = pattern.matches(['{', '}']).count() == 6 && !pattern.chars().any(char::is_control);
        (whole && once("{prefix}") && once("{year}") && once("{seq")).then(|| Self {
            pattern: pattern.to_owned(),
            seq_placeholder,
            digits_min,
        })
    }

    /// The number of this place in the series.
    pub fn number(&self, prefix: &str, year: &str, seq: i64) -> String {
        let digits = format!("{seq:0width$}", width = self.digits_min);
        self.pattern.replace(&self.seq_placeholder, &digits).replace("{year}", year).replace("{prefix}", prefix)
    }
}

/// The day it is at the institute.
pub fn local_date(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// The financial year of a day: `2026-27`, or `2026` where it is the calendar year.
pub fn financial_year(day: NaiveDate, start_month: u32) -> String {
    let first = if day.month() >= start_month { day.year() } else { day.year() - 1 };
    if start_month == 1 { format!("{first:04}") } else { format!("{first:04}-{:02}", (first + 1) % 100) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(text: &str) -> NaiveDate {
        text.parse().expect("a date")
    }

    #[test]
    fn years_begin_in_their_month() {
        assert_eq!(financial_year(day("2026-03-31"), 4), "2025-26");
        assert_eq!(financial_year(day("2026-04-01"), 4), "2026-27");
        assert_eq!(financial_year(day("2099-12-31"), 4), "2099-00");
        assert_eq!(financial_year(day("2026-01-01"), 1), "2026");
        assert_eq!(financial_year(day("2026-12-31"), 1), "2026");
    }

    #[test]
    fn the_institute_s_midnight_counts() {
        let at: DateTime<Utc> = "2026-03-31T18:30:00Z".parse().expect("a time");
        assert_eq!(local_date(at, chrono_tz::Asia::Kolkata), day("2026-04-01"));
        assert_eq!(local_date(at, chrono_tz::America::New_York), day("2026-03-31"));
    }

    #[test]
    fn numbers_follow_the_format() {
        let format = NumberFormat::parse("{prefix}-{year}-{seq:5}").expect("valid");
        assert_eq!(format.number("IN", "2026-27", 42), "IN-2026-27-00042");
        assert_eq!(format.number("IN", "2026-27", 1_234_567), "IN-2026-27-1234567");
        assert_eq!(NumberFormat::parse("{year}/{prefix}{seq}").expect("valid").number("A", "2026", 7), "2026/A7");
        for bad in [
            "",
            "{prefix}{year}",
            "{prefix}{year}{seq:x}",
            "{prefix}{year}{seq}{seq}",
            "{prefix}{year}{seq}{day}",
            "{seq",
        ] {
            assert_eq!(NumberFormat::parse(bad), None, "{bad}");
        }
    }
}
