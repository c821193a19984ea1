//! `filter_metadata["outrigger.dev"]`: what is ours alone and an Envoy ignores. Nothing of it is on by default.

use std::time::Duration;

use outrigger_xds_api::wire::core::v3::Metadata;
use outrigger_xds_api::wire::protobuf::value::Kind;

use super::cx::{CompileCx, Compiled};
use crate::cluster::outlier::Readmission;
use crate::stats::Reporter;

const KEY: &str = "outrigger.dev";

/// What a listener or cluster asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OwnMetadata {
    /// `reporter`, `source` or `destination`: mesh metrics are reported by this side.
    pub(crate) reporter: Option<Reporter>,
    /// `peer_certificate_grace_seconds`: a connection ends so long after its peer's certificate has expired, at the latest.
    pub(crate) peer_certificate_grace: Option<Duration>,
    /// `readmission`, `probe`: a host that was ejected comes back when one request to it has succeeded; `check`: when its active health
    /// check passes, which runs for such hosts only.
    pub(crate) readmission: Readmission,
    /// `readmission_ramp_seconds`: a host that was ejected and is back gets more and more requests for so long.
    pub(crate) readmission_ramp: Option<Duration>,
}

/// Compiles what the field `metadata` says to us.
pub(crate) fn compile_own_metadata(
    cx: &mut CompileCx<'_>,
    metadata: &Option<Metadata>,
) -> Compiled<OwnMetadata> {
    let Some(own) = metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(KEY)) else {
        return Ok(OwnMetadata::default());
    };
    cx.field(&format!("metadata.filter_metadata[\"{KEY}\"]"), |cx| {
        let mut compiled = OwnMetadata::default();
        for (key, value) in &own.fields {
            match (key.as_str(), &value.kind) {
                ("reporter", Some(Kind::StringValue(side))) if side == "source" => {
                    compiled.reporter = Some(Reporter::Source);
                }
                ("reporter", Some(Kind::StringValue(side))) if side == "destination" => {
                    compiled.reporter = Some(Reporter::Destination);
                }
                ("reporter", _) => return Err(cx.refuse("reporter", "must be \"source\" or \"destination\"")),
                ("peer_certificate_grace_seconds", Some(Kind::NumberValue(seconds))) => {
                    let Ok(grace) = Duration::try_from_secs_f64(*seconds) else {
                        return Err(cx.refuse(key, "must not be negative"));
                    };
                    compiled.peer_certificate_grace = Some(grace);
                }
                ("peer_certificate_grace_seconds", _) => return Err(cx.refuse(key, "must be a number")),
                ("readmission", Some(Kind::StringValue(by))) if by == "probe" => {
                    compiled.readmission = Readmission::Probe;
                }
                ("readmission", Some(Kind::StringValue(by))) if by == "check" => {
                    compiled.readmission = Readmission::Check;
                }
                ("readmission", _) => return Err(cx.refuse(key, "must be \"probe\" or \"check\"")),
                ("readmission_ramp_seconds", Some(Kind::NumberValue(seconds))) => {
                    match Duration::try_from_secs_f64(*seconds) {
                        Ok(ramp) if !ramp.is_zero() => compiled.readmission_ramp = Some(ramp),
                        _ => return Err(cx.refuse(key, "must be more than 0")),
                    }
                }
                ("readmission_ramp_seconds", _) => return Err(cx.refuse(key, "must be a number")),
                (other, _) => return Err(cx.refuse(other, "not supported")),
            }
        }
        Ok(compiled)
    })
}
