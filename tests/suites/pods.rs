//! Pods in network namespaces, captured by our own command: what plain clients and servers see that know nothing of a mesh.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use outrigger_tests::certs::{Leaf, Pki, spiffe};
use outrigger_tests::client::{Http2Client, RawClient, Tls, get, talk};
use outrigger_tests::pods::{APPLICATION, Pod, PodMesh, any, cluster_ip, cluster_ip6};
use outrigger_tests::upstream::{Http2Upstream, Reply, TcpBehaviour, TcpUpstream, Upstream};
use outrigger_tests::wait::{self, PATIENCE};

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
  - {name: https, port: 443, targetPort: 8443}
  - {name: grpc, port: 50051}
  - {name: any, port: 7000}
  - {name: any-web, port: 7001, targetPort: 8081}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: default}
spec:
  selector: {app: shop}
  clusterIP: None
  ports: [{name: http, port: 8080}]
";

fn peer_authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: all, namespace: istio-system}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

fn http(pod: &Pod, port: u16) -> Upstream {
    let upstream = pod.run(|| Upstream::start_at(any(port)));
    upstream.answer(Reply::status(200, &pod.name));
    upstream
}

fn tcp(pod: &Pod, port: u16, behaviour: TcpBehaviour) -> TcpUpstream {
    pod.run(|| TcpUpstream::start_at(any(port), behaviour))
}

#[test]
fn services_pods_and_headless_services_are_reached() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let requests = http(shop, 8080);
    let _tcp =
        [tcp(shop, 3306, TcpBehaviour::Greet(b"hello ".to_vec())), tcp(shop, 7000, TcpBehaviour::Echo)];

    let by_service: [IpAddr; 2] = [cluster_ip(1).into(), cluster_ip6(1).into()];
    for ip in by_service {
        let answer = web.get((ip, 80), "whatever");
        assert_eq!((answer.status, answer.text().as_str()), (200, "shop"), "{ip}");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "world")).unwrap(), "hello world", "{ip}");
        assert_eq!(web.run(|| talk((ip, 7000).into(), "echo")).unwrap(), "echo", "{ip}");
    }
    for ip in shop.net.ips() {
        let answer = web.get((ip, 8080), "headless");
        assert_eq!((answer.status, answer.text().as_str()), (200, "shop"), "{ip}");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "world")).unwrap(), "hello world", "{ip}");
    }
    assert_eq!(requests.take_requests().len(), 4);

    // The pod itself: by the Service's address, and by its own.
    assert_eq!(shop.get((cluster_ip(1), 80), "shop").text(), "shop");
    assert_eq!(shop.get((shop.net.v4, 8080), "shop").text(), "shop");
}

#[test]
fn metrics_name_both_workloads_and_both_identities() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let _http = http(shop, 8080);
    let _tcp = tcp(shop, 3306, TcpBehaviour::Echo);
    for _ in 0..3 {
        assert_eq!(web.get((cluster_ip(1), 80), "shop").status, 200);
        assert_eq!(web.run(|| talk((cluster_ip(1), 3306).into(), "12345")).unwrap(), "12345");
        assert_eq!(web.run(|| talk((shop.net.v4, 3306).into(), "12345")).unwrap(), "12345");
    }
    let (source, destination) = (spiffe("web"), spiffe("shop"));
    let who = [
        ("source_workload", "web"),
        ("destination_workload", "shop"),
        ("source_principal", &source),
        ("destination_principal", &destination),
        ("connection_security_policy", "mutual_tls"),
    ];
    let labels = |reporter: &'static str| -> Vec<(&str, &str)> {
        let policy = if reporter == "source" { "unknown" } else { "mutual_tls" };
        let mut labels = who.to_vec();
        labels[4].1 = policy;
        labels.push(("reporter", reporter));
        labels
    };
    let passed = [("destination_service", "PassthroughCluster"), ("reporter", "source")];
    wait::until("calls by the Pod's address", || {
        web.scrape().sum("istio_tcp_connections_closed_total", &passed) == 3.0
    });
    for (pod, reporter) in [(web, "source"), (shop, "destination")] {
        let labels = labels(reporter);
        let sum = |name: &str| pod.scrape().sum(name, &labels);
        wait::until("requests of both workloads", || sum("istio_requests_total") == 3.0);
        wait::until("closed connections of both workloads", || {
            sum("istio_tcp_connections_closed_total") == 6.0
        });
        assert_eq!(sum("istio_tcp_connections_opened_total"), 6.0, "{reporter}");
        assert_eq!(sum("istio_tcp_received_bytes_total"), 30.0, "{reporter}");
        assert_eq!(sum("istio_tcp_sent_bytes_total"), 30.0, "{reporter}");
    }
}

