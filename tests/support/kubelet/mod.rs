//! A kubelet that is small enough to read, with the two controllers that a Pod needs: it makes Pods of a Deployment or Job on the API
//! server, which admits and so injects them; runs what came back, in a network namespace; and ends it, all as Kubernetes does.
//!
//! What it keeps of Kubernetes' order: init containers one after the other; a native sidecar (`restartPolicy: Always`) counts
//! as done when its startup probe succeeds; then the containers, each after the `postStart` of the one before. The end: the Pod is
//! marked, its endpoints are terminating, every `preStop` runs at once, containers get SIGTERM after theirs, sidecars when all
//! containers have ended, the last first, and SIGKILL is for whoever is left after the grace period.
//!
//! What it does not do: restarts unless a test asks for them, resources, images, volumes and probes of other kinds. It says so by a panic.

mod api;
mod container;
pub(crate) mod endpoints;
mod image;
mod sandbox;
pub(crate) mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use outrigger_kube_api::ApiServer;
use serde_json::{Value, json};

pub use api::ApiClient;
pub use container::{End, Exit, Program};
pub use sandbox::Sandbox;

use crate::client::{RawClient, get};
use crate::message::Response;
use crate::netns::NetPod;
use crate::pods::APPLICATION;
use crate::wait::{self, PATIENCE};
use container::{Container, hook};
use sandbox::{list, text};

/// The node of every Pod.
pub(crate) const NODE: &str = "node-1";

/// A node.
#[derive(Debug)]
pub struct Kubelet {
    /// Where probes come from.
    node: NetPod,
    api: ApiClient,
    folder: PathBuf,
    images: BTreeMap<String, Program>,
    resolver: Option<IpAddr>,
}

/// A running Pod.
#[derive(Debug)]
pub struct Pod {
    /// Its surroundings.
    pub sandbox: Sandbox,
    /// In the order of their start.
    sidecars: Vec<Container>,
    containers: Vec<Container>,
}

impl Pod {
    /// Its name.
    pub fn name(&self) -> &str {
        self.sandbox.name()
    }

    /// Whether all its containers have ended by themselves, which those of a server never do.
    pub fn is_complete(&mut self) -> bool {
        self.containers.iter_mut().all(|one| one.exit().is_some())
    }

    /// Runs `f` in the pod as its application.
    #[track_caller]
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.sandbox.net.enter(APPLICATION, f)
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

    /// What all its containers have logged.
    pub fn logs(&self) -> String {
        self.sandbox.logs()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if thread::panicking() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{}", self.logs());
        }
    }
}

impl Kubelet {
    /// A node at `node` whose files are in `folder`.
    pub fn new(server: &ApiServer, node: &NetPod, folder: &Path) -> Self {
        let api = ApiClient::new(server, node, folder);
        Kubelet {
            node: node.clone(),
            api,
            folder: folder.to_owned(),
            images: BTreeMap::new(),
            resolver: None,
        }
    }

    /// Where its Pods ask for names; without it they ask where this machine does.
    pub fn resolver(&mut self, address: IpAddr) {
        self.resolver = Some(address);
    }

    /// From now on containers of this image run this program.
    pub fn image(&mut self, name: &str, program: Program) {
        self.images.insert(name.to_owned(), program);
    }

    /// Creates a Pod of the template of a Deployment or Job on the API server, and starts what it admits.
    ///
    /// # Errors
    /// What the API server says when it refuses the Pod.
    ///
    /// # Panics
    /// When a container does not come up.
    pub fn start(&self, server: &ApiServer, workload: &Value, net: NetPod) -> Result<Pod, String> {
        let pod = self.api.create_pod(&workload::owner(server, &self.api, workload)?)?;
        Ok(self.run(server, pod, net))
    }

