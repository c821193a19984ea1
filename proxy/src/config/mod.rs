//! Wire → compiled → live. Everything here but `live` runs on the main runtime only.
//!
//! * `compile` turns one wire message into its compiled form: pure, synchronous, every field with a verdict.
//! * `registry` hands out the one cell per name.
//! * `warming` decides what may be published: who waits for whom.
//! * `apply` ties them together: a delta of one type in, verdicts and commands for the workers out.

pub mod apply;
pub mod compile;
pub mod dump;
pub mod handle;
pub mod listeners;
pub mod live;
pub mod registry;
pub mod warming;