#[test]
fn what_goes_over_the_network_is_encrypted_unless_it_is_switched_off() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let _http = http(shop, 8080);
    let _tcp = tcp(shop, 3306, TcpBehaviour::Echo);
    let calls = || {
        let recording = mesh.sniff();
        let ask = |to: SocketAddr| web.run(|| get(to, "shop", "/payload-of-the-request")).status;
        assert_eq!(ask((cluster_ip(1), 80).into()), 200);
        assert_eq!(ask((shop.net.v4, 8080).into()), 200);
        for ip in [cluster_ip(1), shop.net.v4] {
            assert_eq!(web.run(|| talk((ip, 3306).into(), "payload-of-the-stream")).unwrap().len(), 21);
        }
        let frames = recording.finish();
        assert!(frames.len() > 1000, "{} bytes recorded", frames.len());
        frames.windows(11).filter(|bytes| bytes == b"payload-of-").count()
    };
    assert_eq!(calls(), 0);
    mesh.write("mtls.yaml", &peer_authentication("DISABLE"));
    // The callee's sidecar and the caller's learn it one after the other, and calls go through meanwhile.
    wait::until("plaintext of all four calls", || calls() >= 6);
}

#[test]
fn strict_refuses_a_stranger_and_permissive_does_not() {
    let Some(mut mesh) = PodMesh::start(&["shop"], SERVICES) else { return };
    let stranger = mesh.stranger();
    let shop = mesh.pod("shop");
    let _http = http(shop, 8080);
    let _tcp = tcp(shop, 3306, TcpBehaviour::Echo);
    let undeclared = tcp(shop, 9999, TcpBehaviour::Echo);
    let ask = |port: u16| {
        stranger.enter(APPLICATION, || {
            RawClient::connect((shop.net.v4, port).into())
                .and_then(|mut client| client.get("shop", "/"))
                .map(|answer| answer.status)
        })
    };
    let say = |port: u16| stranger.enter(APPLICATION, || talk((shop.net.v4, port).into(), "stranger"));
    assert_eq!(ask(8080).unwrap(), 200);
    assert_eq!(say(3306).unwrap(), "stranger");
    assert_eq!(say(9999).unwrap(), "stranger");
    // Going round the capture: the sidecar's own port takes nothing but mutual TLS for a Service's port.
    assert!(ask(15006).is_err());

    mesh.write("mtls.yaml", &peer_authentication("STRICT"));
    wait::until("STRICT", || ask(8080).is_err());
    assert!(say(3306).is_err() && say(9999).is_err());
    assert_eq!(undeclared.connections(), 1);
    // The sidecar's own ports stay open to the kubelet and to Prometheus.
    for port in [15021, 15090] {
        assert!(ask(port).is_ok(), "{port}");
    }
}

#[test]
fn protocols_are_found_out() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let _any = tcp(shop, 7000, TcpBehaviour::Greet(b"server first, ".to_vec()));
    let requests = http(shop, 8081);
    let grpc = shop.run(|| Http2Upstream::start_at(any(50051)));
    grpc.answer(Reply::status(200, "from h2"));

    // The client waits for the server: after the time limit it may.
    let server_first = web.run(|| {
        let mut stream = TcpStream::connect((cluster_ip(1), 7000)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut greeting = [0; 14];
        stream.read_exact(&mut greeting).unwrap();
        String::from_utf8(greeting.to_vec()).unwrap()
    });
    assert_eq!(server_first, "server first, ");
    // HTTP on a port that says nothing is routed as HTTP, in the version that the client speaks.
    assert_eq!(web.get((cluster_ip(1), 7001), "shop").text(), "shop");
    assert!(requests.take_requests()[0].headers.get("x-request-id").is_some());
    let requests_by_http = [("request_protocol", "http"), ("destination_workload", "shop")];
    wait::until("an HTTP request in the metrics", || {
        web.scrape().sum("istio_requests_total", &requests_by_http) == 1.0
    });
    let answer =
        web.run(|| Http2Client::connect((cluster_ip(1), 50051).into()).unwrap().get("shop", "/a.B/C"));
    assert_eq!(answer.unwrap().text(), "from h2");
}

