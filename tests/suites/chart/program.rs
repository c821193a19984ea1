//! What the chart tells the control plane, the control plane understands.

use std::process::Command;

use outrigger_tests::helm::Rendered;
use outrigger_tests::proxy::binary;
use outrigger_xds_api::json as yaml;
use serde_json::{Value, json};

use crate::every_set;

/// Environment that is not a flag's.
const OF_KUBERNETES: [&str; 3] = ["POD_NAME", "POD_NAMESPACE", "RUST_LOG"];

fn container(rendered: &Rendered) -> &Value {
    &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(rendered: &Rendered) -> impl Iterator<Item = &str> {
    container(rendered)["args"].as_array().unwrap().iter().filter_map(Value::as_str)
}

#[test]
fn the_control_plane_knows_every_flag_and_variable() {
    let Some(sets) = every_set() else { return };
    let help = Command::new(binary("outrigger-control-plane")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for (name, _, rendered) in sets {
        for argument in arguments(rendered) {
            let flag = argument.split('=').next().unwrap();
            let known = help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n"));
            assert!(known, "{name}: {argument}");
        }
        for variable in
            container(rendered)["env"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str())
        {
            let known = help.contains(&format!("[env: {variable}=")) || OF_KUBERNETES.contains(&variable);
            assert!(known, "{name}: {variable}");
        }
    }
}

/// The control plane takes every flag with its value: it gets as far as looking for the API server, whose address and
/// token only a Pod has.
#[test]
fn the_control_plane_takes_the_values() {
    let Some(sets) = every_set() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("injection.yaml");
    for (name, _, rendered) in sets {
        std::fs::write(&file, rendered.the("ConfigMap")["data"]["injection.yaml"].as_str().unwrap()).unwrap();
        let arguments = arguments(rendered).map(|argument| match argument.split_once('=') {
            Some((flag @ "--injection-settings", _)) => format!("{flag}={}", file.display()),
            _ => argument.to_owned(),
        });
        let output = Command::new(binary("outrigger-control-plane"))
            .args(arguments)
            .env_remove("KUBECONFIG")
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        // A value that is refused ends with 2 and the usage.
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains("not in a cluster"), "{name}: {text}");
    }
}

/// The document of the ConfigMap, read by the injector itself; what it injects has what the values say.
#[test]
fn the_injector_reads_the_settings() {
    let Some(sets) = every_set() else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("injection.yaml");
    let workload = folder.path().join("pod.yaml");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"containers": [{"name": "web", "image": "web"}]}});
    std::fs::write(&workload, pod.to_string()).unwrap();
    for (name, release, rendered) in sets {
        std::fs::write(&file, rendered.the("ConfigMap")["data"]["injection.yaml"].as_str().unwrap()).unwrap();
        let output = Command::new(binary("outrigger"))
            .args(["inject", "-f"])
            .arg(&workload)
            .arg("--settings")
            .arg(&file)
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let injected = yaml::parse_one(&String::from_utf8(output.stdout).unwrap()).unwrap().to_json();
        let spec = &injected["spec"];
        let lists =
            ["initContainers", "containers"].map(|list| spec[list].as_array().map_or(&[][..], Vec::as_slice));
        let find = |name: &str| lists.concat().into_iter().find(|container| container["name"] == name);
        let sidecar = find("outrigger-proxy").unwrap_or_else(|| panic!("{name}: no sidecar in {injected}"));

        let given = &release.values;
        let captured = given["proxy"]["interceptionMode"] != "NONE";
        assert_eq!(find("outrigger-capture").is_some(), captured, "{name}");
        let native = given["proxy"]["nativeSidecar"] != false;
        assert_eq!(sidecar["restartPolicy"] == "Always", native, "{name}");
        let image = match name {
            &"images by digest" => "registry.example.com:5000/mesh/forks/proxy:1.2.3".to_owned(),
            _ => concat!("outrigger-proxy:", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        assert_eq!(sidecar["image"], image, "{name}");
        let variable = |wanted: &str| {
            let all = sidecar["env"].as_array().unwrap();
            all.iter()
                .find(|it| it["name"] == wanted)
                .map(|it| it["value"].as_str().unwrap_or_default().to_owned())
        };
        let service = rendered.the("Service")["metadata"]["name"].as_str().unwrap();
        let address = format!("{service}.{}.svc:15012", release.namespace);
        assert_eq!(variable("OUTRIGGER_XDS_ADDRESS"), Some(address), "{name}");
        let trust_domain = given["mesh"]["trustDomain"].as_str().unwrap_or("cluster.local");
        assert_eq!(variable("TRUST_DOMAIN").as_deref(), Some(trust_domain), "{name}");
        let audience = given["mesh"]["tokenAudience"].as_str().unwrap_or("istio-ca");
        assert!(spec["volumes"].to_string().contains(&format!("\"audience\":\"{audience}\"")), "{name}");
        let asked = arguments(rendered).any(|argument| argument == format!("--token-audience={audience}"));
        assert!(asked, "{name}: the control plane asks for another audience");
        if name == &"addressed sidecars on IPv6" {
            assert_eq!(sidecar["resources"]["limits"], json!({"memory": "256Mi"}), "{name}");
        }
    }
}
