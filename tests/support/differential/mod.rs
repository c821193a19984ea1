//! The comparison of two proxies: the same file and the same requests through a real Envoy and through ours; what the
//! client saw, what the upstream saw and what the access log says must be equal.
//!
//! A [`Case`] is a route table and some requests. A group of cases is one bootstrap file with a listener for each, so
//! that a whole group costs one start of each proxy. The proxies run one after the other on the very same file, hence
//! on the same addresses: only what is different on every run (dates, ids, durations, client ports) is masked.
//!
//! `DIFFERENTIAL_AGAINST=envoy` compares Envoy with itself, which shows whether a new case is stable;
//! `DIFFERENTIAL_PRINT=1` prints what Envoy does.

mod case;
mod view;
mod world;

use std::env;
use std::io::{self, Write};

pub use case::{Case, Exchange};
pub use view::{Difference, View, mask_log_line, render_request, render_response};
pub use world::{ISTIO_FORMAT, Target, World, hold};

use serde_json::{Value, json};

use crate::proxy::Engine;

/// Runs `observe` with Envoy and with ours and panics with both views where they differ.
///
/// `observe` gives `None` when Envoy is not installed.
#[track_caller]
pub fn compare(observe: impl Fn(Engine) -> Option<View>) {
    compare_but_for(&[], observe);
}

/// Runs a group of cases through both proxies; see [`compare`].
#[track_caller]
pub fn compare_cases(cases: &[Case]) {
    compare_cases_under(&json!({}), cases);
}

/// The same, with these members of the bootstrap laid over the file.
#[track_caller]
pub fn compare_cases_under(bootstrap: &Value, cases: &[Case]) {
    let world = World::under(bootstrap, cases);
    let deviations: Vec<String> = cases
        .iter()
        .flat_map(|case| case.deviations.iter().map(|(block, _)| format!("{}: {block}", case.name)))
        .collect();
    compare_but_for(&deviations, |engine| world.observe(engine, cases));
}

/// [`compare`], where the blocks of these names must differ.
#[track_caller]
fn compare_but_for(deviations: &[String], observe: impl Fn(Engine) -> Option<View>) {
    let Some(theirs) = observe(Engine::Envoy) else { return };
    if env::var_os("DIFFERENTIAL_PRINT").is_some() {
        let _ = write!(io::stderr(), "{theirs}");
    }
    let against_envoy = env::var("DIFFERENTIAL_AGAINST").as_deref() == Ok("envoy");
    let (other, deviations) =
        if against_envoy { (Engine::Envoy, &[][..]) } else { (Engine::Outrigger, deviations) };
    let Some(ours) = observe(other) else { return };
    let (on_purpose, differences): (Vec<_>, Vec<_>) =
        theirs.differences(&ours).into_iter().partition(|difference| deviations.contains(&difference.block));
    let stale: Vec<&String> = deviations
        .iter()
        .filter(|name| !on_purpose.iter().any(|difference| difference.block == **name))
        .collect();
    assert!(stale.is_empty(), "no longer different from Envoy: {stale:?}");
    let texts: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(texts.is_empty(), "{} of {} views differ\n{}", texts.len(), theirs.len(), texts.join("\n"));
}
