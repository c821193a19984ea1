//! A control plane on a directory of YAML.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser as _;
use outrigger_control_plane::{ControlPlane, Options, XdsAddress};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};

/// Whatever is waited for comes much earlier.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: { name: reviews, namespace: shop }
spec: { clusterIP: 10.96.0.7, selector: { app: reviews }, ports: [ { name: http, port: 9080, targetPort: 9080 } ] }
---
apiVersion: v1
kind: Pod
metadata: { name: web-0, namespace: shop, labels: { app: web } }
spec: { serviceAccountName: web, containers: [ { name: web } ] }
status: { podIP: 127.1.0.1, podIPs: [ { ip: 127.1.0.1 } ] }
";

pub(crate) const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: reviews, namespace: shop }
spec:
  parentRefs: [ { group: '', kind: Service, name: reviews, port: 9080 } ]
  rules: [ { backendRefs: [ { name: reviews, port: 9080 } ], timeouts: { request: TIMEOUT } } ]
";

pub(crate) fn slice(address: &str) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: reviews-1, namespace: shop, \
         labels: {{ kubernetes.io/service-name: reviews }} }}\naddressType: IPv4\nports: [ {{ name: http, port: 9080 \
         }} ]\nendpoints: [ {{ addresses: [ {address} ], conditions: {{ ready: true }} }} ]\n"
    )
}

/// A file appears as a whole, as an editor's save does.
pub(crate) fn save(dir: &Path, name: &str, content: &str) {
    let part = dir.join(format!(".{name}.part"));
    std::fs::write(&part, content).unwrap();
    std::fs::rename(part, dir.join(name)).unwrap();
}

/// The node id of the mesh's pod.
pub(crate) const NODE: &str = "sidecar~127.1.0.1~web-0.shop~shop.svc.cluster.local";
/// The cluster of the mesh's service.
pub(crate) const REVIEWS: &str = "outbound|9080||reviews.shop.svc.cluster.local";

/// Where the YAML and the control plane's data are.
pub(crate) struct World {
    dir: tempfile::TempDir,
}

impl World {
    /// A mesh of one pod and one service.
    pub(crate) fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        std::fs::create_dir(world.mesh()).unwrap();
        save(&world.mesh(), "mesh.yaml", MESH);
        save(&world.mesh(), "slice.yaml", &slice("127.1.0.2"));
        world
    }

    pub(crate) fn mesh(&self) -> PathBuf {
        self.dir.path().join("mesh")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("xds.sock")
    }

    /// A control plane that has read the mesh. It can be started again.
    pub(crate) async fn start(&self, xds_address: &str) -> ControlPlane {
        let flags = [
            "outrigger-control-plane".to_owned(),
            format!("--source=file:{}", self.mesh().display()),
            format!("--data-dir={}", self.dir.path().join("data").display()),
            format!("--xds-address={xds_address}"),
            "--admin-address=127.0.0.1:0".to_owned(),
        ];
        let control_plane = ControlPlane::start(Options::parse_from(flags)).await.unwrap();
        tokio::time::timeout(DEADLINE, control_plane.ready()).await.expect("ready in time");
        control_plane
    }

    /// The credentials of the pod.
    pub(crate) fn authorization(&self) -> MetadataValue<Ascii> {
        let token = std::fs::read_to_string(self.dir.path().join("data/tokens/shop/web-0")).unwrap();
        format!("Bearer {token}").parse().unwrap()
    }

    pub(crate) async fn channel(&self, control_plane: &ControlPlane) -> Channel {
        let uri = match &control_plane.addresses().xds {
            XdsAddress::Tcp(address) => format!("http://{address}"),
            XdsAddress::Unix(path) => format!("unix:{}", path.display()),
        };
        Endpoint::from_shared(uri).unwrap().connect().await.unwrap()
    }
}

/// A page of the admin server, once `ready` holds for it.
pub(crate) async fn page(control_plane: &ControlPlane, path: &str, ready: impl Fn(&str) -> bool) -> String {
    let poll = async {
        loop {
            let address = control_plane.addresses().admin;
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            if ready(&text) {
                return text;
            }
        }
    };
    tokio::time::timeout(DEADLINE, poll).await.expect("the page never showed it")
}
