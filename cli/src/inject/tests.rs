//! Whole texts.
#![allow(clippy::unwrap_used)]

use super::*;

const DEPLOYMENT: &str = "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}} # a comment inside
    spec: {containers: [{name: app, image: 'app:1'}]}
";
const SERVICE: &str =
    "---\n# kept\napiVersion: v1\nkind:   Service\nmetadata: {name: web}   # as it is\nspec: {}\n";

fn run(text: &str) -> anyhow::Result<Injected> {
    inject_text(text, "f.yaml", &InjectionSettings::default())
}

fn objects(text: &str) -> Vec<Value> {
    json::parse(text).unwrap().iter().map(Node::to_json).collect()
}

#[test]
fn what_is_no_workload_is_not_touched() {
    for text in [
        "",
        "# nothing\n",
        SERVICE,
        "---\n---\n",
        "a: 1\n---\nb: 2",
        "apiVersion: v1\nkind: List\nitems: []\n",
    ] {
        assert_eq!(run(text).unwrap().text, text);
    }
}

#[test]
fn documents_keep_their_place_and_the_comments_above() {
    let injected = run(&format!("{SERVICE}---\n{DEPLOYMENT}{SERVICE}")).unwrap();
    assert!(injected.text.starts_with(SERVICE), "{}", injected.text);
    assert!(injected.text.ends_with(SERVICE), "{}", injected.text);
    assert!(injected.text.contains("---\n# The shop.\napiVersion: apps/v1\nkind: Deployment\n"));
    assert!(injected.warnings.is_empty());
    let kinds: Vec<_> = objects(&injected.text).iter().map(|object| object["kind"].clone()).collect();
    assert_eq!(kinds, ["Service", "Deployment", "Service"]);
    let deployment = &objects(&injected.text)[1];
    assert_eq!(deployment["spec"]["template"]["spec"]["initContainers"][1]["name"], "outrigger-proxy");
}

#[test]
fn injecting_the_output_changes_nothing() {
    let once = run(&format!("{DEPLOYMENT}{SERVICE}")).unwrap().text;
    let twice = run(&once).unwrap();
    assert_eq!(twice.text, once);
    assert_eq!(twice.warnings, ["f.yaml:2: Deployment web: not injected: it has a sidecar already"]);
}

#[test]
fn a_list_in_json_stays_a_list_in_json() {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        objects(SERVICE)[0], objects(DEPLOYMENT)[0],
        {"apiVersion": "v1", "kind": "List", "items": [objects(DEPLOYMENT)[0]]},
    ]});
    let text = run(&list.to_string()).unwrap().text;
    let injected: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(injected["items"][0], list["items"][0]);
    for deployment in [&injected["items"][1], &injected["items"][2]["items"][0]] {
        assert!(deployment["spec"]["template"]["spec"]["initContainers"].is_array(), "{deployment:#}");
    }
}

#[test]
fn errors_have_a_place() {
    let annotated = DEPLOYMENT.replace(
        "labels: {app: web}}",
        "labels: {app: web},\n      annotations: {sidecar.istio.io/proxyCPU: much}}",
    );
    let error = run(&format!("{SERVICE}---\n{annotated}")).unwrap_err().to_string();
    let field = "spec.template.metadata.annotations[\"sidecar.istio.io/proxyCPU\"]";
    assert!(error.starts_with(&format!("f.yaml:16: Deployment web: {field}: ")), "{error}");
    let error = run(&format!("{SERVICE}---\na: [\n")).unwrap_err().to_string();
    assert!(error.starts_with("f.yaml:"), "{error}");
    let error = run("a: 1\n...\nb: 2\n").unwrap_err().to_string();
    assert!(error.starts_with("f.yaml:3: documents must be separated"), "{error}");
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [objects(&annotated)[0]]});
    let error = run(&list.to_string()).unwrap_err().to_string();
    assert!(error.contains("items[0].spec.template"), "{error}");
}
