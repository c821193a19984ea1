//! Selectors that select nothing.
//!
//! No finding of a running mesh: there Pods come and go, and a Service without Pods is nothing unusual. Before the objects
//! are applied it mostly is a mistake, as long as there are workloads among them at all.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::{self, Decoded};
use crate::model::{Finding, MeshSettings, Service, TargetPort};
use crate::source::{Object, ObjectKey};

/// Where the template of a Pod is: in a Deployment and its like, and in a CronJob.
const TEMPLATES: [&str; 2] = ["/spec/template", "/spec/jobTemplate/spec/template"];

/// A Pod, or what will make Pods, or a WorkloadEntry.
struct Pods<'a> {
    maker: &'a ObjectKey,
    labels: BTreeMap<String, String>,
    /// Names of ports.
    ports: Vec<&'a str>,
}

impl<'a> Pods<'a> {
    fn of(object: &'a Object) -> Option<Self> {
        let maker = object.key();
        if (maker.group.as_str(), maker.kind.as_str()) == ("networking.istio.io", "WorkloadEntry") {
            let labels = ["/spec/labels", "/metadata/labels"]
                .iter()
                .flat_map(|path| labels_at(&object.document, path));
            let ports = object.document.pointer("/spec/ports").and_then(Value::as_object);
            let ports = ports.into_iter().flatten().map(|(name, _)| name.as_str());
            return Some(Self { maker, labels: labels.collect(), ports: ports.collect() });
        }
        let pod = match (maker.group.as_str(), maker.kind.as_str()) {
            ("", "Pod") => &*object.document,
            _ => TEMPLATES.iter().find_map(|template| object.document.pointer(template))?,
        };
        let labels = labels_at(pod, "/metadata/labels");
        let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
        let ports = containers.filter_map(|container| container["ports"].as_array()).flatten();
        let ports = ports.filter_map(|port| port["name"].as_str()).collect();
        Some(Self { maker, labels: labels.collect(), ports })
    }
}

fn labels_at(document: &Value, path: &str) -> impl Iterator<Item = (String, String)> {
    let labels = document.pointer(path).and_then(Value::as_object).into_iter().flatten();
    labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
}

/// What is wrong with the selectors among these objects.
pub(super) fn check(objects: &BTreeMap<&ObjectKey, &Object>, settings: &MeshSettings) -> Vec<Finding> {
    let all_pods: Vec<Pods<'_>> = objects.values().filter_map(|object| Pods::of(object)).collect();
    // Rules that are kept apart from workloads say nothing about these.
    if all_pods.is_empty() {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let decoded = |object: &Object| api::decode(object, settings).ok().flatten();
    let sliced: Vec<_> = objects
        .values()
        .filter_map(|object| match decoded(object)? {
            Decoded::EndpointSlice(slice) if !slice.endpoints.is_empty() => Some(slice.service),
            _ => None,
        })
        .collect();
    for object in objects.values() {
        let namespace = &object.key().namespace;
        let here = || all_pods.iter().filter(|pods| pods.maker.namespace == *namespace);
        match decoded(object) {
            Some(Decoded::Service(service)) if service.named.is_none() && !sliced.contains(&service.name) => {
                let selected: Vec<&Pods<'_>> = here().filter(|pods| service.selects(&pods.labels)).collect();
                findings.extend(of_service(&service, &selected));
            }
            Some(Decoded::ServiceEntry(entry)) => {
                let selects = |service: &Service| here().any(|pods| service.selects(&pods.labels));
                let selectors = entry.services.iter().filter(|service| !service.selector.is_empty());
                // They all have the same.
                if selectors.take(1).any(|service| !selects(service)) {
                    let reason = format!("selects no workload of namespace {namespace}");
                    findings.push(Finding::at(&entry.origin, "spec.workloadSelector", reason));
                }
            }
            Some(Decoded::PeerAuthn(policy))
                if !policy.selector.is_empty() && !here().any(|pods| policy.selects(&pods.labels)) =>
            {
                let reason = format!("selects no workload of namespace {namespace}");
                findings.push(Finding::at(&policy.origin, "spec.selector", reason));
            }
            _ => {}
        }
    }
    findings
}

fn of_service(service: &Service, selected: &[&Pods<'_>]) -> Vec<Finding> {
    if service.selector.is_empty() {
        let reason = "has no endpoints: neither a selector nor an EndpointSlice".to_owned();
        return vec![Finding::at(&service.origin, "spec", reason)];
    }
    if selected.is_empty() {
        let namespace = &service.name.namespace;
        let reason = format!("has no endpoints: selects no workload of namespace {namespace}");
        return vec![Finding::at(&service.origin, "spec.selector", reason)];
    }
    let mut findings = Vec::new();
    for port in &service.ports {
        let TargetPort::Named(name) = &port.target else { continue };
        // What a Pod or a WorkloadEntry lacks, translation says itself.
        let made =
            selected.iter().filter(|pods| !["Pod", "WorkloadEntry"].contains(&pods.maker.kind.as_str()));
        for pods in made.filter(|pods| !pods.ports.contains(&name.as_str())) {
            let reason = format!("port {}: {} has no container port {name:?}", port.number, pods.maker);
            findings.push(Finding::at(&service.origin, "spec.ports", reason));
        }
    }
    findings
}
