//! `pods/exec`, asked for by the real kubectl, and refused.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output};

use outrigger_kube_api::{ApiServer, Exec, TokenSpec};
use serde_json::json;

use crate::client::Client;
use crate::tools;

const PATH: &str = "/api/v1/namespaces/default/pods/web/exec?command=true&container=app&stdout=true";

/// A server with the Pod `web`, which has an application, a sidecar, and a node that runs shell scripts on this machine.
fn server() -> ApiServer {
    let server = ApiServer::start();
    let spec = json!({"containers": [{"name": "app", "image": "app"}], "initContainers": [{"name": "proxy", "image": "proxy"}]});
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
    server.put(pod).unwrap();
    server.run_commands_with(|Exec { namespace, pod, container, command }| {
        let Some((program, arguments)) = command.split_first() else { return Err("no command".into()) };
        if program == "where" {
            let stdout = format!("{namespace}/{pod}/{container}\n").into_bytes();
            return Ok(Output { status: ExitStatus::from_raw(0), stdout, stderr: Vec::new() });
        }
        Command::new(program).args(arguments).output().map_err(|error| error.to_string())
    });
    server
}

#[test]
fn kubectl_gets_output_and_exit_code() {
    let Some(kubectl) = tools::kubectl() else { return };
    let (server, folder) = (server(), tempfile::tempdir().unwrap());
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
    let exec = |arguments: &[&str]| {
        let mut command = Command::new(&kubectl);
        command.arg("--kubeconfig").arg(&kubeconfig).env("HOME", folder.path());
        let output = command.args(["exec", "web"]).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code().unwrap())
    };
    assert_eq!(exec(&["-c", "app", "--", "where"]), ("default/web/app\n".into(), String::new(), 0));
    assert_eq!(exec(&["-c", "proxy", "--", "where"]).0, "default/web/proxy\n");
    let (stdout, stderr, code) = exec(&["-c", "app", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((stdout.as_str(), code), ("out\n", 7));
    assert_eq!(stderr, "err\ncommand terminated with exit code 7\n");
    // More than the lengths of short frames can say.
    let (stdout, _, code) = exec(&["-c", "app", "--", "head", "-c", "100000", "/dev/zero"]);
    assert_eq!((stdout.len(), code), (100_000, 0));
    let (_, stderr, code) = exec(&["-c", "app", "--", "/no/such/program"]);
    assert!(stderr.contains("No such file") && code != 0, "{code} {stderr}");
    let (_, stderr, code) = exec(&["-c", "other", "--", "where"]);
    assert!(stderr.contains("container other is not valid for pod web") && code != 0, "{code} {stderr}");
}

#[tokio::test]
async fn who_may_read_pods_may_not_run_commands() {
    let server = server();
    let group = "rbac.authorization.k8s.io";
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["pods", "pods/exec"], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": "default"}]}),
    ] {
        server.put(object).unwrap();
    }
    let spec = TokenSpec {
        namespace: "default".into(),
        service_account: "reader".into(),
        audiences: Vec::new(),
        expires_in: 600,
        pod: None,
    };
    let token = server.token(&spec).unwrap();
    let refused = Client::with_token(&server, &token).get(PATH).await;
    let (code, reason, message) = refused.failure();
    assert_eq!((code, reason), (403, "Forbidden"));
    assert!(message.contains("cannot create resource \"pods/exec\""), "{message}");
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let server = server();
    let refused = Client::new(&server).get(PATH).await;
    assert_eq!(refused.failure().0, 400);
}
