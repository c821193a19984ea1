//! The checks of names and of the fields that a mesh depends on.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

use crate::kinds::{Resource, custom};
use crate::object;
use crate::status::Cause;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
    '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
    start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

fn is_label(name: &str) -> bool {
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && ends(name.chars().next())
        && ends(name.chars().last())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|part| is_label(part) || part.len() > 63)
}

/// Name, labels and annotations.
pub(super) fn metadata(resource: &Resource, object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(object);
    let value = Value::from(name);
    let problem = if resource.group == "rbac.authorization.k8s.io" {
        // Names like `system:node` are no host names; they only have to fit into a path.
        let fits = !name.contains(['/', '%']) && name != "." && name != "..";
        (!fits).then_some("may not contain '/' or '%'")
    } else if matches!(resource.plural.as_str(), "namespaces" | "services") {
        (!is_label(name)).then_some(LABEL)
    } else {
        (!is_subdomain(name)).then_some(SUBDOMAIN)
    };
    causes.extend(problem.map(|why| Cause::invalid("metadata.name", &value, why)));
    for (key, value) in object["metadata"]["labels"].as_object().into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        if !is_label_value(text) {
            causes.push(Cause::invalid(
                "metadata.labels",
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and \
                 must start and end with an alphanumeric character",
            ));
        }
        if key.rsplit('/').next().is_none_or(|name| name.is_empty() || !is_label_value(name)) {
            causes.push(Cause::invalid(
                "metadata.labels",
                &key.as_str().into(),
                "a qualified name is needed",
            ));
        }
    }
    causes
}

fn is_label_value(text: &str) -> bool {
    static PATTERN: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new("^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$").ok());
    text.len() <= 63 && PATTERN.as_ref().is_none_or(|pattern| pattern.is_match(text))
}

/// What the kinds themselves ask for.
pub(super) fn built_in(resource: &Resource, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => pod(object),
        ("", "services") => service(object),
        ("discovery.k8s.io", "endpointslices") => endpoint_slice(object, old),
        ("coordination.k8s.io", "leases") => lease(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => custom::validate(object),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets") => workload(object, old),
        _ => Vec::new(),
    }
}

fn pod(pod: &Value) -> Vec<Cause> {
    let spec = &pod["spec"];
    let mut causes = Vec::new();
    if spec["containers"].as_array().is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.containers", ""));
    }
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let path = format!("spec.{list}[{index}]");
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                causes.push(Cause::required(format!("{path}.name"), ""));
            } else if !is_label(name) {
                causes.push(Cause::invalid(format!("{path}.name"), &name.into(), LABEL));
            }
            if container["image"].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(format!("{path}.image"), ""));
            }
        }
    }
    let volumes: Vec<&Value> =
        spec["volumes"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    for list in ["initContainers", "containers"] {
        for (index, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            for (mount_index, mount) in container["volumeMounts"].as_array().into_iter().flatten().enumerate()
            {
                if !volumes.contains(&&mount["name"]) {
                    causes.push(Cause {
                        reason: "FieldValueNotFound",
                        message: format!("Not found: {}", mount["name"]),
                        field: format!("spec.{list}[{index}].volumeMounts[{mount_index}].name"),
                    });
                }
            }
        }
    }
    causes
}

