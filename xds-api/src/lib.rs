//! The xDS v3 wire contract and nothing else: Envoy's messages and services, their names and type URLs, their
//! protobuf JSON mapping and validation rules, and the state of a discovery session.
//!
//! Everything here is pure: no I/O, no clock, no runtime. The proxy, the control plane and the tests share it.

mod encoding;
pub mod expression;
pub mod istio_ca;
pub mod json;
mod path;
pub mod peak_ewma;
pub mod resource;
pub mod schema;
pub mod session;
pub mod validate;

pub use resource::ResourceType;

/// Envoy's v3 messages and services (crate `envoy-types`) under short names, for instance
/// `wire::cluster::v3::Cluster`, `wire::discovery::v3::DeltaDiscoveryRequest`.
///
/// Wire types never leave the code that compiles them: a raw `Cluster` takes 3.4 KB of memory.
pub mod wire {
    pub use envoy_types::pb::envoy::config::{
        accesslog, bootstrap, cluster, common, core, endpoint, listener, metrics, rbac, route, trace,
    };
    pub use envoy_types::pb::envoy::extensions;
    pub use envoy_types::pb::envoy::extensions::filters::http::router;
    pub use envoy_types::pb::envoy::extensions::filters::listener::{
        http_inspector, original_dst, tls_inspector,
    };
    pub use envoy_types::pb::envoy::extensions::filters::network::{http_connection_manager, tcp_proxy};
    pub use envoy_types::pb::envoy::extensions::transport_sockets::tls;
    pub use envoy_types::pb::envoy::extensions::upstreams::http as http_protocol_options;
    pub use envoy_types::pb::envoy::service::{self, discovery};
    pub use envoy_types::pb::envoy::{admin, data, r#type};
    pub use envoy_types::pb::google::{protobuf, rpc};
    pub use envoy_types::pb::{envoy, google, xds};
}
