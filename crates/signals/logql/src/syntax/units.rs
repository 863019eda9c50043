//! Durations and byte sizes as they appear in queries and in log lines.

const NS_PER: [(&str, f64, i64); 12] = [
    // Longest suffix first where one is the end of another.
    ("ns", 1.0, 1),
    ("us", 1e3, 1_000),
    ("µs", 1e3, 1_000), // U+00B5
    ("μs", 1e3, 1_000), // U+03BC
    ("ms", 1e6, 1_000_000),
    ("s", 1e9, 1_000_000_000),
    ("m", 6e10, 60_000_000_000),
    ("h", 3.6e12, 3_600_000_000_000),
    ("d", 8.64e13, 86_400_000_000_000),
    ("w", 6.048e14, 604_800_000_000_000),
    ("y", 3.1536e16, 31_536_000_000_000_000),
    ("", 0.0, 0),
];

/// A duration such as `1h30m`, `1.5s`, `250ms`, `2d`: Go's units and Prometheus' `d`, `w` (7 days), `y` (365 days), with an
/// optional sign. Nanoseconds; `None` where it is not a duration or does not fit. `0` alone is a duration, as in Go.
pub fn parse_duration_ns(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i64;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
        if digits == 0 {
            return None;
        }
        let (number, tail) = rest.split_at(digits);
        let unit_length = tail.bytes().take_while(|b| !b.is_ascii_digit() && *b != b'.').count();
        let (unit, next) = tail.split_at(unit_length);
        let &(_, ns_float, ns) = NS_PER.iter().find(|(u, ..)| *u == unit && !u.is_empty())?;
        let part = if number.contains('.') {
            let value = number.parse::<f64>().ok()? * ns_float;
            if value >= i64::MAX as f64 {
                return None;
            }
            value as i64
        } else {
            number.parse::<i64>().ok()?.checked_mul(ns)?
        };
        total = total.checked_add(part)?;
        rest = next;
    }
    Some(if negative { -total } else { total })
}

/// The shortest exact text: `90m` is written `1h30m`, days and longer stay hours' multiples in `d`/`w`.
pub fn format_duration_ns(ns: i64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    if ns < 0 {
        out.push('-');
    }
    let mut rest = ns.unsigned_abs();
    for (unit, length) in [
        ("w", 604_800_000_000_000u64),
        ("d", 86_400_000_000_000),
        ("h", 3_600_000_000_000),
        ("m", 60_000_000_000),
        ("s", 1_000_000_000),
        ("ms", 1_000_000),
        ("us", 1_000),
        ("ns", 1),
    ] {
        if rest >= length {
            out.push_str(&(rest / length).to_string());
            out.push_str(unit);
            rest %= length;
        }
    }
    out
}

const BYTE_UNITS: [(&str, u64); 24] = [
    ("b", 1),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("pib", 1 << 50),
    ("eib", 1 << 60),
    ("ki", 1 << 10),
    ("mi", 1 << 20),
    ("gi", 1 << 30),
    ("ti", 1 << 40),
    ("pi", 1 << 50),
    ("ei", 1 << 60),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("pb", 1_000_000_000_000_000),
    ("eb", 1_000_000_000_000_000_000),
    ("k", 1_000),
    ("m", 1_000_000),
    ("g", 1_000_000_000),
    ("t", 1_000_000_000_000),
    ("p", 1_000_000_000_000_000),
];

/// A size such as `10KB` (1000), `2 KiB` (1024), `1.5MB`, `42`; case does not matter, commas may group digits.
pub fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || matches!(b, b'.' | b',')).count();
    let (number, unit) = text.split_at(digits);
    let value: f64 =
        if number.contains(',') { number.replace(',', "").parse().ok()? } else { number.parse().ok()? };
    let unit = unit.trim();
    if unit.len() > 3 {
        return None;
    }
    let factor = if unit.is_empty() {
        1
    } else {
        BYTE_UNITS.iter().find(|(u, _)| unit.eq_ignore_ascii_case(u)).map(|(_, f)| *f)?
    };
    let bytes = value * factor as f64;
    (bytes < u64::MAX as f64).then_some(bytes as u64)
}

/// An exact text with a unit, so that it reads back as bytes.
pub fn format_bytes(bytes: u64) -> String {
    if bytes > 0 {
        for (unit, factor) in [
            ("PB", 1_000_000_000_000_000),
            ("TB", 1_000_000_000_000),
            ("GB", 1_000_000_000),
            ("MB", 1_000_000),
            ("KB", 1_000),
            ("PiB", 1u64 << 50),
            ("TiB", 1 << 40),
            ("GiB", 1 << 30),
            ("MiB", 1 << 20),
            ("KiB", 1 << 10),
        ] {
            // A float carries 53 bits: the count in front of the unit must stay below.
            if bytes.is_multiple_of(factor) && bytes < 1 << 53 {
                return format!("{}{unit}", bytes / factor);
            }
        }
    }
    format!("{bytes}B")
}
