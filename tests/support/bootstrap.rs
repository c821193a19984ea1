//! Envoy bootstraps for the suites: shapes in JSON, which is YAML too, with the folder that holds the file and logs.
//!
//! The same file runs in Envoy and in ours; the functions here are shorthand for what a person would write.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::addr::free_addr;

/// A bootstrap file in a folder of its own.
#[derive(Debug)]
pub struct Bootstrap {
    folder: TempDir,
    /// The admin listener of the file.
    pub admin: SocketAddr,
}

impl Default for Bootstrap {
    fn default() -> Self {
        Self::new()
    }
}

impl Bootstrap {
    /// An empty folder and an admin address; the file is still to be written.
    pub fn new() -> Self {
        Bootstrap { folder: tempfile::tempdir().expect("temporary folder"), admin: free_addr() }
    }

    /// Writes a file with these static resources.
    pub fn of(listeners: &[Value], clusters: &[Value]) -> Self {
        let bootstrap = Self::new();
        bootstrap.write(listeners, clusters);
        bootstrap
    }

    /// Writes a file from YAML text, where `{{admin_ip}}`, `{{admin_port}}` and each `{{name}}` of `values` are filled in.
    pub fn of_yaml(template: &str, values: &[(&str, String)]) -> Self {
        let bootstrap = Self::new();
        let mut text = template
            .replace("{{admin_ip}}", &bootstrap.admin.ip().to_string())
            .replace("{{admin_port}}", &bootstrap.admin.port().to_string());
        for (name, value) in values {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        assert!(!text.contains("{{"), "a placeholder was not filled in:\n{text}");
        bootstrap.write_text(&text);
        bootstrap
    }

    /// Writes the file with these static resources.
    pub fn write(&self, listeners: &[Value], clusters: &[Value]) {
        self.write_value(&json!({"static_resources": {"listeners": listeners, "clusters": clusters}}));
    }

    /// Writes the file from a whole bootstrap; the admin address is added.
    pub fn write_value(&self, bootstrap: &Value) {
        let mut bootstrap = bootstrap.clone();
        bootstrap["admin"] = json!({"address": socket_address(self.admin)});
        self.write_text(&format!("{bootstrap:#}"));
    }

    /// Writes the file as this text.
    pub fn write_text(&self, text: &str) {
        fs::write(self.file(), text).expect("write the bootstrap");
    }

    /// The bootstrap file.
    pub fn file(&self) -> PathBuf {
        self.path("bootstrap.yaml")
    }

    /// A file of this name in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The lines of a log in the folder, and empties it; none when it does not exist.
    pub fn take_log(&self, name: &str) -> Vec<String> {
        let path = self.path(name);
        let lines = fs::read_to_string(&path).unwrap_or_default().lines().map(str::to_owned).collect();
        let _ = fs::remove_file(path);
        lines
    }
}

/// `{socket_address: …}`.
pub fn socket_address(addr: SocketAddr) -> Value {
    json!({"socket_address": {"address": addr.ip().to_string(), "port_value": addr.port()}})
}

/// A listener with one filter chain and one network filter.
pub fn listener(name: &str, addr: SocketAddr, filter: Value) -> Value {
    json!({"name": name, "address": socket_address(addr), "filter_chains": [{"filters": [filter]}]})
}

/// An HttpConnectionManager with these virtual hosts and the router; the object `more` is laid over it.
pub fn http_connection_manager(virtual_hosts: Value, more: Value) -> Value {
    let mut config = json!({
        "@type": type_url("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "ingress",
        "route_config": {"name": "local_route", "virtual_hosts": virtual_hosts},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": type_url("extensions.filters.http.router.v3.Router")},
        }],
    });
    overlay(&mut config, more);
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": config})
}

/// A `tcp_proxy` to `cluster`; the object `more` is laid over it.
pub fn tcp_proxy(cluster: &str, more: Value) -> Value {
    let mut config = json!({
        "@type": type_url("extensions.filters.network.tcp_proxy.v3.TcpProxy"),
        "stat_prefix": "tcp",
        "cluster": cluster,
    });
    overlay(&mut config, more);
    json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": config})
}

/// One virtual host `all` for every domain with these routes.
pub fn any_host(routes: Value) -> Value {
    json!([{"name": "all", "domains": ["*"], "routes": routes}])
}

/// A route for everything to `cluster`.
pub fn to(cluster: &str) -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": cluster}}])
}

/// A STATIC cluster with these endpoints; the object `more` is laid over it.
pub fn cluster(name: &str, endpoints: &[SocketAddr], more: Value) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": load_assignment(name, endpoints),
    });
    overlay(&mut cluster, more);
    cluster
}

/// A ClusterLoadAssignment with these endpoints in one locality.
pub fn load_assignment(cluster: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<Value> =
        endpoints.iter().map(|addr| json!({"endpoint": {"address": socket_address(*addr)}})).collect();
    json!({"cluster_name": cluster, "endpoints": [{"lb_endpoints": endpoints}]})
}

/// What makes a cluster speak HTTP/2.
pub fn http2_upstream() -> Value {
    json!({"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": type_url("extensions.upstreams.http.v3.HttpProtocolOptions"),
        "explicit_http_config": {"http2_protocol_options": {}},
    }}})
}

/// A file access log; `format` is a text format, the default of Envoy when `None`.
pub fn file_access_log(path: &Path, format: Option<&str>) -> Value {
    let mut config =
        json!({"@type": type_url("extensions.access_loggers.file.v3.FileAccessLog"), "path": path});
    if let Some(format) = format {
        config["log_format"] = json!({"text_format_source": {"inline_string": format}});
    }
    json!({"name": "envoy.access_loggers.file", "typed_config": config})
}

/// The type URL of a message of Envoy, named without `envoy.`.
pub fn type_url(message: &str) -> String {
    format!("type.googleapis.com/envoy.{message}")
}

/// Lays the members of the object `more` over `base`.
pub fn overlay(base: &mut Value, more: Value) {
    if let (Value::Object(base), Value::Object(more)) = (base, more) {
        for (key, value) in more {
            base.insert(key, value);
        }
    }
}
