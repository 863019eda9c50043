//! The real parts of Triptych on simulated machines: one thread, one seed, and the seed decides everything.
//!
//! **Owns** the simulated clock, disk, bucket and network; a world of machines with distributors, ingesters, store-gateways,
//! compactors and queriers; a workload that knows what was acknowledged; the storm of faults; the checks.
//! **Must not know** formats, or what is inside of a part: it uses the doors that everybody uses.
//!
//! | module | |
//! |---|---|
//! | [`dice`], [`clock`], [`life`] | chance, time, and the end of a process |
//! | [`disk`], [`bucket`], [`network`], [`remote`] | what a process sees of the world, and what can go wrong with it |
//! | [`gossip`] | what each process knows of the others |
//! | [`host`], [`world`] | machines that are started, killed, stopped, frozen |
//! | [`workload`], [`ledger`] | what is written and read, and whether an answer agrees with what was acknowledged |
//! | [`storm`] | which faults happen when |
//! | [`run`] | one seed from the beginning to the reckoning |
//! | [`mutant`] | bugs on purpose, to see that they are found |
//!
//! # What is checked
//! The invariants of `docs/ARCHITECTURE.md`, by their numbers (`triptych_runtime::Invariant`), from outside: a read that says that it is
//! complete holds everything that was acknowledged before it began (I1, I5); nothing is shown twice (I4), nothing that was not written
//! (I9) or that is another tenant's (I6). When the faults are over, every read becomes complete; after a flush and compaction the bucket
//! alone holds everything (I2, I3), and compaction has come to rest: there are no copies left to merge. Where ingesters come in the calm,
//! one in every zone at once, no answer is partial for that. While what was flushed is merged, store-gateways stand still in turn, so that
//! readers ask some that have seen different blocks. What the product itself checks
//! (`invariant!`) counts as well, as does a task that dies.
//!
//! # Running it
//! `cargo test -p triptych-testkit` runs a fixed list of seeds and is part of `make test`. `make simulate` runs ten thousand others.
//! `SEED=7 cargo test -p triptych-testkit --test simulation -- --nocapture` replays one and prints every event, with `RUST_LOG=debug` also
//! what the product logs. `make mutants` shows that bugs are found.
//!
//! # What makes it the same every time
//! A tokio runtime of one thread whose time is paused; random numbers from [`Dice`]; the product's from `triptych_runtime::random`. The
//! [`journal`]'s digest tells whether two runs were the same, and a test runs some seeds twice.
//!
//! # Known holes
//! Threads: what goes wrong only where two of them run at once is not found. gRPC and HTTP are not simulated: calls pass
//! between the traits of `triptych_rpc`.

pub mod bucket;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod gossip;
pub mod host;
pub mod journal;
pub mod ledger;
pub mod life;
pub mod mutant;
pub mod network;
pub mod remote;
pub mod run;
pub mod storm;
pub mod workload;
pub mod world;

pub use dice::Dice;
pub use mutant::Mutant;
pub use run::{Options, Outcome, run};
