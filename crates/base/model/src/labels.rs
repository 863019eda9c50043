//! A sorted label set in one allocation, and its encoding.
//!
//! Encoding of a label set (in batches, heads, on the internal wire): for each pair in ascending order of name,
//! `uvarint length | name | uvarint length | value`. An empty set has no bytes. Names are unique, values are not empty
//! (an empty value means "absent" in all three languages).

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use xxhash_rust::xxh64::Xxh64;

use crate::{Error, Result};

/// The label that carries a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// A sorted set of labels. Cheap to clone; the empty set shares one allocation.
///
/// Invariant (what the unchecked UTF-8 below rests on): the bytes came from [`Labels::from_encoded`], which checks them,
/// or from [`encode_pairs`], which takes `&str` only. No other constructor exists.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<[u8]>);

/// Appends the encoding of sorted, unique pairs to `out`. Pairs with an empty value are left out.
pub fn encode_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    for (name, value) in pairs {
        if value.is_empty() {
            continue;
        }
        put_uvarint(out, name.len() as u64);
        out.extend_from_slice(name.as_bytes());
        put_uvarint(out, value.len() as u64);
        out.extend_from_slice(value.as_bytes());
    }
}

/// The hash of sorted pairs, as Prometheus and Loki compute it: xxh64 of `name 0xff value 0xff ...`.
pub fn hash_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> u64 {
    let mut hasher = Xxh64::new(0);
    for (name, value) in pairs {
        hasher.update(name.as_bytes());
        hasher.update(&[0xff]);
        hasher.update(value.as_bytes());
        hasher.update(&[0xff]);
    }
    hasher.digest()
}

impl Labels {
    pub fn empty() -> Self {
        static EMPTY: std::sync::LazyLock<Arc<[u8]>> = std::sync::LazyLock::new(|| Arc::from([]));
        Self(EMPTY.clone())
    }

    /// From pairs in any order; of pairs with the same name the last one counts; empty values are left out.
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(pairs: impl IntoIterator<Item = (N, V)>) -> Self {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.set(name.as_ref(), value.as_ref());
        }
        builder.build()
    }

    /// From pairs that are sorted by name and unique already.
    pub fn from_sorted<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut out = Vec::with_capacity(128);
        encode_pairs(pairs, &mut out);
        if out.is_empty() { Self::empty() } else { Self(out.into()) }
    }

    /// Checks and copies an encoded set. Fails on torn lengths, invalid UTF-8, names out of order, empty values.
    pub fn from_encoded(bytes: &[u8]) -> Result<Self> {
        if bytes.is_empty() {
            return Ok(Self::empty());
        }
        let damaged = || Error::damaged("label set: torn or not sorted");
        let mut rest = bytes;
        let mut previous: Option<&str> = None;
        while !rest.is_empty() {
            let name = take_str(&mut rest).ok_or_else(damaged)?;
            let value = take_str(&mut rest).ok_or_else(damaged)?;
            if value.is_empty() || previous.is_some_and(|p| p >= name) {
                return Err(damaged());
            }
            previous = Some(name);
        }
        Ok(Self(bytes.into()))
    }

    /// The encoding; equal sets have equal bytes.
    pub fn as_encoded(&self) -> &[u8] {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.0 }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        for (n, v) in self.iter() {
            match n.cmp(name) {
                Ordering::Less => {}
                Ordering::Equal => return Some(v),
                Ordering::Greater => return None,
            }
        }
        None
    }

    /// The value, or `""` where the label is absent (what matchers see).
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    /// See [`hash_pairs`].
    pub fn hash64(&self) -> u64 {
        hash_pairs(self.iter())
    }

    pub fn to_builder(&self) -> LabelsBuilder {
        LabelsBuilder { pairs: self.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect() }
    }

    /// Only the labels for which `keep` is true.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        Labels::from_sorted(self.iter().filter(|(n, _)| keep(n)))
    }
}

