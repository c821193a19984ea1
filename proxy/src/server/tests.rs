//! A whole proxy in this process: it starts, answers, drains and ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Options, Server, StartError, validate};
use crate::admin::ServerState;
use crate::bootstrap::{Document, NodeFlags};
use crate::logging::Logging;
use crate::net::Address;

const HELLO: &str = r#"
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
static_resources:
  listeners:
  - name: hello
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: hello
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                direct_response: {status: 200, body: {inline_string: hello}}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
"#;

fn document(yaml: &str) -> Document {
    let mut document = Document::default();
    document.merge("test.yaml", yaml).unwrap();
    document
}

async fn start(yaml: &str) -> Server {
    Server::start(document(yaml), Options::new(Arc::new(Logging::detached()))).await.unwrap()
}

fn listener(server: &Server) -> SocketAddr {
    match server.view().listeners()[0].addresses[0] {
        Address::Ip(address) => address,
        ref other => panic!("{other}"),
    }
}

async fn request(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"hello") {
        assert_ne!(
            stream.read_buf(&mut response).await.unwrap(),
            0,
            "{}",
            String::from_utf8_lossy(&response)
        );
    }
    String::from_utf8(response).unwrap()
}

#[tokio::test]
async fn starts_answers_drains_and_ends() {
    let server = start(HELLO).await;
    server.initialized().await;
    let (view, shutdown, address) = (server.view(), server.shutdown_handle(), listener(&server));
    assert!(server.admin_address().is_some());
    let running = tokio::spawn(server.run());
    while view.state() != ServerState::Live {
        tokio::task::yield_now().await;
    }
    let mut client = TcpStream::connect(address).await.unwrap();
    assert!(request(&mut client).await.starts_with("HTTP/1.1 200 OK"));

    shutdown.shutdown();
    while view.state() != ServerState::Draining {
        tokio::task::yield_now().await;
    }
    // The connection that was idle is closed, nobody answers a new one, and the server ends long before its drain time.
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), running).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn an_address_in_use_is_told_by_its_place() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let yaml = HELLO.replace(
        "name: hello\n    address: {socket_address: {address: 127.0.0.1, port_value: 0}}",
        &format!("name: hello\n    address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}"),
    );
    let options = Options::new(Arc::new(Logging::detached()));
    let Err(StartError::Invalid(problems)) = Server::start(document(&yaml), options).await else { panic!() };
    let told = problems[0].to_string();
    assert!(told.starts_with("test.yaml:6:5: static_resources.listeners[0].address: cannot bind"), "{told}");
    assert!(told.contains("Address already in use"), "{told}");
}

#[test]
fn validating_binds_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let yaml = HELLO.replace("port_value: 0", &format!("port_value: {port}"));
    validate(document(&yaml), &NodeFlags::default()).unwrap();
}

#[test]
fn the_cluster_of_ads_must_exist() {
    let yaml = "node: {id: i, cluster: c}\ndynamic_resources: {ads_config: {api_type: DELTA_GRPC, grpc_services: [{envoy_grpc: \
                {cluster_name: nobody}}]}}";
    let Err(StartError::Invalid(problems)) = validate(document(yaml), &NodeFlags::default()) else {
        panic!()
    };
    assert_eq!(problems[0].reason, "Unknown gRPC client cluster 'nobody'");
}
