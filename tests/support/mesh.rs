//! A whole mesh on loopback addresses: a control plane on a directory of YAML or on an API server, sidecars in explicit
//! mode, and recording upstreams as their applications.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::addr::pod_ip;
use crate::certs::read_certificates;
use crate::client::{RawClient, get};
use crate::cluster::Cluster;
use crate::control_plane::ControlPlane;
use crate::message::Response;
use crate::prometheus::Scrape;
use crate::proxy::{Proxy, binary};
use crate::upstream::{Reply, Upstream};
use crate::wait;

/// Name of the file with the way to the API server.
const KUBECONFIG: &str = "kubeconfig";

/// Port of every application and of its Service.
pub const APP_PORT: u16 = 9080;

/// Objects with every field of the routing rules, in the namespace `shop`, which needs a Service `reviews`.
pub const EVERY_RULE: &str = include_str!("rules.yaml");

/// A pod with a sidecar and an application that answers with the pod's name.
#[derive(Debug)]
pub struct Workload {
    /// The namespace of the pod, its service account and its Services.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The `app` label, the service account, and a Service of this name.
    pub app: String,
    /// The `version` label.
    pub version: String,
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The application.
    pub upstream: Upstream,
    sidecar: Option<Proxy>,
}

impl Workload {
    /// `pod` is a pod's name, after its namespace and a slash where that is not `default`.
    fn new(pod: &str, app: &str, version: &str) -> Self {
        let (namespace, pod) = pod.split_once('/').unwrap_or(("default", pod));
        let ip = pod_ip();
        let upstream = Upstream::start_at((ip, APP_PORT).into());
        let name = pod.to_owned();
        upstream.answer_with(move |_| Reply::status(200, &name));
        let [namespace, pod, app, version] = [namespace, pod, app, version].map(str::to_owned);
        Workload { namespace, pod, app, version, ip, upstream, sidecar: None }
    }

    /// One that no Pod stands for. Its name is that of a WorkloadEntry.
    pub fn machine(name: &str, app: &str) -> Workload {
        Workload::new(name, app, "v1")
    }

    /// Somebody who calls himself like this workload, on another address.
    pub fn impostor(&self) -> Workload {
        Workload::new(&format!("{}/{}", self.namespace, self.pod), &self.app, &self.version)
    }

    /// Whether the sidecar says that it is ready.
    pub fn is_ready(&self) -> bool {
        is_ready(self.ip)
    }

    /// The sidecar's outbound listener, an HTTP proxy for the application.
    pub fn outbound(&self) -> SocketAddr {
        (self.ip, 15001).into()
    }

    /// The sidecar's inbound listener.
    pub fn inbound(&self) -> SocketAddr {
        (self.ip, 15006).into()
    }

    /// Where the sidecar serves Prometheus.
    pub fn prometheus(&self) -> SocketAddr {
        (self.ip, 15090).into()
    }

    /// The sidecar's agent.
    pub fn agent(&self) -> SocketAddr {
        (self.ip, 15020).into()
    }

    /// The sidecar, to watch its end.
    pub fn sidecar_mut(&mut self) -> &mut Proxy {
        self.sidecar.as_mut().expect("a started sidecar")
    }

    /// The sidecar.
    pub fn sidecar(&self) -> &Proxy {
        self.sidecar.as_ref().expect("a started sidecar")
    }

    /// One request of the application to a Service, through the sidecar.
    ///
    /// # Panics
    /// When there is no whole answer.
    #[track_caller]
    pub fn get(&self, service: &str) -> Response {
        get(self.outbound(), &format!("{service}:{APP_PORT}"), "/")
    }

