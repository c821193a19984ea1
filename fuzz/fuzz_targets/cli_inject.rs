//! Files of `outrigger inject`: YAML and JSON documents, cut from one another, some of them with a sidecar when they are put together
//! again.

use outrigger_cli::fuzzing::inject;
use outrigger_xds_api::json;

use crate::input::text;

/// The output has as many documents, and nothing is injected twice.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(injected) = inject(text) else { return };
    let read = |text: &str| json::parse(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert_eq!(read(&injected).len(), read(text).len(), "{injected:?}");
    assert_eq!(inject(&injected).as_deref(), Ok(injected.as_str()));
}
