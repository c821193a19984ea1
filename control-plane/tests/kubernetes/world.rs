//! An API server with objects, and what the source makes of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use outrigger_control_plane::metrics::Metrics;
use outrigger_control_plane::model::Sidecars;
use outrigger_control_plane::snapshot::{self, MeshSettings, Snapshot};
use outrigger_control_plane::source::{Event, file, kubernetes};
use outrigger_control_plane::{ControlPlane, Options};
use outrigger_kube_api::{ApiServer, Collection};
use outrigger_xds_api::{ResourceType, json};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Whatever is waited for comes much earlier.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The mesh that most tests begin with.
pub(crate) const MESH: &str = include_str!("mesh.yaml");

/// The definitions of our own kinds, as the chart installs them.
pub(crate) const OWN_KINDS: &str = include_str!("../../../charts/outrigger/crds/outrigger.dev.yaml");

/// The documents of a YAML text.
pub(crate) fn documents(text: &str) -> Vec<Value> {
    json::parse(text).unwrap().iter().map(|node| node.to_json()).collect()
}

/// The definition of a kind of rules, served in these versions.
pub(crate) fn definition(kind: &str, plural: &str, group: &str, versions: &[&str]) -> Value {
    let version = |name: &&str| {
        json!({"name": name, "served": true, "storage": *name == versions[0], "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}"),
            "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": group, "scope": "Namespaced", "versions": versions.iter().map(version).collect::<Vec<_>>(),
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
        },
    })
}

pub(crate) fn http_routes() -> Value {
    definition("HTTPRoute", "httproutes", "gateway.networking.k8s.io", &["v1", "v1beta1"])
}

/// An API server on which every kind of rules is installed.
pub(crate) fn server() -> ApiServer {
    let server = ApiServer::start();
    server.put(http_routes()).unwrap();
    for (kind, plural) in [
        ("VirtualService", "virtualservices"),
        ("DestinationRule", "destinationrules"),
        ("ServiceEntry", "serviceentries"),
        ("WorkloadEntry", "workloadentries"),
        ("WorkloadGroup", "workloadgroups"),
    ] {
        server.put(definition(kind, plural, "networking.istio.io", &["v1"])).unwrap();
    }
    for (kind, plural) in [("GRPCRoute", "grpcroutes"), ("ReferenceGrant", "referencegrants")] {
        server.put(definition(kind, plural, "gateway.networking.k8s.io", &["v1"])).unwrap();
    }
    server
        .put(definition("PeerAuthentication", "peerauthentications", "security.istio.io", &["v1"]))
        .unwrap();
    for definition in documents(OWN_KINDS) {
        server.put(definition).unwrap();
    }
    server
}

/// A control plane on the API server of `kubeconfig`, on free ports, with more flags.
pub(crate) async fn control_plane(kubeconfig: &Path, data_dir: &Path, more: &[&str]) -> ControlPlane {
    let flags = [
        "outrigger-control-plane".to_owned(),
        "--source=kubernetes".to_owned(),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--data-dir={}", data_dir.display()),
        "--xds-address=127.0.0.1:0".to_owned(),
        "--admin-address=127.0.0.1:0".to_owned(),
    ];
    let flags = flags.into_iter().chain(more.iter().map(|flag| (*flag).to_owned()));
    ControlPlane::start(Options::parse_from(flags)).await.unwrap()
}

/// Waits until a condition holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Stores the documents in the order of their names: a route that was created first comes first.
pub(crate) fn put(server: &ApiServer, text: &str) {
    let mut objects = documents(text);
    objects.sort_by_key(|object| {
        ["namespace", "name"].map(|field| object["metadata"][field].as_str().unwrap_or("default").to_owned())
    });
    for object in objects {
        server.put(object.clone()).unwrap_or_else(|error| panic!("{object}: {error:?}"));
    }
}

/// The collections that the source reads.
pub(crate) fn collections() -> Vec<Collection> {
    [
        ("", "services"),
        ("", "pods"),
        ("", "nodes"),
        ("discovery.k8s.io", "endpointslices"),
        ("gateway.networking.k8s.io", "httproutes"),
        ("gateway.networking.k8s.io", "grpcroutes"),
        ("gateway.networking.k8s.io", "referencegrants"),
        ("networking.istio.io", "virtualservices"),
        ("networking.istio.io", "destinationrules"),
        ("networking.istio.io", "serviceentries"),
        ("networking.istio.io", "workloadentries"),
        ("networking.istio.io", "workloadgroups"),
        ("security.istio.io", "peerauthentications"),
        ("outrigger.dev", "trafficpolicies"),
    ]
    .map(|(group, plural)| Collection::new(group, plural))
    .into()
}

