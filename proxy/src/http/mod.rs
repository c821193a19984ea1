//! HTTP: one downstream connection (`connection_manager`), the request pipeline, the router, upstream pools.

mod active_stream;
mod body;
mod captures;
mod client_certificate;
pub(crate) mod codec;
pub mod connection_manager;
mod counted;
mod deadlines;
mod downstream;
mod error;
pub mod filters;
mod headers;
mod internal_redirect;
pub(crate) mod local_reply;
mod mesh_metrics;
pub(crate) mod origin;
mod overload;
pub(crate) mod path;
mod pool;
mod proxy_status;
mod redirect;
pub(crate) mod repeated;
mod respond;
pub(crate) mod router;
mod settings;
mod upgrade;
mod upstream;
mod wire_bytes;

pub use client_certificate::{ClientCertDetails, ForwardClientCert};
pub use local_reply::{BodyFormat, LocalReplies, ReplyMapper};
pub use origin::InternalAddresses;
pub use path::{EscapedSlashes, PathRules};
pub use pool::Pools;
pub use proxy_status::ProxyStatus;
pub use settings::{
    CodecType, ConnectionOptions, FrameLimits, HttpConnectionManager, HttpOptions1, HttpOptions2,
    LiveConnectionManager, RouteSource, ServerHeader, StreamLimits, Underscores,
};

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod http2_frames;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod upgrade_tests;
