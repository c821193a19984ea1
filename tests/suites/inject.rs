//! Injection as users meet it: `outrigger inject` on files, the webhook over HTTPS, and Kubernetes' own schemas as the
//! judge of what comes out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use base64::Engine as _;
use http_body_util::Full;
use outrigger_tests::client::{Http2Client, get};
use outrigger_tests::proxy::binary;
use outrigger_tests::tools::require_tool;
use outrigger_tests::{RawClient, Tls, prometheus, wait};
use outrigger_xds_api::json;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Each kind, and its API version.
const KINDS: [(&str, &str); 8] = [
    ("Pod", "v1"),
    ("ReplicationController", "v1"),
    ("Deployment", "apps/v1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("ReplicaSet", "apps/v1"),
    ("Job", "batch/v1"),
    ("CronJob", "batch/v1"),
];

/// The Kubernetes version whose schemas judge.
const KUBERNETES: &str = "1.36";

fn pod_template(restart: &str, annotations: &Value) -> Value {
    json!({
        "metadata": {"labels": {"app": "web", "version": "v1"}, "annotations": annotations},
        "spec": {
            "restartPolicy": restart,
            "serviceAccountName": "web",
            "terminationGracePeriodSeconds": 45,
            "initContainers": [{"name": "migrate", "image": "migrate:1"}],
            "containers": [{
                "name": "app", "image": "app:1", "ports": [{"name": "http", "containerPort": 8080}],
                "command": ["sh", "-c", "echo begin\nexec app --color=no\n"],
                "livenessProbe": {"httpGet": {"path": "/live", "port": "http"}, "periodSeconds": 5},
                "readinessProbe": {"grpc": {"port": 9000}},
                "startupProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 30},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            }],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

/// A workload of a kind, called `w`, that Kubernetes would accept.
fn workload(kind: &str, api_version: &str, annotations: &Value) -> Value {
    let template = pod_template(if kind.ends_with("Job") { "Never" } else { "Always" }, annotations);
    let selector = json!({"matchLabels": {"app": "web"}});
    let spec = match kind {
        "Pod" => {
            let mut pod = template;
            pod["metadata"]["name"] = "w".into();
            pod["apiVersion"] = api_version.into();
            pod["kind"] = kind.into();
            return pod;
        }
        "ReplicationController" => json!({"selector": {"app": "web"}, "template": template}),
        "StatefulSet" => json!({"selector": selector, "serviceName": "w", "template": template}),
        "Job" => json!({"template": template}),
        "CronJob" => json!({"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}}),
        _ => json!({"selector": selector, "template": template}),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "w"}, "spec": spec})
}

/// The Pod that a controller makes of a workload, as the API server shows it to the webhook.
fn pod_of(workload: &Value) -> Value {
    let kind = workload["kind"].as_str().unwrap();
    let (template, owner) = match kind {
        "Pod" => return workload.clone(),
        "CronJob" => {
            (&workload["spec"]["jobTemplate"]["spec"]["template"], ("batch/v1", "Job", "w-29384756"))
        }
        "Deployment" => (&workload["spec"]["template"], ("apps/v1", "ReplicaSet", "w-5d4f8")),
        _ => (&workload["spec"]["template"], (workload["apiVersion"].as_str().unwrap(), kind, "w")),
    };
    let mut pod = template.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["generateName"] = format!("{}-", owner.2).into();
    pod["metadata"]["labels"]["pod-template-hash"] = "5d4f8".into();
    pod["metadata"]["ownerReferences"] = json!([
        {"apiVersion": owner.0, "kind": owner.1, "name": owner.2, "controller": true, "uid": "1"}]);
    pod
}

/// Runs `outrigger inject -f -`.
fn inject(input: &str, flags: &[&str]) -> Output {
    let mut child = Command::new(binary("outrigger"))
        .args(["inject", "-f", "-"])
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// What it writes, and no complaint.
#[track_caller]
fn injected(input: &str, flags: &[&str]) -> String {
    let output = inject(input, flags);
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{complaints}");
    String::from_utf8(output.stdout).unwrap()
}

fn documents(text: &str) -> Vec<Value> {
    json::parse(text).unwrap().iter().map(json::Node::to_json).collect()
}

fn stream(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object:#}\n")).collect()
}

/// Everything in one text, in the forms that a Pod can have.
fn all_kinds() -> Vec<Value> {
    let forms = [
        json!({}),
        json!({"sidecar.istio.io/nativeSidecar": "false", "prometheus.io/port": "8080", "prometheus.io/scrape": "true"}),
        json!({"sidecar.istio.io/interceptionMode": "NONE"}),
        json!({
            "sidecar.istio.io/proxyCPU": "50m", "sidecar.istio.io/proxyMemoryLimit": "64Mi",
            "traffic.sidecar.istio.io/excludeOutboundPorts": "25,3306",
            "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
            "proxy.istio.io/config": "concurrency: 2\nterminationDrainDuration: 20s\n",
        }),
    ];
    let kinds =
        KINDS.iter().flat_map(|(kind, version)| forms.iter().map(|form| workload(kind, version, form)));
    kinds.collect()
}

#[test]
fn kubernetes_schemas_accept_what_comes_out() {
    let Some(validator) = require_tool("kubernetes-validate") else { return };
    let folder = tempfile::tempdir().unwrap();
    let validate = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).unwrap();
        let output =
            Command::new(&validator).args(["--strict", "-k", KUBERNETES]).arg(&file).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.success(), said)
    };
    let objects = all_kinds();
    let before = stream(&objects);
    let (is_valid, said) = validate("before.yaml", &before);
    assert!(is_valid, "the test's own objects: {said}");
    // Flow notation stays JSON; block notation is what people write.
    let in_json = injected(&before, &[]);
    let in_yaml = injected(&block_notation(&objects), &[]);
    assert_eq!(documents(&in_json), documents(&in_yaml));
    for (name, text) in [("json.yaml", &in_json), ("yaml.yaml", &in_yaml)] {
        let (is_valid, said) = validate(name, text);
        assert!(is_valid, "{said}");
        assert_eq!(said.matches("passed for resource").count(), objects.len(), "{said}");
    }
    // The judge sees what is wrong.
    let (is_valid, _) = validate("wrong.yaml", &in_yaml.replace("runAsGroup", "runAsGruppe"));
    assert!(!is_valid);
}

/// The objects as YAML that `outrigger inject` takes for block notation: a first key on a line of its own.
fn block_notation(objects: &[Value]) -> String {
    let object = |object: &Value| {
        let members = object.as_object().unwrap().iter();
        members.map(|(name, value)| format!("{name}: {value}\n")).collect::<String>()
    };
    objects.iter().map(|value| format!("---\n{}", object(value))).collect()
}

#[test]
fn other_documents_pass_and_the_output_is_a_fixed_point() {
    let service = "# mine\napiVersion: v1\nkind:   Service   # odd\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n";
    let input = format!("{service}{}---\n{service}", block_notation(&all_kinds()));
    let once = injected(&input, &[]);
    assert!(once.starts_with(service) && once.ends_with(service), "{once}");
    let twice = inject(&once, &[]);
    assert_eq!(String::from_utf8(twice.stdout).unwrap(), once);
    let said = String::from_utf8(twice.stderr).unwrap();
    assert_eq!(said.matches("has a sidecar already").count(), all_kinds().len(), "{said}");
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_written() {
    let bad = workload("Deployment", "apps/v1", &json!({"sidecar.istio.io/proxyCPU": "much"}));
    let output = inject(&stream(&[workload("Pod", "v1", &json!({})), bad]), &[]);
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    let field =
        "Deployment w: spec.template.metadata.annotations[\"sidecar.istio.io/proxyCPU\"]: \"much\" is not";
    assert!(said.contains("standard input:") && said.contains(field), "{said}");

    let output =
        Command::new(binary("outrigger")).args(["inject", "-f", "/nowhere/at/all"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/at/all"));
}

/// A Pod with all that injection can put into one.
fn full_pod(native: &str) -> Value {
    let pod = workload(
        "Pod",
        "v1",
        &json!({
            "sidecar.istio.io/nativeSidecar": native,
            "sidecar.istio.io/componentLogLevel": "http:debug",
            "traffic.sidecar.istio.io/includeInboundPorts": "80",
            "traffic.sidecar.istio.io/excludeInboundPorts": "81",
            "traffic.sidecar.istio.io/includeOutboundPorts": "82",
            "traffic.sidecar.istio.io/excludeOutboundPorts": "83",
            "traffic.sidecar.istio.io/includeOutboundIPRanges": "10.0.0.0/8",
            "traffic.sidecar.istio.io/excludeOutboundIPRanges": "10.1.0.0/16",
            "traffic.sidecar.istio.io/excludeInterfaces": "docker0",
            "proxy.istio.io/config": "{concurrency: 2, terminationDrainDuration: 20s}",
            "prometheus.io/port": "8080",
        }),
    );
    documents(&injected(&stream(&[pod]), &[])).remove(0)
}

/// The container of a Pod, wherever it is.
fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let lists = ["initContainers", "containers"].iter();
    let mut containers = lists.flat_map(|list| pod["spec"][list].as_array().into_iter().flatten());
    containers.find(|container| container["name"] == name).unwrap()
}

/// The flags that an injected container is started with are those that the program has.
#[track_caller]
fn flags_exist(container: &Value) -> String {
    let arguments: Vec<&str> =
        container["args"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let help = help_of(arguments[0]);
    for argument in &arguments[1..] {
        let flag = argument.split('=').next().unwrap();
        assert!(help.contains(flag), "{flag} is not in:\n{help}");
    }
    help
}

#[test]
fn the_sidecar_knows_what_it_is_told() {
    let pod = full_pod("true");
    let help = flags_exist(container(&pod, "outrigger-proxy"));
    for name in environment(container(&pod, "outrigger-proxy")) {
        // The others are metadata of the node, or for the sidecar's server on 15020.
        if name.starts_with("OUTRIGGER_") || ["CA_ADDR", "TRUST_DOMAIN", "INTERCEPTION_MODE"].contains(&name)
        {
            assert!(help.contains(&format!("[env: {name}=")), "{name} is not in:\n{help}");
        }
    }
}

fn environment(container: &Value) -> Vec<&str> {
    let variables = container["env"].as_array().unwrap().iter();
    variables.map(|variable| variable["name"].as_str().unwrap()).collect()
}

#[test]
fn the_program_has_every_command_of_an_injected_pod() {
    let pod = full_pod("true");
    flags_exist(container(&pod, "outrigger-capture"));
    let help = flags_exist(container(&pod, "outrigger-proxy"));
    for name in environment(container(&pod, "outrigger-proxy")) {
        // What the program does not read as a flag, and HOST_IP and the CPU limit that Istio's has as well.
        if !name.starts_with("ISTIO_META") && !["HOST_IP", "ISTIO_CPU_LIMIT"].contains(&name) {
            assert!(help.contains(&format!("[env: {name}")), "{name} is not in:\n{help}");
        }
    }
    let hook = |pod: &Value, hook: &str| {
        let command = &container(pod, "outrigger-proxy")["lifecycle"][hook]["exec"]["command"];
        command.as_array().unwrap().iter().map(|part| part.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for command in [hook(&pod, "preStop"), hook(&full_pod("false"), "postStart")] {
        // Nobody answers here, but the command line is understood: clap's exit code would be 2.
        let mut started = Command::new(binary(&command[0]));
        started.args(&command[1..]).env("OUTRIGGER_AGENT_ADDRESS", "127.0.0.1:1");
        if command[1] == "wait" {
            started.args(["--timeout-s", "0"]);
        }
        let output = started.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn help_of(command: &str) -> String {
    let output = Command::new(binary("outrigger-proxy")).args([command, "--help"]).output().unwrap();
    assert!(
        output.status.success(),
        "outrigger-proxy {command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A control plane with webhooks; it ends with the value.
struct ControlPlane {
    child: Child,
    webhook: SocketAddr,
    admin: SocketAddr,
    folder: TempDir,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(folder: &TempDir, settings: &str) -> Command {
    fs::create_dir_all(folder.path().join("objects")).unwrap();
    fs::write(folder.path().join("settings.yaml"), settings).unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut command = Command::new(binary("outrigger-control-plane"));
    command
        .args(["--source", &format!("file:{}", path("objects")), "--data-dir", &path("data")])
        .args([
            "--xds-address",
            "127.0.0.1:0",
            "--admin-address",
            "127.0.0.1:0",
            "--webhook-address",
            "127.0.0.1:0",
        ])
        .args(["--injection-settings", &path("settings.yaml")])
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    command
}

impl ControlPlane {
    fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = command(&folder, settings);
        let child = command.stderr(fs::File::create(folder.path().join("stderr")).unwrap()).spawn().unwrap();
        let addresses: Value = wait::eventually("addresses.json", || {
            serde_json::from_slice(&fs::read(folder.path().join("data/addresses.json")).ok()?).ok()
        });
        let address = |name: &str| addresses[name].as_str().unwrap().parse().unwrap();
        Self { child, webhook: address("webhook"), admin: address("admin"), folder }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("data/root-cert.pem")
    }

    /// Posts a review as an API server does and gives the `response`.
    fn review(&self, path: &str, kind: (&str, &str, &str), object: &Value) -> Value {
        let review = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "c7", "kind": {"group": kind.0, "version": kind.1, "kind": kind.2}, "namespace": "shop",
            "operation": "CREATE", "object": object, "oldObject": null, "dryRun": false,
        }});
        let tls =
            Tls::trusting_file(&self.root(), "outrigger-control-plane.outrigger-system.svc").alpn(&["h2"]);
        let client = Http2Client::connect_tls(self.webhook, &tls).unwrap();
        let request = http::Request::post(format!("https://webhook{path}?timeout=10s"))
            .header("content-type", "application/json")
            .body(Full::from(review.to_string()))
            .unwrap();
        let response = client.send(request).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        let answer: Value = serde_json::from_str(&response.text()).unwrap();
        assert_eq!(answer["response"]["uid"], "c7");
        answer["response"].clone()
    }

    /// The Pod after its creation.
    #[track_caller]
    fn create(&self, pod: &Value) -> Value {
        let response = self.review("/inject", ("", "v1", "Pod"), pod);
        assert_eq!(response["allowed"], true, "{response}");
        let patch =
            base64::engine::general_purpose::STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut pod = pod.clone();
        json_patch::patch(&mut pod, &patch).unwrap();
        pod
    }
}

#[test]
fn the_webhook_and_the_command_give_the_same() {
    let settings = "image: registry.example/proxy:9\ntokenAudience: mesh\n";
    let control_plane = ControlPlane::start(settings);
    let file = control_plane.folder.path().join("settings.yaml");
    for object in all_kinds() {
        let by_command =
            injected(&stream(std::slice::from_ref(&object)), &["--settings", file.to_str().unwrap()]);
        let by_command = pod_of(&documents(&by_command)[0]);
        let by_webhook = control_plane.create(&pod_of(&object));
        assert_eq!(by_webhook, by_command, "{}", object["kind"]);
        assert!(by_webhook.to_string().contains("registry.example/proxy:9"));
    }
    let metrics = prometheus::Scrape::parse(&get(control_plane.admin, "x", "/metrics").text()).unwrap();
    let count = |name: &str| metrics.sum(name, &[]);
    let all = f64::from(u32::try_from(all_kinds().len()).unwrap());
    assert_eq!(count("sidecar_injection_requests_total"), all);
    assert_eq!(count("sidecar_injection_success_total"), all);
    assert_eq!(count("sidecar_injection_skip_total"), 0.0);
}

#[test]
fn a_broken_rule_never_gets_into_the_cluster() {
    let control_plane = ControlPlane::start("");
    let rule = |mode: &str| {
        json!({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": {"name": "default"},
            "spec": {"mtls": {"mode": mode}}})
    };
    let kind = ("security.istio.io", "v1", "PeerAuthentication");
    assert_eq!(control_plane.review("/validate", kind, &rule("STRICT"))["allowed"], true);
    let refused = control_plane.review("/validate", kind, &rule("STRICTLY"));
    assert_eq!(refused["allowed"], false);
    assert!(refused["status"]["message"].as_str().unwrap().starts_with("spec.mtls.mode: "), "{refused}");
}

#[test]
fn plaintext_gets_no_answer() {
    let control_plane = ControlPlane::start("");
    let mut client = RawClient::connect(control_plane.webhook).unwrap();
    assert!(client.get("webhook", "/inject").is_err());
}

#[test]
fn settings_that_are_wrong_end_it_with_a_reason() {
    for (settings, part) in
        [("imag: x\n", "imag: unknown field"), ("trustDomain: other\n", "trustDomain: \"other\"")]
    {
        let folder = tempfile::tempdir().unwrap();
        let output = command(&folder, settings).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains("--injection-settings") && said.contains(part), "{said}");
    }
}

/// Two names would be one container too many for the API server.
#[test]
fn names_are_there_once() {
    for object in documents(&injected(&stream(&all_kinds()), &[])) {
        let pod = pod_of(&object);
        let lists = ["initContainers", "containers"].iter();
        let names: Vec<_> = lists
            .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
            .map(|container| container["name"].to_string())
            .collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
    }
}
