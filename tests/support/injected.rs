//! A mesh as its users have it: an API server, our control plane on it with the rights that the chart gives it, its webhooks called
//! by the API server, and Pods that come from Deployments and Jobs and run in network namespaces.
//!
//! Needs root, and is reported as skipped without. The node (API server, kubelet) and the control plane have network
//! namespaces of their own.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Stdio};

use outrigger_kube_api::{ApiServer, Collection, Options, TokenSpec};
use outrigger_xds_api::json;
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::kubelet::{Exit, Kubelet, Pod, Program};
use crate::netns::{NetPod, Network, Sniffer};
use crate::proxy::binary;
use crate::tools::require_tool;
use crate::wait;

/// What the chart installs, as far as the control plane runs on it.
const INSTALLATION: &str = include_str!("injected.yaml");

/// The running mesh; everything ends with it.
#[derive(Debug)]
pub struct InjectedMesh {
    /// The API server.
    pub cluster: Cluster,
    kubelet: Kubelet,
    control_plane: Child,
    control_pod: NetPod,
    node: NetPod,
    folder: TempDir,
    // The last to go: the namespaces.
    network: Network,
}

impl InjectedMesh {
    /// Starts one, with more objects (YAML). `None`: the test has been reported as skipped.
    #[track_caller]
    pub fn start(objects: &str) -> Option<Self> {
        let mut network = Network::new()?;
        for program in ["nft", "setpriv"] {
            require_tool(program)?;
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        // Containers are other users.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let (node, control_pod) = (network.pod(), network.pod());
        let options = Options { address: (node.v4, 6443).into(), addresses: Vec::new() };
        // Its threads stay in the namespace in which they were started.
        let server = node.enter(0, || ApiServer::start_with(options)).expect("start the API server");
        server.route_service("outrigger-system", "outrigger-control-plane", (control_pod.v4, 15017).into());
        let cluster = Cluster::on(server);
        cluster.put(INSTALLATION);
        cluster.put(objects);
        let token = cluster.server.token(&TokenSpec {
            namespace: "outrigger-system".to_owned(),
            service_account: "outrigger-control-plane".to_owned(),
            audiences: Vec::new(),
            expires_in: 3600,
            pod: None,
        });
        let kubeconfig = cluster.server.kubeconfig_with(&cluster.server.url(), &token.expect("a token"));
        write(folder.path(), "kubeconfig", &kubeconfig);
        // Where the control plane is: there is no DNS.
        let settings = format!("image: outrigger-proxy:test\nxdsAddress: {}:15012\n", control_pod.v4);
        write(folder.path(), "injection.yaml", &settings);
        let kubelet = Kubelet::new(&cluster.server, &node, folder.path());
        let control_plane = start_control_plane(folder.path(), &control_pod);
        let mesh = InjectedMesh { cluster, kubelet, control_plane, control_pod, node, folder, network };
        wait::until("caBundle in the webhook configurations", || mesh.has_bundles());
        Some(mesh)
    }

    fn has_bundles(&self) -> bool {
        ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"].into_iter().all(|plural| {
            let collection = Collection::new("admissionregistration.k8s.io", plural);
            let configurations = self.cluster.server.list(&collection);
            configurations.iter().all(|one| one["webhooks"][0]["clientConfig"]["caBundle"].is_string())
        })
    }

    /// From now on containers of this image run this program.
    pub fn image(&mut self, name: &str, program: Program) {
        self.kubelet.image(name, program);
    }

    /// Stores the objects of a YAML text, and starts the Pods of its Deployments and Jobs, in their order.
    #[track_caller]
    pub fn deploy(&mut self, text: &str) -> Vec<Pod> {
        self.try_deploy(text).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same.
    ///
    /// # Errors
    /// What the API server says when it refuses a Pod.
    pub fn try_deploy(&mut self, text: &str) -> Result<Vec<Pod>, String> {
        self.cluster.put(text);
        let mut pods = Vec::new();
        for document in json::parse(text).expect("YAML") {
            let object = document.to_json();
            if !matches!(object["kind"].as_str(), Some("Deployment" | "Job")) {
                continue;
            }
            for _ in 0..object["spec"]["replicas"].as_u64().unwrap_or(1) {
                let net = self.network.pod();
                pods.push(self.kubelet.start(&self.cluster.server, &object, net)?);
            }
        }
        Ok(pods)
    }

    /// A pod that nobody told the mesh of: no sidecar, no capture, no object.
    pub fn stranger(&mut self) -> NetPod {
        self.network.pod()
    }

    /// Deletes a Pod, as Kubernetes does; how each container ended, in the order of their ends.
    pub fn delete(&self, pod: Pod) -> Vec<(String, Exit)> {
        self.kubelet.delete(&self.cluster.server, pod)
    }

    /// Kills the sidecars of a Pod, as a crash does; `meanwhile` they are away, then the kubelet starts them again.
    pub fn crash_sidecars(&self, pod: &mut Pod, meanwhile: impl FnOnce(&Pod)) {
        self.kubelet.crash_sidecars(pod, meanwhile);
    }

    /// Waits until a Job's Pod is complete; how each container ended.
    pub fn wait_complete(&self, pod: Pod) -> Vec<(String, Exit)> {
        self.kubelet.wait_complete(&self.cluster.server, pod)
    }

    /// Records what goes over the network from now on.
    pub fn sniff(&self) -> Sniffer {
        self.network.sniff()
    }

    /// What the control plane has logged.
    pub fn control_plane_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("control-plane.log")).unwrap_or_default()
    }

    /// Kills the control plane, as a crash does.
    pub fn kill_control_plane(&mut self) {
        let _ = self.control_plane.kill();
        let _ = self.control_plane.wait();
    }

    /// Starts the control plane again on its data.
    pub fn restart_control_plane(&mut self) {
        self.kill_control_plane();
        self.control_plane = start_control_plane(self.folder.path(), &self.control_pod);
    }

    /// Starts a killed API server again.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_api_server(&self) {
        self.node.enter(0, || self.cluster.server.restart()).expect("restart the API server");
    }
}

impl Drop for InjectedMesh {
    fn drop(&mut self) {
        self.kill_control_plane();
        if std::thread::panicking() {
            let _ = writeln!(std::io::stderr(), "control plane:\n{}", self.control_plane_log());
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("write a file");
}

fn start_control_plane(folder: &Path, pod: &NetPod) -> Child {
    let log = File::options().append(true).create(true).open(folder.join("control-plane.log"));
    let at = |port: u16| format!("{}:{port}", pod.v4);
    pod.command(binary("outrigger-control-plane"))
        .args(["--source=kubernetes", "--access-log"])
        .arg("--kubeconfig")
        .arg(folder.join("kubeconfig"))
        .arg("--data-dir")
        .arg(folder.join("data"))
        .arg("--injection-settings")
        .arg(folder.join("injection.yaml"))
        .args(["--xds-tls-address", &at(15012), "--webhook-address", &at(15017)])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log.expect("log file"))
        .spawn()
        .expect("start outrigger-control-plane")
}