    /// Runs a Pod of the API server; it has become ready.
    ///
    /// # Panics
    /// When a container does not come up.
    pub fn run(&self, server: &ApiServer, mut pod: Value, net: NetPod) -> Pod {
        image::fill_in(&mut pod, &self.images);
        let sandbox = Sandbox {
            services: sandbox::service_variables(server, &pod),
            net,
            pod,
            host: self.node.v4.into(),
            folder: self.folder.clone(),
            resolver: self.resolver,
        };
        fs::create_dir_all(sandbox.log_file("x").parent().expect("a folder")).expect("folder of a pod");
        self.write_status(&sandbox, "Pending", false);
        sandbox.make_volumes(server);
        let mut pod = Pod { sandbox, sidecars: Vec::new(), containers: Vec::new() };
        for spec in list(&pod.sandbox.pod["spec"]["initContainers"]).to_vec() {
            self.start_init(&mut pod, &spec);
        }
        for spec in list(&pod.sandbox.pod["spec"]["containers"]).to_vec() {
            let container = self.start_container(&pod, &spec);
            pod.containers.push(container);
            if let Err(error) = hook(&pod.sandbox, &spec, "postStart") {
                panic!("postStart: {error}\n{}", pod.logs());
            }
        }
        self.write_status(&pod.sandbox, "Running", false);
        endpoints::sync(server, &self.api);
        for number in 0..pod.sidecars.len() + pod.containers.len() {
            self.wait_probe(&mut pod, number, "readinessProbe");
        }
        self.write_status(&pod.sandbox, "Running", true);
        endpoints::sync(server, &self.api);
        pod
    }

    /// Kills the sidecars of a Pod, as a crash does; `meanwhile` they are away, then they are started again.
    ///
    /// # Panics
    /// When they don't come up.
    pub fn crash_sidecars(&self, pod: &mut Pod, meanwhile: impl FnOnce(&Pod)) {
        pod.sidecars.iter_mut().for_each(Container::kill);
        meanwhile(pod);
        for number in 0..pod.sidecars.len() {
            let spec = pod.sidecars[number].spec.clone();
            pod.sidecars[number] = self.start_container(pod, &spec);
            self.wait_probe(pod, number, "startupProbe");
        }
    }

    fn start_init(&self, pod: &mut Pod, spec: &Value) {
        let mut container = self.start_container(pod, spec);
        if spec["restartPolicy"] == "Always" {
            pod.sidecars.push(container);
            let number = pod.sidecars.len() - 1;
            self.wait_probe(pod, number, "startupProbe");
            return;
        }
        let exit = wait::eventually(&format!("the end of {}", container.name()), || container.exit());
        assert_eq!(exit, Exit::Code(0), "{}", pod.logs());
    }

    fn start_container(&self, pod: &Pod, spec: &Value) -> Container {
        Container::start(&pod.sandbox, spec, self.images.get(text(&spec["image"])))
    }

    /// Waits until a probe of a sidecar or container succeeds; one without it succeeds at once, and so does a Job that has ended.
    fn wait_probe(&self, pod: &mut Pod, number: usize, kind: &str) {
        let Pod { sandbox, sidecars, containers } = pod;
        let container = sidecars.iter_mut().chain(containers).nth(number).expect("a container");
        let probe = container.spec[kind].clone();
        if probe.is_null() {
            return;
        }
        let what = &probe["httpGet"];
        let named = list(&container.spec["ports"]).iter().find(|port| port["name"] == what["port"]);
        let port = named.map_or(&what["port"], |port| &port["containerPort"]);
        let port = port.as_u64().and_then(|port| u16::try_from(port).ok());
        let port = port.unwrap_or_else(|| panic!("this kubelet probes ports over HTTP: {probe}"));
        let (address, path) = (sandbox.address(port), text(&what["path"]));
        let answered = wait::within(PATIENCE, || {
            let status = self
                .node
                .enter(0, || RawClient::connect(address).and_then(|mut client| client.get("kubelet", path)));
            let has_ended = container.exit().is_some();
            (has_ended || status.is_ok_and(|answer| (200..400).contains(&answer.status))).then_some(has_ended)
        });
        let name = container.name().to_owned();
        assert!(answered == Some(false), "{kind} of {name} of {}:\n{}", pod.name(), pod.logs());
    }

