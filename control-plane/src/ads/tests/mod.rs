//! The gRPC services in process, over real connections: hand-made snapshots in, what a client sees out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod certificates;
mod client;
mod delta;
mod identity;
mod lifecycle;
mod refusals;
mod separate;
mod sotw;
mod unix;

use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType::{
    self, Cluster, ClusterLoadAssignment as Endpoints, Listener, RouteConfiguration as Route, Secret,
};
use outrigger_xds_api::session::{delta::Server as Delta, sotw::Server as Sotw};
use tokio::sync::watch;
use tonic::Code;
use tonic::transport::Channel;

use super::services::Service;
use crate::server::{ControlPlane, XdsAddress};
use crate::snapshot::{Resource, Snapshot};
use client::{Client, Dialect, channel, encoded};

const WEB: &str = "sidecar~127.1.0.1~web-0.shop~shop.svc.cluster.local";
const REVIEWS: &str = "sidecar~127.1.0.2~reviews-0.shop~shop.svc.cluster.local";

/// Whatever is waited for comes much earlier.
const DEADLINE: Duration = Duration::from_secs(30);

/// A control plane whose snapshots the test publishes.
struct Mesh {
    control_plane: ControlPlane,
    snapshots: watch::Sender<Arc<Snapshot>>,
    dir: tempfile::TempDir,
}

type Content = [(ResourceType, &'static [(&'static str, &'static str)])];

const FIRST: &Content = &[
    (Cluster, &[("a", "1"), ("b", "1")]),
    (Endpoints, &[("a", "1"), ("b", "1")]),
    (Listener, &[("l", "1")]),
    (Route, &[("r", "to b")]),
];

/// Cluster `b` gives way to `c`, and the route follows.
const SECOND: &Content = &[
    (Cluster, &[("a", "1"), ("c", "1")]),
    (Endpoints, &[("a", "2"), ("b", "1")]),
    (Listener, &[("l", "1")]),
    (Route, &[("r", "to c")]),
];

/// Pods web-0 and reviews-0 in `shop`, both with the same resources.
fn snapshot(generation: u64, content: &Content) -> Arc<Snapshot> {
    let resources = |wanted: ResourceType| {
        let list = content.iter().find(|(of, _)| *of == wanted).map_or(&[][..], |(_, list)| *list);
        let encoded = list.iter().map(|(name, body)| Resource::new(wanted, name, encoded(name, body)));
        Arc::new(encoded.map(|resource| (Arc::clone(&resource.name), Arc::new(resource))).collect())
    };
    let pods = [("web-0", "web", [127, 1, 0, 1].into()), ("reviews-0", "reviews", [127, 1, 0, 2].into())];
    Arc::new(Snapshot::by_hand(generation, "shop", &pods, resources))
}

impl Mesh {
    /// Serves on a free port of loopback.
    async fn start(first: Arc<Snapshot>) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), "127.0.0.1:0", first).await
    }

    async fn start_in(dir: tempfile::TempDir, xds_address: &str, first: Arc<Snapshot>) -> Self {
        let (snapshots, receiver) = watch::channel(first);
        let xds_address = xds_address.parse().unwrap();
        let control_plane = ControlPlane::start_with(dir.path(), xds_address, receiver).await.unwrap();
        Self { control_plane, snapshots, dir }
    }

    fn token(&self, pod: &str) -> String {
        std::fs::read_to_string(self.dir.path().join("tokens/shop").join(pod)).unwrap()
    }

    fn publish(&self, snapshot: Arc<Snapshot>) {
        self.snapshots.send_replace(snapshot);
    }

    async fn channel(&self) -> Channel {
        channel(&self.control_plane.addresses().xds).await
    }

    /// A stream of web-0.
    async fn open<V: Dialect>(&self, service: Service) -> Client<V> {
        self.connect(service, WEB, "web-0").await
    }

    /// A stream that says to be `node`, with the token of `pod`.
    async fn connect<V: Dialect>(&self, service: Service, node: &str, pod: &str) -> Client<V> {
        self.control_plane.ready().await;
        Client::connect(self.channel().await, service, node, &self.token(pod)).await.unwrap()
    }

    /// One page of the admin server.
    async fn page(&self, path: &str) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.control_plane.addresses().admin).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The proxies page once `ready` holds for it.
    async fn proxies(&self, ready: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let poll = async {
            loop {
                let page: serde_json::Value = serde_json::from_str(&self.page("/proxies").await.1).unwrap();
                if ready(&page["proxies"]) {
                    return page["proxies"].clone();
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, poll).await.expect("the state never came")
    }
}
