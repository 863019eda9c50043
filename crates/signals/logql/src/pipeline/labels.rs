//! The labels of the line at hand: the stream's, its structured metadata, and what the stages add. One arena of text that is
//! emptied from line to line, so that a line costs no allocation.
//!
//! Which one a name means where several have it: parsed before metadata before stream. Metadata and parsers do not overwrite
//! the stream's labels: they go by `<name>_extracted` then.

use std::hash::BuildHasher;
use std::ops::Range;

use hashbrown::{DefaultHashBuilder, HashTable};
use smallvec::SmallVec;
use triptych_model::Labels;

use crate::{ERROR_DETAILS_LABEL, ERROR_LABEL};

/// Appended to a name that the stream has already.
pub const DUPLICATE_SUFFIX: &str = "_extracted";

/// From this many names on they are found by hash.
const INDEX_FROM: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    Stream,
    Metadata,
    Parsed,
}

#[derive(Debug)]
struct Entry {
    name: Range<usize>,
    value: Range<usize>,
    category: Category,
    live: bool,
    /// Whether a parser wrote it: of what parsers find under one name the first counts.
    by_parser: bool,
}

#[derive(Debug)]
pub struct LineLabels {
    base: Labels,
    /// Names taken from the base for this line.
    deleted: SmallVec<[String; 2]>,
    arena: String,
    entries: Vec<Entry>,
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
    error: &'static str,
    error_details: String,
}

/// Pairs on the way out.
pub type Pairs<'a> = SmallVec<[(&'a str, &'a str); 24]>;

impl LineLabels {
    pub fn new(base: Labels) -> Self {
        Self {
            base,
            deleted: SmallVec::new(),
            arena: String::new(),
            entries: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            error: "",
            error_details: String::new(),
        }
    }

    pub fn base(&self) -> &Labels {
        &self.base
    }

