//! The handle that a test holds: start, kill, restart, and every switch.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::access::tokens::{self, TokenSpec, Tokens};
use crate::cluster::{Cluster, lock};
use crate::http::server::serve;
use crate::kinds::Collection;
use crate::object;
use crate::schema::Schemas;
use crate::status::{Result, Status};
use crate::store::Store;
use crate::strategy;
use crate::switches::{Cut, Seen, WatchOrder};
use crate::tls::Tls;
use crate::verbs::exec::{Exec, Ran};

/// How a server is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen. Port 0: the system chooses.
    pub address: SocketAddr,
    /// More addresses that clients use, for the certificate.
    pub addresses: Vec<IpAddr>,
}

impl Default for Options {
    fn default() -> Self {
        Options { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), addresses: Vec::new() }
    }
}

/// A running API server. It stops when this is dropped.
///
/// It has a thread and a runtime of its own, so that it works from any test, also from one that pauses time.
#[derive(Debug)]
pub struct ApiServer {
    cluster: Arc<Cluster>,
    tls: Tls,
    address: SocketAddr,
    /// Keeps the port while the server is killed.
    _reservation: Socket,
    running: Mutex<Option<Running>>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl ApiServer {
    /// Starts a server on a free port of 127.0.0.1.
    ///
    /// # Panics
    ///
    /// When there is no port, or no thread, left.
    #[expect(clippy::expect_used, reason = "a test that cannot start its server has failed")]
    pub fn start() -> Self {
        ApiServer::start_with(Options::default()).expect("start the API server")
    }

    /// Starts a server.
    ///
    /// # Errors
    ///
    /// When the address cannot be bound.
    pub fn start_with(options: Options) -> anyhow::Result<Self> {
        let reservation = bind(options.address).with_context(|| format!("bind {}", options.address))?;
        let address = reservation.local_addr()?.as_socket().context("an IP address")?;
        let tls = Tls::new(address, &options.addresses)?;
        let cluster = Arc::new(Cluster::new(Tokens::new(), Schemas::load()));
        populate(&cluster);
        let server =
            ApiServer { cluster, tls, address, _reservation: reservation, running: Mutex::new(None) };
        server.restart()?;
        Ok(server)
    }

    /// Stops serving at once, in the middle of whatever is going on: connections are reset, new ones refused. The
    /// objects stay.
    pub fn kill(&self) {
        let Some(Running { stop, thread }) = lock(&self.running).take() else { return };
        drop(stop);
        // A panic in the server has been printed already.
        let _ = thread.join();
    }

    /// Serves (again) on the same port, with the same objects, certificate and tokens.
    ///
    /// # Errors
    ///
    /// When the port cannot be bound.
    pub fn restart(&self) -> anyhow::Result<()> {
        self.kill();
        let socket = bind(self.address)?;
        socket.listen(1024)?;
        let listener: std::net::TcpListener = socket.into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let (tls, cluster) = (self.tls.acceptor.clone(), self.cluster.clone());
        let thread = std::thread::Builder::new().name("kube-api".into()).spawn(move || {
            runtime.block_on(async {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(listener, tls, cluster) => {}
                    _ = stopped => {}
                }
            });
        })?;
        *lock(&self.running) = Some(Running { stop, thread });
        Ok(())
    }