    /// A scrape of port 15090.
    #[track_caller]
    pub fn scrape(&self) -> Scrape {
        let text = get(self.prometheus(), "prometheus", "/stats/prometheus").text();
        Scrape::parse(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// The running mesh; everything ends with it.
#[derive(Debug)]
pub struct Mesh {
    folder: TempDir,
    /// The API server; `None` when the objects are in a directory.
    cluster: Option<Cluster>,
    /// The control plane.
    pub control_plane: ControlPlane,
    sidecar_env: Vec<(String, String)>,
    /// The workloads in the order in which they were asked for.
    pub workloads: Vec<Workload>,
}

impl Mesh {
    /// Starts a control plane and a sidecar for each `(pod, app, version)`, and waits until all are ready. A pod is in the
    /// namespace `default` or is called `NAMESPACE/POD`. `objects` is more YAML beside the Services and Pods.
    #[track_caller]
    pub fn start(pods: &[(&str, &str, &str)], objects: &str) -> Self {
        Self::start_with_env(pods, objects, &[])
    }

    /// The same, with more environment for each sidecar.
    #[track_caller]
    pub fn start_with_env(pods: &[(&str, &str, &str)], objects: &str, env: &[(&str, &str)]) -> Self {
        Self::start_with_envs(pods, objects, env, &[])
    }

    /// The same, with more environment for each sidecar and for the control plane.
    #[track_caller]
    pub fn start_with_envs(
        pods: &[(&str, &str, &str)],
        objects: &str,
        sidecars: &[(&str, &str)],
        control_plane: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("objects")).expect("folder of objects");
        Self::start_in(folder, None, pods, objects, sidecars, control_plane).with_sidecars(&[])
    }

    /// The same without a sidecar for the pods named in `foreign`: something else is to be started there.
    #[track_caller]
    pub fn start_around(
        pods: &[(&str, &str, &str)],
        objects: &str,
        foreign: &[&str],
        control_plane: &[(&str, &str)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("objects")).expect("folder of objects");
        Self::start_in(folder, None, pods, objects, &[], control_plane).with_sidecars(foreign)
    }

    /// The same with the objects in an API server, and with its tokens.
    #[track_caller]
    pub fn start_on_cluster(pods: &[(&str, &str, &str)], objects: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let cluster = Cluster::start(&folder.path().join(KUBECONFIG));
        fs::create_dir(folder.path().join("tokens")).expect("folder of tokens");
        Self::start_in(folder, Some(cluster), pods, objects, &[], &[]).with_sidecars(&[])
    }

    /// Everything but the sidecars.
    #[track_caller]
    fn start_in(
        folder: TempDir,
        cluster: Option<Cluster>,
        pods: &[(&str, &str, &str)],
        objects: &str,
        sidecar_env: &[(&str, &str)],
        control_plane_env: &[(&str, &str)],
    ) -> Self {
        let workloads: Vec<Workload> =
            pods.iter().map(|(pod, app, version)| Workload::new(pod, app, version)).collect();
        let listed: Vec<&Workload> = workloads.iter().collect();
        match &cluster {
            Some(cluster) => {
                cluster.put(&workload_objects(&listed));
                cluster.put(objects);
                for workload in &workloads {
                    let file = folder.path().join("tokens").join(&workload.pod);
                    cluster.write_token(&file, &workload.pod, &workload.app);
                }
            }
            None => {
                let write = |name: &str, text: &str| {
                    fs::write(folder.path().join("objects").join(name), text).expect("write objects");
                };
                write("workloads.yaml", &workload_objects(&listed));
                write("more.yaml", objects);
            }
        }
        let source = match &cluster {
            Some(_) => "kubernetes".to_owned(),
            None => format!("file:{}", folder.path().join("objects").display()),
        };
        let kubeconfig = folder.path().join(KUBECONFIG).display().to_string();
        let mut environment = owned(control_plane_env);
        environment.push(("KUBECONFIG".to_owned(), kubeconfig));
        let control_plane = ControlPlane::start(folder.path(), source, environment);
        Mesh { folder, cluster, control_plane, sidecar_env: owned(sidecar_env), workloads }
    }

    /// Starts the sidecars, but for these pods, and waits until they are ready.
    #[track_caller]
    fn with_sidecars(mut self, foreign: &[&str]) -> Self {
        let is_ours = |number: &usize| !foreign.contains(&self.workloads[*number].pod.as_str());
        let ours: Vec<usize> = (0..self.workloads.len()).filter(is_ours).collect();
        for &number in &ours {
            self.restart_sidecar(number);
        }
        for number in ours {
            self.wait_ready(number);
        }
        self
    }

    /// Starts the sidecar of the workload with this number, after an end of the one before, and does not wait.
    #[track_caller]
    pub fn restart_sidecar(&mut self, number: usize) {
        self.workloads[number].sidecar = None;
        let workload = &self.workloads[number];
        let sidecar = self.start_sidecar(workload, &workload.pod);
        self.workloads[number].sidecar = Some(sidecar);
    }

    /// Waits until the workload with this number is ready.
    #[track_caller]
    pub fn wait_ready(&mut self, number: usize) {
        let workload = &mut self.workloads[number];
        let (ip, sidecar) = (workload.ip, workload.sidecar.as_mut().expect("a started sidecar"));
        let ready = wait::within(wait::PATIENCE, || (!sidecar.is_running() || is_ready(ip)).then_some(()));
        let is_ready = ready.is_some() && sidecar.is_running();
        assert!(is_ready, "{} is not ready:\n{}", workload.pod, sidecar.stderr());
    }

    /// The workload with this pod name.
    #[track_caller]
    pub fn workload(&self, pod: &str) -> &Workload {
        self.workloads.iter().find(|workload| workload.pod == pod).expect("a workload of this name")
    }

    /// Takes a pod's endpoint away, as the API server does when the pod is deleted; the pod itself runs on.
    pub fn remove_endpoint(&self, pod: &str) {
        let others: Vec<&Workload> = self.workloads.iter().filter(|workload| workload.pod != pod).collect();
        self.write("workloads.yaml", &workload_objects(&others));
    }

    /// Replaces or adds a file of objects as an editor does: written beside, then renamed.
    pub fn write(&self, name: &str, text: &str) {
        let objects = self.folder.path().join("objects");
        let part = objects.join(format!(".{name}.part"));
        fs::write(&part, text).expect("write objects");
        fs::rename(part, objects.join(name)).expect("rename objects");
    }

    /// The API server of a mesh that has one.
    ///
    /// # Panics
    /// When its objects are in a directory.
    #[track_caller]
    pub fn cluster(&self) -> &Cluster {
        self.cluster.as_ref().expect("a mesh on an API server")
    }

    /// The way to the API server of a mesh that has one.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join(KUBECONFIG)
    }

    /// Where its files are: `data`, `objects`, `state`.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The token of a pod: made by the control plane for a directory, by the API server otherwise.
    pub fn token_file(&self, pod: &str) -> PathBuf {
        match &self.cluster {
            Some(_) => self.folder.path().join("tokens").join(pod),
            None => {
                // A test may have written a pod of its own.
                let workload = self.workloads.iter().find(|workload| workload.pod == pod);
                let namespace = workload.map_or("default", |workload| &workload.namespace);
                self.folder.path().join("data/tokens").join(namespace).join(pod)
            }
        }
    }

    /// What the sidecars believe the control plane by: its own root certificate, or the file of all roots where it is given one.
    pub fn root(&self) -> PathBuf {
        let given = self.control_plane.env("OUTRIGGER_TRUSTED_ROOTS").map(PathBuf::from);
        given.unwrap_or_else(|| self.folder.path().join("data/root-cert.pem"))
    }

    /// Number of roots in the mesh's bundle.
    pub fn roots(&self) -> usize {
        read_certificates(&self.root()).len()
    }

    /// Starts a sidecar for `workload` that shows the token of the pod `token_of`, and does not wait.
    #[track_caller]
    pub fn start_sidecar(&self, workload: &Workload, token_of: &str) -> Proxy {
        let token = self.token_file(token_of);
        wait::until("a token", || token.exists());
        let xds = self.control_plane.xds_tls().to_string();
        let file = |kind: &str| self.folder.path().join(format!("{}-{token_of}.{kind}", workload.pod));
        let (stdout, stderr) = (file("stdout"), file("stderr"));
        let labels = serde_json::json!({"app": workload.app, "version": workload.version});
        let child = Command::new(binary("outrigger-proxy"))
            .args(["sidecar", "--interception-mode", "NONE", "--concurrency", "1"])
            .args(["--xds-address", &xds, "--ca-address", &xds])
            .arg("--ca-root-cert")
            .arg(self.root())
            .arg("--token-file")
            .arg(token)
            .arg("--state-dir")
            .arg(self.folder.path().join("state").join(format!("{}-{token_of}", workload.pod)))
            .env("INSTANCE_IP", workload.ip.to_string())
            .env("POD_NAME", &workload.pod)
            .env("POD_NAMESPACE", &workload.namespace)
            .env("SERVICE_ACCOUNT", &workload.app)
            .env("TRUST_DOMAIN", "cluster.local")
            .env("ISTIO_META_WORKLOAD_NAME", &workload.pod)
            .env("ISTIO_METAJSON_LABELS", labels.to_string())
            .envs(self.sidecar_env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).expect("log file"))
            .stderr(File::create(&stderr).expect("log file"))
            .spawn()
            .expect("start outrigger-proxy");
        Proxy::adopt(child, (IpAddr::from(workload.ip), 15000).into(), stdout, stderr)
    }
}

