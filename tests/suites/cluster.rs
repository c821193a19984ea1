//! The whole on Kubernetes' interfaces: Pods of Deployments that our webhook injected, captured by our own init container, in network
//! namespaces; what their applications see, and what happens when parts of the cluster go away.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use outrigger_kube_api::Cut;
use outrigger_tests::Response;
use outrigger_tests::certs::spiffe;
use outrigger_tests::client::{Http2Client, RawClient, talk};
use outrigger_tests::injected::InjectedMesh;
use outrigger_tests::kubelet::{Exit, Pod, Program, Sandbox};
use outrigger_tests::pods::{APPLICATION, any, cluster_ip, cluster_ip6};
use outrigger_tests::prometheus::Scrape;
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
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: mysql, port: 3306}
  - {name: grpc, port: 50051}
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
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: all, namespace: default}}\n\
         spec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

const JOB: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: batch, namespace: default}
---
apiVersion: batch/v1
kind: Job
metadata: {name: batch, namespace: default}
spec:
  template:
    metadata: {labels: {app: batch}}
    spec:
      serviceAccountName: batch
      automountServiceAccountToken: false
      restartPolicy: Never
      containers: [{name: app, image: batch}]
";

/// A Deployment of an image of its own name, with its service account.
fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: default}}\n---\n\
         apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  \
         replicas: {replicas}\n  selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    \
         metadata:\n      labels: {{app: {name}}}\n      annotations: {{prometheus.io/scrape: 'true', \
         prometheus.io/port: '8080', prometheus.io/path: /metrics}}\n    spec:\n      \
         serviceAccountName: {name}\n      automountServiceAccountToken: false\n      containers:\n      \
         - {{name: app, image: {name}, ports: [{{containerPort: 8080}}]}}\n---\n"
    )
}

/// HTTP with metrics, gRPC and an echo; all end at once when they are told to.
fn shop() -> Program {
    Program::server(|sandbox| {
        let (http, name) = (Upstream::start_at(any(8080)), sandbox.name().to_owned());
        http.answer_with(move |request| match request.target.as_str() {
            "/metrics" => Reply::Respond(
                Response::new(200, "# TYPE app_calls_total counter\napp_calls_total 7\n")
                    .header("content-type", "text/plain; version=0.0.4"),
            ),
            _ => Reply::status(200, &name),
        });
        let grpc = Http2Upstream::start_at(any(50051));
        grpc.answer(Reply::status(200, "from h2"));
        let echo = TcpUpstream::start_at(any(3306), TcpBehaviour::Echo);
        Box::new(move || drop((http, grpc, echo)))
    })
}

/// Somebody who only calls.
fn caller() -> Program {
    Program::server(|_| Box::new(|| {}))
}

fn mesh() -> Option<InjectedMesh> {
    let mut mesh = InjectedMesh::start(SERVICES)?;
    mesh.image("shop", shop());
    mesh.image("web", caller());
    Some(mesh)
}

/// The only Pod of a Deployment.
#[track_caller]
fn deploy(mesh: &mut InjectedMesh, name: &str) -> Pod {
    mesh.deploy(&deployment(name, 1)).pop().expect("a pod")
}

#[test]
fn pods_of_deployments_reach_one_another() {
    let Some(mut mesh) = mesh() else { return };
    let (web, shop) = (deploy(&mut mesh, "web"), deploy(&mut mesh, "shop"));
    let by_service: [IpAddr; 2] = [cluster_ip(1).into(), cluster_ip6(1).into()];
    let [by_pod, by_pod6] = shop.sandbox.net.ips();
    let reached = |to: SocketAddr, host: &str| {
        wait::until(&format!("{to} answers"), || web.get(to, host).text() == shop.name());
    };
    for ip in by_service {
        reached((ip, 80).into(), "shop");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "echo")).unwrap(), "echo", "{ip}");
        let grpc = web.run(|| Http2Client::connect((ip, 50051).into())?.get("shop", "/a.B/C"));
        assert_eq!(grpc.unwrap().text(), "from h2", "{ip}");
    }
    for ip in [by_pod, by_pod6] {
        reached((ip, 8080).into(), "headless");
        assert_eq!(web.run(|| talk((ip, 3306).into(), "echo")).unwrap(), "echo", "{ip}");
    }

    // One scrape has both, and the sidecar's names both workloads and both identities.
    let (source, destination) = (spiffe("web"), spiffe("shop"));
    let who = [
        ("reporter", "destination"),
        ("source_workload", "web"),
        ("destination_workload", "shop"),
        ("source_principal", source.as_str()),
        ("destination_principal", destination.as_str()),
        ("connection_security_policy", "mutual_tls"),
    ];
    let page = shop.page(15020, "/stats/prometheus");
    let scrape = Scrape::parse(&page).unwrap();
    assert!(scrape.sum("istio_requests_total", &who) >= 6.0, "{page}");
    assert_eq!(scrape.sum("app_calls_total", &[]), 7.0, "{page}");
}

