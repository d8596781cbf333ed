//! The parts of an instalment's gross amount; pure functions. The invariant: over the instalments of one registration,
//! tax, discount and rounding each add up to the registration's own, to the last hundredth, however the sum was split.

use rust_decimal::{Decimal, RoundingStrategy};

/// A registration's price, as agreed when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Before discount and tax.
    pub fee: Decimal,
    /// The reduction of the fee.
    pub discount: Decimal,
    /// The tax rate in per cent.
    pub tax_rate: Decimal,
    /// The tax on fee less discount.
    pub tax: Decimal,
    /// The gross price in all.
    pub amount_due: Decimal,
}

/// The sums of a registration's invoices so far, less its credit notes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invoiced {
    /// The sum of `invoices.discount`.
    pub discount: Decimal,
    /// The sum of `invoices.tax`.
    pub tax: Decimal,
    /// The sum of `invoices.rounding`.
    pub rounding: Decimal,
    /// The sum of `invoices.total`.
    pub total: Decimal,
}

/// One invoice's amounts: `total = subtotal - discount + tax + rounding`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amounts {
    /// Before discount and tax.
    pub subtotal: Decimal,
    /// The reduction of the subtotal.
    pub discount: Decimal,
    /// The tax, contained in the total.
    pub tax: Decimal,
    /// The amount that the price was rounded by.
    pub rounding: Decimal,
    /// The payment's amount.
    pub total: Decimal,
}

impl Invoiced {
    /// Adds one more invoice.
    #[must_use]
    pub fn with(self, amounts: &Amounts) -> Self {
        Self {
            discount: self.discount + amounts.discount,
            tax: self.tax + amounts.tax,
            rounding: self.rounding + amounts.rounding,
            total: self.total + amounts.total,
        }
    }
}

/// Splits an instalment of `amount` gross. The tax is computed backwards from what has been paid in all, so that an
/// error of rounding never grows with the number of instalments; the one that completes the price takes what remains.
pub fn split(price: &Price, invoiced: &Invoiced, amount: Decimal, rounding_step: Decimal) -> Amounts {
    let paid = invoiced.total + amount;
    let price_rounding = price.amount_due - (price.fee - price.discount + price.tax);
    let (discount, tax, rounding) = if paid >= price.amount_due {
        (price.discount - invoiced.discount, price.tax - invoiced.tax, price_rounding - invoiced.rounding)
    } else {
        let share = paid / price.amount_due;
        let hundredth = Decimal::new(1, 2);
        let tax = to_step(paid * price.tax_rate / (Decimal::ONE_HUNDRED + price.tax_rate), rounding_step);
        (
            to_step(price.discount * share, hundredth) - invoiced.discount,
            tax.min(price.tax) - invoiced.tax,
            to_step(price_rounding * share, hundredth) - invoiced.rounding,
        )
    };
    // What is left of the tax must fit into what is left to pay.
    let tax_min = price.tax - invoiced.tax - (price.amount_due - paid).max(Decimal::ZERO);
    let tax = tax.max(tax_min).max(Decimal::ZERO).min(amount);
    let discount = discount.max(Decimal::ZERO);
    Amounts { subtotal: amount + discount - tax - rounding, discount, tax, rounding, total: amount }
}

