//! A cluster that acts by itself, for tests that only say what a person would: `kubectl` and Helm change objects, and the cluster
//! does the rest. Deployments get Pods, Pods run (admitted, so injected, in network namespaces), Services have names and
//! addresses, `kubectl exec` runs commands.
//!
//! Needs root, and is reported as skipped without. One thread plays the controllers, one more is there for each Pod. What is not
//! played: other workloads than Deployments, scaling down, autoscaling, network policies, `logs`, `attach` and `port-forward`.

mod deployments;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use outrigger_kube_api::{ApiServer, Collection, Exec, Options, Ran};
use serde_json::Value;
use tempfile::TempDir;

use crate::kubelet::{ApiClient, Kubelet, NODE, Program, Sandbox, endpoints};
use crate::netns::{NetPod, Network};
use crate::tools::require_tool;
use crate::wait;
use services::Services;

/// When nothing changes, what did not work is tried again after this time.
const RETRY: Duration = Duration::from_millis(200);

/// The running cluster; everything ends with it.
#[derive(Debug)]
pub struct LiveCluster {
    shared: Arc<Shared>,
    controllers: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: ApiServer,
    api: ApiClient,
    kubelet: Kubelet,
    node: NetPod,
    /// Of the Pods that run, by namespace and name.
    sandboxes: Mutex<BTreeMap<(String, String), Sandbox>>,
    is_over: AtomicBool,
    folder: TempDir,
    // The last to go: the namespaces.
    network: Mutex<Network>,
}

impl LiveCluster {
    /// Starts an empty one that has these images. `None`: the test has been reported as skipped.
    #[track_caller]
    pub fn start(images: Vec<(&str, Program)>) -> Option<Self> {
        let mut network = Network::new()?;
        for program in ["nft", "setpriv"] {
            require_tool(program)?;
        }
        let folder = tempfile::tempdir().expect("temporary folder");
        // Containers are other users.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        let node = network.pod();
        let options = Options { address: (node.v4, 6443).into(), addresses: Vec::new() };
        // Its threads stay in the namespace in which they were started.
        let server = node.enter(0, || ApiServer::start_with(options)).expect("start the API server");
        fs::write(folder.path().join("kubeconfig"), server.kubeconfig()).expect("write the kubeconfig");
        let services = Services::start(&network, &node);
        let api = ApiClient::new(&server, &node, folder.path());
        let mut kubelet = Kubelet::new(&server, &node, folder.path());
        kubelet.resolver(node.v4.into());
        images.into_iter().for_each(|(name, program)| kubelet.image(name, program));
        let shared = Arc::new(Shared {
            server,
            api,
            kubelet,
            node,
            sandboxes: Mutex::default(),
            is_over: AtomicBool::new(false),
            folder,
            network: Mutex::new(network),
        });
        let weak = Arc::downgrade(&shared);
        shared.server.run_commands_with(move |exec| run(&weak, exec));
        let controllers = thread::spawn({
            let shared = shared.clone();
            move || shared.act_until_it_is_over(services)
        });
        Some(LiveCluster { shared, controllers: Some(controllers) })
    }

    /// The API server.
    pub fn server(&self) -> &ApiServer {
        &self.shared.server
    }

    /// A program of somebody who administers the cluster, in an environment that has nothing else in it.
    pub fn command(&self, program: &str) -> Command {
        let folder = self.shared.folder.path();
        let mut command = self.shared.node.command(program);
        command.env_clear().env("HOME", folder).env("KUBECONFIG", folder.join("kubeconfig"));
        command
    }
}

impl Drop for LiveCluster {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        // A panic has been printed already.
        let _ = self.controllers.take().map(JoinHandle::join);
        if thread::panicking() {
            for sandbox in lock(&self.shared.sandboxes).values() {
                let _ = writeln!(std::io::stderr(), "{}", sandbox.logs());
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text that must be there.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer} in {object}"))
}

fn name(object: &Value) -> (String, String) {
    (text(object, "/metadata/namespace").to_owned(), text(object, "/metadata/name").to_owned())
}

impl Shared {
    /// The controllers: after each change of an object they look at everything.
    fn act_until_it_is_over(self: &Arc<Self>, mut services: Services) {
        let (mut started, mut pods) = (BTreeSet::new(), Vec::new());
        while !self.is_over() {
            let version = self.server.version();
            deployments::sync(&self.server, &self.api);
            for pod in self.server.list(&Collection::new("", "pods")) {
                if started.insert(text(&pod, "/metadata/uid").to_owned()) {
                    let shared = self.clone();
                    pods.push(thread::spawn(move || shared.live(pod)));
                }
            }
            endpoints::sync(&self.server, &self.api);
            services.sync(&self.server, &lock(&self.network));
            wait::within(RETRY, || (self.is_over() || self.server.version() != version).then_some(()));
        }
        pods.into_iter().for_each(|pod| drop(pod.join()));
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// The life of one Pod: it is scheduled, it runs, it ends by itself or is deleted.
    fn live(&self, mut pod: Value) {
        if pod["spec"]["nodeName"].is_null() {
            pod["spec"]["nodeName"] = NODE.into();
            pod = self.server.put(pod).unwrap_or_else(|error| panic!("schedule a pod: {error:?}"));
        }
        let net = lock(&self.network).pod();
        let mut running = self.kubelet.run(&self.server, pod.clone(), net);
        lock(&self.sandboxes).insert(name(&pod), running.sandbox.clone());
        let mut is_complete = false;
        let is_deleted = || {
            let (namespace, name) = name(&pod);
            let stored = self.server.get(&Collection::new("", "pods"), &namespace, &name);
            stored.is_none_or(|stored| !stored["metadata"]["deletionTimestamp"].is_null())
        };
        while !is_deleted() {
            if self.is_over() {
                return;
            }
            if !is_complete && running.is_complete() {
                is_complete = true;
                self.kubelet.complete(&self.server, &mut running);
            }
            wait::within(RETRY, || {
                (self.is_over() || is_deleted() || running.is_complete() != is_complete).then_some(())
            });
        }
        lock(&self.sandboxes).remove(&name(&pod));
        self.kubelet.finish(running);
    }
}

/// `kubectl exec`.
fn run(cluster: &Weak<Shared>, exec: &Exec) -> Ran {
    let cluster = cluster.upgrade().ok_or("the cluster is over")?;
    let name = (exec.namespace.clone(), exec.pod.clone());
    // A Pod says that it is ready a moment before it is in the list.
    let sandbox = wait::within(RETRY, || lock(&cluster.sandboxes).get(&name).cloned());
    let sandbox = sandbox.ok_or_else(|| format!("pod {} does not run", exec.pod))?;
    sandbox.run(&exec.container, &exec.command)
}