/// Answers a WebSocket handshake (RFC 6455) with the key of the RFC's example, and sends the text of each masked frame back.
fn serve_websocket(mut stream: TcpStream) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    stream.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\
          sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
    )?;
    loop {
        let mut frame = [0; 6];
        stream.read_exact(&mut frame)?;
        let mut text = vec![0; usize::from(frame[1] & 0x7f)];
        stream.read_exact(&mut text)?;
        text.iter_mut().zip(frame[2..].iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        stream.write_all(&[&[0x81, text.len() as u8], text.as_slice()].concat())?;
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// Opens a WebSocket and has two texts sent back.
fn websocket(to: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        b"GET /chat HTTP/1.1\r\nhost: shop\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-version: 13\r\n\
          sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )?;
    let head = read_head(&mut stream)?;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    let mut answers = String::new();
    for text in ["hello", "again"] {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let masked: Vec<u8> = text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        stream.write_all(&[&[0x81, 0x80 | text.len() as u8], MASK.as_slice(), &masked].concat())?;
        let mut frame = vec![0; 2 + text.len()];
        stream.read_exact(&mut frame)?;
        answers.push_str(std::str::from_utf8(&frame[2..]).unwrap());
    }
    Ok(answers)
}

#[test]
fn a_websocket_goes_through_both_sidecars() {
    let Some(mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let listener = shop.run(|| TcpListener::bind(any(8080)).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || serve_websocket(stream));
        }
    });
    assert_eq!(web.run(|| websocket((cluster_ip(1), 80).into())).unwrap(), "helloagain");
    assert_eq!(web.run(|| websocket((shop.net.v4, 8080).into())).unwrap(), "helloagain");
    for (pod, reporter) in [(web, "source"), (shop, "destination")] {
        let switched = [("response_code", "101"), ("destination_workload", "shop"), ("reporter", reporter)];
        wait::until("WebSockets in the metrics", || {
            pod.scrape().sum("istio_requests_total", &switched) >= 1.0
        });
    }
}

#[test]
fn an_applications_own_tls_is_passed_through() {
    let Some(mut mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let stranger = mesh.stranger();
    let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
    let pki = Pki::new();
    serve_tls(shop.run(|| TcpListener::bind(any(8443)).unwrap()), &pki.trusted.leaf("shop"));
    let tls = Tls::trusting(&pki.trusted, "shop.default.svc.cluster.local");
    let ask = |to: SocketAddr| RawClient::connect_tls(to, &tls).unwrap().get("shop", "/").unwrap().text();
    assert_eq!(web.run(|| ask((cluster_ip(1), 443).into())), "tls");
    assert_eq!(web.run(|| ask((shop.net.v6, 8443).into())), "tls");
    // A client without a sidecar: TLS that is not the mesh's is the application's.
    assert_eq!(stranger.enter(APPLICATION, || ask((shop.net.v4, 8443).into())), "tls");
}

/// An application's own TLS. It answers each request with `tls`.
fn serve_tls(listener: TcpListener, leaf: &Leaf) {
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(leaf.chain_der(), leaf.key_der())
        .unwrap();
    thread::spawn(move || {
        let config = Arc::new(config);
        for stream in listener.incoming().flatten() {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream);
            let mut request = [0; 1024];
            if stream.read(&mut request).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\ntls");
            }
        }
    });
}

#[test]
fn destinations_outside_the_mesh_are_reached_as_they_are() {
    let Some(mut mesh) = PodMesh::start(&["web"], SERVICES) else { return };
    let outside = mesh.stranger();
    let web = mesh.pod("web");
    let server = outside.enter(APPLICATION, || Upstream::start_at(any(8080)));
    for ip in outside.ips() {
        assert_eq!(web.get((ip, 8080), "outside").status, 200, "{ip}");
    }
    assert_eq!(server.take_requests().len(), 2);
    // Nobody there: what the client sees is a connection that ends.
    let refused = web.run(|| talk((outside.v4, 9).into(), "x"));
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.is_empty()));
}

/// Hosts that have no address of their own: any below `wiki.example`, and a range of addresses.
fn outside_hosts(range: &str) -> String {
    let entry = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\nspec: \
             {{resolution: NONE, {spec}}}\n---\n"
        )
    };
    let wiki = "hosts: ['*.wiki.example'], ports: [{number: 8080, name: http, protocol: HTTP}, {number: 8443, name: tls, protocol: TLS}]";
    let net = format!(
        "hosts: [net.example], addresses: ['{range}'], ports: [{{number: 9000, name: tcp, protocol: TCP}}]"
    );
    entry("wiki", wiki) + &entry("net", &net)
}

