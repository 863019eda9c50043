//! What always holds, numbered. One list for the documentation, the simulation's checks, `debug_assert!` and a counter in
//! production: `triptych_invariant_violations_total{invariant="I2"}`, which is to stay at 0.

use std::cell::RefCell;
use std::fmt;

macro_rules! invariants {
    ($($name:ident $text:literal)*) => {
        /// A row of the table in `docs/ARCHITECTURE.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $( #[doc = $text] $name, )*
        }

        impl Invariant {
            /// In the order of their numbers.
            pub const ALL: &[Self] = &[$( Self::$name ),*];

            /// `I1`: the number, as it stands in the documentation and in the metric.
            pub fn number(self) -> &'static str {
                match self { $( Self::$name => stringify!($name), )* }
            }

            /// What holds.
            pub fn text(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

invariants! {
    I1 "An acknowledged item is in a WAL segment that was fsynced, or in the bucket and visible."
    I2 "A WAL segment is deleted only after everything in it is in the bucket, or in the spool and synced."
    I3 "A block is read only when its last object (`meta.json`, index) is there; that object is written last."
    I4 "Copies by natural key are shown once."
    I5 "A read that missed something says so."
    I6 "A tenant id touches a path only as `TenantId`; no tenant sees what another wrote."
    I7 "Ingest never waits for a query: separate pools, no shared lock held across an await."
    I8 "Every buffer that an outsider can fill has a limit in bytes, drawn from the one budget of its process."
    I9 "Nothing is shown that was not written."
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// Most violations that a thread keeps for [`violations`].
const KEPT_MAX: usize = 16;

thread_local! {
    static SEEN: RefCell<Vec<(Invariant, String)>> = const { RefCell::new(Vec::new()) };
}

/// Checks an invariant where that is cheap: `invariant!(I2, flushed, "generation {id} was not flushed")`. Where it does not hold this is
/// counted and said in the log, and a debug build panics.
#[macro_export]
macro_rules! invariant {
    ($number:ident, $holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::invariant::violated($crate::Invariant::$number, format!($($what)+));
        }
    };
}

/// Notes that an invariant does not hold: what [`invariant!`](crate::invariant!) does.
pub fn violated(invariant: Invariant, what: String) {
    crate::telemetry::invariant_violations(invariant.number()).increment(1);
    tracing::error!(%invariant, what, "an invariant does not hold: {}", invariant.text());
    SEEN.with_borrow_mut(|seen| {
        if seen.len() < KEPT_MAX {
            seen.push((invariant, what.clone()));
        }
    });
    debug_assert!(false, "{invariant} ({}): {what}", invariant.text());
}

/// Takes the violations that this thread has seen since the last call: for the simulation, where tasks swallow panics.
pub fn violations() -> Vec<(Invariant, String)> {
    SEEN.take()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_the_same_table() {
        let text = include_str!("../../../../docs/ARCHITECTURE.md");
        let rows: Vec<_> = text.lines().filter(|l| l.starts_with("| I")).map(str::to_owned).collect();
        let expected: Vec<_> = Invariant::ALL.iter().map(|i| format!("| {i} | {} |", i.text())).collect();
        assert_eq!(rows, expected);
    }

    #[test]
    fn a_violation_is_kept_and_panics_in_debug() {
        let outcome = std::panic::catch_unwind(|| invariant!(I2, 1 > 2, "{} is not {}", 1, 2));
        assert_eq!(outcome.is_err(), cfg!(debug_assertions));
        assert_eq!(violations(), [(Invariant::I2, "1 is not 2".to_owned())]);
        invariant!(I2, true, "never");
        assert_eq!(violations(), []);
    }
}
