//! What a client can do, and what it needs: `Node.client_features`, and which program it is.

use crate::wire::core::v3::Node;

/// The features that change what a server may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFeatures {
    /// `xds.config.supports-resource-ttl`: it keeps the TTL of a resource.
    pub resource_ttl: bool,
    /// `xds.config.supports-resource-in-sotw`: it takes a resource wrapped in an `envoy.service.discovery.v3.Resource`
    /// in the state-of-the-world variant. Without it there are no TTLs in that variant.
    pub resource_in_sotw: bool,
    /// It is an Envoy. In the incremental variant it does not ask for the endpoints of a cluster that has changed, though it
    /// does not use the cluster before they come (<https://github.com/envoyproxy/envoy/issues/13009>).
    pub needs_endpoints_again: bool,
}

impl ClientFeatures {
    /// Name of [`ClientFeatures::resource_ttl`].
    pub const RESOURCE_TTL: &str = "xds.config.supports-resource-ttl";
    /// Name of [`ClientFeatures::resource_in_sotw`].
    pub const RESOURCE_IN_SOTW: &str = "xds.config.supports-resource-in-sotw";

    /// What `node` says.
    pub fn of(node: &Node) -> ClientFeatures {
        let has = |wanted: &str| node.client_features.iter().any(|feature| feature == wanted);
        ClientFeatures {
            resource_ttl: has(Self::RESOURCE_TTL),
            resource_in_sotw: has(Self::RESOURCE_IN_SOTW),
            needs_endpoints_again: node.user_agent_name == "envoy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_read_from_the_node() {
        let with = |features: &[&str]| {
            let client_features = features.iter().map(|feature| (*feature).to_owned()).collect();
            ClientFeatures::of(&Node { client_features, ..Node::default() })
        };
        assert_eq!(with(&["envoy.lb.does_not_support_overprovisioning"]), ClientFeatures::default());
        assert!(with(&["x", ClientFeatures::RESOURCE_TTL]).resource_ttl);
        assert!(with(&[ClientFeatures::RESOURCE_IN_SOTW]).resource_in_sotw);
        let envoy = Node { user_agent_name: "envoy".to_owned(), ..Node::default() };
        assert!(ClientFeatures::of(&envoy).needs_endpoints_again);
    }
}
