//! `ISTIO_KUBE_APP_PROBERS`: what the kubelet would have asked the application, had the injector not turned its probes to the
//! sidecar. A JSON object of Istio's shape: `{"/app-health/CONTAINER/livez": {"httpGet": {"path": "/", "port": 80}}}`.

use std::collections::HashMap;
use std::time::Duration;

use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

/// What the kubelet waits for an answer when nothing is said (`timeoutSeconds`).
const TIMEOUT: Duration = Duration::from_secs(1);

/// The probes by the path under which the kubelet asks for them.
#[derive(Debug, Clone, Default)]
pub struct Probes(HashMap<String, Probe>);

/// One probe.
#[derive(Debug, Clone)]
pub struct Probe {
    /// How the application is asked.
    pub action: Action,
    /// How long it may take to answer.
    pub timeout: Duration,
}

/// How the application is asked.
#[derive(Debug, Clone)]
pub enum Action {
    /// `httpGet`
    Http(HttpGet),
    /// `tcpSocket`: it is enough that somebody accepts.
    Tcp {
        /// Port of the application.
        port: u16,
    },
    /// `grpc`: `grpc.health.v1.Health/Check`, without TLS.
    Grpc {
        /// Port of the application.
        port: u16,
        /// Which service is meant; empty: the server.
        service: String,
    },
}

/// `httpGet`.
#[derive(Debug, Clone)]
pub struct HttpGet {
    /// Port of the application.
    pub port: u16,
    /// Path and query, with the slash at its beginning.
    pub path: String,
    /// `scheme: HTTPS`; as by the kubelet, nobody looks at the certificate.
    pub tls: bool,
    /// `httpHeaders`. Their values are not shown.
    pub headers: HeaderMap,
}

impl Probes {
    /// Reads the variable.
    ///
    /// # Errors
    /// Where it is not what the injector writes. Values of headers are never part of the text.
    pub fn parse(json: &str) -> Result<Self, String> {
        let wire: HashMap<String, WireProbe> =
            serde_json::from_str(json).map_err(|error| format!("ISTIO_KUBE_APP_PROBERS: {error}"))?;
        let probes = wire.into_iter().map(|(path, probe)| {
            let told = |reason: String| format!("ISTIO_KUBE_APP_PROBERS: '{path}': {reason}");
            if !is_probe_path(&path) {
                return Err(told("not of the form /app-health/CONTAINER/{livez,readyz,startupz}".to_owned()));
            }
            let probe = probe.compile().map_err(told)?;
            Ok((path, probe))
        });
        probes.collect::<Result<_, _>>().map(Self)
    }

    /// The probe that is asked for under this path.
    pub fn get(&self, path: &str) -> Option<&Probe> {
        self.0.get(path)
    }
}