#[test]
fn what_goes_over_the_network_is_encrypted_unless_it_is_switched_off() {
    let Some(mut mesh) = mesh() else { return };
    let (web, shop) = (deploy(&mut mesh, "web"), deploy(&mut mesh, "shop"));
    wait::until("the mesh", || web.get((cluster_ip(1), 80), "shop").text() == shop.name());
    // A request and a stream.
    let call = |(ip, port): (Ipv4Addr, u16)| {
        let ask = || RawClient::connect((ip, port).into())?.get("shop", "/payload-of-a-request");
        web.run(ask).is_ok_and(|answer| answer.status == 200)
            && web.run(|| talk((ip, 3306).into(), "payload-of-a-stream")).is_ok_and(|text| text.len() == 19)
    };
    // By the Service's address and by the pod's: whether all are answered, and how much of them can be read.
    let calls = || {
        let recording = mesh.sniff();
        let all_answered = [(cluster_ip(1), 80), (shop.sandbox.net.v4, 8080)].into_iter().all(call);
        let frames = recording.finish();
        (
            all_answered,
            frames.len() > 1000,
            frames.windows(11).filter(|bytes| bytes == b"payload-of-").count(),
        )
    };
    assert_eq!(calls(), (true, true, 0));
    mesh.cluster.put(&peer_authentication("DISABLE"));
    // Request, stream there and stream back, each twice. Calls may fail while one of the two sidecars knows and the other does not.
    wait::until("plaintext of all calls", || matches!(calls(), (true, true, 6..)));
}

#[test]
fn traffic_goes_on_without_the_control_plane_and_the_api_server() {
    let Some(mut mesh) = mesh() else { return };
    let (web, shop) = (deploy(&mut mesh, "web"), deploy(&mut mesh, "shop"));
    let shop_at = SocketAddr::from((cluster_ip(1), 80));
    wait::until("the mesh", || web.get(shop_at, "shop").text() == shop.name());
    let all_answered = || {
        for _ in 0..20 {
            assert_eq!(web.get(shop_at, "shop").text(), shop.name());
        }
    };
    mesh.cluster.server.cut_watches(None, Cut::Reset);
    all_answered();
    mesh.kill_control_plane();
    all_answered();
    // Nobody who should have a sidecar comes without one.
    let refused = mesh.try_deploy(&deployment("shop", 1)).unwrap_err();
    assert!(refused.contains("failed calling webhook"), "{refused}");
    mesh.cluster.server.kill();
    all_answered();

    // What is changed meanwhile is found by whoever comes back.
    mesh.cluster.put(&peer_authentication("STRICT"));
    mesh.restart_control_plane();
    all_answered();
    mesh.restart_api_server();
    let stranger = mesh.stranger();
    let plain =
        || stranger.enter(APPLICATION, || RawClient::connect(shop.sandbox.address(8080))?.get("shop", "/"));
    wait::until("STRICT holds", || plain().is_err());
    all_answered();
    // One that starts now is found by the old ones.
    let second = deploy(&mut mesh, "shop");
    wait::until("the new pod gets requests", || web.get(shop_at, "shop").text() == second.name());
}

/// An application that ends well: it serves on until nobody has asked for a second and the stream is over.
fn lame_duck(stream_is_over: Arc<AtomicBool>) -> Program {
    Program::server(move |sandbox| {
        let (http, grpc) = (Upstream::start_at(any(8080)), Http2Upstream::start_at(any(50051)));
        http.answer(Reply::status(200, sandbox.name()));
        grpc.answer(Reply::status(200, sandbox.name()));
        let echo = TcpUpstream::start_at(any(3306), TcpBehaviour::Echo);
        let is_over = stream_is_over.clone();
        Box::new(move || {
            let asked = || http.recorded() + grpc.recorded();
            let mut before = asked();
            while wait::within(Duration::from_secs(1), || (asked() != before).then_some(())).is_some()
                || !is_over.load(Ordering::Acquire)
            {
                before = asked();
            }
            drop(echo);
        })
    })
}

/// What one client of the load has seen.
#[derive(Default)]
struct Seen {
    answered: usize,
    by_the_leaving: usize,
    failed: Vec<String>,
}

/// About 60 requests a second over one connection.
fn load(stop: &AtomicBool, leaving: &str, mut ask: impl FnMut() -> anyhow::Result<Response>) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Acquire) && seen.failed.is_empty() {
        match ask() {
            Ok(answer) if answer.status == 200 => {
                seen.answered += 1;
                seen.by_the_leaving += usize::from(answer.text() == leaving);
            }
            Ok(answer) => seen.failed.push(format!("{} {}", answer.status, answer.text())),
            Err(error) => seen.failed.push(format!("{error:#}")),
        }
        // The rate.
        thread::sleep(Duration::from_millis(16));
    }
    seen
}