    /// `https://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Its URL for a client that reaches it at another address: one of [`Options::addresses`].
    pub fn url_at(&self, address: IpAddr) -> String {
        format!("https://{}", SocketAddr::new(address, self.address.port()))
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The certificate of its authority, PEM.
    pub fn authority(&self) -> &str {
        &self.tls.authority
    }

    /// The administrator's bearer token: group `system:masters`.
    pub fn administrator_token(&self) -> &str {
        &self.cluster.tokens.administrator
    }

    /// A kubeconfig file (JSON, which is YAML) of the administrator.
    pub fn kubeconfig(&self) -> String {
        self.kubeconfig_with(&self.url(), self.administrator_token())
    }

    /// A kubeconfig file with another URL or another token.
    pub fn kubeconfig_with(&self, url: &str, token: &str) -> String {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url,
                "certificate-authority-data": STANDARD.encode(&self.tls.authority)}}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        format!("{config:#}\n")
    }

    /// A token of a service account, as the kubelet would get it.
    ///
    /// # Errors
    ///
    /// When the service account, or the pod that it is to be bound to, does not exist.
    pub fn token(&self, spec: &TokenSpec) -> Result<String> {
        tokens::issue(&self.cluster, spec).map(|(token, _)| token)
    }

    /// Stores objects past authentication, admission and status rules: they are created, or replaced as they are
    /// (status too). Defaults are filled in, missing namespaces made.
    ///
    /// # Errors
    ///
    /// When an object is invalid or of a kind that is not served.
    pub fn put(&self, mut object: Value) -> Result<Value> {
        let resource = self.cluster.kinds(|kinds| kinds.of_object(&object));
        let resource = resource.ok_or_else(|| {
            Status::bad_request(format!("no kind {} {}", object["apiVersion"], object["kind"]))
        })?;
        if resource.namespaced {
            if object::namespace(&object).is_empty() {
                object::set_meta(&mut object, "namespace", "default".into());
            }
            self.put_namespace(object::namespace(&object));
        }
        let name = (object::namespace(&object).to_owned(), object::name(&object).to_owned());
        strategy::default(&resource, &mut object);
        if resource.is("", "pods") {
            strategy::mount_service_account_token(&mut object);
        }
        let status = object.get("status").cloned();
        let current = self.cluster.get(&resource.collection(), &name.0, &name.1);
        strategy::before_create(&self.cluster, &resource, &mut object)?;
        if let Some(status) = status.filter(|status| status.as_object().is_some_and(|map| !map.is_empty())) {
            object["status"] = status;
        }
        strategy::validate(&self.cluster, &resource, &object, None)?;
        let Some(current) = current else {
            return self.cluster.create(&resource, object).map(|stored| (*stored).clone());
        };
        for key in ["uid", "creationTimestamp"] {
            object::set_meta(&mut object, key, current["metadata"][key].clone());
        }
        if resource.counts_generations() {
            let generation = current["metadata"]["generation"].as_u64().unwrap_or(0) + 1;
            object::set_meta(&mut object, "generation", generation.into());
        }
        let from = object::version(&current);
        let stored = self.cluster.replace(&resource, from, object);
        stored
            .map(|stored| (*stored).clone())
            .ok_or_else(|| Status::modified(&resource.group, &resource.plural, &name.1))
    }

    fn put_namespace(&self, name: &str) {
        put_namespace(&self.cluster, name);
    }

    /// An object as it is stored.
    pub fn get(&self, collection: &Collection, namespace: &str, name: &str) -> Option<Value> {
        self.cluster.get(collection, namespace, name).map(|object| (*object).clone())
    }

    /// All objects of a collection, by namespace and name.
    pub fn list(&self, collection: &Collection) -> Vec<Value> {
        self.cluster.read(|store| store.list(collection)).into_values().map(|one| (*one).clone()).collect()
    }

    /// What is stored, `PLURAL.GROUP NAMESPACE/NAME` each, sorted.
    pub fn names(&self) -> Vec<String> {
        let objects = |collection: &Collection| self.cluster.read(|store| store.list(collection)).into_keys();
        let collections = self.cluster.read(Store::collections);
        let names = collections.iter().flat_map(|collection| {
            let Collection { group, plural } = collection;
            objects(collection).map(move |(namespace, name)| format!("{plural}.{group} {namespace}/{name}"))
        });
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    /// Takes an object out at once, whatever it waits for; `false` when there is none.
    pub fn remove(&self, collection: &Collection, namespace: &str, name: &str) -> bool {
        self.cluster.remove(collection, &(namespace.to_owned(), name.to_owned())).is_some()
    }

    /// The version of the last change.
    pub fn version(&self) -> u64 {
        self.cluster.read(Store::version)
    }

    /// Forgets the past, as etcd's compaction does: older versions answer 410. Running watches go on.
    pub fn compact_history(&self) {
        self.cluster.write(Store::compact);
    }

    /// Keeps only the last `versions` from now on; `None` keeps all.
    pub fn limit_history(&self, versions: Option<u64>) {
        self.cluster.write(|store| store.limit_history(versions));
    }

    /// Breaks off the watches that run now: those of one resource (its plural), or all.
    pub fn cut_watches(&self, plural: Option<&str>, how: Cut) {
        self.cluster.switches.order(WatchOrder::End { plural: plural.map(str::to_owned), how });
    }

    /// Sends a bookmark on every watch whose client asked for bookmarks.
    pub fn send_bookmarks(&self) {
        self.cluster.switches.order(WatchOrder::Bookmark);
    }

    /// Answers the next `count` requests whose path begins with `path_prefix` (and of this method) with an error.
    pub fn fail_next(&self, count: usize, method: Option<&str>, path_prefix: &str, code: u16) {
        let (reason, message) = match code {
            401 => ("Unauthorized", "Unauthorized"),
            403 => ("Forbidden", "forbidden by the test"),
            409 => ("Conflict", "conflict made by the test"),
            410 => ("Expired", "too old resource version"),
            429 => ("TooManyRequests", "too many requests, please try again later"),
            500 => ("InternalError", "Internal error occurred: made by the test"),
            503 => ("ServiceUnavailable", "the server is currently unable to handle the request"),
            504 => ("Timeout", "the server was unable to return a response in the time allotted"),
            _ => ("", "made by the test"),
        };
        let mut status = Status::new(code, reason, message);
        if code == 429 {
            status.details = Some(Box::new(json!({"retryAfterSeconds": 1})));
        }
        self.cluster.switches.script(count, method, path_prefix, status);
    }

    /// Holds every new request until [`resume`](Self::resume). Watches that run already go on.
    pub fn pause(&self) {
        self.cluster.switches.pause(true);
    }

    /// Lets go what [`pause`](Self::pause) holds.
    pub fn resume(&self) {
        self.cluster.switches.pause(false);
    }

    /// Leaves new CustomResourceDefinitions unserved (their paths answer 429), as they are for a moment on a real server,
    /// until [`release_definitions`](Self::release_definitions).
    pub fn hold_definitions(&self) {
        self.cluster.switches.hold_definitions(true);
    }

    /// Serves what [`hold_definitions`](Self::hold_definitions) holds.
    pub fn release_definitions(&self) {
        self.cluster.switches.hold_definitions(false);
        self.cluster.establish_all();
    }

    /// Are Kubernetes' own schemas installed, so that the fields of its own kinds are checked?
    pub fn checks_fields(&self) -> bool {
        self.cluster.schemas.is_loaded()
    }

    /// How many requests have come since the start.
    pub fn request_count(&self) -> u64 {
        self.cluster.switches.request_count()
    }

    /// The requests since the last call of this.
    pub fn take_requests(&self) -> Vec<Seen> {
        self.cluster.switches.take_seen()
    }

    /// How many watches run now.
    pub fn watch_count(&self) -> usize {
        self.cluster.switches.watch_count()
    }

    /// How many watches have been started.
    pub fn watches_started(&self) -> u64 {
        self.cluster.switches.watches_started()
    }

    /// Who runs the commands of `kubectl exec`: in a real cluster the kubelet of the Pod's node. It may block.
    pub fn run_commands_with(&self, run: impl Fn(&Exec) -> Ran + Send + Sync + 'static) {
        self.cluster.nodes.set(Arc::new(run));
    }

    /// Where the API server reaches the service of a webhook. Without it, it dials the service's endpoints.
    pub fn route_service(&self, namespace: &str, name: &str, address: SocketAddr) {
        lock(&self.cluster.addresses).insert((namespace.to_owned(), name.to_owned()), address);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // The reservation and the listener share the port; only one of them listens.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn put_namespace(cluster: &Cluster, name: &str) {
    let namespaces = Collection::new("", "namespaces");
    if cluster.get(&namespaces, "", name).is_some() {
        return;
    }
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    store(cluster, "", "namespaces", namespace);
}

fn store(cluster: &Cluster, group: &str, plural: &str, mut object: Value) {
    let Some(resource) = cluster.kinds(|kinds| kinds.find(group, "v1", plural)) else { return };
    strategy::default(&resource, &mut object);
    if strategy::before_create(cluster, &resource, &mut object).is_ok() {
        // It is there already: somebody else made it in the same moment.
        let _ = cluster.create(&resource, object);
    }
}

/// What every cluster has from the start.
fn populate(cluster: &Cluster) {
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        put_namespace(cluster, name);
    }
    let group = "rbac.authorization.k8s.io";
    let role = |name: &str, rules: Value| json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules});
    let roles = [
        role(
            "cluster-admin",
            json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
                   {"nonResourceURLs": ["*"], "verbs": ["*"]}]),
        ),
        role(
            "system:auth-delegator",
            json!([{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
                   {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}]),
        ),
    ];
    for role in roles {
        store(cluster, group, "clusterroles", role);
    }
}
