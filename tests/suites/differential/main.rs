//! The same file and the same requests through a real Envoy and through ours: the client's view, the upstream's view
//! and the access log must be equal. To add a case is to add a row to a table here.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod access_log;
mod actions;
mod bench_shapes;
mod broken_http2;
mod client_certificates;
mod cluster_header;
mod comparer;
mod dns;
mod domains;
mod failures;
mod filter_chains;
mod filters;
mod hash_policy;
mod hash_tables;
mod hashed_hosts;
mod header_match;
mod internal_redirects;
mod local_replies;
mod messages;
mod mirrors;
mod origin;
mod original_dst;
mod path_match;
mod path_normal;
mod query_match;
mod requests;
mod response_heads;
mod retries;
mod rewrites;
mod route_headers;
mod router_headers;
mod tcp;
