//! Pods in network namespaces, captured by our own command: what plain clients and servers see that know nothing of a mesh.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use outrigger_tests::pods::{APPLICATION, PodMesh, cluster_ip, cluster_ip6};
use outrigger_tests::upstream::{Reply, TcpBehaviour, TcpUpstream, Upstream};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec:
  selector: {app: shop}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, 'fd96::1']
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: mysql, port: 3306}
  - {name: any, port: 7000}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec:
  selector: {app: shop}
  clusterIP: None
  ports: [{name: http, port: 8080}]
";

/// The applications of `shop`.
struct Shop {
    http: Upstream,
    _mysql: TcpUpstream,
    _any: TcpUpstream,
}

fn shop(mesh: &PodMesh) -> Shop {
    let at = |port: u16| SocketAddr::new("::".parse().unwrap(), port);
    mesh.pod("shop").net.enter(APPLICATION, || {
        let http = Upstream::start_at(at(8080));
        http.answer(Reply::status(200, "shop"));
        Shop {
            http,
            _mysql: TcpUpstream::start_at(at(3306), TcpBehaviour::Greet(b"hello ".to_vec())),
            _any: TcpUpstream::start_at(at(7000), TcpBehaviour::Echo),
        }
    })
}

/// Sends, closes its half, and reads all that comes.
fn talk(to: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn services_pods_and_headless_services_are_reached_with_both_identities() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let shop = shop(&mesh);
    let web = mesh.pod("web");
    let pod = &mesh.pod("shop").net;

    let by_service: [IpAddr; 2] = [cluster_ip(1).into(), cluster_ip6(1).into()];
    for ip in by_service {
        let answer = web.get((ip, 80), "whatever");
        assert_eq!((answer.status, answer.text().as_str()), (200, "shop"), "{ip}");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "world")), "hello world", "{ip}");
        assert_eq!(web.run(|| talk((ip, 7000).into(), "echo")), "echo", "{ip}");
    }
    for ip in pod.ips() {
        let answer = web.get((ip, 8080), "headless");
        assert_eq!((answer.status, answer.text().as_str()), (200, "shop"), "{ip}");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "world")), "hello world", "{ip}");
    }
    assert_eq!(shop.http.take_requests().len(), 4);

    // The pod itself: by the Service's address, and by its own.
    let own = mesh.pod("shop");
    assert_eq!(own.get((cluster_ip(1), 80), "shop").text(), "shop");
    assert_eq!(own.get((pod.v4, 8080), "shop").text(), "shop");
}
