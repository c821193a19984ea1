//! HTTP: one downstream connection (`connection_manager`), the request pipeline, the router.

pub mod body;
pub mod codec;
pub mod connection_manager;
pub mod error;
pub mod headers;
pub mod local_reply;
pub mod router;
mod settings;

pub use settings::{
    CodecType, HttpConnectionManager, HttpOptions1, HttpOptions2, RouteSource, ServerHeader, StreamLimits,
};
