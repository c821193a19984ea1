//! What the chart tells the control plane, the control plane understands.

use std::process::Command;

use outrigger_tests::proxy::binary;
use serde_json::Value;

use crate::every_set;

/// Environment that is not a flag's.
const OF_KUBERNETES: [&str; 3] = ["POD_NAME", "POD_NAMESPACE", "RUST_LOG"];

/// Flags and variables that the control plane is still to learn.
const AWAITED: [&str; 8] = [
    "--source=kubernetes",
    "--token-audience",
    "--webhook-address",
    "--injection-settings",
    "OUTRIGGER_OUTBOUND_TRAFFIC_POLICY",
    "OUTRIGGER_SERVICE_NAME",
    "OUTRIGGER_WEBHOOK_CONFIGURATION",
    "OUTRIGGER_CA_SECRET",
];

#[test]
fn the_control_plane_knows_every_flag_and_variable() {
    let Some(sets) = every_set() else { return };
    let help = Command::new(binary("outrigger-control-plane")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for (name, _, rendered) in sets {
        let container = &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0];
        for argument in container["args"].as_array().unwrap().iter().filter_map(Value::as_str) {
            let flag = argument.split('=').next().unwrap();
            let known = help.contains(&format!("{flag} ")) || help.contains(&format!("{flag}\n"));
            assert!(known || AWAITED.contains(&flag), "{name}: {argument}");
        }
        for variable in container["env"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()) {
            let known = help.contains(&format!("[env: {variable}=")) || OF_KUBERNETES.contains(&variable);
            assert!(known || AWAITED.contains(&variable), "{name}: {variable}");
        }
    }
}

/// The flags that the control plane knows already, with each set's values, are taken by its parser: it gets as far as
/// looking for its source.
#[test]
fn the_control_plane_takes_the_values() {
    let Some(sets) = every_set() else { return };
    let folder = tempfile::tempdir().unwrap();
    for (name, _, rendered) in sets {
        let container = &rendered.the("Deployment")["spec"]["template"]["spec"]["containers"][0];
        let arguments = container["args"].as_array().unwrap().iter().filter_map(Value::as_str);
        let known = arguments.filter(|argument| {
            let flag = argument.split('=').next().unwrap_or_default();
            !AWAITED.contains(&flag) && !AWAITED.contains(argument) && !flag.ends_with("-address")
        });
        let missing = folder.path().join("missing");
        let output = Command::new(binary("outrigger-control-plane"))
            .args(known.filter(|argument| !argument.starts_with("--data-dir")))
            .arg(format!("--source=file:{}", missing.display()))
            .arg(format!("--data-dir={}", folder.path().join("data").display()))
            .args(["--xds-address=127.0.0.1:0", "--admin-address=127.0.0.1:0"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{name}: {text}");
        assert!(text.contains(missing.to_str().unwrap()), "{name}: {text}");
    }
}
