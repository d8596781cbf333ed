//! The format of invoice numbers (`institute.number_format`).

/// The format of invoice numbers: text around `{prefix}`, `{year}` and `{seq}` or `{seq:5}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumberFormat {
    pattern: String,
    seq_placeholder: String,
    digits_min: usize,
}

impl NumberFormat {
    /// Parses a format; `None` unless each of the three placeholders is there exactly once, and nothing else in braces.
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

    /// Returns the number of this place in the series.
    pub fn number(&self, prefix: &str, year: &str, seq: i64) -> String {
        let digits = format!("{seq:0width$}", width = self.digits_min);
        self.pattern.replace(&self.seq_placeholder, &digits).replace("{year}", year).replace("{prefix}", prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
