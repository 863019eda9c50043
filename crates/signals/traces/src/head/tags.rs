//! Which attributes a head's spans have, and which values, so that the usual questions for tags decode no spans.
//!
//! Filled by those who ask: each folds in the chunks that were sealed since somebody asked before, without a lock, and keeps what
//! is new. The open chunks, at most 2 MiB, are looked through every time. So the first question pays for all, nobody pays who
//! writes, and a head that nobody asks has no index.
//!
//! The index knows no times: a question without a filter is answered for the whole head where its range touches the head's. It
//! keeps names, and up to [`VALUES_MAX`] values of each; questions for a name with more, with a filter, or for anything but
//! attributes and span names decode spans.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use triptych_model::Result;
use triptych_model::traces::Value;
use triptych_runtime::QueryContext;
use triptych_traceql::source::{Attribute, Intrinsic};

use super::{Head, Ordering, SHARDS, SHARDS_AHEAD, StreamExt, TryStreamExt, compute, stream};
use crate::otlp::{self, DecodeError, Place};
use crate::tags::{TagNames, TagValues};
use crate::view::{ValueRef, visit_any};

/// Most values kept of one name, and most bytes of all names and values: a head is asked for more than that seldom, and may be one
/// of many.
const VALUES_MAX: usize = 2_000;
const BYTES_MAX: usize = 8 << 20;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 64;
/// Texts that are known already, kept while a shard is folded, so that they are not decoded again.
const SEEN_MAX: usize = 20_000;

#[derive(Debug, Default)]
pub(super) struct TagIndex {
    known: HashMap<Attribute, Values>,
    bytes: usize,
    /// Sealed chunks folded in, by shard.
    chunks: [usize; SHARDS],
    /// Something could not be kept or read: the index is not asked any more.
    broken: bool,
}

#[derive(Debug)]
enum Values {
    /// By type and text.
    All(BTreeMap<(&'static str, String), Value>),
    TooMany,
}

/// What takes an answer from the index.
pub(super) trait Collect {
    /// `false`: the index does not know it.
    fn collect(&mut self, index: &TagIndex) -> bool;
}

impl Collect for TagNames {
    fn collect(&mut self, index: &TagIndex) -> bool {
        for attribute in index.known.keys() {
            if let Attribute::Named(scope, name) = attribute {
                self.add(*scope, name);
            }
        }
        true
    }
}

impl Collect for TagValues {
    fn collect(&mut self, index: &TagIndex) -> bool {
        let is_kept =
            |a: &Attribute| matches!(a, Attribute::Named(..) | Attribute::Intrinsic(Intrinsic::Name));
        if !self.attributes.iter().all(is_kept) {
            return false;
        }
        for attribute in self.attributes.clone() {
            match index.known.get(&attribute) {
                None => {}
                Some(Values::All(values)) => values.values().for_each(|v| self.add(v.clone())),
                Some(Values::TooMany) => return false,
            }
        }
        true
    }
}

impl TagIndex {
    fn add(&mut self, attribute: Attribute, value: Option<Value>) {
        if self.bytes > BYTES_MAX {
            self.broken = true;
            return;
        }
        let values = self.known.entry(attribute).or_insert_with_key(|attribute| {
            let name = if let Attribute::Named(_, name) = attribute { name.len() } else { 0 };
            self.bytes += ENTRY_BYTES + name;
            Values::All(BTreeMap::new())
        });
        let (Values::All(all), Some(value)) = (&mut *values, value) else { return };
        if all.len() >= VALUES_MAX {
            let text: usize = all.keys().map(|(_, text)| ENTRY_BYTES + 2 * text.len()).sum();
            self.bytes = self.bytes.saturating_sub(text);
            *values = Values::TooMany;
            return;
        }
        let text = value.to_string();
        let bytes = ENTRY_BYTES + 2 * text.len();
        if all.insert((value.type_name(), text), value).is_none() {
            self.bytes += bytes;
        }
    }

    fn absorb(&mut self, other: TagIndex) {
        for (attribute, values) in other.known {
            self.add(attribute.clone(), None);
            match values {
                Values::All(values) => {
                    values.into_values().for_each(|v| self.add(attribute.clone(), Some(v)));
                }
                Values::TooMany => {
                    self.known.insert(attribute, Values::TooMany);
                }
            }
        }
        self.broken |= other.broken;
    }

    /// Adds what a chunk holds: parts of traces one behind the other, which is one message with the content of all.
    fn fold(&mut self, plain: &[u8], seen: &mut HashSet<Box<[u8]>>) {
        let mut key = Vec::new();
        let mut failed = None;
        let walked = otlp::visit_texts(plain, &mut |place, bytes| {
            key.clear();
            key.push(match place {
                Place::Name => 0,
                Place::Attribute(scope) => 1 + scope as u8,
            });
            key.extend_from_slice(bytes);
            if seen.contains(key.as_slice()) {
                return;
            }
            if seen.len() >= SEEN_MAX {
                seen.clear();
            }
            seen.insert(key.as_slice().into());
            if let Err(error) = self.add_text(place, bytes) {
                failed = Some(error);
            }
        });
        // Nobody sends such bytes: they were decoded on their way in.
        self.broken |= walked.is_err() || failed.is_some();
    }

    fn add_text(&mut self, place: Place, bytes: &[u8]) -> Result<(), DecodeError> {
        match place {
            Place::Name => {
                let name = std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)?;
                self.add(Attribute::Intrinsic(Intrinsic::Name), Some(Value::String(name.to_owned())));
            }
            Place::Attribute(scope) => {
                let decoded = otlp::decode_key_value(bytes, 0)?;
                let attribute = Attribute::Named(scope, decoded.key.as_ref().into());
                self.add(attribute.clone(), None);
                visit_any(&decoded.value, &mut |v: ValueRef<'_>| {
                    self.add(attribute.clone(), Some(v.to_value()))
                });
            }
        }
        Ok(())
    }
}

