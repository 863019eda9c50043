//! Sizes as people write them: `64MiB`, `1GiB`, `500KB`, or a plain number of bytes; `0` means what the field says.
//!
//! Use as `#[serde(with = "triptych_config::bytes")] #[schemars(with = "String")]` on a `u64` or `usize`.

use serde::{Deserialize, Deserializer, Serializer};

const UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

pub fn parse(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is not a size; write it like 64MiB, 500KB or a number of bytes");
    let text = text.trim();
    let (number, unit) =
        UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes))).unwrap_or((text, 1));
    number.trim().parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(bad)
}

pub fn format(bytes: u64) -> String {
    for (unit, size) in &UNITS[..4] {
        if bytes >= *size && bytes.is_multiple_of(*size) {
            return format!("{}{unit}", bytes / size);
        }
    }
    bytes.to_string()
}

/// The integers a size may be kept in.
pub trait Size: Copy {
    fn to_u64(self) -> u64;
    fn from_u64(bytes: u64) -> Option<Self>;
}

impl Size for u64 {
    fn to_u64(self) -> u64 {
        self
    }
    fn from_u64(bytes: u64) -> Option<Self> {
        Some(bytes)
    }
}

impl Size for usize {
    fn to_u64(self) -> u64 {
        self as u64
    }
    fn from_u64(bytes: u64) -> Option<Self> {
        bytes.try_into().ok()
    }
}

pub fn serialize<T: Size, S: Serializer>(bytes: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format(bytes.to_u64()))
}

pub fn deserialize<'de, T: Size, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Number(u64),
        Text(String),
    }
    let bytes = match Form::deserialize(deserializer)? {
        Form::Number(bytes) => bytes,
        Form::Text(text) => parse(&text).map_err(serde::de::Error::custom)?,
    };
    T::from_u64(bytes)
        .ok_or_else(|| serde::de::Error::custom(format!("{bytes} bytes do not fit this machine")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_forms() {
        for (text, bytes) in
            [("64MiB", 64 << 20), ("500KB", 500_000), ("12", 12), ("1 GiB", 1 << 30), ("7B", 7)]
        {
            assert_eq!(parse(text), Ok(bytes), "{text}");
            assert_eq!(parse(&format(bytes)), Ok(bytes));
        }
        for text in ["", "MiB", "-1", "1.5GiB", "99999999999TiB"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
