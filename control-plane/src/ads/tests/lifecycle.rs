//! When streams begin, and how they end.

use super::*;

#[tokio::test]
async fn streams_end_with_a_reason() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    let mut gone = mesh.open::<Delta>(Service::Aggregated).await;
    gone.subscribe(Cluster, &[]).await;
    gone.accept().await;
    mesh.publish(Arc::new(Snapshot::by_hand(2, "shop", &[], |_| Arc::default())));
    assert_eq!(gone.refusal().await.code(), Code::NotFound);

    mesh.publish(snapshot(3, FIRST));
    let mut client = mesh.open::<Delta>(Service::Aggregated).await;
    client.subscribe(Cluster, &[]).await;
    client.accept().await;
    mesh.control_plane.stop().await;
    let status = client.refusal().await;
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "the control plane is shutting down"));
}

#[tokio::test]
async fn nothing_is_served_before_the_source_is_read() {
    let mesh = Mesh::start(Arc::default()).await;
    assert_eq!(mesh.page("/ready").await.0, 503);
    assert!(!mesh.dir.path().join("tokens/shop").exists());
    let channel = mesh.channel().await;
    // The token is only made when the pod is known; its caller waits until then.
    let connect = Client::<Delta>::connect(channel, Service::Aggregated, WEB, "x");
    let early = tokio::spawn(async move { connect.await.err() });
    mesh.publish(snapshot(1, FIRST));
    mesh.control_plane.ready().await;
    assert_eq!(mesh.page("/ready").await.0, 200);
    assert_eq!(early.await.unwrap().unwrap().code(), Code::Unauthenticated);
}
