//! Formats: text or JSON.

use super::append::Appended;
use super::json::JsonFormat;
use super::operator::Operator;
use super::time::Clock;
use super::{CapturePlan, Values};

/// Envoy's default text format.
pub const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
     \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// A compiled format.
#[derive(Debug, Clone, PartialEq)]
pub struct Format(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text { template: Template, empty: &'static str },
    Json(JsonFormat),
}

impl Format {
    /// Compiles a text format (`log_format.text_format_source`, `text_format`, `format`): values that are not known print `-`.
    /// A text format says itself where a line ends. The headers that it prints are added to `plan`.
    ///
    /// # Errors
    /// In Envoy's words: an operator that does not exist or that is not well-formed.
    pub fn compile(text: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        Self::compile_text(text, false, plan)
    }

    /// The same with `omit_empty_values`: values that are not known print nothing.
    ///
    /// # Errors
    /// As [`Format::compile`].
    pub fn compile_text(text: &str, omit_empty_values: bool, plan: &mut CapturePlan) -> Result<Self, String> {
        let template = Template::compile(text, plan)?;
        Ok(Self(Kind::Text { template, empty: if omit_empty_values { "" } else { "-" } }))
    }

    /// Compiles a JSON format (`log_format.json_format`): one object a line, keys in order. A value that is one operator has the
    /// operator's type; what is not known is `null`, or left out with `omit_empty_values`.
    ///
    /// # Errors
    /// As [`Format::compile`], behind the key's path.
    pub fn compile_json(
        object: &serde_json::Map<String, serde_json::Value>,
        omit_empty_values: bool,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        JsonFormat::compile(object, omit_empty_values, plan).map(|json| Self(Kind::Json(json)))
    }

    /// Appends the values, or a whole line.
    pub(crate) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) {
        match &self.0 {
            Kind::Text { template, empty } => template.append(values, clock, empty, out),
            Kind::Json(json) => json.append(values, clock, out),
        }
    }
}

/// Text with operators in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq)]
enum Part {
    Literal(Box<[u8]>),
    Operator(Operator),
}

impl Template {
    pub(super) fn compile(text: &str, plan: &mut CapturePlan) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(found) = text[at..].find('%') {
            literal.push_str(&text[at..at + found]);
            at += found;
            if text[at..].starts_with("%%") {
                literal.push('%');
                at += 2;
                continue;
            }
            let command = Command::parse(&text[at..]).ok_or_else(|| {
                format!("Incorrect configuration: {text}. Couldn't find valid command at position {at}")
            })?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into_bytes().into()));
            }
            parts.push(Part::Operator(Operator::compile(
                command.name,
                command.parameters,
                command.length,
                plan,
            )?));
            at += command.consumed;
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into_bytes().into()));
        }
        Ok(Self(parts))
    }

    /// The operator, when the template is nothing else.
    pub(super) fn single_operator(&self) -> Option<&Operator> {
        match self.0.as_slice() {
            [Part::Operator(operator)] => Some(operator),
            _ => None,
        }
    }

    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, empty: &str, out: &mut Vec<u8>) {
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text),
                Part::Operator(operator) => {
                    if operator.append(values, clock, out) == Appended::Empty {
                        out.extend_from_slice(empty.as_bytes());
                    }
                }
            }
        }
    }
}

/// `%NAME(parameters):length%`, taken apart.
struct Command<'a> {
    name: &'a str,
    parameters: Option<&'a str>,
    length: Option<usize>,
    /// Bytes from the first `%` to behind the last.
    consumed: usize,
}

