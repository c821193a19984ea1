//! One page of metrics for Prometheus: the sidecar's own, then the application's, fetched when somebody asks.
//!
//! Where the application's are is in `ISTIO_PROMETHEUS_ANNOTATIONS`, a JSON object of Istio's shape: `{"scrape": "true", "path":
//! "/metrics", "port": "8080"}`, the annotations that the pod had before the injector turned them to the sidecar.
//!
//! An application that is away, late or broken costs its own part of the page, nothing else.

use std::net::IpAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, HeaderName, USER_AGENT};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use serde::Deserialize;

use super::application::{Application, Error, Exchange, Protocol, exchange};

/// How long Prometheus waits for the whole page, in seconds; it says so.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// How long it waits if it does not (its default).
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// More than this is not a page of metrics.
const MAX_PAGE_BYTES: usize = 64 << 20;

/// What a page is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus' text format, that of the sidecar's own part.
    Text,
    /// OpenMetrics 0.0.1.
    OpenMetrics001,
    /// OpenMetrics 1.0.0.
    OpenMetrics100,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics001 => "application/openmetrics-text; version=0.0.1; charset=utf-8",
            Format::OpenMetrics100 => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Where the application's metrics are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationMetrics {
    port: u16,
    path: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotations {
    #[serde(default)]
    scrape: String,
    #[serde(default)]
    path: String,
    #[serde(default)]
    port: String,
}

impl ApplicationMetrics {
    /// Reads the variable; `None`: the application is not to be asked. `agent_port` is where the merged page is.
    ///
    /// # Errors
    /// The text is not of Istio's shape, or the application's metrics would be the merged page itself.
    pub fn parse(json: &str, agent_port: u16) -> Result<Option<Self>, String> {
        let told = |reason: String| format!("ISTIO_PROMETHEUS_ANNOTATIONS: {reason}");
        let Annotations { scrape, path, port } =
            serde_json::from_str(json).map_err(|error| told(error.to_string()))?;
        if scrape == "false" {
            return Ok(None);
        }
        let port = match port.as_str() {
            "" => 80,
            text => text.parse().map_err(|_| told(format!("port '{text}' is not a port")))?,
        };
        if port == agent_port {
            return Err(told(format!(
                "port {port} is that of the merged metrics, which would ask themselves; is the pod injected twice?"
            )));
        }
        let path = match path.as_str() {
            "" => "/metrics".to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        if path.parse::<http::uri::PathAndQuery>().is_err() {
            return Err(told(format!("path '{path}' is not valid in HTTP")));
        }
        Ok(Some(Self { port, path }))
    }

    /// The application's page, and what it is written in. `headers` are the scraper's; what they say of format
    /// and time is handed on.
    pub(super) async fn fetch(&self, pod: IpAddr, headers: &HeaderMap) -> Result<(Bytes, Format), Error> {
        let limit = time_limit(headers);
        let fetching = async {
            let Exchange { response, connection: _connection } = self.ask(pod, headers).await?;
            if response.status() != StatusCode::OK {
                return Err(format!("HTTP status {}", response.status()).into());
            }
            let format = format(response.headers());
            let page = Limited::new(response.into_body(), MAX_PAGE_BYTES).collect().await?;
            Ok((page.to_bytes(), format))
        };
        match tokio::time::timeout(limit, fetching).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no answer within {limit:?}").into()),
        }
    }

