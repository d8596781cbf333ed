//! The institute's calendar: its local day, and the financial year of a day, which has its own series of invoice numbers.

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use chrono_tz::Tz;

/// Returns the day at the institute.
pub fn local_date(at: DateTime<Utc>, zone: Tz) -> NaiveDate {
    at.with_timezone(&zone).date_naive()
}

/// Returns the financial year of a day: `2026-27`, or `2026` where it is the calendar year.
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
}
