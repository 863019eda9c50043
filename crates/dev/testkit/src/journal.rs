//! Everything that happens, in order: the digest says whether two runs were the same, the lines say what happened.

use std::fmt;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Takes events as they happen. Whoever notes must have a reason that follows from the seed.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    is_printed: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    digest: u64,
    events: u64,
    violations: Vec<String>,
}

/// Violations kept of one run.
const VIOLATIONS_MAX: usize = 20;

impl Journal {
    pub fn new(is_printed: bool) -> Self {
        let state = State { digest: 0xcbf2_9ce4_8422_2325, events: 0, violations: Vec::new() };
        Self { start: Instant::now(), is_printed, state: Mutex::new(state) }
    }

    pub fn note(&self, who: &str, what: fmt::Arguments<'_>) {
        let at = self.start.elapsed();
        let line = format!("{:>10.3} {who:<14} {what}", at.as_secs_f64());
        if self.is_printed {
            println!("{line}");
        }
        let mut state = self.state.lock();
        state.events += 1;
        for byte in line.bytes().chain([b'\n']) {
            // FNV-1a: the same on every machine.
            state.digest = (state.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    /// Notes what must not be.
    pub fn violation(&self, number: triptych_runtime::Invariant, what: &str) {
        let text = format!("{number} ({}): {what}", number.text());
        self.note("VIOLATION", format_args!("{text}"));
        let mut state = self.state.lock();
        if state.violations.len() < VIOLATIONS_MAX {
            let at = self.start.elapsed().as_secs_f64();
            state.violations.push(format!("at {at:.3}s {text}"));
        }
    }

    pub fn digest(&self) -> u64 {
        self.state.lock().digest
    }

    pub fn events(&self) -> u64 {
        self.state.lock().events
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().violations.clone()
    }
}
