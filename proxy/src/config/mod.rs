//! Wire → compiled → live. Everything here but `live` runs on the main runtime only.
//!
//! * `compile` turns one wire message into its compiled form: pure, synchronous, every field with a verdict.
//! * `registry` hands out the one cell per name.
//! * `warming` decides what may be published: who waits for whom.
//! * `apply` takes a delta of one type in and gives verdicts; `publish` makes what is ready visible and tells the workers.
//! * `configuration` holds it all.

pub mod apply;
pub mod compile;
pub mod configuration;
mod counts;
pub mod dump;
pub mod handle;
pub mod listeners;
pub mod live;
mod publish;
mod refused;
pub mod registry;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub(crate) mod testing;
pub mod warming;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod compile_tests;
#[cfg(test)]
mod ejection_tests;
