//! The resource types of xDS: their type URLs, and packing into and out of `google.protobuf.Any`.

use prost::{Message, Name};

use crate::wire::protobuf::Any;

/// What every type URL starts with.
pub const TYPE_URL_PREFIX: &str = "type.googleapis.com/";

/// A resource type that is exchanged over xDS.
///
/// The order is the one in which a make-before-break update is sent: what is referred to comes before what refers
/// to it, apart from secrets and extension configurations, which are asked for by name once their users have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceType {
    /// `envoy.config.cluster.v3.Cluster` (CDS).
    Cluster,
    /// `envoy.config.endpoint.v3.ClusterLoadAssignment` (EDS).
    ClusterLoadAssignment,
    /// `envoy.config.listener.v3.Listener` (LDS).
    Listener,
    /// `envoy.config.route.v3.RouteConfiguration` (RDS).
    RouteConfiguration,
    /// `envoy.extensions.transport_sockets.tls.v3.Secret` (SDS).
    Secret,
    /// `envoy.config.route.v3.VirtualHost` (VHDS).
    VirtualHost,
    /// `envoy.config.core.v3.TypedExtensionConfig` (ECDS).
    ExtensionConfig,
}

impl ResourceType {
    /// Every type that a control plane of ours serves, in the order of a make-before-break update.
    pub const ALL: [ResourceType; 5] = [
        ResourceType::Cluster,
        ResourceType::ClusterLoadAssignment,
        ResourceType::Listener,
        ResourceType::RouteConfiguration,
        ResourceType::Secret,
    ];

    /// Every type that our proxy takes: from other control planes single virtual hosts and filters too.
    pub const CLIENT: [ResourceType; 7] = [
        ResourceType::Cluster,
        ResourceType::ClusterLoadAssignment,
        ResourceType::Listener,
        ResourceType::RouteConfiguration,
        ResourceType::VirtualHost,
        ResourceType::Secret,
        ResourceType::ExtensionConfig,
    ];

    /// The type URL, for instance `type.googleapis.com/envoy.config.cluster.v3.Cluster`.
    pub const fn type_url(self) -> &'static str {
        match self {
            ResourceType::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            ResourceType::ClusterLoadAssignment => {
                "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
            }
            ResourceType::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            ResourceType::RouteConfiguration => {
                "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
            }
            ResourceType::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            ResourceType::VirtualHost => "type.googleapis.com/envoy.config.route.v3.VirtualHost",
            ResourceType::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
        }
    }

    /// The protobuf name of the message, for instance `envoy.config.cluster.v3.Cluster`.
    pub fn message_name(self) -> &'static str {
        message_name(self.type_url())
    }

    /// The type with this type URL, if it is one of [`ResourceType::CLIENT`].
    pub fn from_type_url(type_url: &str) -> Option<ResourceType> {
        ResourceType::CLIENT.into_iter().find(|resource_type| resource_type.type_url() == type_url)
    }

    /// The usual abbreviation of the type's discovery service, for logs and metrics: `cds`, `eds`, `lds`, `rds`, `sds`, `vhds`,
    /// `ecds`.
    pub const fn short_name(self) -> &'static str {
        match self {
            ResourceType::Cluster => "cds",
            ResourceType::ClusterLoadAssignment => "eds",
            ResourceType::Listener => "lds",
            ResourceType::RouteConfiguration => "rds",
            ResourceType::Secret => "sds",
            ResourceType::VirtualHost => "vhds",
            ResourceType::ExtensionConfig => "ecds",
        }
    }

    /// Whether a first request that names nothing means "everything" (xDS protocol, "wildcard subscriptions": only
    /// listeners and clusters, for historical reasons). The explicit name `*` means it for every type.
    pub const fn has_implicit_wildcard(self) -> bool {
        matches!(self, ResourceType::Listener | ResourceType::Cluster)
    }

    /// Whether a state-of-the-world response is complete: it has every resource that the client is subscribed to, and
    /// what it does not have is removed (xDS protocol, "Grouping Resources into Responses": only listeners and
    /// clusters). For other types absence says nothing.
    pub const fn has_complete_responses(self) -> bool {
        matches!(self, ResourceType::Listener | ResourceType::Cluster)
    }
}

impl std::fmt::Display for ResourceType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.short_name())
    }
}

/// The protobuf message name in a type URL: what follows the last `/`.
pub fn message_name(type_url: &str) -> &str {
    type_url.rsplit('/').next().unwrap_or(type_url)
}

/// Why an `Any` could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// The `Any` holds a message of another type.
    #[error("expected a message of type {expected}, got {actual:?}")]
    Type {
        /// The message name that was asked for.
        expected: String,
        /// The type URL found.
        actual: String,
    },
    /// The bytes are not an encoded message.
    #[error("malformed {message}: {reason}")]
    Malformed {
        /// The message name that the bytes claim to be.
        message: String,
        /// What the decoder said.
        reason: String,
    },
}

/// Packs a message into an `Any` with its type URL.
pub fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

/// Unpacks an `Any` that must hold an `M`. The part of the type URL before the last `/` does not matter, as in Envoy.
pub fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M, UnpackError> {
    if message_name(&any.type_url) != M::full_name() {
        return Err(UnpackError::Type { expected: M::full_name(), actual: any.type_url.clone() });
    }
    M::decode(any.value.as_slice())
        .map_err(|error| UnpackError::Malformed { message: M::full_name(), reason: error.to_string() })
}

