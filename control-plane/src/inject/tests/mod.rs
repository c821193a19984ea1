//! Facts about injected objects.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod annotations;
mod decisions;
mod generated;
mod shapes;

use outrigger_xds_api::json;
use serde_json::Value;

use super::decision::{Namespace, NamespacePolicy};
use super::settings::InjectionSettings;
use super::{Outcome, inject};
use crate::api::Refusal;

/// A small Pod; tests change it.
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: web-0, labels: {app: web, version: v1}}
spec:
  terminationGracePeriodSeconds: 45
  initContainers: [{name: migrate, image: 'migrate:1'}]
  containers: [{name: app, image: 'app:1', ports: [{name: http, containerPort: 8080}]}]
";

fn yaml(text: &str) -> Value {
    json::parse_one(text).unwrap().to_json()
}

fn pod() -> Value {
    yaml(POD)
}

/// [`POD`] with these annotations (name and value).
fn annotated(annotations: &[(&str, &str)]) -> Value {
    let mut pod = pod();
    for (name, value) in annotations {
        pod["metadata"]["annotations"][*name] = (*value).into();
    }
    pod
}

fn selected() -> Namespace {
    Namespace { name: "shop".to_owned(), policy: NamespacePolicy::Selected }
}

fn run(object: &Value) -> Result<Outcome, Refusal> {
    inject(object, &selected(), &InjectionSettings::default())
}

/// Injects with the default settings; also gives the warnings.
#[track_caller]
fn injected_with_warnings(object: &Value) -> (Value, Vec<String>) {
    match run(object) {
        Ok(Outcome::Injected { object, warnings }) => (object, warnings),
        other => panic!("{other:?}"),
    }
}

/// Injects with the default settings, without a warning.
#[track_caller]
fn injected(object: &Value) -> Value {
    let (object, warnings) = injected_with_warnings(object);
    assert_eq!(warnings, Vec::<String>::new());
    object
}

#[track_caller]
fn injected_by(object: &Value, settings: &str) -> Value {
    let settings = InjectionSettings::parse(settings).unwrap();
    match inject(object, &selected(), &settings) {
        Ok(Outcome::Injected { object, .. }) => object,
        other => panic!("{other:?}"),
    }
}

/// The element of this name of a list.
#[track_caller]
fn named<'a>(list: &'a Value, name: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|element| element["name"] == name));
    found.unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

/// The sidecar of a Pod in either form.
#[track_caller]
fn proxy(pod: &Value) -> &Value {
    let lists = ["initContainers", "containers"].into_iter();
    let mut elements = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    elements.find(|container| container["name"] == super::PROXY_CONTAINER).expect("a sidecar")
}

/// The arguments of a container.
fn arguments(container: &Value) -> Vec<&str> {
    container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect()
}

/// A variable of the sidecar that has a value.
fn variable<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    let environment = proxy(pod)["env"].as_array().unwrap();
    environment.iter().find(|variable| variable["name"] == name)?["value"].as_str()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().map_or(Vec::new(), |list| list.iter().map(|e| e["name"].as_str().unwrap()).collect())
}