    /// By way of loopback, of the pod's own kind first: that is never captured.
    async fn ask(&self, pod: IpAddr, headers: &HeaderMap) -> Result<Exchange, Error> {
        let mut request = Request::get(self.path.as_str())
            .header(HOST, format!("localhost:{}", self.port))
            .header(CONNECTION, "close")
            .body(Full::<Bytes>::default())?;
        for name in [ACCEPT, USER_AGENT, SCRAPE_TIMEOUT] {
            if let Some(value) = headers.get(&name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let mut problem: Error = "nowhere to ask".into();
        for address in loopback(pod) {
            let application = Application { address, source: None };
            match application.connect(self.port).await {
                Ok(stream) => return exchange(stream, Protocol::Http1, request).await,
                Err(error) => problem = format!("{address}:{}: {error}", self.port).into(),
            }
        }
        Err(problem)
    }
}

/// Where `localhost` is. A pod address of 127.0.0.0/8 (explicit mode, tests) is its own.
fn loopback(pod: IpAddr) -> Vec<IpAddr> {
    let (v4, v6) = ([127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into());
    match pod {
        pod if pod.is_loopback() => vec![pod],
        IpAddr::V4(_) => vec![v4, v6],
        IpAddr::V6(_) => vec![v6, v4],
    }
}

/// What the scraper leaves to the application: the sidecar's part has to arrive in time whatever the application does.
fn time_limit(headers: &HeaderMap) -> Duration {
    let told = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let whole = told.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).filter(|t| !t.is_zero());
    whole.unwrap_or(DEFAULT_TIMEOUT).mul_f64(0.9)
}

/// Istio's rule: OpenMetrics only if the application says so in a version that exists; whatever else it says is text.
fn format(headers: &HeaderMap) -> Format {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = text.split(';').map(str::trim);
    if !parts.next().is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text")) {
        return Format::Text;
    }
    let version =
        parts.find_map(|part| part.strip_prefix("version=")).map(|version| version.trim_matches('"'));
    match version {
        Some("1.0.0") => Format::OpenMetrics100,
        Some("0.0.1") | None => Format::OpenMetrics001,
        Some(_) => Format::Text,
    }
}

/// The whole page. The application's part goes last: in OpenMetrics it ends with `# EOF`, after which nothing may come. The
/// sidecar's part is good in both formats but for one word.
pub(super) fn merge(own: String, application: &Bytes, format: Format) -> Bytes {
    if application.is_empty() {
        return own.into();
    }
    let own = match format {
        Format::Text => own,
        // Only an announcement ends like this: line ends within labels are escaped.
        Format::OpenMetrics001 | Format::OpenMetrics100 => own.replace(" untyped\n", " unknown\n"),
    };
    let mut page = BytesMut::with_capacity(own.len() + application.len() + 1);
    page.extend_from_slice(own.as_bytes());
    if !own.is_empty() && !own.ends_with('\n') {
        page.extend_from_slice(b"\n");
    }
    page.extend_from_slice(application);
    page.freeze()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use http::HeaderValue;

    use super::*;

    #[test]
    fn annotations_are_read_as_istio_reads_them() {
        let parse = |json: &str| ApplicationMetrics::parse(json, 15020);
        let at = |port, path: &str| Ok(Some(ApplicationMetrics { port, path: path.to_owned() }));
        assert_eq!(parse(r#"{"scrape":"true","path":"/m?x=1","port":"8080"}"#), at(8080, "/m?x=1"));
        assert_eq!(parse(r#"{"scrape":"true"}"#), at(80, "/metrics"));
        assert_eq!(parse(r#"{"path":"m"}"#), at(80, "/m"));
        assert_eq!(parse(r#"{"scrape":"false","port":"8080"}"#), Ok(None));
        for (json, reason) in [
            (r#"{"port":"http"}"#, "port 'http' is not a port"),
            (r#"{"port":"15020"}"#, "injected twice"),
            (r#"{"path":"/a b"}"#, "not valid in HTTP"),
            (r#"{"scheme":"https"}"#, "unknown field `scheme`"),
            ("", "EOF"),
        ] {
            let error = parse(json).unwrap_err();
            assert!(error.contains(reason) && error.starts_with("ISTIO_PROMETHEUS_ANNOTATIONS"), "{error}");
        }
    }

    fn header(name: HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_content_type_is_never_a_reason_to_lose_metrics() {
        for (text, expected) in [
            ("text/plain", Format::Text),
            ("", Format::Text),
            ("nonsense;;version", Format::Text),
            ("application/json", Format::Text),
            ("application/openmetrics-text; version=9.9", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics001),
            ("application/openmetrics-text; charset=utf-8; version=1.0.0", Format::OpenMetrics100),
        ] {
            assert_eq!(format(&header(CONTENT_TYPE, text)), expected, "{text}");
        }
        assert_eq!(format(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn the_application_gets_less_time_than_the_scraper_has() {
        let limit = |text| time_limit(&header(SCRAPE_TIMEOUT, text));
        assert_eq!(limit("5.000000"), Duration::from_millis(4_500));
        for broken in ["", "soon", "-1", "0", "inf", "NaN"] {
            assert_eq!(limit(broken), Duration::from_secs(9), "{broken}");
        }
    }

    #[test]
    fn the_applications_part_comes_last() {
        let own = "# TYPE a untyped\na 1\n";
        let open = merge(own.into(), &Bytes::from("b 2\n# EOF\n"), Format::OpenMetrics100);
        assert_eq!(open, "# TYPE a unknown\na 1\nb 2\n# EOF\n");
        assert_eq!(merge(own.into(), &Bytes::from("b 2\n"), Format::Text), format!("{own}b 2\n"));
        assert_eq!(merge("a 1".into(), &Bytes::from("b 2\n"), Format::Text), "a 1\nb 2\n");
        assert_eq!(merge(own.into(), &Bytes::new(), Format::Text), own);
    }
}