#[test]
fn hosts_are_let_out_by_what_connections_say() {
    let pki = Pki::new();
    for (policy, of_others) in [("REGISTRY_ONLY", Some(502)), ("ALLOW_ANY", Some(200))] {
        let flags = ["--access-log", "--outbound-traffic-policy", policy];
        let Some(mut mesh) = PodMesh::start_with(&["web", "shop"], SERVICES, &flags) else { return };
        let outside = mesh.stranger();
        let (web, shop) = (mesh.pod("web"), mesh.pod("shop"));
        let server = outside.enter(APPLICATION, || Upstream::start_at(any(8080)));
        let leaf = pki.trusted.leaf_named("outside", "*.wiki.example");
        serve_tls(outside.enter(APPLICATION, || TcpListener::bind(any(8443)).unwrap()), &leaf);
        let _echoes = [9000, 9001]
            .map(|port| outside.enter(APPLICATION, || TcpUpstream::start_at(any(port), TcpBehaviour::Echo)));
        let _shop = http(shop, 8080);
        let ask = |ip: IpAddr, host: &str| {
            let answer = web
                .run(|| RawClient::connect((ip, 8080).into()).and_then(|mut client| client.get(host, "/")));
            answer.ok().map(|answer| answer.status)
        };
        let range = format!("{}/24", outside.v4);
        mesh.write("outside.yaml", &outside_hosts(&range));
        wait::until("a listener of the port", || {
            mesh.pod("web").page(15000, "/listeners").contains("0.0.0.0_9000")
        });
        wait::until("the host is let out", || ask(outside.v4.into(), "a.wiki.example") == Some(200));
        server.take_requests();
        for ip in outside.ips() {
            assert_eq!(ask(ip, "b.c.wiki.example:8080"), Some(200), "{policy} {ip}");
            assert_eq!(ask(ip, "other.example"), of_others, "{policy} {ip}");
        }
        let hosts: Vec<_> = server
            .take_requests()
            .iter()
            .map(|request| request.headers.get("host").unwrap().to_owned())
            .collect();
        assert_eq!(hosts.iter().filter(|host| *host == "b.c.wiki.example:8080").count(), 2, "{hosts:?}");
        assert_eq!(hosts.len(), if policy == "ALLOW_ANY" { 4 } else { 2 }, "{hosts:?}");
        // A Pod on the same port is still a Pod of the mesh, whatever its host is called.
        assert_eq!(web.get((shop.net.v4, 8080), "whatever").text(), "shop");

        let is_open = policy == "ALLOW_ANY";
        let tls = |name: &str| {
            let tls = Tls::trusting(&pki.trusted, name);
            let get = || {
                RawClient::connect_tls((outside.v4, 8443).into(), &tls)
                    .and_then(|mut client| client.get(name, "/"))
            };
            web.run(get).map(|answer| answer.text()).map_err(|error| error.to_string())
        };
        assert_eq!(tls("a.wiki.example").as_deref(), Ok("tls"), "{policy}");
        // The server does not have that name, so who reaches it sees a certificate that is another's.
        let error = tls("other.example").unwrap_err();
        assert_eq!(error.contains("certificate"), is_open, "{policy}: {error}");
        let echoes =
            |port: u16| web.run(|| talk((outside.v4, port).into(), "x")).is_ok_and(|answer| answer == "x");
        assert!(echoes(9000), "{policy}");
        assert_eq!(echoes(9001), is_open, "{policy}");
        let clusters =
            ["outbound|8080||*.wiki.example", "outbound|8443||*.wiki.example", "outbound|9000||net.example"];
        wait::until("access logs", || clusters.iter().all(|cluster| mesh.log("web").contains(cluster)));
    }
}

#[test]
fn a_killed_sidecar_and_a_killed_control_plane_come_back() {
    let Some(mut mesh) = PodMesh::start(&["web", "shop"], SERVICES) else { return };
    let _http = http(mesh.pod("shop"), 8080);
    let ask = |mesh: &PodMesh| {
        mesh.pod("web").run(|| {
            RawClient::connect((cluster_ip(1), 80).into())
                .and_then(|mut client| client.get("shop", "/"))
                .is_ok_and(|answer| answer.status == 200)
        })
    };
    assert!(ask(&mesh));
    mesh.kill_control_plane();
    assert!(ask(&mesh), "the traffic needs no control plane");
    mesh.pods[1].kill_sidecar();
    assert!(!ask(&mesh), "nothing goes round a sidecar that is dead");
    mesh.restart_control_plane();
    mesh.start_sidecar(1);
    mesh.wait_ready(1);
    wait::until("the traffic goes on", || ask(&mesh));
}
