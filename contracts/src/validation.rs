//! The rules that both sides apply to fields: at the edge, so that a form gets its errors before the 202, and again in
//! the worker, because a queue can hold messages that an older gateway accepted.

use rust_decimal::Decimal;

use crate::FieldError;

/// The largest amount that `numeric(14,2)` holds.
pub const AMOUNT_MAX: Decimal = Decimal::from_parts(0x107A_3FFF, 0x5AF3, 0, false, 2);

/// Collects every invalid field of one message.
#[derive(Debug, Default)]
pub struct Checks {
    errors: Vec<FieldError>,
}

impl Checks {
    /// Checks without errors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an error unless the condition holds.
    pub fn ensure(&mut self, ok: bool, field: &str, code: &str, message: &str) -> &mut Self {
        if !ok {
            self.errors.push(FieldError::new(field, code, message));
        }
        self
    }

    /// A required text: not blank, at most `max` characters, no control characters (NUL above all: Postgres text
    /// cannot hold it).
    pub fn text(&mut self, field: &str, value: &str, max: usize) -> &mut Self {
        if value.trim().is_empty() {
            return self.ensure(false, field, "required", "must not be blank");
        }
        self.optional_text(field, Some(value), max)
    }

    /// A text that may be absent; the same rules apply where it is present.
    pub fn optional_text(&mut self, field: &str, value: Option<&str>, max: usize) -> &mut Self {
        let Some(value) = value else { return self };
        if value.chars().count() > max {
            self.ensure(false, field, "too_long", &format!("must have at most {max} characters"));
        }
        let bad = value.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t'));
        self.ensure(!bad, field, "control_character", "must not contain control characters such as NUL")
    }

    /// A text on one line, for mail headers and names.
    pub fn line(&mut self, field: &str, value: &str, max: usize) -> &mut Self {
        let single = !value.contains(['\n', '\r', '\t']);
        self.text(field, value, max).ensure(single, field, "line_break", "must be on one line")
    }

    /// An e-mail address: one `@`, a dotted domain, no spaces, at most 254 characters (RFC 5321 §4.5.3.1).
    pub fn email(&mut self, field: &str, value: &str) -> &mut Self {
        self.ensure(is_email(value), field, "not_an_email", "must be an e-mail address such as name@example.org")
    }

    /// An amount of money: positive, at most two decimals, within `numeric(14,2)`.
    pub fn amount(&mut self, field: &str, value: Decimal) -> &mut Self {
        self.ensure(value > Decimal::ZERO, field, "not_positive", "must be more than zero")
            .ensure(value.scale() <= 2, field, "too_precise", "must have at most two decimals")
            .ensure(value <= AMOUNT_MAX, field, "too_large", "must be at most 999999999999.99")
    }

    /// An ISO 4217 code of a currency that the platform accepts.
    pub fn currency(&mut self, field: &str, value: &str) -> &mut Self {
        self.ensure(is_currency(value), field, "unknown_currency", "must be an ISO 4217 code in capitals, such as INR")
    }

    /// The result of all checks.
    ///
    /// # Errors
    /// Every invalid field.
    pub fn finish(&mut self) -> Result<(), Vec<FieldError>> {
        if self.errors.is_empty() { Ok(()) } else { Err(std::mem::take(&mut self.errors)) }
    }
}

/// Returns true for a syntactically plausible e-mail address.
pub fn is_email(value: &str) -> bool {
    let Some((local, domain)) = value.rsplit_once('@') else {
        return false;
    };
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    value.len() <= 254
        && !local.is_empty()
        && local.len() <= 64
        && local.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~.".contains(&b))
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..")
        && domain.contains('.')
        && domain.split('.').all(label)
}

/// The address under which accounts are found: trimmed, lower case.
pub fn normalise_email(value: &str) -> String {
    value.trim().to_lowercase()
}

/// The reference under which a bank transfer is recognised however it is typed: upper case, ASCII letters and digits
/// only, which is all that banks print.
pub fn normalise_reference(value: &str) -> String {
    let mut reference = String::with_capacity(value.len());
    reference.extend(value.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()));
    reference
}

/// Active ISO 4217 codes with two decimals, which `numeric(14,2)` holds exactly; sorted.
const CURRENCIES: &[&str] = &[
    "AED", "AUD", "BDT", "BRL", "CAD", "CHF", "CNY", "CZK", "DKK", "EGP", "EUR", "GBP", "GHS", "HKD", "IDR", "ILS",
    "INR", "KES", "LKR", "MXN", "MYR", "NGN", "NOK", "NPR", "NZD", "PHP", "PKR", "PLN", "QAR", "RON", "SAR", "SEK",
    "SGD", "THB", "TRY", "TZS", "UAH", "USD", "ZAR",
];

/// Returns true for a currency that the platform accepts.
pub fn is_currency(value: &str) -> bool {
    CURRENCIES.binary_search(&value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_amount_is_what_the_column_holds() {
        assert_eq!(AMOUNT_MAX.to_string(), "999999999999.99");
        assert!(CURRENCIES.is_sorted());
    }

    #[test]
    fn references_are_the_same_however_typed() {
        for typed in ["utr 123-456/a", "UTR123456A", "utr_123.456 A"] {
            assert_eq!(normalise_reference(typed), "UTR123456A");
        }
    }

    #[test]
    fn addresses() {
        for good in ["a@b.co", "first.last+tag@sub.example.org", "o'neil@x-y.in"] {
            assert!(is_email(good), "{good}");
        }
        for bad in
            ["", "a", "a@b", "@b.co", "a@.co", "a@b..co", "a b@c.de", "a@b.co\r\nBcc: x@y.zz", ".a@b.co", "a@-b.co"]
        {
            assert!(!is_email(bad), "{bad}");
        }
    }

    #[test]
    fn every_bad_field_is_reported() {
        let errors = Checks::new()
            .text("name", "a\0b", 10)
            .amount("amount", Decimal::new(-12345, 3))
            .currency("currency", "XXX")
            .line("subject", "a\nb", 2)
            .finish()
            .expect_err("all four are bad");
        let codes: Vec<_> = errors.iter().map(|e| (e.field.as_str(), e.code.as_str())).collect();
        assert_eq!(
            codes,
            [
                ("name", "control_character"),
                ("amount", "not_positive"),
                ("amount", "too_precise"),
                ("currency", "unknown_currency"),
                ("subject", "too_long"),
                ("subject", "line_break"),
            ]
        );
    }
}