/// The name of an encoded xDS resource: field 1 of all types (`name`, or `cluster_name` of a load assignment).
/// Reads no other field, so it is cheap for big resources.
pub fn name_of(any: &Any) -> Result<String, UnpackError> {
    /// The only field that the resource types have in common.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Named {
        #[prost(string, tag = "1")]
        name: String,
    }
    if ResourceType::from_type_url(&any.type_url).is_none() {
        return Err(UnpackError::Type {
            expected: "an xDS resource".to_owned(),
            actual: any.type_url.clone(),
        });
    }
    Named::decode(any.value.as_slice()).map(|named| named.name).map_err(|error| UnpackError::Malformed {
        message: message_name(&any.type_url).to_owned(),
        reason: error.to_string(),
    })
}

/// The load assignment that an encoded cluster takes its endpoints from, by EDS: its `eds_cluster_config.service_name`, else its own
/// name. `None`: it has endpoints of another kind, or is malformed. Reads no other field.
pub fn load_assignment_of(cluster: &Any) -> Option<String> {
    /// Of `envoy.config.cluster.v3.Cluster`.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Cluster {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, optional, tag = "3")]
        eds_cluster_config: Option<EdsClusterConfig>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct EdsClusterConfig {
        #[prost(string, tag = "2")]
        service_name: String,
    }
    let Cluster { name, eds_cluster_config } = Cluster::decode(cluster.value.as_slice()).ok()?;
    let EdsClusterConfig { service_name } = eds_cluster_config?;
    Some(if service_name.is_empty() { name } else { service_name })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::wire::cluster::v3::Cluster;
    use crate::wire::cluster::v3::cluster::EdsClusterConfig;
    use crate::wire::core::v3::TypedExtensionConfig;
    use crate::wire::endpoint::v3::ClusterLoadAssignment;
    use crate::wire::listener::v3::Listener;
    use crate::wire::route::v3::RouteConfiguration;
    use crate::wire::tls::v3::Secret;

    #[test]
    fn type_urls_are_those_of_the_messages() {
        assert_eq!(ResourceType::Cluster.type_url(), Cluster::type_url());
        assert_eq!(ResourceType::ClusterLoadAssignment.type_url(), ClusterLoadAssignment::type_url());
        assert_eq!(ResourceType::Listener.type_url(), Listener::type_url());
        assert_eq!(ResourceType::RouteConfiguration.type_url(), RouteConfiguration::type_url());
        assert_eq!(ResourceType::Secret.type_url(), Secret::type_url());
        assert_eq!(ResourceType::ExtensionConfig.type_url(), TypedExtensionConfig::type_url());
        for resource_type in ResourceType::CLIENT {
            assert_eq!(ResourceType::from_type_url(resource_type.type_url()), Some(resource_type));
        }
        assert_eq!(ResourceType::from_type_url("type.googleapis.com/envoy.api.v2.Cluster"), None);
        assert_eq!(ResourceType::Listener.message_name(), "envoy.config.listener.v3.Listener");
    }

    #[test]
    fn packs_and_unpacks() {
        let cluster = Cluster { name: "reviews".to_owned(), ..Default::default() };
        let any = pack(&cluster);
        assert_eq!(name_of(&any), Ok("reviews".to_owned()));
        assert_eq!(unpack::<Cluster>(&any), Ok(cluster));
        assert!(matches!(unpack::<Listener>(&any), Err(UnpackError::Type { .. })));
        let assignment = ClusterLoadAssignment { cluster_name: "reviews".to_owned(), ..Default::default() };
        assert_eq!(name_of(&pack(&assignment)), Ok("reviews".to_owned()));
    }

    #[test]
    fn a_cluster_says_where_its_endpoints_are() {
        let of = |eds_cluster_config| {
            load_assignment_of(&pack(&Cluster {
                name: "reviews".to_owned(),
                eds_cluster_config,
                ..Default::default()
            }))
        };
        let eds = |service_name: &str| {
            Some(EdsClusterConfig { service_name: service_name.to_owned(), ..Default::default() })
        };
        assert_eq!(of(None), None);
        assert_eq!(of(eds("")), Some("reviews".to_owned()));
        assert_eq!(of(eds("elsewhere")), Some("elsewhere".to_owned()));
        let malformed = Any { type_url: Cluster::type_url(), value: vec![0x0a, 0x7f, 0x01] };
        assert_eq!(load_assignment_of(&malformed), None);
    }

    #[test]
    fn malformed_bytes_are_an_error() {
        let any = Any { type_url: Cluster::type_url(), value: vec![0x0a, 0x7f, 0x01] };
        assert!(matches!(name_of(&any), Err(UnpackError::Malformed { .. })));
        assert!(matches!(unpack::<Cluster>(&any), Err(UnpackError::Malformed { .. })));
        let other = Any { type_url: "type.googleapis.com/google.protobuf.Empty".to_owned(), value: vec![] };
        assert!(matches!(name_of(&other), Err(UnpackError::Type { .. })));
    }
}