impl<'a> Command<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let body = text.strip_prefix('%')?;
        let name_len = body.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))?;
        let (name, rest) = body.split_at(name_len);
        if name.is_empty() {
            return None;
        }
        let Some(inner) = rest.strip_prefix('(') else {
            let (length, rest) = Self::end(rest)?;
            return Some(Self { name, parameters: None, length, consumed: text.len() - rest.len() });
        };
        // Parameters may have brackets and percent signs: they end at the first bracket that a command can end behind.
        inner.match_indices(')').find_map(|(close, _)| {
            let (length, rest) = Self::end(&inner[close + 1..])?;
            Some(Self { name, parameters: Some(&inner[..close]), length, consumed: text.len() - rest.len() })
        })
    }

    /// `:length%` or `%`.
    fn end(text: &str) -> Option<(Option<usize>, &str)> {
        let Some(length) = text.strip_prefix(':') else {
            return text.strip_prefix('%').map(|rest| (None, rest));
        };
        let (digits, rest) = length.split_at(length.find('%')?);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some((Some(digits.parse().ok()?), &rest[1..]))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::net::SocketAddr;
    use std::sync::Arc;
    use std::time::{Duration, UNIX_EPOCH};

    use http::{HeaderValue, Method, Version};
    use serde_json::json;

    use super::*;
    use crate::cluster::Host;
    use crate::net::Address;
    use crate::stream_info::{
        AccessLogType, CapturedRequest, ConnectionInfo, ResponseFlags, StreamInfo, details,
    };
    use crate::transport_socket::TlsInfo;

    const ISTIO_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
        %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
        \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
        %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
        \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
        %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

    fn address(text: &str) -> Address {
        Address::Ip(text.parse::<SocketAddr>().unwrap())
    }

    /// A finished request; its captured headers are those of `plan` that are in `headers`.
    fn request(plan: &CapturePlan, headers: &[(&str, &'static str)]) -> StreamInfo {
        let connection = ConnectionInfo {
            local_address: address("127.0.0.1:10001"),
            direct_local_address: address("127.0.0.1:10001"),
            original_destination: None,
            peer_address: address("[::1]:40000"),
            requested_server_name: Some("outbound_.80_._.reviews".into()),
            tls: Some(TlsInfo {
                version: "TLSv1.3",
                peer_principal: Some("spiffe://cluster.local/ns/default/sa/web".into()),
                ..TlsInfo::default()
            }),
            connection_id: 7,
            filter_chain: "".into(),
            fingerprints: None,
            opened: std::time::Instant::now(),
            secured: None,
        };
        let value = |name: &http::HeaderName| {
            headers.iter().find(|(n, _)| *n == name.as_str()).map(|(_, v)| HeaderValue::from_str(v).unwrap())
        };
        let mut info = StreamInfo::new(Arc::new(connection), Some(Version::HTTP_11));
        info.start_time = UNIX_EPOCH + Duration::from_millis(1_795_239_037_138);
        info.request = Some(CapturedRequest {
            method: Method::GET,
            path: Some("/a?b=c".parse().unwrap()),
            authority: Some(HeaderValue::from_static("reviews:80")),
            scheme: "http",
            headers: plan.request.iter().map(value).collect(),
            matched: 0,
        });
        info.response_headers = plan.response.iter().map(value).collect();
        info.response_code = 200;
        info.response_code_details = details::VIA_UPSTREAM;
        info.bytes_received = 5;
        info.bytes_sent = 1234;
        info.duration = Duration::from_micros(12_900);
        info.upstream_host = Some(Arc::new(Host::new(address("10.0.0.9:9080"), "".into(), 1, true, None)));
        info.upstream_local_address = Some("10.0.0.1:33333".parse().unwrap());
        info.first_upstream_byte = Some(Duration::from_millis(11));
        info.attempt_count = 1;
        info
    }

    fn line(format: &Format, info: &StreamInfo) -> String {
        let mut out = Vec::new();
        let log_type = match info.protocol {
            Some(_) => AccessLogType::DownstreamEnd,
            None => AccessLogType::TcpConnectionEnd,
        };
        let values = Values { log_type, ..info.into() };
        format.append(values, &mut Clock::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn envoys_default_format() {
        let mut plan = CapturePlan::default();
        let format = Format::compile(DEFAULT_FORMAT, &mut plan).unwrap();
        let names: Vec<_> = plan.request.iter().map(|n| n.as_str()).collect();
        assert_eq!(names, ["x-envoy-original-path", "x-forwarded-for", "user-agent", "x-request-id"]);
        assert_eq!(plan.response, ["x-envoy-upstream-service-time"]);
        let info = request(
            &plan,
            &[("user-agent", "curl/8"), ("x-request-id", "id"), ("x-envoy-upstream-service-time", "11")],
        );
        assert_eq!(
            line(&format, &info),
            "[2026-11-21T05:30:37.138Z] \"GET /a?b=c HTTP/1.1\" 200 - 5 1234 12 11 \"-\" \"curl/8\" \"id\" \"reviews:80\" \
             \"10.0.0.9:9080\"\n"
        );
        let info = request(&plan, &[("x-envoy-original-path", "/first")]);
        assert!(line(&format, &info).contains("\"GET /first HTTP/1.1\""));
    }

    #[test]
    fn istios_format() {
        let mut plan = CapturePlan::default();
        let format = Format::compile(ISTIO_FORMAT, &mut plan).unwrap();
        let mut info = request(&plan, &[]);
        assert_eq!(
            line(&format, &info),
            "[2026-11-21T05:30:37.138Z] \"GET /a?b=c HTTP/1.1\" 200 - via_upstream - \"-\" 5 1234 12 - \"-\" \"-\" \"-\" \
             \"reviews:80\" \"10.0.0.9:9080\" - 10.0.0.1:33333 127.0.0.1:10001 [::1]:40000 outbound_.80_._.reviews -\n"
        );
        info.flags.insert(ResponseFlags::UPSTREAM_CONNECTION_FAILURE);
        info.flags.insert(ResponseFlags::NO_HEALTHY_UPSTREAM);
        info.response_code = 503;
        info.response_code_details = details::CONNECTION_FAILURE;
        info.upstream_transport_failure = Some("delayed connect error: Connection refused".into());
        info.upstream_local_address = None;
        info.route_name = Some("default".into());
        assert_eq!(
            line(&format, &info),
            "[2026-11-21T05:30:37.138Z] \"GET /a?b=c HTTP/1.1\" 503 UF,UH \
             upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused} - \
             \"delayed_connect_error:_Connection_refused\" 5 1234 12 - \"-\" \"-\" \"-\" \"reviews:80\" \"10.0.0.9:9080\" - - \
             127.0.0.1:10001 [::1]:40000 outbound_.80_._.reviews default\n"
        );
    }

    #[test]
    fn operators_one_by_one() {
        for (operator, expected) in [
            ("%REQ(:SCHEME)%", "http"),
            ("%REQ(X-NOT?:PATH):4%", "/a?b"),
            ("%REQUEST_HEADER(USER-AGENT):3%", "cur"),
            ("%RESP(:STATUS)%", "200"),
            ("%RESP(X-NOPE?SERVER)%", "envoy"),
            ("%REQUEST_DURATION%", "-"),
            ("%RESPONSE_DURATION%", "11"),
            ("%RESPONSE_TX_DURATION%", "1"),
            ("%RESPONSE_FLAGS_LONG%", "-"),
            ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%", "127.0.0.1"),
            ("%DOWNSTREAM_LOCAL_PORT%", "10001"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "::1"),
            ("%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%", "[::1]:40000"),
            ("%UPSTREAM_REMOTE_ADDRESS%", "10.0.0.9:9080"),
            ("%UPSTREAM_REMOTE_PORT%", "9080"),
            ("%UPSTREAM_HOST_NAME%", "10.0.0.9:9080"),
            ("%UPSTREAM_REQUEST_ATTEMPT_COUNT%", "1"),
            ("%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT(8)%", "127.0.0.0/8"),
            ("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(64)%", "::/64"),
            ("%UPSTREAM_HOST_NAME_WITHOUT_PORT%", "10.0.0.9"),
            ("%PATH%", "/a?b=c"),
            ("%PATH(NQ):1%", "/"),
            ("%QUERY_PARAM(b)%", "c"),
            ("%QUERY_PARAMS%", "b=c"),
            ("%REQUESTED_SERVER_NAME(HOST_FIRST)%", "reviews:80"),
            (
                "%COALESCE({\"operators\": [\"ROUTE_NAME\", {\"command\": \"REQ\", \"param\": \":authority\"}]}):4%",
                "revi",
            ),
            ("%CUSTOM_FLAGS%", ""),
            ("%TRACE_ID%", "-"),
            ("%DOWNSTREAM_LOCAL_URI_SAN%", "-"),
            ("%DOWNSTREAM_TLS_VERSION%", "TLSv1.3"),
            ("%DOWNSTREAM_TLS_CIPHER%", "-"),
            ("%UPSTREAM_TLS_VERSION%", "-"),
            ("%CONNECTION_ID%", "7"),
            ("%ACCESS_LOG_TYPE%", "DownstreamEnd"),
            ("%START_TIME(%s.%3f)%", "1795239037.138"),
            ("%ENVIRONMENT(OUTRIGGER_NEVER_SET)%", "-"),
            ("100%% %RESPONSE_CODE%", "100% 200"),
            ("plain", "plain"),
            ("", ""),
        ] {
            let mut plan = CapturePlan::default();
            let format = Format::compile(operator, &mut plan).unwrap();
            let info = request(&plan, &[("user-agent", "curl/8"), ("server", "envoy")]);
            assert_eq!(line(&format, &info), expected, "{operator}");
        }
    }

    #[test]
    fn tcp_has_no_request() {
        let mut plan = CapturePlan::default();
        let format =
            Format::compile("%REQ(:METHOD)% %PROTOCOL% %RESPONSE_CODE% %ACCESS_LOG_TYPE%", &mut plan)
                .unwrap();
        let connection = ConnectionInfo {
            local_address: address("127.0.0.1:1"),
            direct_local_address: address("127.0.0.1:1"),
            original_destination: None,
            peer_address: Address::Pipe(Arc::new("/run/x".into())),
            requested_server_name: None,
            tls: None,
            connection_id: 1,
            filter_chain: "".into(),
            fingerprints: None,
            opened: std::time::Instant::now(),
            secured: None,
        };
        let info = StreamInfo::new(Arc::new(connection), None);
        assert_eq!(line(&format, &info), "- - 0 TcpConnectionEnd");
        let format =
            Format::compile("%DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT%", &mut plan).unwrap();
        assert_eq!(line(&format, &info), "/run/x -");
    }

    #[test]
    fn omitted_values_print_nothing() {
        let mut plan = CapturePlan::default();
        let format = Format::compile_text("[%REQ(X-NO)%][%RESPONSE_CODE%]", true, &mut plan).unwrap();
        assert_eq!(line(&format, &request(&plan, &[])), "[][200]");
    }

    /// Envoy 1.40's words.
    #[test]
    fn bad_formats_are_refused() {
        for (format, error) in [
            ("%NOPE%", "Not supported field in StreamInfo: NOPE"),
            ("%REQ(a", "Incorrect configuration: %REQ(a. Couldn't find valid command at position 0"),
            ("100%", "Incorrect configuration: 100%. Couldn't find valid command at position 3"),
            ("%REQ%", "REQ requires parameters"),
            ("%REQ()%", "REQ requires parameters"),
            ("%REQ(a):x%", "Incorrect configuration: %REQ(a):x%. Couldn't find valid command at position 0"),
            ("%RESPONSE_CODE(a)%", "RESPONSE_CODE does not take any parameters or length"),
            ("%PROTOCOL:3%", "PROTOCOL does not take any parameters or length"),
            ("%REQ(a?b?c)%", "More than 1 alternative header specified in token: a?b?c"),
            (
                "%start_time%",
                "Incorrect configuration: %start_time%. Couldn't find valid command at position 0",
            ),
            ("%REQ(a\nb)%", "Invalid header configuration. Format string contains newline."),
            ("%REQ(a b)%", "not a header name: 'a b'"),
            ("%UPSTREAM_TLS_SESSION_ID%", "Not supported field in StreamInfo: UPSTREAM_TLS_SESSION_ID"),
        ] {
            assert_eq!(Format::compile(format, &mut CapturePlan::default()).unwrap_err(), error, "{format}");
        }
    }

    /// The same format through Envoy 1.40 gave the same keys, order and types.
    #[test]
    fn json_is_typed_and_in_order() {
        let object = json!({
            "z": "%RESPONSE_CODE%", "status": "%RESP(:STATUS)%", "a": "%DURATION%",
            "m": {"q": "%PROTOCOL%", "b": ["%BYTES_SENT%", "x%BYTES_SENT%"]},
            "missing": "%REQ(X-NO)%", "mixed": "%RESPONSE_CODE%-%REQ(X-NO)%", "n": 3.0, "t": true,
            "flags": "%RESPONSE_FLAGS%", "st": "%START_TIME%", "s": "%START_TIME(%s)%", "ua": "%REQ(USER-AGENT)%", "null": null,
        });
        let object = object.as_object().unwrap();
        let mut plan = CapturePlan::default();
        let format = Format::compile_json(object, false, &mut plan).unwrap();
        let info = request(&plan, &[("user-agent", "a\"b\\c\u{e9}")]);
        assert_eq!(
            line(&format, &info),
            "{\"a\":12,\"flags\":\"-\",\"m\":{\"b\":[1234,\"x1234\"],\"q\":\"HTTP/1.1\"},\"missing\":null,\"mixed\":\"200--\",\
             \"n\":3,\"null\":null,\"s\":\"1795239037\",\"st\":\"2026-11-21T05:30:37.138Z\",\"status\":\"200\",\"t\":true,\
             \"ua\":\"a\\\"b\\\\c\u{e9}\",\"z\":200}\n"
        );
        let format = Format::compile_json(object, true, &mut CapturePlan::default()).unwrap();
        assert_eq!(
            line(&format, &request(&plan, &[])),
            "{\"a\":12,\"flags\":\"-\",\"m\":{\"b\":[1234,\"x1234\"],\"q\":\"HTTP/1.1\"},\"mixed\":\"200-\",\"n\":3,\
             \"s\":\"1795239037\",\"st\":\"2026-11-21T05:30:37.138Z\",\"status\":\"200\",\"t\":true,\"z\":200}\n"
        );
    }

    #[test]
    fn json_errors_name_the_key() {
        let object = json!({"a": {"b": "%NOPE%"}});
        let error = Format::compile_json(object.as_object().unwrap(), false, &mut CapturePlan::default())
            .unwrap_err();
        assert_eq!(error, "a: b: Not supported field in StreamInfo: NOPE");
    }

    #[test]
    fn formats_share_captured_headers() {
        let mut plan = CapturePlan::default();
        Format::compile("%REQ(A)% %REQ(B)%", &mut plan).unwrap();
        let format = Format::compile("%REQ(b)%", &mut plan).unwrap();
        assert_eq!(plan.request, ["a", "b"]);
        assert_eq!(line(&format, &request(&plan, &[("a", "1"), ("b", "2")])), "2");
    }
}
