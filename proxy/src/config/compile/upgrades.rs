//! `upgrade_configs`: of a connection manager and of a route.

use super::cx::{CompileCx, Compiled};
use crate::route::Upgrades;

/// One entry, at the context's present path.
pub(crate) fn compile_upgrade(
    cx: &mut CompileCx<'_>,
    upgrade_type: &str,
    enabled: bool,
) -> Compiled<(Box<str>, bool)> {
    // A tunnel needs a route that matches CONNECT.
    if upgrade_type.eq_ignore_ascii_case("CONNECT") || upgrade_type.eq_ignore_ascii_case("CONNECT-UDP") {
        return Err(cx.refuse("upgrade_type", format!("{upgrade_type} is not supported")));
    }
    Ok((upgrade_type.into(), enabled))
}

/// All entries: Envoy takes each type once, letter case aside.
pub(crate) fn compile_upgrades(cx: &mut CompileCx<'_>, types: Vec<(Box<str>, bool)>) -> Compiled<Upgrades> {
    for (i, (name, _)) in types.iter().enumerate() {
        if types[..i].iter().any(|(before, _)| before.eq_ignore_ascii_case(name)) {
            return Err(cx.refuse(
                "upgrade_configs",
                format!("multiple upgrade configs with the same name: '{name}'"),
            ));
        }
    }
    Ok(Upgrades::new(types))
}