fn owned(env: &[(&str, &str)]) -> Vec<(String, String)> {
    env.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn is_ready(ip: Ipv4Addr) -> bool {
    let response =
        RawClient::connect((ip, 15021).into()).and_then(|mut client| client.get("kubelet", "/healthz/ready"));
    response.is_ok_and(|response| response.status == 200)
}

/// A Pod and a service account for each workload, and a Service for each application and for each version of it.
fn workload_objects(workloads: &[&Workload]) -> String {
    let mut services: Vec<(&str, String, String)> = workloads
        .iter()
        .flat_map(|&Workload { namespace, app, version, .. }| {
            let of_version = (format!("{app}-{version}"), format!("app: {app}, version: {version}"));
            let services = [(app.clone(), format!("app: {app}")), of_version];
            services.map(|(name, selector)| (namespace.as_str(), name, selector))
        })
        .collect();
    services.sort();
    services.dedup();
    let services = services.iter().map(|(namespace, name, selector)| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n  \
             selector: {{{selector}}}\n  ports:\n  - {{name: http, port: {APP_PORT}, targetPort: {APP_PORT}}}\n---\n"
        )
    });
    let accounts = workloads.iter().map(|&Workload { namespace, app, .. }| {
        format!(
            "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {app}, namespace: {namespace}}}\n---\n"
        )
    });
    let accounts: BTreeSet<String> = accounts.collect();
    let pods = workloads.iter().map(|&Workload { namespace, pod, app, version, ip, .. }| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: {namespace}\n  \
             labels: {{app: {app}, version: {version}}}\n  annotations: {{sidecar.istio.io/status: '{{}}', \
             sidecar.istio.io/interceptionMode: NONE}}\nspec:\n  \
             serviceAccountName: {app}\n  containers:\n  \
             - name: app\n    image: {app}\n    ports:\n    - containerPort: {APP_PORT}\nstatus:\n  phase: Running\n  \
             podIP: {ip}\n  podIPs:\n  - ip: {ip}\n  conditions:\n  - {{type: Ready, status: \"True\"}}\n---\n"
        )
    });
    services.chain(accounts).chain(pods).collect()
}
