//! A mesh of real pods: network namespaces whose connections our own capture command redirects, a sidecar in each as user 1337, and a
//! control plane in a pod of its own that reads a directory of YAML. Service addresses are nobody's.
//!
//! Needs root, and is reported as skipped without.

use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::{RawClient, get};
use crate::message::Response;
use crate::netns::{NetPod, Network, Sniffer};
use crate::prometheus::Scrape;
use crate::proxy::binary;
use crate::tools::require_tool;
use crate::wait;

/// The sidecar's user and group.
const SIDECAR: u32 = 1337;

/// The applications' user.
pub const APPLICATION: u32 = 1000;

/// Service addresses: 10.96.0.0/24 and `fd96::/64`, by number.
pub fn cluster_ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 96, 0, number)
}

/// The IPv6 address of the Service with this number.
pub fn cluster_ip6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, number.into())
}

/// A port of an application in a pod, IPv4 and IPv6.
pub fn any(port: u16) -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, port).into()
}

/// A pod. Its label `app` and its service account are called like it.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace of the network.
    pub net: NetPod,
    sidecar: Option<Child>,
}

impl Pod {
    /// Runs `f` in the pod as its application.
    #[track_caller]
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.net.enter(APPLICATION, f)
    }

    /// One request of the application.
    #[track_caller]
    pub fn get(&self, to: impl Into<SocketAddr>, host: &str) -> Response {
        let to = to.into();
        self.run(|| get(to, host, "/"))
    }

    /// A page of the sidecar, asked for inside the pod.
    #[track_caller]
    pub fn page(&self, port: u16, path: &str) -> String {
        self.run(|| get((Ipv4Addr::LOCALHOST, port).into(), "localhost", path).text())
    }

    /// A scrape of the sidecar's own metrics.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        Scrape::parse(&self.page(15090, "/stats/prometheus")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The process of the sidecar.
    ///
    /// # Panics
    /// When it has been killed.
    pub fn sidecar_id(&self) -> u32 {
        self.sidecar.as_ref().expect("a running sidecar").id()
    }

    /// Kills the sidecar, as a crash does.
    pub fn kill_sidecar(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            let _ = sidecar.kill();
            let _ = sidecar.wait();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.kill_sidecar();
    }
}

/// The running mesh; everything ends with it.
#[derive(Debug)]
pub struct PodMesh {
    /// The pods that were asked for, in their order.
    pub pods: Vec<Pod>,
    control_plane: Child,
    control_pod: NetPod,
    /// Of the control plane.
    flags: Vec<&'static str>,
    setpriv: PathBuf,
    folder: TempDir,
    // The last to go: the namespaces.
    network: Network,
}

impl PodMesh {
    /// Starts pods with these names, whose sidecars write access logs; `objects` is YAML beside the Pods. `None`: the test has been
    /// reported as skipped.
    #[track_caller]
    pub fn start(names: &[&str], objects: &str) -> Option<Self> {
        Self::start_with(names, objects, &["--access-log"])
    }

