//! Files of `outrigger inject`: YAML and JSON documents, cut from one another, some of them with a sidecar when they are put together
//! again.

use outrigger_cli::fuzzing::inject;
use outrigger_xds_api::json;

use crate::input::text;

/// The output of a text that can be read can be read too and has as many documents, and nothing is injected twice. (Each document is read
/// by itself, as by kubectl, so that there are more texts which can be injected.)
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(injected) = inject(text) else { return };
    assert_eq!(inject(&injected).as_deref(), Ok(injected.as_str()));
    let Ok(documents) = json::parse(text) else { return };
    let after = json::parse(&injected).unwrap_or_else(|error| panic!("{error}: {injected:?}"));
    assert_eq!(after.len(), documents.len(), "{injected:?}");
}
