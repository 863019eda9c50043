//! Which streams have which label: the index of a head.

use std::collections::BTreeMap;

use roaring::RoaringBitmap;
use triptych_model::{Labels, Matcher};

/// Label name, value, numbers of the streams that have it.
#[derive(Debug, Default)]
pub(crate) struct Postings {
    names: BTreeMap<Box<str>, BTreeMap<Box<str>, RoaringBitmap>>,
    all: RoaringBitmap,
}

impl Postings {
    pub fn add(&mut self, stream: u32, labels: &Labels) {
        self.all.insert(stream);
        for (name, value) in labels {
            if !self.names.contains_key(name) {
                self.names.insert(name.into(), BTreeMap::new());
            }
            let Some(values) = self.names.get_mut(name) else { continue };
            match values.get_mut(value) {
                Some(streams) => {
                    streams.insert(stream);
                }
                None => {
                    values.insert(value.into(), RoaringBitmap::from_iter([stream]));
                }
            }
        }
    }

    /// The streams that pass all matchers.
    pub fn select(&self, matchers: &[Matcher]) -> RoaringBitmap {
        let mut hits: Option<RoaringBitmap> = None;
        for matcher in matchers.iter().filter(|m| !m.matches_empty()) {
            let with =
                self.streams_where(&matcher.name, |value| matcher.matches(value), matcher.set_values());
            hits = Some(match hits {
                Some(hits) => hits & with,
                None => with,
            });
        }
        let mut hits = hits.unwrap_or_else(|| self.all.clone());
        for matcher in matchers.iter().filter(|m| m.matches_empty()) {
            hits -= self.streams_where(&matcher.name, |value| !matcher.matches(value), None);
        }
        hits
    }

    fn streams_where(
        &self,
        name: &str,
        test: impl Fn(&str) -> bool,
        set: Option<Vec<&str>>,
    ) -> RoaringBitmap {
        let Some(values) = self.names.get(name) else { return RoaringBitmap::new() };
        let mut out = RoaringBitmap::new();
        match set {
            Some(set) => set.iter().filter_map(|v| values.get(*v)).for_each(|streams| out |= streams),
            None => values.iter().filter(|(v, _)| test(v)).for_each(|(_, streams)| out |= streams),
        }
        out
    }

    /// The streams that pass one of the sets; no sets: all.
    pub fn select_any(&self, sets: &[Vec<Matcher>]) -> RoaringBitmap {
        if sets.is_empty() {
            return self.all.clone();
        }
        let mut out = RoaringBitmap::new();
        sets.iter().for_each(|set| out |= self.select(set));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use triptych_model::MatchOp::{self, Equal, NotEqual, NotRegex, Regex};

    #[test]
    fn the_same_as_asking_every_stream() {
        let streams: Vec<Labels> = (0..60)
            .map(|i| {
                let mut pairs = vec![("app", format!("a{}", i % 4))];
                if i % 3 == 0 {
                    pairs.push(("env", format!("e{}", i % 5)));
                }
                Labels::from_pairs(pairs)
            })
            .collect();
        let mut postings = Postings::default();
        streams.iter().enumerate().for_each(|(i, labels)| postings.add(i as u32, labels));
        let m = |op: MatchOp, name: &str, value: &str| Matcher::new(op, name, value).unwrap();
        for set in [
            vec![],
            vec![m(Equal, "app", "a1")],
            vec![m(Regex, "app", "a1|a2"), m(NotEqual, "env", "e0")],
            vec![m(Regex, "app", "a.*"), m(Equal, "env", "")],
            vec![m(NotRegex, "env", "e[12]")],
            vec![m(NotEqual, "env", "")],
            vec![m(Equal, "none", "x")],
            vec![m(Regex, "env", "e1|")],
        ] {
            let want: Vec<u32> =
                (0..60).filter(|i| set.iter().all(|m| m.matches_labels(&streams[*i as usize]))).collect();
            assert_eq!(postings.select(&set).iter().collect::<Vec<_>>(), want, "{set:?}");
        }
    }
}
