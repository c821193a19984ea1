//! Wire → compiled: one file per resource or extension.
//!
//! `compile_*` functions are pure and synchronous. They destructure messages without `..`: each field is implemented, ignored
//! with a warning because it is harmless, or refused with its path. Defaults are Envoy's.

// Every field has a verdict, those that Envoy wants nobody to set any more too.
#![allow(deprecated)]

mod access_log;
mod access_log_filter;
mod changed_endpoints;
mod circuit_breakers;
mod cluster;
pub(crate) mod connection;
pub(crate) mod cx;
mod dns;
mod dns_resolver;
mod endpoint;
mod filter_chain;
mod filter_chain_match;
mod filter_cors;
mod filter_fault;
mod filter_grpc_stats;
mod filter_header_mutation;
mod filter_health_check;
mod filter_local_rate_limit;
mod filter_on_demand;
mod format_string;
mod hash_policy;
mod hashing;
mod header_case;
mod header_mutation;
mod health_check;
mod http_connection_manager;
mod http_filter;
mod http_options;
mod internal_redirect;
mod listener;
mod listener_filter;
mod load_balancing;
mod load_balancing_policy;
mod local_reply;
mod metadata;
mod original_dst;
mod outlier;
mod own_metadata;
mod rate_limit;
mod redirect;
mod response_match;
mod retry;
mod rewrite;
mod route;
mod route_action;
mod route_match;
mod secret;
pub(crate) mod source;
mod subsets;
mod tcp_proxy;
mod tls;
mod upgrades;
pub(crate) mod values;
mod virtual_cluster;

pub(crate) use changed_endpoints::ChangedEndpoints;
pub use cluster::{CompiledCluster, Discovery, compile_cluster};
pub(crate) use connection::compile_bind_config;
pub use cx::{CompileCx, Compiled, Inputs, Invalid, Problem, ReadFile, References, Refused};
pub(crate) use dns_resolver::compile_dns_resolver;
pub(crate) use endpoint::compile_locality_name;
pub use endpoint::{Assignment, compile_endpoints};
pub use filter_chain::CompiledChain;
pub use http_filter::compile_extension;
pub use listener::{CompiledListener, compile_listener};
#[cfg(feature = "fuzzing")]
pub(crate) use rewrite::compile_regex_rewrite;
pub(crate) use route::compile_virtual_host_of;
pub use route::{VirtualHostCx, compile_route_configuration};
pub use secret::{Secret, compile_secret};
pub(crate) use source::{Fetch, compile_api_source, compile_config_source};
pub(crate) use tls::{compile_certificate, compile_validation_context, source_name};
pub(crate) use values::content_hash;