impl Head {
    /// Answers from the index, brought up to date. `false`: the index does not know it.
    pub(super) async fn index_tags(&self, ctx: &QueryContext, answer: &mut impl Collect) -> Result<bool> {
        if self.0.tags.lock().broken {
            return Ok(false);
        }
        let mut open = TagIndex::default();
        let mut shards = stream::iter(0..SHARDS)
            .map(|shard| {
                let (head, ctx) = (self.clone(), ctx.clone());
                compute(move || head.fold_shard(&ctx, shard))
            })
            .buffered(SHARDS_AHEAD);
        while let Some(found) = shards.try_next().await? {
            open.absorb(found);
        }
        let index = self.0.tags.lock();
        // The answer may hold something already; what the index lacks is looked for anew, and each comes once.
        Ok(!index.broken && !open.broken && answer.collect(&open) && answer.collect(&index))
    }

    /// Folds what is new in a shard into the index; gives what its open chunk holds.
    fn fold_shard(&self, ctx: &QueryContext, shard: usize) -> Result<TagIndex> {
        let known = self.0.tags.lock().chunks[shard];
        let (sealed, open) = {
            let shard = self.0.shards[shard].lock();
            (shard.chunks[known..].to_vec(), shard.open.clone())
        };
        let mut seen = HashSet::new();
        if !sealed.is_empty() {
            let mut found = TagIndex::default();
            for chunk in &sealed {
                ctx.check()?;
                ctx.add_read_bytes(chunk.plain_bytes as u64)?;
                found.fold(&chunk.open()?, &mut seen);
            }
            let mut index = self.0.tags.lock();
            let before = index.bytes;
            index.absorb(found);
            index.chunks[shard] = index.chunks[shard].max(known + sealed.len());
            if index.broken {
                index.known.clear();
                index.bytes = 0;
            }
            self.0.bytes.fetch_add(index.bytes, Ordering::Relaxed);
            self.0.bytes.fetch_sub(before, Ordering::Relaxed);
        }
        let mut of_open = TagIndex::default();
        ctx.add_read_bytes(open.len() as u64)?;
        of_open.fold(&open, &mut HashSet::new());
        Ok(of_open)
    }
}
