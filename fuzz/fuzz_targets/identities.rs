//! Names that proxies say and prove: SPIFFE ids, and the node ids of their first requests.

use outrigger_control_plane::auth::Identity;
use outrigger_control_plane::auth::NodeId;

use crate::input::text;

/// There is one way to write an identity.
pub(crate) fn fuzz(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(identity) = Identity::parse(text) {
        assert_eq!(identity.to_string(), text);
    }
    if let Ok(node) = NodeId::parse(text) {
        let NodeId { address, pod, namespace } = node;
        let again = format!("sidecar~{address}~{pod}.{namespace}~{namespace}.svc.x");
        assert_eq!(NodeId::parse(&again), Ok(NodeId { address, pod, namespace }));
    }
}
