//! `upgrade_configs`: of a connection manager and of a route.

use outrigger_xds_api::wire::route::v3::route_action::upgrade_config::ConnectConfig;

use super::cx::{CompileCx, Compiled, unsupported};
use crate::route::{Upgrade, Upgrades};

/// One entry, at the context's present path.
pub(crate) fn compile_upgrade(
    cx: &mut CompileCx<'_>,
    upgrade_type: &str,
    enabled: bool,
    connect: &Option<ConnectConfig>,
) -> Compiled<Upgrade> {
    if upgrade_type.eq_ignore_ascii_case("CONNECT-UDP") {
        return Err(cx.refuse("upgrade_type", format!("{upgrade_type} is not supported")));
    }
    if let Some(ConnectConfig { proxy_protocol_config, allow_post }) = connect {
        cx.field("connect_config", |cx| {
            unsupported!(cx; proxy_protocol_config);
            if *allow_post {
                cx.refuse("allow_post", "not supported");
            }
        });
        if !upgrade_type.eq_ignore_ascii_case("CONNECT") {
            return Err(cx.refuse("connect_config", "only an upgrade of type CONNECT may have it"));
        }
    }
    Ok(Upgrade { name: upgrade_type.into(), enabled, terminates: connect.is_some() })
}

/// All entries: Envoy takes each type once, letter case aside.
pub(crate) fn compile_upgrades(cx: &mut CompileCx<'_>, types: Vec<Upgrade>) -> Compiled<Upgrades> {
    for (i, Upgrade { name, .. }) in types.iter().enumerate() {
        if types[..i].iter().any(|before| before.name.eq_ignore_ascii_case(name)) {
            return Err(cx.refuse(
                "upgrade_configs",
                format!("multiple upgrade configs with the same name: '{name}'"),
            ));
        }
    }
    Ok(Upgrades::new(types))
}