fn to_step(value: Decimal, step: Decimal) -> Decimal {
    (value / step).round_dp_with_strategy(0, RoundingStrategy::MidpointAwayFromZero) * step
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dec(text: &str) -> Decimal {
        text.parse().expect("a decimal")
    }

    fn price(fee: &str, discount: &str, tax_rate: &str) -> Price {
        let (fee, discount, tax_rate) = (dec(fee), dec(discount), dec(tax_rate));
        let tax = to_step((fee - discount) * tax_rate / Decimal::ONE_HUNDRED, dec("0.01"));
        Price { fee, discount, tax_rate, tax, amount_due: fee - discount + tax }
    }

    fn check(price: &Price, instalments: &[Decimal], step: Decimal) {
        let mut invoiced = Invoiced::default();
        let mut subtotal = Decimal::ZERO;
        for amount in instalments {
            let amounts = split(price, &invoiced, *amount, step);
            let parts = amounts.subtotal - amounts.discount + amounts.tax + amounts.rounding;
            assert_eq!(amounts.total, parts, "{price:?} {amounts:?}");
            assert_eq!(amounts.total, *amount);
            for part in [amounts.subtotal, amounts.discount, amounts.tax] {
                assert!(part >= Decimal::ZERO && part.normalize().scale() <= 2, "{price:?} {amounts:?}");
            }
            invoiced = invoiced.with(&amounts);
            subtotal += amounts.subtotal;
        }
        let whole = (price.fee, price.discount, price.tax, price.amount_due);
        assert_eq!((subtotal, invoiced.discount, invoiced.tax, invoiced.total), whole, "{price:?}");
    }

    #[test]
    fn one_payment_is_the_whole_price() {
        let price = price("10000.00", "0", "18");
        let amounts = split(&price, &Invoiced::default(), dec("11800.00"), dec("0.01"));
        assert_eq!((amounts.subtotal, amounts.tax, amounts.rounding), (dec("10000.00"), dec("1800.00"), Decimal::ZERO));
    }

    #[test]
    fn a_part_is_taxed_backwards() {
        let amounts = split(&price("10000.00", "0", "18"), &Invoiced::default(), dec("5000.00"), dec("0.01"));
        assert_eq!((amounts.subtotal, amounts.tax), (dec("4237.29"), dec("762.71")));
    }

    #[test]
    fn a_price_that_was_rounded_keeps_its_rounding() {
        let rounded = Price { amount_due: dec("1179.00"), ..price("999.50", "0", "18") };
        let half = split(&rounded, &Invoiced::default(), dec("500.00"), dec("0.01"));
        let rest = split(&rounded, &Invoiced::default().with(&half), dec("679.00"), dec("0.01"));
        assert_eq!(half.rounding + rest.rounding, dec("-0.41"));
        assert_eq!(half.subtotal + rest.subtotal, rounded.fee);
    }

    #[test]
    fn a_free_seat_has_no_tax_and_divides_by_nothing() {
        let free = price("100.00", "100.00", "18");
        let amounts = split(&free, &Invoiced::default(), dec("0"), dec("0.01"));
        assert_eq!((amounts.discount, amounts.tax, amounts.total), (dec("100.00"), dec("0"), dec("0")));
    }

    #[test]
    fn however_it_is_split_the_sums_are_the_price_s() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..3_000 {
            let fee = Decimal::new(i64::try_from(next(5_000_000) + 1).expect("small"), 2);
            let discount = to_step(fee * Decimal::from(next(100)) / Decimal::ONE_HUNDRED, dec("0.01"));
            let rate = Decimal::new(i64::try_from(next(3_000)).expect("small"), 2);
            let price = price(&fee.to_string(), &discount.to_string(), &rate.to_string());
            let mut left = price.amount_due;
            let mut instalments = Vec::new();
            while left > Decimal::ZERO {
                let most_hundredths = u64::try_from(left * Decimal::ONE_HUNDRED).expect("positive");
                let hundredths = if instalments.len() == 30 { most_hundredths } else { 1 + next(most_hundredths) };
                let part = Decimal::new(i64::try_from(hundredths).expect("small"), 2);
                left -= part;
                instalments.push(part);
            }
            if !instalments.is_empty() {
                check(&price, &instalments, dec(["0.01", "0.05", "1"][usize::try_from(next(3)).expect("small")]));
            }
        }
    }

    #[test]
    fn a_thousand_hundredths_are_one_ten() {
        check(&price("8.47", "0", "18"), &vec![dec("0.01"); 999], dec("0.01"));
    }
}
