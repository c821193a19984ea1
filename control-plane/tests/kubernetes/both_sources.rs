//! The same objects from a directory and from an API server are the same mesh.

use crate::world::{MESH, Reader, content, dump, put, server};

const WRITTEN: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - backendRefs: [{name: reviews-v1, port: 9080}]
  - matches: [{headers: [{name: x, value: y}]}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other}}]
";

/// The same after the defaults of Gateway API's definitions.
const COMPLETED: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: default, generation: 1, uid: u, resourceVersion: '7'}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    backendRefs: [{group: '', kind: Service, name: reviews-v1, port: 9080, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /}, headers: [{type: Exact, name: x, value: y}]}]
    filters: [{type: RequestRedirect, requestRedirect: {hostname: other, statusCode: 302}}]
";

#[tokio::test]
async fn the_same_objects_give_the_same_bytes() {
    let server = server();
    put(&server, MESH);
    let from_cluster = content(&*Reader::of_cluster(&server).await.synced().await);

    let proxies = [
        "default/web-0",
        "default/reviews-v1-a",
        "default/reviews-v1-b",
        "default/reviews-v2-a",
        "data/client",
    ];
    for proxy in proxies {
        assert!(from_cluster.keys().any(|(scope, _, _)| scope == proxy), "{proxy} has no configuration");
    }
    for wrong in ["HTTPRoute default/broken", "HTTPRoute default/to-nowhere"] {
        assert!(from_cluster.keys().any(|(_, object, _)| object == wrong), "nothing is wrong with {wrong}");
    }
    // As it was written, and as the API server completed it.
    for text in [MESH.to_owned(), dump(&server)] {
        let from_directory = content(&*Reader::of_directory(&text).synced().await);
        for (key, bytes) in &from_directory {
            assert_eq!(from_cluster.get(key), Some(bytes), "{key:?}");
        }
        assert_eq!(from_cluster.keys().collect::<Vec<_>>(), from_directory.keys().collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn what_the_definitions_complete_changes_nothing() {
    let mesh = |route: &str| format!("{MESH}---\n{route}");
    let written = content(&*Reader::of_directory(&mesh(WRITTEN)).synced().await);
    let completed = content(&*Reader::of_directory(&mesh(COMPLETED)).synced().await);
    assert_eq!(written, completed);
    assert_ne!(written, content(&*Reader::of_directory(MESH).synced().await));
}