    /// Starts the next line.
    pub fn reset<'m>(&mut self, metadata: impl IntoIterator<Item = (&'m str, &'m str)>) {
        self.deleted.clear();
        self.arena.clear();
        self.entries.clear();
        self.index.clear();
        self.clear_error();
        for (name, value) in metadata {
            if self.base_has(name) {
                let name = format!("{name}{DUPLICATE_SUFFIX}");
                self.set(Category::Metadata, &name, value);
            } else {
                self.set(Category::Metadata, name, value);
            }
        }
    }

    pub fn base_has(&self, name: &str) -> bool {
        self.base.get(name).is_some()
    }

    fn find(&self, name: &str) -> Option<usize> {
        if self.entries.len() <= INDEX_FROM {
            // Bytes: a text's slices would be checked for character boundaries at each comparison.
            let (arena, name) = (self.arena.as_bytes(), name.as_bytes());
            return self
                .entries
                .iter()
                .position(|e| e.name.len() == name.len() && arena[e.name.clone()] == *name);
        }
        let hash = self.hasher.hash_one(name);
        self.index.find(hash, |&i| self.arena[self.entries[i].name.clone()] == *name).copied()
    }

    /// The value, if there is one that is not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        if name == ERROR_LABEL {
            return (!self.error.is_empty()).then_some(self.error);
        }
        if name == ERROR_DETAILS_LABEL {
            return (!self.error_details.is_empty()).then_some(self.error_details.as_str());
        }
        if let Some(entry) = self.find(name).map(|i| &self.entries[i])
            && entry.live
        {
            return (!entry.value.is_empty()).then(|| &self.arena[entry.value.clone()]);
        }
        if self.deleted.iter().any(|d| d == name) { None } else { self.base.get(name) }
    }

    pub fn category(&self, name: &str) -> Option<Category> {
        match self.find(name).map(|i| &self.entries[i]) {
            Some(entry) if entry.live => Some(entry.category),
            _ if self.base_has(name) && !self.deleted.iter().any(|d| d == name) => Some(Category::Stream),
            _ => None,
        }
    }

    pub fn set(&mut self, category: Category, name: &str, value: &str) {
        self.put(category, name, false, |arena| arena.push_str(value));
        if self.base_has(name) && !self.deleted.iter().any(|d| d == name) {
            self.deleted.push(name.to_owned());
        }
    }

    /// Adds a field that a parser found; the first of a name counts. Never called with a name that the stream has. Whether it
    /// was new.
    pub fn set_parsed(&mut self, name: &str, write: impl FnOnce(&mut String)) -> bool {
        if let Some(i) = self.find(name)
            && self.entries[i].live
            && self.entries[i].by_parser
        {
            return false;
        }
        self.put(Category::Parsed, name, true, write);
        true
    }

    fn put(&mut self, category: Category, name: &str, by_parser: bool, write: impl FnOnce(&mut String)) {
        let found = self.find(name);
        let name_at = match found {
            Some(i) => self.entries[i].name.clone(),
            None => {
                let start = self.arena.len();
                self.arena.push_str(name);
                start..self.arena.len()
            }
        };
        let start = self.arena.len();
        write(&mut self.arena);
        let entry = Entry { name: name_at, value: start..self.arena.len(), category, live: true, by_parser };
        match found {
            Some(i) => self.entries[i] = entry,
            None => {
                self.entries.push(entry);
                let (arena, entries, hasher) = (&self.arena, &self.entries, &self.hasher);
                let hash_of = |i: &usize| hasher.hash_one(&arena[entries[*i].name.clone()]);
                match entries.len() {
                    n if n <= INDEX_FROM => {}
                    n if n == INDEX_FROM + 1 => {
                        for i in 0..n {
                            self.index.insert_unique(hash_of(&i), i, hash_of);
                        }
                    }
                    n => {
                        self.index.insert_unique(hash_of(&(n - 1)), n - 1, hash_of);
                    }
                }
            }
        }
    }

    pub fn delete(&mut self, name: &str) {
        if name == ERROR_LABEL {
            self.error = "";
            return;
        }
        if name == ERROR_DETAILS_LABEL {
            self.error_details.clear();
            return;
        }
        if let Some(i) = self.find(name) {
            self.entries[i].live = false;
        }
        if self.base_has(name) && !self.deleted.iter().any(|d| d == name) {
            self.deleted.push(name.to_owned());
        }
    }

    /// `__error__` and `__error_details__`. The first error of a line stays.
    pub fn set_error(&mut self, error: &'static str, details: impl std::fmt::Display) {
        if self.error.is_empty() {
            use std::fmt::Write;
            self.error = error;
            self.error_details.clear();
            // Writing to a string does not fail.
            let _ = write!(self.error_details, "{details}");
        }
    }

    pub fn clear_error(&mut self) {
        self.error = "";
        self.error_details.clear();
    }

    pub fn has_error(&self) -> bool {
        !self.error.is_empty()
    }

    fn entries_of(&self, category: Category) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .filter(move |e| e.live && e.category == category && !e.value.is_empty())
            .map(|e| (&self.arena[e.name.clone()], &self.arena[e.value.clone()]))
    }

    fn base_left(&self) -> impl Iterator<Item = (&str, &str)> {
        self.base.iter().filter(|(n, _)| self.deleted.is_empty() || !self.deleted.iter().any(|d| d == n))
    }

    /// Whether there is nothing but the stream's own labels.
    #[inline]
    pub fn is_base_only(&self) -> bool {
        self.entries.is_empty() && self.deleted.is_empty() && !self.has_error()
    }

    /// Names of everything there is.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.all().iter().map(|(n, _)| (*n).to_owned()).collect();
        names.retain(|n| n != ERROR_LABEL && n != ERROR_DETAILS_LABEL);
        names
    }

    /// Stream labels, metadata and parsed fields in one, sorted, with the error labels.
    pub fn all(&self) -> Pairs<'_> {
        let mut pairs: Pairs<'_> = self.base_left().collect();
        pairs.extend(
            self.entries
                .iter()
                .filter(|e| e.live && !e.value.is_empty())
                .map(|e| (&self.arena[e.name.clone()], &self.arena[e.value.clone()])),
        );
        self.push_error(&mut pairs);
        pairs.sort_unstable();
        pairs
    }

    fn push_error<'a>(&'a self, pairs: &mut Pairs<'a>) {
        if !self.error.is_empty() {
            pairs.push((ERROR_LABEL, self.error));
        }
        if !self.error_details.is_empty() {
            pairs.push((ERROR_DETAILS_LABEL, &self.error_details));
        }
    }

    /// The stream's labels as they stand now.
    pub fn stream_labels(&self) -> Labels {
        if self.entries.is_empty() && self.deleted.is_empty() {
            return self.base.clone();
        }
        let mut added: Pairs<'_> = self.entries_of(Category::Stream).collect();
        if added.is_empty() && self.deleted.is_empty() {
            return self.base.clone();
        }
        added.extend(self.base_left());
        added.sort_unstable();
        Labels::from_sorted(added)
    }

    pub fn metadata_labels(&self) -> Labels {
        let mut pairs: Pairs<'_> = self.entries_of(Category::Metadata).collect();
        if pairs.is_empty() {
            return Labels::empty();
        }
        pairs.sort_unstable();
        Labels::from_sorted(pairs)
    }

    pub fn parsed_labels(&self) -> Labels {
        let mut pairs: Pairs<'_> = self.entries_of(Category::Parsed).collect();
        self.push_error(&mut pairs);
        if pairs.is_empty() {
            return Labels::empty();
        }
        pairs.sort_unstable();
        Labels::from_sorted(pairs)
    }
}
