//! Fuzz targets for every parser that is ours, and for bytes → wire → compile: a file each.
//!
//! A target is a plain function of bytes. It says what must hold of whatever the bytes are, and panics when it does not. `scripts/fuzz`
//! runs one under libFuzzer, guided by coverage (`libfuzzer.rs`); the test `smoke.rs` runs all of them over `seeds/` and over
//! random changes of these.

// A target that fails panics.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod input;
mod resources;

/// A target.
pub type Target = fn(&[u8]);

macro_rules! targets {
    ($($name:ident)*) => {
        $(mod $name;)*

        /// All targets by their names, which are those of their files and of the folders of their seeds.
        pub static TARGETS: &[(&str, Target)] = &[$((stringify!($name), $name::fuzz)),*];
    };
}

targets! {
    admission_review
    bootstrap
    certificate
    cli_inject
    cli_dumps
    cluster
    csr
    delta_session
    durations
    endpoint_updates
    endpoints
    format
    forwarded_for
    grpc_headers
    grpc_messages
    grpc_web
    host_port
    http1_messages
    http2_frames
    http_inspector
    identities
    injection_settings
    json_text
    kube_api_request
    kubernetes_objects
    listener
    netlink
    path
    query
    regex_rewrite
    route_configuration
    secret
    sidecar_variables
    sotw_session
    state_journal
    tls_client_hello
    updates
    wire_messages
    xds_requests
}
