//! Durations as people write them: `1h30m`, `15s`, `250ms`, `7d`, `1w`; `0` means none.
//!
//! Use as `#[serde(with = "triptych_config::duration")] #[schemars(with = "String")]` on a [`std::time::Duration`].

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Reads the text form; the error says what is allowed.
pub fn parse(text: &str) -> Result<Duration, String> {
    let bad =
        || format!("{text:?} is not a duration; write it like 1h30m, 15s or 250ms (units: w d h m s ms)");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut total_ms) = (text, 0u64);
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit_length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let (_, ms) = UNITS.iter().find(|(unit, _)| *unit == &rest[..unit_length]).ok_or_else(bad)?;
        total_ms = number.checked_mul(*ms).and_then(|n| total_ms.checked_add(n)).ok_or_else(bad)?;
        rest = &rest[unit_length..];
    }
    Ok(Duration::from_millis(total_ms))
}

/// Writes the shortest exact text form.
pub fn format(duration: Duration) -> String {
    let mut rest = duration.as_millis() as u64;
    if rest == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (unit, ms) in UNITS {
        if rest >= ms {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    text
}

pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(*duration))
}

pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Zero(u64),
    }
    match Form::deserialize(deserializer)? {
        Form::Text(text) => parse(&text).map_err(serde::de::Error::custom),
        Form::Zero(0) => Ok(Duration::ZERO),
        Form::Zero(n) => Err(serde::de::Error::custom(format!("{n} has no unit; write it like {n}s"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        for (text, ms) in
            [("1h30m", 5_400_000), ("250ms", 250), ("7d", 604_800_000), ("0", 0), ("90s", 90_000)]
        {
            assert_eq!(parse(text).unwrap().as_millis() as u64, ms, "{text}");
            assert_eq!(parse(&format(parse(text).unwrap())).unwrap().as_millis() as u64, ms, "{text}");
        }
        for text in ["", "1", "h", "1x", "-1s", "1.5h", "99999999999999999999s", "9999999999999999w"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
