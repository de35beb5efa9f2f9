//! Numbers as a person reads them: four significant digits, and thousands set apart.

/// Four significant digits: `0.9356`, `22.10`, `7,286`, `1.234e-5`; `0` for zero.
pub(crate) fn short(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "-∞" }.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    // The exponent after rounding, so that 9.9999 is 10.00 and not 10.000.
    let scientific = format!("{value:.3e}");
    let (_, exponent) = scientific.split_once('e').expect("this format has an exponent");
    match exponent.parse::<i32>().expect("an exponent is a whole number") {
        exponent @ -4..3 => format!("{value:.*}", usize::try_from(3 - exponent).expect("the exponent is at most 2")),
        3..15 => thousands(&format!("{value:.0}")),
        _ => scientific,
    }
}

/// A whole number, its thousands set apart: `7,286`.
pub(crate) fn count(value: i64) -> String {
    thousands(&value.to_string())
}

fn thousands(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits are ASCII")).collect();
    format!("{sign}{}", groups.join(","))
}
