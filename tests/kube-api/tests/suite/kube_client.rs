//! The `kube` crate, as the control plane uses it.

use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Client, Config, ResourceExt};
use outrigger_kube_api::{ApiServer, Cut};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{PATIENCE, config_map, eventually, service};

/// A client with the server's own kubeconfig.
pub async fn connect(server: &ApiServer) -> Client {
    let kubeconfig = Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

#[tokio::test]
async fn objects_are_written_and_read() {
    let server = ApiServer::start();
    let client = connect(&server).await;
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let services: Api<Service> = Api::default_namespaced(client.clone());
    let new: Service = serde_json::from_value(service("web", json!({}))).unwrap();
    let created = services.create(&PostParams::default(), &new).await.unwrap();
    assert!(created.spec.as_ref().unwrap().cluster_ip.is_some());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    services.patch("web", &PatchParams::default(), &patch).await.unwrap();
    let list = services.list(&ListParams::default().labels("a=b")).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let error = services.replace("web", &PostParams::default(), &created).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert!(status.is_conflict());
    services.delete("web", &DeleteParams::default()).await.unwrap();
    assert!(services.get_opt("web").await.unwrap().is_none());
}

#[tokio::test]
async fn objects_are_applied() {
    let server = ApiServer::start();
    let maps: Api<ConfigMap> = Api::default_namespaced(connect(&server).await);
    let map = config_map("ssa", json!({"a": "1"}));
    maps.patch("ssa", &PatchParams::apply("mesh"), &Patch::Apply(&map)).await.unwrap();
    let other = config_map("ssa", json!({"a": "2"}));
    let error = maps.patch("ssa", &PatchParams::apply("other"), &Patch::Apply(&other)).await.unwrap_err();
    let kube::Error::Api(status) = error else { panic!("{error}") };
    assert_eq!(status.reason, "Conflict");
    let forced =
        maps.patch("ssa", &PatchParams::apply("other").force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(forced.data.unwrap()["a"], "2");
}

#[tokio::test]
async fn discovery_finds_what_is_served() {
    let server = ApiServer::start();
    let client = connect(&server).await;
    let discovery = kube::Discovery::new(client.clone()).run_aggregated().await.unwrap();
    let group = discovery.groups().find(|group| group.name() == "discovery.k8s.io").unwrap();
    assert!(group.recommended_kind("EndpointSlice").is_some());
    let discovery = kube::Discovery::new(client).run().await.unwrap();
    assert!(discovery.groups().any(|group| group.name() == "coordination.k8s.io"));
}

#[tokio::test]
async fn a_port_of_a_pod_is_forwarded() {
    let server = ApiServer::start();
    let echo = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = echo.local_addr().unwrap().port();
    let echoing = tokio::spawn(async move {
        let (mut stream, _) = echo.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"podIP": "127.0.0.1"}});
    server.put(pod).unwrap();
    let pods: Api<Pod> = Api::default_namespaced(connect(&server).await);
    let mut forwarder = pods.portforward("p", &[port]).await.unwrap();
    let mut stream = forwarder.take_stream(port).unwrap();
    let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    let mut received = vec![0; sent.len()];
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let (wrote, got) = tokio::join!(write.write_all(&sent), read.read_exact(&mut received));
    wrote.unwrap();
    got.unwrap();
    assert!(sent == received);
    drop(stream);
    forwarder.join().await.unwrap();
    echoing.await.unwrap();

    // Nobody listens there any more.
    let mut forwarder = pods.portforward("p", &[port]).await.unwrap();
    let reason = forwarder.take_error(port).unwrap().await.unwrap();
    assert!(reason.contains("inside the pod"), "{reason}");
    assert!(pods.portforward("gone", &[port]).await.is_err());
}

#[tokio::test]
async fn a_plain_watch() {
    let server = ApiServer::start();
    let slices: Api<EndpointSlice> = Api::all(connect(&server).await);
    let from = server.version().to_string();
    server
        .put(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a"},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}))
        .unwrap();
    let mut events = slices.watch(&WatchParams::default().timeout(5), &from).await.unwrap().boxed();
    let first = events.try_next().await.unwrap().unwrap();
    assert!(matches!(first, WatchEvent::Added(slice) if slice.name_any() == "a"));
    server.send_bookmarks();
    let bookmark = events.try_next().await.unwrap().unwrap();
    assert!(matches!(bookmark, WatchEvent::Bookmark(_)), "{bookmark:?}");
}

/// Both ways of a watcher to get its first state.
async fn a_reflector_survives(config: watcher::Config) {
    let server = ApiServer::start();
    let maps: Api<ConfigMap> = Api::default_namespaced(connect(&server).await);
    for index in 0..7 {
        server.put(config_map(&format!("m{index}"), json!({}))).unwrap();
    }
    let (store, writer) = reflector::store();
    let backoff = watcher::DefaultBackoff::default();
    let stream = watcher(maps, config).backoff(backoff).reflect(writer).for_each(|_| std::future::ready(()));
    let task = tokio::spawn(stream);
    tokio::time::timeout(PATIENCE, store.wait_until_ready()).await.unwrap().unwrap();
    assert_eq!(store.len(), 7);

    let has = |name: &str| store.state().iter().any(|map| map.name_any() == name);
    server.put(config_map("live", json!({}))).unwrap();
    eventually("a live event", || has("live").then_some(())).await;

    // The stream breaks, and while it is broken the past is forgotten.
    server.pause();
    server.cut_watches(None, Cut::Reset);
    server.put(config_map("missed", json!({}))).unwrap();
    server.remove(&outrigger_kube_api::Collection::new("", "configmaps"), "default", "m0");
    server.compact_history();
    server.resume();
    eventually("what was missed", || (has("missed") && !has("m0")).then_some(())).await;

    // The server dies and comes back.
    server.kill();
    server.restart().unwrap();
    server.put(config_map("after", json!({}))).unwrap();
    eventually("what came after the restart", || has("after").then_some(())).await;
    task.abort();
}

#[tokio::test]
async fn a_list_and_watch_survives() {
    // Three at a time: the list comes in chunks.
    a_reflector_survives(watcher::Config::default().page_size(3)).await;
}

#[tokio::test]
async fn a_streaming_list_survives() {
    a_reflector_survives(watcher::Config::default().streaming_lists()).await;
}