fn is_probe_path(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(parts[..], ["", "app-health", container, "livez" | "readyz" | "startupz"] if !container.is_empty())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProbe {
    http_get: Option<WireHttpGet>,
    tcp_socket: Option<WireTcpSocket>,
    grpc: Option<WireGrpc>,
    timeout_seconds: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireHttpGet {
    path: Option<String>,
    port: u16,
    #[serde(default)]
    host: String,
    scheme: Option<Scheme>,
    #[serde(default)]
    http_headers: Vec<WireHeader>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Scheme {
    Http,
    Https,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireHeader {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireTcpSocket {
    port: u16,
    #[serde(default)]
    host: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireGrpc {
    port: u16,
    service: Option<String>,
}

impl WireProbe {
    fn compile(self) -> Result<Probe, String> {
        let elsewhere = |host: &str| match host {
            "" => Ok(()),
            host => Err(format!("host '{host}': only the pod itself can be asked")),
        };
        let action = match (self.http_get, self.tcp_socket, self.grpc) {
            (Some(WireHttpGet { path, port, host, scheme, http_headers }), None, None) => {
                elsewhere(&host)?;
                let path = path.unwrap_or_default();
                let path = if path.starts_with('/') { path } else { format!("/{path}") };
                let tls = scheme == Some(Scheme::Https);
                Action::Http(HttpGet { port, path, tls, headers: headers(http_headers)? })
            }
            (None, Some(WireTcpSocket { port, host }), None) => {
                elsewhere(&host)?;
                Action::Tcp { port }
            }
            (None, None, Some(WireGrpc { port, service })) => {
                Action::Grpc { port, service: service.unwrap_or_default() }
            }
            _ => return Err("exactly one of httpGet, tcpSocket and grpc is needed".to_owned()),
        };
        let seconds = self.timeout_seconds.filter(|seconds| *seconds > 0);
        let timeout = seconds.map_or(TIMEOUT, |seconds| Duration::from_secs(seconds.into()));
        Ok(Probe { action, timeout })
    }
}

fn headers(list: Vec<WireHeader>) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (number, WireHeader { name, value }) in list.into_iter().enumerate() {
        let at = |what| format!("httpHeaders[{number}].{what} is not valid in HTTP");
        let name = HeaderName::try_from(name).map_err(|_| at("name"))?;
        let mut value = HeaderValue::try_from(value).map_err(|_| at("value"))?;
        // Some applications want a token here.
        value.set_sensitive(true);
        if name == HOST {
            headers.insert(name, value);
        } else {
            headers.append(name, value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_injectors_document_is_read() {
        let probes = Probes::parse(
            r#"{
            "/app-health/app/livez": {"httpGet": {"path": "live?x=1", "port": 8080, "scheme": "HTTPS",
                "httpHeaders": [{"name": "Authorization", "value": "secret"}]}, "timeoutSeconds": 4},
            "/app-health/app/readyz": {"tcpSocket": {"port": 9000}},
            "/app-health/app/startupz": {"grpc": {"port": 9001, "service": "health"}, "timeoutSeconds": 0}}"#,
        )
        .unwrap();
        let live = probes.get("/app-health/app/livez").unwrap();
        let Action::Http(http) = &live.action else { panic!("{live:?}") };
        assert_eq!((http.port, http.path.as_str(), http.tls), (8080, "/live?x=1", true));
        assert_eq!((http.headers["authorization"].as_bytes(), live.timeout.as_secs()), (&b"secret"[..], 4));
        assert!(!format!("{probes:?}").contains("secret"));
        let ready = probes.get("/app-health/app/readyz").unwrap();
        assert!(matches!(ready.action, Action::Tcp { port: 9000 }) && ready.timeout == TIMEOUT);
        let startup = probes.get("/app-health/app/startupz").unwrap();
        assert!(matches!(&startup.action, Action::Grpc { port: 9001, service } if service == "health"));
        assert_eq!(startup.timeout, TIMEOUT);
        assert!(probes.get("/app-health/app").is_none());
    }

    #[test]
    fn what_cannot_be_done_is_told_without_the_headers() {
        let refused = |json: &str| Probes::parse(json).unwrap_err();
        let probe = |probe: &str| refused(&format!(r#"{{"/app-health/a/livez": {probe}}}"#));
        assert!(refused("{").contains("ISTIO_KUBE_APP_PROBERS"));
        assert!(
            refused(r#"{"/app-lifecycle/a/prestopz": {"tcpSocket": {"port": 1}}}"#).contains("/app-health/")
        );
        assert!(refused(r#"{"/app-health//livez": {"tcpSocket": {"port": 1}}}"#).contains("/app-health/"));
        assert!(probe("{}").contains("exactly one of"));
        assert!(probe(r#"{"tcpSocket": {"port": 1}, "grpc": {"port": 1}}"#).contains("exactly one of"));
        assert!(probe(r#"{"tcpSocket": {"port": "http"}}"#).contains("invalid type"));
        assert!(probe(r#"{"tcpSocket": {"port": 1, "host": "other"}}"#).contains("host 'other'"));
        assert!(probe(r#"{"exec": {}}"#).contains("unknown field `exec`"));
        let secret = r#"{"httpGet": {"port": 1, "httpHeaders": [{"name": "a", "value": "se\ncret"}]}}"#;
        let error = probe(secret);
        assert!(error.contains("httpHeaders[0].value") && !error.contains("cret"), "{error}");
    }
}
