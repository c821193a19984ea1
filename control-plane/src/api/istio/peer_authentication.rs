//! PeerAuthentication -> [`PeerAuthn`].

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api::{Refusal, Strict, name_of, read};
use crate::model::{MutualTlsMode, PeerAuthn};
use crate::source::Object;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Spec {
    selector: Option<Selector>,
    mtls: Option<MutualTls>,
    port_level_mtls: BTreeMap<String, MutualTls>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Selector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MutualTls {
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Mode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}

impl From<Mode> for Option<MutualTlsMode> {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Unset => None,
            Mode::Disable => Some(MutualTlsMode::Disable),
            Mode::Permissive => Some(MutualTlsMode::Permissive),
            Mode::Strict => Some(MutualTlsMode::Strict),
        }
    }
}

/// Decodes a PeerAuthentication.
pub(in crate::api) fn peer_authentication(object: &Object) -> Result<PeerAuthn, Refusal> {
    let Strict { metadata, spec, .. }: Strict<Spec> = read(object)?;
    let selector = spec.selector.unwrap_or_default().match_labels;
    if selector.is_empty() && !spec.port_level_mtls.is_empty() {
        let reason = "needs a selector: ports belong to workloads";
        return Err(Refusal::new("spec.portLevelMtls", reason));
    }
    let mut port_modes = BTreeMap::new();
    for (port, mutual_tls) in spec.port_level_mtls {
        match port.parse::<u16>() {
            Ok(number) if number > 0 => port_modes.insert(number, mutual_tls.mode.into()),
            _ => {
                let reason = format!("{port:?} is not a port (1 to 65535)");
                return Err(Refusal::new(format!("spec.portLevelMtls.{port}"), reason));
            }
        };
    }
    Ok(PeerAuthn {
        name: name_of(object),
        selector,
        mode: spec.mtls.and_then(|mutual_tls| mutual_tls.mode.into()),
        port_modes,
        created: metadata.creation_timestamp.unwrap_or_default(),
        origin: object.origin.clone(),
    })
}
