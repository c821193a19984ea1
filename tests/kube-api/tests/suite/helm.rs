//! The real Helm against the server: install, upgrade, rollback, uninstall.

use std::fs;
use std::process::Command;

use outrigger_kube_api::{ApiServer, Collection};

use crate::tools;

/// Kubeconfig, chart and a step; prints what came of it.
const SCRIPT: &str = r#"
import sys
from helm_python import Config
config = Config(kubeconfig_path=sys.argv[1], namespace="shop")
chart, step = sys.argv[2:]
if step == "install":
    config.install(chart, "web", {"greeting": "hello"}, create_namespace=True)
elif step == "upgrade":
    config.upgrade(chart, "web", {"greeting": "good day"})
elif step == "rollback":
    config.rollback("web", version=1)
elif step == "broken":
    try:
        config.install(chart, "broken", {"replicas": "many"})
    except Exception as error:
        print(error)
elif step == "uninstall":
    config.uninstall("web")
if step in ("install", "upgrade", "rollback"):
    print([one["status"] for one in config.history("web")])
"#;

const TEMPLATE: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: greeting-{{ .Release.Name }}}
data: {greeting: "{{ .Values.greeting }}"}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: app, image: "app:1"}]}
"#;

#[test]
fn a_release_lives_and_goes() {
    let Some(python) = tools::python() else { return };
    let server = ApiServer::start();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    };
    let kubeconfig = file("kubeconfig", &server.kubeconfig());
    file("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 0.1.0\n");
    file("chart/values.yaml", "greeting: hi\nreplicas: 1\n");
    file("chart/templates/all.yaml", TEMPLATE);
    let run = |step: &str| {
        let output = Command::new(&python)
            .args(["-c", SCRIPT])
            .args([kubeconfig.as_os_str(), folder.path().join("chart").as_os_str(), step.as_ref()])
            .env("HOME", folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{step}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    };
    let greeting = || {
        let map = server.get(&Collection::new("", "configmaps"), "shop", "greeting-web")?;
        map["data"]["greeting"].as_str().map(str::to_owned)
    };
    assert_eq!(run("install"), "['deployed']\n");
    assert_eq!(greeting().as_deref(), Some("hello"));
    assert_eq!(run("upgrade"), "['superseded', 'deployed']\n");
    assert_eq!(greeting().as_deref(), Some("good day"));
    assert_eq!(run("rollback"), "['superseded', 'superseded', 'deployed']\n");
    assert_eq!(greeting().as_deref(), Some("hello"));
    let secrets = server.list(&Collection::new("", "secrets"));
    assert_eq!(secrets.iter().filter(|secret| secret["type"] == "helm.sh/release.v1").count(), 3);
    let broken = run("broken");
    assert!(broken.contains("cannot unmarshal string into Go struct field"), "{broken}");
    run("uninstall");
    assert_eq!(greeting(), None);
    assert!(server.list(&Collection::new("apps", "deployments")).is_empty());
}
