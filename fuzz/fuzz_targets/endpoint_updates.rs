//! Two versions of a load assignment, one after the other: as YAML with `---` between them, else the first behind its length in one byte.

use outrigger_proxy::fuzzing::updated_endpoints;
use outrigger_xds_api::ResourceType;

use crate::input::text;
use crate::resources::wire;

/// What is made of the second version by way of the first is what is made of it as a whole.
pub(crate) fn fuzz(bytes: &[u8]) {
    let of_text = text(bytes).and_then(|text| text.split_once("\n---\n"));
    let versions = match of_text {
        Some((before, now)) => {
            let of = ResourceType::ClusterLoadAssignment;
            Some((wire(of, before.as_bytes()), wire(of, now.as_bytes())))
        }
        None => bytes.split_first().and_then(|(length, rest)| {
            let (before, now) = rest.split_at_checked((*length).into())?;
            Some((before.to_vec(), now.to_vec()))
        }),
    };
    let Some((before, now)) = versions else { return };
    if let Some((by_way, whole)) = updated_endpoints(&before, &now) {
        assert_eq!(Some(by_way), whole);
    }
}
