//! Wire → compiled → live. Everything here but `live` runs on the main runtime only.
//!
//! * `compile` turns one wire message into its compiled form: pure, synchronous, every field with a verdict.
//! * `sources` numbers where dynamic resources come from; `watch` knows which of them are wanted.
//! * `registry` hands out the one cell per name.
//! * `warming` decides what may be published: who waits for whom.
//! * `apply` takes a delta of one type in and gives verdicts; `publish` makes what is ready visible and tells the workers.
//! * `health_checks` lets hosts in and keeps them by what their active health checks find.
//! * `on_demand` subscribes to what requests ask for, and tells them what became of it.
//! * `dns` looks up the names of clusters.
//! * `virtual_hosts` has those that come one by one (VHDS).
//! * `restore` begins with what was good before the process started.
//! * `configuration` holds it all.

pub mod apply;
pub mod certificate_files;
pub mod compile;
pub mod configuration;
mod counts;
pub mod dns;
pub mod dump;
pub mod extensions;
pub(crate) mod folder;
pub mod handle;
pub(crate) mod health_checks;
pub mod listeners;
pub mod live;
pub(crate) mod on_demand;
mod publish;
mod refused;
pub mod registry;
pub mod restore;
pub mod sources;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::unwrap_used, clippy::expect_used)]
#[cfg_attr(not(test), allow(dead_code, reason = "fuzzing needs its inputs only"))]
pub(crate) mod testing;
pub mod virtual_hosts;
pub mod warming;
pub mod watch;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod certificate_files_tests;
#[cfg(test)]
mod compile_tests;
#[cfg(test)]
mod ejection_tests;
#[cfg(test)]
mod extension_tests;
#[cfg(test)]
mod filter_tests;
#[cfg(test)]
mod health_check_tests;
#[cfg(test)]
mod policy_tests;
