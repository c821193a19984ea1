//! `VirtualService` (`networking.istio.io`), as written: every field that Istio has.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
pub(super) struct Spec {
    pub(super) hosts: Vec<String>,
    pub(super) gateways: Vec<String>,
    pub(super) http: Vec<Http>,
    pub(super) tls: Vec<Tls>,
    pub(super) tcp: Vec<Tcp>,
    pub(super) export_to: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Http {
    pub(super) name: String,
    pub(super) r#match: Vec<HttpMatch>,
    pub(super) route: Vec<HttpDestination>,
    pub(super) redirect: Option<Redirect>,
    pub(super) direct_response: Option<DirectResponse>,
    pub(super) delegate: Option<Delegate>,
    pub(super) rewrite: Option<Rewrite>,
    pub(super) timeout: Option<String>,
    pub(super) retries: Option<Retries>,
    pub(super) fault: Option<Fault>,
    pub(super) mirror: Option<Destination>,
    #[serde(alias = "mirror_percent")]
    pub(super) mirror_percent: Option<i64>,
    pub(super) mirror_percentage: Option<Percent>,
    pub(super) mirrors: Vec<Mirror>,
    pub(super) cors_policy: Option<Cors>,
    pub(super) headers: Headers,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct HttpMatch {
    pub(super) name: String,
    pub(super) uri: Option<StringMatch>,
    pub(super) scheme: Option<StringMatch>,
    pub(super) method: Option<StringMatch>,
    pub(super) authority: Option<StringMatch>,
    pub(super) headers: BTreeMap<String, StringMatch>,
    pub(super) without_headers: BTreeMap<String, StringMatch>,
    pub(super) query_params: BTreeMap<String, StringMatch>,
    pub(super) ignore_uri_case: bool,
    pub(super) port: Option<i64>,
    pub(super) source_labels: BTreeMap<String, String>,
    pub(super) source_namespace: String,
    pub(super) gateways: Vec<String>,
    pub(super) stat_prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct StringMatch {
    pub(super) exact: Option<String>,
    pub(super) prefix: Option<String>,
    pub(super) regex: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HttpDestination {
    pub(super) destination: Destination,
    #[serde(default)]
    pub(super) weight: i64,
    #[serde(default)]
    pub(super) headers: Headers,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct L4Destination {
    pub(super) destination: Destination,
    #[serde(default)]
    pub(super) weight: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) subset: Option<String>,
    pub(super) port: Option<Port>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Port {
    pub(super) number: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Headers {
    pub(super) request: HeaderOperations,
    pub(super) response: HeaderOperations,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct HeaderOperations {
    pub(super) set: BTreeMap<String, String>,
    pub(super) add: BTreeMap<String, String>,
    pub(super) remove: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Redirect {
    pub(super) uri: String,
    pub(super) authority: String,
    pub(super) scheme: String,
    pub(super) port: Option<i64>,
    pub(super) derive_port: Option<String>,
    pub(super) redirect_code: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DirectResponse {
    pub(super) status: i64,
    #[serde(default)]
    pub(super) body: Body,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Body {
    pub(super) string: Option<String>,
    pub(super) bytes: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delegate {
    pub(super) name: String,
    pub(super) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Rewrite {
    pub(super) uri: String,
    pub(super) authority: String,
    pub(super) uri_regex_rewrite: Option<RegexRewrite>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegexRewrite {
    pub(super) r#match: String,
    pub(super) rewrite: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Retries {
    pub(super) attempts: i64,
    pub(super) per_try_timeout: Option<String>,
    pub(super) retry_on: String,
    pub(super) retry_remote_localities: Option<bool>,
    pub(super) retry_ignore_previous_hosts: Option<bool>,
    pub(super) backoff: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) delay: Option<Delay>,
    pub(super) abort: Option<Abort>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Delay {
    pub(super) fixed_delay: String,
    pub(super) percentage: Option<Percent>,
    pub(super) percent: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Abort {
    pub(super) http_status: Option<i64>,
    pub(super) grpc_status: Option<String>,
    pub(super) percentage: Option<Percent>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Percent {
    pub(super) value: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mirror {
    pub(super) destination: Destination,
    pub(super) percentage: Option<Percent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct Cors {
    pub(super) allow_origin: Vec<String>,
    pub(super) allow_origins: Vec<StringMatch>,
    pub(super) allow_methods: Vec<String>,
    pub(super) allow_headers: Vec<String>,
    pub(super) expose_headers: Vec<String>,
    pub(super) max_age: Option<String>,
    pub(super) allow_credentials: Option<bool>,
    pub(super) unmatched_preflights: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    pub(super) r#match: Vec<TlsMatch>,
    #[serde(default)]
    pub(super) route: Vec<L4Destination>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct TlsMatch {
    pub(super) sni_hosts: Vec<String>,
    #[serde(default)]
    pub(super) destination_subnets: Vec<String>,
    pub(super) port: Option<i64>,
    #[serde(default)]
    pub(super) source_labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) source_namespace: String,
    #[serde(default)]
    pub(super) gateways: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tcp {
    #[serde(default)]
    pub(super) r#match: Vec<TcpMatch>,
    #[serde(default)]
    pub(super) route: Vec<L4Destination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct TcpMatch {
    pub(super) destination_subnets: Vec<String>,
    pub(super) port: Option<i64>,
    pub(super) source_labels: BTreeMap<String, String>,
    pub(super) source_namespace: String,
    pub(super) gateways: Vec<String>,
}
