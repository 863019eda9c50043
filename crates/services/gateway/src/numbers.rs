//! Floats as the originals write them. All are the shortest digits that read back the same; they differ in when there is an
//! exponent. Of Go's `strconv.FormatFloat` these are the formats `f`, `g`, and the one of JSON encoders.

use std::fmt::Write;

/// Never an exponent: values in Loki's answers, literals in a syntax tree.
pub fn decimal(out: &mut String, value: f64) {
    if !put_special(out, value) {
        let _ = write!(out, "{value}");
    }
}

/// An exponent below 1e-6 and from 1e21 on: values in Prometheus' answers.
pub fn json(out: &mut String, value: f64) {
    within(out, value, 1e-6..1e21);
}

/// An exponent below 1e-4 and from 1e6 on: values in the text exposition format.
pub fn exposition(out: &mut String, value: f64) {
    within(out, value, 1e-4..1e6);
}

/// Written out where the size is in the range, and zero; else with an exponent.
fn within(out: &mut String, value: f64, written_out: std::ops::Range<f64>) {
    if value == 0.0 || !value.is_finite() || written_out.contains(&value.abs()) {
        decimal(out, value);
    } else {
        put_exponent(out, value);
    }
}

/// `NaN`, `+Inf`, `-Inf`.
fn put_special(out: &mut String, value: f64) -> bool {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    } else {
        return false;
    }
    true
}

/// `1.5e-07`: a sign and two digits at least.
fn put_exponent(out: &mut String, value: f64) {
    let text = format!("{value:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent),
    };
    let _ = write!(out, "{mantissa}e{sign}{digits:0>2}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_format_has_its_exponents() {
        // Value, `f`, JSON, `g`.
        for (value, f, j, g) in [
            (0.0, "0", "0", "0"),
            (-0.0, "-0", "-0", "-0"),
            (1.5, "1.5", "1.5", "1.5"),
            (1e-7, "0.0000001", "1e-07", "1e-07"),
            (-2.5e-5, "-0.000025", "-0.000025", "-2.5e-05"),
            (1e-6, "0.000001", "0.000001", "1e-06"),
            (999_999.0, "999999", "999999", "999999"),
            (1_234_567.0, "1234567", "1234567", "1.234567e+06"),
            (1e20, "100000000000000000000", "100000000000000000000", "1e+20"),
            (1e21, "1000000000000000000000", "1e+21", "1e+21"),
            (f64::NAN, "NaN", "NaN", "NaN"),
            (f64::INFINITY, "+Inf", "+Inf", "+Inf"),
            (f64::NEG_INFINITY, "-Inf", "-Inf", "-Inf"),
        ] {
            let text = |write: fn(&mut String, f64)| {
                let mut out = String::new();
                write(&mut out, value);
                out
            };
            assert_eq!((&*text(decimal), &*text(json), &*text(exposition)), (f, j, g));
        }
        let mut smallest = String::new();
        json(&mut smallest, 5e-324);
        assert_eq!(smallest, "5e-324");
    }
}