    fn write_status(&self, sandbox: &Sandbox, phase: &str, is_ready: bool) {
        let [v4, v6] = sandbox.net.ips();
        let ready = if is_ready { "True" } else { "False" };
        let conditions: Vec<Value> = ["PodScheduled", "Initialized", "ContainersReady", "Ready"]
            .map(|kind| {
                let early = kind == "PodScheduled" || (kind == "Initialized" && phase != "Pending");
                json!({"type": kind, "status": if early { "True" } else { ready }})
            })
            .into();
        let status = json!({
            "phase": phase, "podIP": v4.to_string(), "hostIP": sandbox.host.to_string(),
            "podIPs": [{"ip": v4.to_string()}, {"ip": v6.to_string()}], "conditions": conditions,
            "initContainerStatuses": statuses(sandbox, "initContainers", is_ready),
            "containerStatuses": statuses(sandbox, "containers", is_ready),
        });
        if let Err(error) = self.api.patch_status(&path(sandbox), &status) {
            panic!("status of {}: {error}", sandbox.name());
        }
    }

    /// Deletes a Pod, as Kubernetes does. How each container ended, in the order of their ends.
    ///
    /// # Panics
    /// When the API server does not do it.
    pub fn delete(&self, server: &ApiServer, mut pod: Pod) -> Vec<(String, Exit)> {
        self.api.delete(&path(&pod.sandbox), None).expect("delete a pod");
        endpoints::sync(server, &self.api);
        let ends = end(&mut pod);
        self.api.delete(&path(&pod.sandbox), Some(0)).expect("delete a pod");
        endpoints::sync(server, &self.api);
        ends
    }

    /// Ends a Pod that somebody has deleted.
    pub fn finish(&self, mut pod: Pod) {
        end(&mut pod);
        // With its namespace or its owner it may be gone already.
        let _ = self.api.delete(&path(&pod.sandbox), Some(0));
    }

    /// Waits until the containers of a Pod have ended by themselves, then ends its sidecars, as for a Job. How each ended.
    ///
    /// # Panics
    /// When they don't end.
    pub fn wait_complete(&self, server: &ApiServer, mut pod: Pod) -> Vec<(String, Exit)> {
        wait::until("the containers' end", || pod.is_complete());
        self.complete(server, &mut pod)
    }

    /// Ends the sidecars of a Pod whose containers have ended, and tells how. How each container ended.
    ///
    /// # Panics
    /// When the API server does not take it.
    pub fn complete(&self, server: &ApiServer, pod: &mut Pod) -> Vec<(String, Exit)> {
        let ends = end(pod);
        let phase = if ends.iter().all(|(_, exit)| *exit == Exit::Code(0)) { "Succeeded" } else { "Failed" };
        self.write_status(&pod.sandbox, phase, false);
        endpoints::sync(server, &self.api);
        ends
    }
}

/// Hooks and signals of a Pod's end, within its grace period. A hook that fails, which Kubernetes would only report, fails the test.
fn end(pod: &mut Pod) -> Vec<(String, Exit)> {
    let grace = pod.sandbox.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    let deadline = Instant::now() + Duration::from_secs(grace);
    let left = || deadline.saturating_duration_since(Instant::now());
    let Pod { sandbox, sidecars, containers } = pod;
    let sandbox = &*sandbox;
    let pre_stop = |container: &Value| {
        if let Err(error) = hook(sandbox, container, "preStop") {
            panic!("preStop of {}: {error}", container["name"]);
        }
    };
    thread::scope(|scope| {
        let end = |container: &mut Container| {
            if container.exit().is_none() {
                pre_stop(&container.spec);
            }
            (container.name().to_owned(), container.terminate(left()))
        };
        let hooks: Vec<_> = sidecars
            .iter()
            .map(|sidecar| {
                let spec = sidecar.spec.clone();
                scope.spawn(move || pre_stop(&spec))
            })
            .collect();
        let ends: Vec<_> = containers.iter_mut().map(|one| scope.spawn(move || end(one))).collect();
        let mut ends: Vec<_> =
            ends.into_iter().map(|end| end.join().expect("the end of a container")).collect();
        hooks.into_iter().for_each(|hook| hook.join().expect("a hook"));
        ends.extend(sidecars.iter_mut().rev().map(|one| (one.name().to_owned(), one.terminate(left()))));
        ends
    })
}

/// The containers of a list, all alike: those of our tests become ready together.
fn statuses(sandbox: &Sandbox, field: &str, is_ready: bool) -> Vec<Value> {
    let status = |container: &Value| {
        json!({"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
            "ready": is_ready, "started": is_ready})
    };
    list(&sandbox.pod["spec"][field]).iter().map(status).collect()
}

fn path(sandbox: &Sandbox) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", sandbox.namespace(), sandbox.name())
}
