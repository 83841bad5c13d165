//! Amounts: `numeric(14,2)` in the database, a JSON number with exactly two decimals on the wire,
//! never a binary float in between.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::value::RawValue;

/// Most digits before the decimal point: `numeric(14,2)`.
const INTEGER_DIGITS: usize = 12;

/// The largest amount.
pub const MAX: f64 = 999_999_999_999.99;

/// Reads the text of a JSON number as an amount that is greater than 0.
pub fn parse_amount(number: &str) -> Result<Decimal, &'static str> {
    parse_decimal(number)
        .map_err(|error| if error == NEGATIVE { NOT_POSITIVE } else { error })
        .and_then(|amount| if amount.is_zero() { Err(NOT_POSITIVE) } else { Ok(amount) })
}

const NEGATIVE: &str = "must not be less than 0";
const NOT_POSITIVE: &str = "must be greater than 0";

/// Reads the text of a JSON number that has at most two decimals and is not negative.
pub fn parse_decimal(number: &str) -> Result<Decimal, &'static str> {
    let plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'));
    if !plain || number.is_empty() {
        return Err("must be a number");
    }
    if number.starts_with('-') {
        return Err(NEGATIVE);
    }
    let (integer, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(integer) || !digits(fraction) {
        return Err("must be a plain decimal number without an exponent");
    }
    if fraction.len() > 2 {
        return Err("must have at most two decimals");
    }
    if integer.len() > INTEGER_DIGITS {
        return Err("must be at most 999999999999.99");
    }
    number.parse().map_err(|_| "must be a number")
}

/// An amount as a JSON number with exactly two decimals.
pub fn to_json(amount: Decimal) -> Box<RawValue> {
    let mut amount = amount.round_dp_with_strategy(2, RoundingStrategy::MidpointNearestEven);
    amount.rescale(2);
    RawValue::from_string(amount.to_string()).expect("a decimal's text is a JSON number")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keeps_cents_exactly() {
        for (text, json) in [
            ("12.50", "12.50"),
            ("0.1", "0.10"),
            ("7", "7.00"),
            ("999999999999.99", "999999999999.99"),
        ] {
            assert_eq!(to_json(parse_amount(text).unwrap()).get(), json);
        }
        assert_eq!(to_json("-3.5".parse().unwrap()).get(), "-3.50");
    }

    #[test]
    fn refuses_what_the_column_cannot_hold() {
        for bad in [
            "0",
            "0.00",
            "-1",
            "-0",
            "1.001",
            "1e2",
            "1E-2",
            "1000000000000",
            "\"1\"",
            "true",
            "null",
            "",
            "[1]",
            "1.",
        ] {
            assert!(parse_amount(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_amount_survives(cents in 1_i64..=99_999_999_999_999) {
            let json = to_json(Decimal::new(cents, 2));
            prop_assert_eq!(parse_amount(json.get()).unwrap(), Decimal::new(cents, 2));
        }
    }
}