fn service(service: &Value) -> Vec<Cause> {
    let spec = &service["spec"];
    let mut causes = Vec::new();
    for (index, address) in spec["clusterIPs"].as_array().into_iter().flatten().enumerate() {
        let text = address.as_str().unwrap_or_default();
        if text != "None" && text.parse::<IpAddr>().is_err() {
            causes.push(Cause::invalid(format!("spec.clusterIPs[{index}]"), address, NOT_AN_ADDRESS));
        }
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["clusterIP"] != "None" && spec["type"] != "ExternalName" && causes.is_empty()
    {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        if port["port"].as_i64().is_none_or(|port| !(1..=65535).contains(&port)) {
            let why = "must be between 1 and 65535, inclusive";
            causes.push(Cause::invalid(format!("spec.ports[{index}].port"), &port["port"], why));
        }
        if ports.len() > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
    let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
    if spec["type"] != "LoadBalancer" && ingress.is_some_and(|list| !list.is_empty()) {
        let why = "may only be used when `spec.type` is 'LoadBalancer'";
        causes.push(Cause::forbidden("status.loadBalancer.ingress", why));
    }
    causes
}

fn endpoint_slice(slice: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old
        && old["addressType"] != slice["addressType"]
    {
        return vec![Cause::invalid("addressType", &slice["addressType"], "field is immutable")];
    }
    let kind = slice["addressType"].as_str().unwrap_or_default();
    if kind.is_empty() {
        causes.push(Cause::required("addressType", ""));
    }
    for (index, endpoint) in slice["endpoints"].as_array().into_iter().flatten().enumerate() {
        let path = format!("endpoints[{index}].addresses");
        let addresses = endpoint["addresses"].as_array().map(Vec::as_slice).unwrap_or_default();
        if addresses.is_empty() {
            causes.push(Cause::required(path.as_str(), "must contain at least 1 address"));
        }
        for (number, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().unwrap_or_default().parse::<IpAddr>();
            let path = format!("{path}[{number}]");
            match (kind, parsed) {
                ("IPv4" | "IPv6", Err(_)) => causes.push(Cause::invalid(path, address, NOT_AN_ADDRESS)),
                ("IPv4", Ok(IpAddr::V6(_))) => {
                    causes.push(Cause::invalid(path, address, "must be an IPv4 address"));
                }
                ("IPv6", Ok(IpAddr::V4(_))) => {
                    causes.push(Cause::invalid(path, address, "must be an IPv6 address"));
                }
                _ => {}
            }
        }
    }
    causes
}

fn lease(lease: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (field, least) in [("leaseDurationSeconds", 1), ("leaseTransitions", 0)] {
        let value = &lease["spec"][field];
        if value.as_i64().is_some_and(|number| number < least) {
            let why =
                if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            causes.push(Cause::invalid(format!("spec.{field}"), value, why));
        }
    }
    causes
}

fn webhooks(configuration: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, webhook) in configuration["webhooks"].as_array().into_iter().flatten().enumerate() {
        let path = format!("webhooks[{index}]");
        if webhook["name"].as_str().unwrap_or_default().split('.').count() < 3 {
            let why = "should be a domain with at least three segments separated by dots";
            causes.push(Cause::invalid(format!("{path}.name"), &webhook["name"], why));
        }
        let effects = &webhook["sideEffects"];
        if !matches!(effects.as_str(), Some("None" | "NoneOnDryRun")) {
            causes.push(Cause::unsupported(
                format!("{path}.sideEffects"),
                effects,
                &["None", "NoneOnDryRun"],
            ));
        }
        if !webhook["admissionReviewVersions"].as_array().into_iter().flatten().any(|one| one == "v1") {
            let why = "must include at least one of v1, v1beta1";
            causes.push(Cause::invalid(
                format!("{path}.admissionReviewVersions"),
                &webhook["admissionReviewVersions"],
                why,
            ));
        }
        if !(1..=30).contains(&webhook["timeoutSeconds"].as_i64().unwrap_or(10)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            causes.push(Cause::invalid(format!("{path}.timeoutSeconds"), &webhook["timeoutSeconds"], why));
        }
        let config = &webhook["clientConfig"];
        if config["url"].is_string() == config["service"].is_object() {
            let why = "exactly one of url or service is required";
            causes.push(Cause::required(format!("{path}.clientConfig"), why));
        }
        if webhook.get("matchConditions").is_some() {
            // A real server has CEL; here nothing may be ignored in silence.
            let why = "the test server has no CEL";
            causes.push(Cause::forbidden(format!("{path}.matchConditions"), why));
        }
    }
    causes
}

fn workload(workload: &Value, old: Option<&Value>) -> Vec<Cause> {
    let spec = &workload["spec"];
    let mut causes = Vec::new();
    let selector = &spec["selector"];
    if selector["matchLabels"].is_null() && selector["matchExpressions"].is_null() {
        causes.push(Cause::required("spec.selector", ""));
    } else if !crate::selector::label_selector_matches(selector, &spec["template"]["metadata"]["labels"]) {
        let labels = &spec["template"]["metadata"]["labels"];
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
    if old.is_some_and(|old| old["spec"]["selector"] != *selector) {
        causes.push(Cause::invalid("spec.selector", selector, "field is immutable"));
    }
    causes
}

/// The text of Go's `time.Parse` when a `MicroTime` has not exactly six digits after the second.
pub(crate) fn micro_time_error(text: &str) -> Option<String> {
    let problem = |rest: &str, wanted: &str| {
        let layout = "2006-01-02T15:04:05.000000Z07:00";
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {wanted:?}")
    };
    let seconds = text.get(..19)?;
    let shape: Vec<bool> = seconds.bytes().map(|byte| byte.is_ascii_digit()).collect();
    let expected: Vec<bool> = "0000-00-00T00:00:00".bytes().map(|byte| byte.is_ascii_digit()).collect();
    if shape != expected {
        return Some(problem(text, "2006"));
    }
    let rest = &text[19..];
    let fraction = rest.strip_prefix('.').and_then(|rest| rest.get(..6));
    match fraction {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            let zone = &rest[7..];
            (zone != "Z" && !zone.starts_with(['+', '-'])).then(|| problem(zone, "Z07:00"))
        }
        _ => Some(problem(rest, ".000000")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_micro_time_has_six_digits() {
        assert_eq!(micro_time_error("2026-11-21T04:00:00.000000Z"), None);
        assert!(
            micro_time_error("2026-11-21T04:00:04Z").unwrap().ends_with(r#"cannot parse "Z" as ".000000""#)
        );
        assert!(
            micro_time_error("2026-11-21T04:00:05.123456789Z")
                .unwrap()
                .ends_with(r#"cannot parse "789Z" as "Z07:00""#)
        );
    }

    #[test]
    fn names() {
        assert!(
            is_subdomain("a.b-c.0") && !is_subdomain("Not_Valid") && !is_subdomain("-a") && !is_subdomain("")
        );
        assert!(is_label("a-b") && !is_label("a.b"));
    }
}
