//! HTTP filters: what each does alone, and what routes say to it.

mod chain;
mod cors;
mod fault;
mod grpc_stats;
mod grpc_web;
mod header_mutation;
mod health_check;
mod limits;
mod rate_limits;

use outrigger_tests::bootstrap::{overlay, type_url};
use serde_json::{Value, json};

/// `{http_filters: [...]}`: these filters and the router.
fn chain(filters: &[Value]) -> Value {
    let router = filter("router", "router.v3.Router", json!({}));
    let filters: Vec<Value> = filters.iter().cloned().chain([router]).collect();
    json!({ "http_filters": filters })
}

/// `envoy.filters.http.<name>` with this configuration.
fn filter(name: &str, message: &str, config: Value) -> Value {
    json!({"name": format!("envoy.filters.http.{name}"), "typed_config": typed(message, config)})
}

/// A message of a filter, packed.
fn typed(message: &str, config: Value) -> Value {
    let mut typed = json!({"@type": type_url(&format!("extensions.filters.http.{message}"))});
    overlay(&mut typed, config);
    typed
}

/// What a place says to the filter `envoy.filters.http.<name>`.
fn says(name: &str, config: Value) -> Value {
    json!({ format!("envoy.filters.http.{name}"): config })
}

/// `FilterConfig`.
fn filter_config(config: Value) -> Value {
    let mut typed = json!({"@type": type_url("config.route.v3.FilterConfig")});
    overlay(&mut typed, config);
    typed
}

/// A route to `up` for this prefix, which says this to filters.
fn route(prefix: &str, said: Value) -> Value {
    json!({"match": {"prefix": prefix}, "route": {"cluster": "up"}, "typed_per_filter_config": said})
}