/// All that is stored of what the source reads, as one YAML text.
pub(crate) fn dump(server: &ApiServer) -> String {
    let objects = collections().into_iter().flat_map(|collection| server.list(&collection));
    objects.map(|object| format!("---\n{object}\n")).collect()
}

/// A source that is being read.
pub(crate) struct Reader {
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) progress: watch::Receiver<String>,
    pub(crate) metrics: Arc<Metrics>,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

fn settings() -> MeshSettings {
    MeshSettings { sidecars: Sidecars::Injected, ..MeshSettings::default() }
}

impl Reader {
    fn new(folder: tempfile::TempDir) -> (Self, mpsc::Sender<Vec<Event>>, watch::Sender<String>) {
        let (events, received) = mpsc::channel(64);
        let (publish, snapshots) = watch::channel(Arc::default());
        let (tell, progress) = watch::channel(String::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(snapshot::run(settings(), received, publish));
        let metrics = Arc::new(Metrics::new().unwrap());
        (Self { snapshots, progress, metrics, _tasks: tasks, _folder: folder }, events, tell)
    }

    /// Reads an API server.
    pub(crate) async fn of_cluster(server: &ApiServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        let client = kubernetes::connect(Some(&kubeconfig)).await.unwrap();
        let (mut reader, events, tell) = Self::new(folder);
        let metrics = Arc::clone(&reader.metrics);
        reader._tasks.spawn(kubernetes::run(client, events, tell, metrics));
        reader
    }

    /// Reads a directory with this text in it.
    pub(crate) fn of_directory(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mesh.yaml"), text).unwrap();
        let directory: &Path = folder.path();
        let directory = directory.to_owned();
        let (reader, events, _) = Self::new(folder);
        file::watch(directory, None, events).unwrap();
        reader
    }

    /// The first snapshot for which `wanted` holds.
    pub(crate) async fn until(&mut self, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let found = self.snapshots.wait_for(|snapshot| snapshot.generation() > 0 && wanted(snapshot));
        match tokio::time::timeout(DEADLINE, found).await {
            Ok(snapshot) => Arc::clone(&snapshot.expect("the source ended")),
            Err(_) => panic!("never: {what}"),
        }
    }

    /// The first snapshot.
    pub(crate) async fn synced(&mut self) -> Arc<Snapshot> {
        self.until("the first sync", |_| true).await
    }
}

/// Every resource of every proxy, byte for byte, and what is wrong, by proxy, type and name.
pub(crate) fn content(snapshot: &Snapshot) -> BTreeMap<(String, String, String), Vec<u8>> {
    let mut content = BTreeMap::new();
    for scope in snapshot.scopes() {
        for of in ResourceType::ALL {
            for resource in snapshot.resources(scope, of).iter() {
                let key = (scope.to_string(), of.to_string(), resource.name.to_string());
                content.insert(key, resource.content.value.clone());
            }
        }
    }
    for (kind, findings) in [("refused", snapshot.rejections()), ("problem", snapshot.problems())] {
        for finding in findings {
            let object = finding.object.as_ref().expect("it is about an object").to_string();
            let text = format!("{}: {}", finding.field, finding.reason);
            content.insert((kind.to_owned(), object, text), Vec::new());
        }
    }
    content
}

/// The load assignment of a Service's port, decoded, as every proxy has it: addresses in order.
pub(crate) fn endpoints(snapshot: &Snapshot, cluster: &str) -> Vec<String> {
    use outrigger_xds_api::wire::core::v3::{address::Address, socket_address::PortSpecifier};
    use outrigger_xds_api::wire::endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier};
    use prost::Message as _;

    let scope = snapshot.scopes().next().expect("a proxy");
    let set = snapshot.resources(scope, ResourceType::ClusterLoadAssignment);
    let Some(resource) = set.get(cluster) else { return Vec::new() };
    let assignment = ClusterLoadAssignment::decode(resource.content.value.as_slice()).unwrap();
    let hosts = assignment.endpoints.into_iter().flat_map(|locality| locality.lb_endpoints);
    let addresses = hosts.map(|host| {
        let Some(HostIdentifier::Endpoint(endpoint)) = host.host_identifier else { panic!() };
        let Some(Address::SocketAddress(address)) = endpoint.address.unwrap().address else { panic!() };
        let Some(PortSpecifier::PortValue(port)) = address.port_specifier else { panic!() };
        format!("{}:{port}", address.address)
    });
    addresses.collect()
}
