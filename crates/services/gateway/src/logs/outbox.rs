//! Lines of a tail that wait for their client: held back for a while so that late ones come in order, and dropped, with a note of
//! it, where the client is slower than they arrive, or its tenant's queries have no memory left.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;
use triptych_model::Labels;
use triptych_model::logs::LogEntry;
use triptych_runtime::Reservation;

use super::answer;
use crate::json;

/// Lines that wait for one client take no more than this.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Most lines in a message, and about how much of their text.
const MESSAGE_LINES_MAX: usize = 1000;
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Most dropped lines that a message names; it does not name the others.
const DROPPED_MAX: usize = 100;
/// What a line takes besides its text.
const LINE_BYTES: usize = 128;

/// A line is due when it has waited for the delay, or one of a later time has.
pub struct Outbox {
    delay: Duration,
    /// By time, then in the order they came.
    waiting: BTreeMap<(i64, u64), LogEntry>,
    /// What the lines take.
    held: Reservation,
    /// When lines came, and their times.
    arrivals: VecDeque<(Instant, i64)>,
    arrived: u64,
    due_ns: i64,
    dropped: Vec<(i64, Labels)>,
}

impl Outbox {
    /// An empty box whose lines are added to `held`.
    pub fn new(delay: Duration, held: Reservation) -> Self {
        Self {
            delay,
            waiting: BTreeMap::new(),
            held,
            arrivals: VecDeque::new(),
            arrived: 0,
            due_ns: i64::MIN,
            dropped: Vec::new(),
        }
    }

    pub fn push(&mut self, entry: LogEntry, now: Instant) {
        let bytes = entry.line.len() + LINE_BYTES;
        if self.held.bytes() + bytes > WAITING_BYTES_MAX || self.held.grow(bytes).is_err() {
            if self.dropped.len() < DROPPED_MAX {
                self.dropped.push((entry.ts_ns, entry.labels));
            }
            return;
        }
        self.arrived += 1;
        self.arrivals.push_back((now, entry.ts_ns));
        self.waiting.insert((entry.ts_ns, self.arrived), entry);
    }

    /// Whether there is something to send.
    pub fn is_due(&mut self, now: Instant) -> bool {
        while let Some((_, ts_ns)) = self.arrivals.pop_front_if(|(came, _)| *came + self.delay <= now) {
            self.due_ns = self.due_ns.max(ts_ns);
        }
        !self.dropped.is_empty() || self.waiting.keys().next().is_some_and(|(ts_ns, _)| *ts_ns <= self.due_ns)
    }

    /// When to look again.
    pub fn next_due(&self) -> Option<Instant> {
        self.arrivals.front().map(|(came, _)| *came + self.delay)
    }

    /// What is due as a message, which leaves the box.
    pub fn message(&mut self, categorized: bool) -> String {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < MESSAGE_LINES_MAX
            && bytes < MESSAGE_BYTES_MAX
            && let Some(first) = self.waiting.first_entry()
            && first.key().0 <= self.due_ns
        {
            let entry = first.remove();
            bytes += entry.line.len() + LINE_BYTES;
            lines.push(entry);
        }
        self.held.shrink(bytes);
        message(&lines, &std::mem::take(&mut self.dropped), categorized)
    }
}

/// `{"streams":[..],"dropped_entries":[{"timestamp":"<ns>","labels":{..}},..]}`.
pub fn message(lines: &[LogEntry], dropped: &[(i64, Labels)], categorized: bool) -> String {
    let mut out = String::from("{\"streams\":");
    answer::groups(&mut out, lines, categorized);
    if !dropped.is_empty() {
        out.push_str(",\"dropped_entries\":");
        json::list(&mut out, dropped, |out, (ts_ns, labels)| {
            out.push_str(&format!("{{\"timestamp\":\"{ts_ns}\",\"labels\":"));
            json::labels(out, labels);
            out.push('}');
        });
    }
    if categorized {
        out.push_str(",\"encodingFlags\":[\"categorize-labels\"]");
    }
    out.push('}');
    out
}

#[cfg(test)]
mod tests {
    use triptych_runtime::MemoryBudget;

    use super::*;

    fn outbox(seconds: u64, memory_bytes_max: usize) -> Outbox {
        let held = MemoryBudget::new("queries", memory_bytes_max).reserve(0).unwrap();
        Outbox::new(Duration::from_secs(seconds), held)
    }

    fn line(ts_ns: i64, text: String) -> LogEntry {
        LogEntry {
            labels: Labels::from_pairs([("app", "x")]),
            metadata: Labels::empty(),
            parsed: Labels::empty(),
            ts_ns,
            line: text.into(),
            key: 0,
        }
    }

    fn times(outbox: &mut Outbox) -> Vec<String> {
        let message: serde_json::Value = serde_json::from_str(&outbox.message(false)).unwrap();
        let values = message["streams"][0]["values"].as_array().cloned().unwrap_or_default();
        values.iter().map(|v| v[0].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn late_lines_come_in_order() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut outbox = outbox(3, 1 << 20);
        outbox.push(line(20, "b".into()), at(0));
        outbox.push(line(10, "a".into()), at(2));
        outbox.push(line(30, "c".into()), at(2));
        assert!(!outbox.is_due(at(2)));
        assert_eq!(outbox.next_due(), Some(at(3)));
        // The late one goes with the one that has waited.
        assert!(outbox.is_due(at(3)));
        assert_eq!(times(&mut outbox), ["10", "20"]);
        assert!(!outbox.is_due(at(4)));
        assert!(outbox.is_due(at(5)));
        assert_eq!(times(&mut outbox), ["30"]);
    }

    #[test]
    fn what_is_dropped_is_named() {
        let now = Instant::now();
        // Three fit into the box, or two into what its tenant has left.
        for (memory_bytes_max, kept) in [(1 << 30, 3), (2200 << 10, 2)] {
            let mut outbox = outbox(0, memory_bytes_max);
            for i in 0..6 {
                outbox.push(line(i, "x".repeat(1 << 20)), now);
            }
            assert!(outbox.is_due(now));
            let mut sent = 0;
            let mut dropped = 0;
            while outbox.is_due(now) {
                let message: serde_json::Value = serde_json::from_str(&outbox.message(true)).unwrap();
                assert_eq!(message["streams"][0]["values"].as_array().unwrap().len(), 1, "by bytes");
                sent += 1;
                dropped += message["dropped_entries"].as_array().map_or(0, Vec::len);
            }
            assert_eq!((sent, dropped), (kept, 6 - kept));
        }
        let mut outbox = outbox(0, 1 << 20);
        outbox.push(line(2, "x".into()), now);
        outbox.push(line(3, "x".repeat(1 << 20)), now);
        assert!(outbox.is_due(now));
        let message: serde_json::Value = serde_json::from_str(&outbox.message(true)).unwrap();
        assert_eq!(
            message["dropped_entries"][0],
            serde_json::json!({"timestamp": "3", "labels": {"app": "x"}})
        );
        assert_eq!(message["encodingFlags"][0], "categorize-labels");
        // There is room again, and nothing to tell.
        assert!(!outbox.is_due(now));
        outbox.push(line(9, "y".into()), now);
        assert!(outbox.is_due(now));
        let message: serde_json::Value = serde_json::from_str(&outbox.message(false)).unwrap();
        assert!(message.get("dropped_entries").is_none(), "{message}");
    }
}
