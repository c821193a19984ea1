//! One target under libFuzzer: the one that `FUZZ_TARGET` names. See `scripts/fuzz`.

#![no_main]
#![allow(clippy::expect_used)]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use outrigger_fuzz::{TARGETS, Target};

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
    TARGETS.iter().find(|(own, _)| *own == name).expect("FUZZ_TARGET is a file of fuzz_targets/").1
});

fuzz_target!(|bytes: &[u8]| TARGET(bytes));
