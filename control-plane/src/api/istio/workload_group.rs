//! WorkloadGroup -> [`WorkloadGroup`]: a template of WorkloadEntries, which is checked and does nothing by itself.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::workload_entry::EntrySpec;
use crate::api::values::{header_name, number, port};
use crate::api::{Refusal, Strict, name_of, names, read};
use crate::model::{Remark, WorkloadGroup};
use crate::source::Object;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    metadata: Option<TemplateMetadata>,
    template: EntrySpec,
    probe: Option<Probe>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TemplateMetadata {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Probe {
    initial_delay_seconds: Option<i64>,
    timeout_seconds: Option<i64>,
    period_seconds: Option<i64>,
    success_threshold: Option<i64>,
    failure_threshold: Option<i64>,
    http_get: Option<HttpGet>,
    tcp_socket: Option<Socket>,
    exec: Option<Exec>,
    grpc: Option<Grpc>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HttpGet {
    #[serde(default, rename = "path")]
    _path: String,
    port: i64,
    #[serde(default, rename = "host")]
    _host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    name: String,
    #[serde(default, rename = "value")]
    _value: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Socket {
    #[serde(default, rename = "host")]
    _host: String,
    port: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    #[serde(default)]
    command: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: i64,
    #[serde(default, rename = "service")]
    _service: String,
}

/// Decodes a WorkloadGroup.
pub(in crate::api) fn workload_group(object: &Object) -> Result<WorkloadGroup, Refusal> {
    let Strict { spec, .. }: Strict<Spec> = read(object)?;
    if let Some(metadata) = &spec.metadata {
        for (key, value) in &metadata.labels {
            names::label_value(&format!("spec.metadata.labels.{key}"), value)?;
        }
    }
    spec.template.check_template("spec.template")?;
    let reason = "makes no WorkloadEntry by itself: machines are not registered when their sidecars connect. Write a WorkloadEntry for \
                  each of them, with the labels, ports, service account and locality of this template";
    let mut remarks = vec![Remark::new("spec.template", reason)];
    remarks.extend(spec.template.remarks("spec.template"));
    if let Some(probe) = &spec.probe {
        probe.check()?;
        let reason = "has no effect: WorkloadEntries are not probed and count as ready. An outlierDetection in a DestinationRule \
                      takes those out that fail";
        remarks.push(Remark::new("spec.probe", reason));
    }
    Ok(WorkloadGroup { name: name_of(object), remarks, origin: object.origin.clone() })
}

impl Probe {
    fn check(&self) -> Result<(), Refusal> {
        for (field, value) in [
            ("initialDelaySeconds", self.initial_delay_seconds),
            ("timeoutSeconds", self.timeout_seconds),
            ("periodSeconds", self.period_seconds),
            ("successThreshold", self.success_threshold),
            ("failureThreshold", self.failure_threshold),
        ] {
            if let Some(value) = value {
                number(value, 0, i32::MAX.unsigned_abs(), format!("spec.probe.{field}"))?;
            }
        }
        let methods =
            [self.http_get.is_some(), self.tcp_socket.is_some(), self.exec.is_some(), self.grpc.is_some()];
        if methods.into_iter().filter(|is_there| *is_there).count() != 1 {
            let reason = "must have one of httpGet, tcpSocket, exec and grpc";
            return Err(Refusal::new("spec.probe", reason));
        }
        if let Some(get) = &self.http_get {
            port(get.port, "spec.probe.httpGet.port")?;
            if !matches!(get.scheme.as_str(), "" | "HTTP" | "HTTPS") {
                let reason = format!("{:?} is neither HTTP nor HTTPS", get.scheme);
                return Err(Refusal::new("spec.probe.httpGet.scheme", reason));
            }
            for (index, header) in get.http_headers.iter().enumerate() {
                header_name(&header.name, &format!("spec.probe.httpGet.httpHeaders[{index}].name"))?;
            }
        }
        if let Some(socket) = &self.tcp_socket {
            port(socket.port, "spec.probe.tcpSocket.port")?;
        }
        if self.exec.as_ref().is_some_and(|exec| exec.command.is_empty()) {
            return Err(Refusal::new("spec.probe.exec.command", "must not be empty"));
        }
        match &self.grpc {
            Some(grpc) => port(grpc.port, "spec.probe.grpc.port").map(drop),
            None => Ok(()),
        }
    }
}