/// Sends and receives over one connection until it is told to stop: how often, and what went wrong.
fn long_stream(to: SocketAddr, stop: &AtomicBool) -> io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut rounds = 0;
    while !stop.load(Ordering::Acquire) {
        stream.write_all(b"ping")?;
        stream.read_exact(&mut [0; 4])?;
        rounds += 1;
        thread::sleep(Duration::from_millis(20));
    }
    stream.shutdown(Shutdown::Write)?;
    let rest = stream.read(&mut [0; 4])?;
    if rest == 0 { Ok(rounds) } else { Err(io::Error::other("more than was sent")) }
}

#[test]
fn a_killed_sidecar_comes_back() {
    let Some(mut mesh) = mesh() else { return };
    let (web, mut shop) = (deploy(&mut mesh, "web"), deploy(&mut mesh, "shop"));
    let shop_at = SocketAddr::from((cluster_ip(1), 80));
    let answer = |shop: &Pod| {
        web.run(|| RawClient::connect(shop_at)?.get("shop", "/")).is_ok_and(|it| it.text() == shop.name())
    };
    wait::until("the mesh", || answer(&shop));
    mesh.crash_sidecars(&mut shop, |shop| {
        assert!(!answer(shop), "something goes round a sidecar that is dead");
    });
    wait::until("the traffic goes on", || answer(&shop));
}

#[test]
fn nobody_notices_that_a_pod_is_deleted() {
    let Some(mut mesh) = mesh() else { return };
    let (stream_is_over, stop) = (Arc::new(AtomicBool::new(false)), AtomicBool::new(false));
    mesh.image("shop", lame_duck(stream_is_over.clone()));
    let web = deploy(&mut mesh, "web");
    let mut shops = mesh.deploy(&deployment("shop", 2));
    let (leaving, staying) = (shops.pop().unwrap(), shops.pop().unwrap());
    let shop_at = |port: u16| SocketAddr::from((cluster_ip(1), port));
    for pod in [&leaving, &staying] {
        wait::until("both serve", || web.get(shop_at(80), "shop").text() == pod.name());
    }
    let (gone, of_leaving) = (leaving.name().to_owned(), leaving.sandbox.address(3306));
    let (inbound, node) = (leaving.sandbox.address(15006), mesh.stranger());
    let h1 = || {
        let mut client = RawClient::connect(shop_at(80)).unwrap();
        load(&stop, &gone, || Ok(client.get("shop", "/")?))
    };
    let h2 = || {
        let client = Http2Client::connect(shop_at(50051)).unwrap();
        load(&stop, &gone, || client.get("shop", "/a.B/C"))
    };
    let (ends, rounds, loads) = thread::scope(|scope| {
        let stream = scope.spawn(|| web.run(|| long_stream(of_leaving, &stream_is_over)));
        let mut loads: Vec<_> = (0..5).map(|_| scope.spawn(|| web.run(h1))).collect();
        loads.extend((0..5).map(|_| scope.spawn(|| web.run(h2))));
        // The stream lasts longer than anything new is let in.
        scope.spawn(|| {
            let accepts = || node.enter(APPLICATION, || TcpStream::connect(inbound).is_ok());
            wait::until("inbound is closed", || !accepts());
            stream_is_over.store(true, Ordering::Release);
        });
        let ends = mesh.delete(leaving);
        stop.store(true, Ordering::Release);
        let loads: Vec<Seen> = loads.into_iter().map(|load| load.join().unwrap()).collect();
        (ends, stream.join().unwrap(), loads)
    });
    let requests: usize = loads.iter().map(|load| load.answered).sum();
    let failed: Vec<_> = loads.iter().flat_map(|load| &load.failed).collect();
    assert!(failed.is_empty(), "{} of {requests}: {failed:?}", failed.len());
    assert!(loads.iter().any(|load| load.by_the_leaving > 0), "the deleted pod had nothing to do");
    assert!(requests > 500, "{requests} requests are no load");
    assert!(rounds.unwrap() > 50);
    assert_eq!(ends, [("app".to_owned(), Exit::Code(0)), ("outrigger-proxy".to_owned(), Exit::Code(0))]);
}

#[test]
fn a_job_ends_with_its_sidecar() {
    let Some(mut mesh) = mesh() else { return };
    let _shop = deploy(&mut mesh, "shop");
    let called = Arc::new(AtomicBool::new(false));
    let answered = called.clone();
    let batch = move |_: &Sandbox| {
        let to = SocketAddr::from((cluster_ip(1), 80));
        let answer = RawClient::connect(to).and_then(|mut client| client.get("shop", "/"));
        let is_good = answer.is_ok_and(|answer| answer.status == 200);
        answered.store(is_good, Ordering::Release);
        i32::from(!is_good)
    };
    mesh.image("batch", Program::task(batch));
    let pod = mesh.deploy(JOB).pop().unwrap();
    let ends = mesh.wait_complete(pod);
    assert!(called.load(Ordering::Acquire), "its first call, as soon as it runs, arrives");
    assert_eq!(ends, [("app".to_owned(), Exit::Code(0)), ("outrigger-proxy".to_owned(), Exit::Code(0))]);
}