    /// The same with these flags of the control plane.
    #[track_caller]
    pub fn start_with(names: &[&str], objects: &str, flags: &[&'static str]) -> Option<Self> {
        let mut network = Network::new()?;
        require_tool("nft")?;
        let setpriv = require_tool("setpriv")?;
        let folder = tempfile::tempdir().expect("temporary folder");
        // The sidecars are other users.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        fs::create_dir(folder.path().join("objects")).expect("folder of objects");
        let pods: Vec<Pod> = names
            .iter()
            .map(|name| Pod { name: (*name).to_owned(), net: network.pod(), sidecar: None })
            .collect();
        let control_pod = network.pod();
        write(folder.path(), "pods.yaml", &pods.iter().map(pod_object).collect::<String>());
        write(folder.path(), "more.yaml", objects);
        let flags = flags.to_vec();
        let control_plane = start_control_plane(folder.path(), &control_pod, &flags);
        let mut mesh = PodMesh { pods, control_plane, control_pod, flags, setpriv, folder, network };
        for number in 0..mesh.pods.len() {
            mesh.capture(number);
            mesh.start_sidecar(number);
        }
        for number in 0..mesh.pods.len() {
            mesh.wait_ready(number);
        }
        Some(mesh)
    }

    /// The pod with this name.
    #[track_caller]
    pub fn pod(&self, name: &str) -> &Pod {
        self.pods.iter().find(|pod| pod.name == name).expect("a pod of this name")
    }

    /// A pod that nobody told the mesh of: no sidecar, no capture, no object.
    pub fn stranger(&mut self) -> NetPod {
        self.network.pod()
    }

    /// Records what goes over the network from now on.
    pub fn sniff(&self) -> Sniffer {
        self.network.sniff()
    }

    /// Replaces or adds a file of objects, written beside and renamed.
    pub fn write(&self, name: &str, text: &str) {
        write(self.folder.path(), name, text);
    }

    /// Starts a sidecar where there is none.
    #[track_caller]
    pub fn start_sidecar(&mut self, number: usize) {
        let pod = &self.pods[number];
        let made = self.folder.path().join("data/tokens/default").join(&pod.name);
        wait::until("a token", || made.exists());
        let own = |name: &str| self.folder.path().join(format!("{}.{name}", pod.name));
        let token = own("token");
        fs::copy(&made, &token).expect("copy the token");
        chown(&token, Some(SIDECAR), Some(SIDECAR)).expect("give the token away");
        let state = own("state");
        fs::create_dir_all(&state).expect("state directory");
        chown(&state, Some(SIDECAR), Some(SIDECAR)).expect("give the state directory away");
        let xds = SocketAddr::from((self.control_pod.v4, 15012)).to_string();
        let labels = serde_json::json!({"app": pod.name});
        let log = File::options().append(true).create(true).open(own("log")).expect("log file");
        let child = pod
            .net
            .command(&self.setpriv)
            .args(["--reuid", "1337", "--regid", "1337", "--clear-groups"])
            .arg(binary("outrigger-proxy"))
            .args(["sidecar", "--interception-mode", "REDIRECT", "--concurrency", "1"])
            .args(["--xds-address", &xds])
            .arg("--ca-root-cert")
            .arg(self.folder.path().join("root-cert.pem"))
            .arg("--token-file")
            .arg(token)
            .arg("--state-dir")
            .arg(state)
            .env("INSTANCE_IP", pod.net.v4.to_string())
            .env("POD_NAME", &pod.name)
            .env("POD_NAMESPACE", "default")
            .env("SERVICE_ACCOUNT", &pod.name)
            .env("ISTIO_META_WORKLOAD_NAME", &pod.name)
            .env("ISTIO_METAJSON_LABELS", labels.to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("log file"))
            .stderr(log)
            .spawn()
            .expect("start outrigger-proxy");
        self.pods[number].sidecar = Some(child);
    }

    /// Waits until a sidecar says that it is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, number: usize) {
        let pod = &mut self.pods[number];
        let sidecar = pod.sidecar.as_mut().expect("a started sidecar");
        let net = pod.net.clone();
        let ready = wait::within(wait::PATIENCE, || {
            let answer = net.enter(0, || {
                RawClient::connect((Ipv4Addr::LOCALHOST, 15021).into())
                    .and_then(|mut client| client.get("kubelet", "/healthz/ready"))
            });
            let ended = sidecar.try_wait().expect("state of the sidecar").is_some();
            (ended || answer.is_ok_and(|answer| answer.status == 200)).then_some(ended)
        });
        let log = self.log(&self.pods[number].name);
        assert!(ready == Some(false), "{} is not ready:\n{log}", self.pods[number].name);
    }

    /// What the sidecar of a pod has logged; with that its access log.
    pub fn log(&self, pod: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{pod}.log"))).unwrap_or_default()
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
        self.control_plane = start_control_plane(self.folder.path(), &self.control_pod, &self.flags);
    }

    #[track_caller]
    fn capture(&self, number: usize) {
        let mut command = self.pods[number].net.command(binary("outrigger-proxy"));
        let output = command.arg("capture").output().expect("run outrigger-proxy capture");
        assert!(output.status.success(), "capture: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for PodMesh {
    fn drop(&mut self) {
        self.kill_control_plane();
        if std::thread::panicking() {
            let mut err = std::io::stderr();
            let _ = writeln!(err, "control plane:\n{}", self.control_plane_log());
            for pod in &self.pods {
                let _ = writeln!(err, "{}:\n{}", pod.name, self.log(&pod.name));
            }
        }
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    let objects = folder.join("objects");
    let part = objects.join(format!(".{name}.part"));
    fs::write(&part, text).expect("write objects");
    fs::rename(part, objects.join(name)).expect("rename objects");
}

fn start_control_plane(folder: &Path, pod: &NetPod, flags: &[&str]) -> Child {
    let log =
        File::options().append(true).create(true).open(folder.join("control-plane.log")).expect("log file");
    let address = SocketAddr::new(IpAddr::from(pod.v4), 15012);
    let mut command: Command = pod.command(binary("outrigger-control-plane"));
    command
        .arg("--source")
        .arg(format!("file:{}", folder.join("objects").display()))
        .arg("--data-dir")
        .arg(folder.join("data"))
        .args(["--xds-tls-address", &address.to_string()])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    let child = command.spawn().expect("start outrigger-control-plane");
    // The data directory is the control plane's alone, but the root certificate in it is for everybody.
    let root = folder.join("root-cert.pem");
    wait::until("the root certificate", || fs::copy(folder.join("data/root-cert.pem"), &root).is_ok());
    fs::set_permissions(root, fs::Permissions::from_mode(0o644)).expect("permissions");
    child
}

fn pod_object(pod: &Pod) -> String {
    let (name, v4, v6) = (&pod.name, pod.net.v4, pod.net.v6);
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{app: {name}}}\n  \
         annotations: {{sidecar.istio.io/interceptionMode: REDIRECT}}\nspec: {{serviceAccountName: {name}}}\nstatus:\n  \
         podIP: {v4}\n  podIPs: [{{ip: {v4}}}, {{ip: '{v6}'}}]\n  conditions: [{{type: Ready, status: 'True'}}]\n---\n"
    )
}