/// The pairs of an encoded set that was checked before.
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let name = take_bytes(&mut self.rest)?;
        let value = take_bytes(&mut self.rest)?;
        // SAFETY: an `Iter` is made by `Labels::iter` alone, and the invariant of `Labels` says that every name and value
        // was UTF-8 when the set was built. `labels_are_always_utf8` walks random input through `from_encoded`.
        #[allow(
            unsafe_code,
            reason = "labels are read per series and line; checking UTF-8 again costs more than the comparison"
        )]
        unsafe {
            Some((std::str::from_utf8_unchecked(name), std::str::from_utf8_unchecked(value)))
        }
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a str, &'a str);
    type IntoIter = Iter<'a>;
    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl Default for Labels {
    fn default() -> Self {
        Self::empty()
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

/// By name, then value, pair after pair; a prefix comes first. Prometheus' order of series.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        self.iter().cmp(other.iter())
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// `{a="1", b="2"}`, values quoted as Go's `strconv.Quote` does for the common cases.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (i, (name, value)) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Changes a label set; kept sorted.
#[derive(Debug, Default, Clone)]
pub struct LabelsBuilder {
    pairs: Vec<(String, String)>,
}

impl LabelsBuilder {
    /// Sets, or with an empty value removes, a label.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        match self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)) {
            Ok(i) if value.is_empty() => {
                self.pairs.remove(i);
            }
            Ok(i) => self.pairs[i].1 = value.to_owned(),
            Err(_) if value.is_empty() => {}
            Err(i) => self.pairs.insert(i, (name.to_owned(), value.to_owned())),
        }
        self
    }

    pub fn remove(&mut self, name: &str) -> &mut Self {
        self.set(name, "")
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.pairs.binary_search_by(|(n, _)| n.as_str().cmp(name)).ok().map(|i| self.pairs[i].1.as_str())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.pairs.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    pub fn build(&self) -> Labels {
        Labels::from_sorted(self.iter())
    }
}

/// LEB128, as protobuf and Go's `binary.PutUvarint` write it.
pub fn put_uvarint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes one LEB128 number off the front; `None` where it is torn or longer than 64 bits.
#[inline]
pub fn take_uvarint(rest: &mut &[u8]) -> Option<u64> {
    let first = *rest.first()?;
    if first < 0x80 {
        *rest = &rest[1..];
        return Some(u64::from(first));
    }
    let mut value = 0u64;
    for (i, &byte) in rest.iter().enumerate().take(10) {
        if i == 9 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte < 0x80 {
            *rest = &rest[i + 1..];
            return Some(value);
        }
    }
    None
}

/// Takes a length-prefixed slice off the front.
#[inline]
pub fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_uvarint(rest)?).ok()?;
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pairs_are_sorted_unique_and_not_empty() {
        let labels = Labels::from_pairs([("b", "2"), ("a", "1"), ("c", ""), ("a", "3")]);
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
        assert_eq!(labels.get("b"), Some("2"));
        assert_eq!(labels.value("c"), "");
        assert_eq!(labels.to_string(), r#"{a="3", b="2"}"#);
    }

    #[test]
    fn hash_is_prometheus_hash() {
        assert_eq!(Labels::empty().hash64(), 0xef46_db37_51d8_e999);
    }

    proptest! {
        #[test]
        fn round_trip(pairs in proptest::collection::btree_map("[a-z_]{0,8}", "\\PC{1,200}", 0..12)) {
            let labels = Labels::from_pairs(&pairs);
            prop_assert_eq!(Labels::from_encoded(labels.as_encoded()).unwrap(), labels.clone());
            prop_assert_eq!(labels.iter().count(), pairs.len());
        }

        #[test]
        fn labels_are_always_utf8(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(labels) = Labels::from_encoded(&bytes) {
                for (n, v) in labels.iter() {
                    prop_assert!(std::str::from_utf8(n.as_bytes()).is_ok() && std::str::from_utf8(v.as_bytes()).is_ok());
                }
            }
        }

        #[test]
        fn uvarint_round_trip(value: u64) {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            prop_assert_eq!(take_uvarint(&mut &out[..]), Some(value));
        }
    }
}
