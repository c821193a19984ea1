//! The life of a sidecar beside its application: one page of metrics, hooks, and an end that nobody notices.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::{IpAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use outrigger_tests::mesh::{Mesh, Workload};
use outrigger_tests::netns::Network;
use outrigger_tests::prometheus_server::PrometheusServer;
use outrigger_tests::proxy::binary;
use outrigger_tests::tools::require_tool;
use outrigger_tests::upstream::{Gate, Reply};
use outrigger_tests::{RawClient, Response, Upstream, addr, client, prometheus, wait};

const PAIR: [(&str, &str, &str); 2] = [("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1")];

/// Inbound connections are accepted for a second once the drain has begun.
const MOMENT: (&str, &str) = ("OUTRIGGER_MINIMUM_DRAIN_TIME_S", "1");

fn status(workload: &Workload, port: u16) -> u16 {
    client::get((workload.ip, port).into(), "kubelet", "/healthz/ready").status
}

/// What a lifecycle hook of the pod runs.
fn hook(workload: &Workload, args: &[&str]) -> Output {
    Command::new(binary("outrigger-proxy"))
        .args(args)
        .env("INSTANCE_IP", workload.ip.to_string())
        .output()
        .unwrap()
}

#[track_caller]
fn drain(workload: &Workload) {
    let output = hook(workload, &["request", "POST", "/drain"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"OK\n");
}

fn accepts_inbound(workload: &Workload) -> bool {
    TcpStream::connect(workload.inbound()).is_ok()
}

#[test]
fn one_scrape_has_the_metrics_of_sidecar_and_application() {
    let annotations = r#"{"scrape":"true","path":"/metrics","port":"9080"}"#;
    let mut pods = PAIR.to_vec();
    pods.push(("open-0", "open", "v1"));
    let mesh = Mesh::start_with_env(&pods, "", &[("ISTIO_PROMETHEUS_ANNOTATIONS", annotations)]);
    for workload in &mesh.workloads {
        let name = workload.app.clone();
        let is_open = name == "open";
        workload.upstream.answer_with(move |request| match (request.target.as_str(), is_open) {
            ("/metrics", true) => {
                let format = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                let page = format!("# TYPE app_calls counter\napp_calls_total{{app=\"{name}\"}} 7\n# EOF\n");
                Reply::Respond(Response::new(200, page).header("content-type", format))
            }
            ("/metrics", false) => {
                let page = format!("# TYPE app_calls_total counter\napp_calls_total{{app=\"{name}\"}} 7\n");
                Reply::Respond(Response::new(200, page).header("content-type", "what/ever"))
            }
            _ => Reply::status(200, &name),
        });
    }
    let [web, reviews, open] = &mesh.workloads[..] else { unreachable!() };
    for _ in 0..5 {
        assert_eq!((web.get("reviews").text(), web.get("open").text()), ("reviews".into(), "open".into()));
    }
    let Some(server) = PrometheusServer::start(&[reviews.agent(), open.agent()]) else { return };
    server.wait_up(2);
    for workload in [reviews, open] {
        let app = &workload.app;
        server.wait_for(&format!("sum(app_calls_total{{app=\"{app}\"}})"), 7.0);
        let of = format!("reporter=\"destination\",destination_workload=\"{}\"", workload.pod);
        server.wait_for(&format!("sum(istio_requests_total{{{of}}})"), 5.0);
    }
    let page = client::get(reviews.agent(), "prometheus", "/stats/prometheus");
    let Some(complaints) = prometheus::complaints(&page.body) else { return };
    let ours: Vec<&String> = complaints.iter().filter(|line| !line.starts_with("app_")).collect();
    assert_eq!(ours, Vec::<&String>::new());
}

#[test]
fn a_drain_closes_inbound_and_leaves_outbound_until_the_application_is_gone() {
    let mut mesh = Mesh::start_with_env(&PAIR, "", &[MOMENT]);
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
    assert_eq!((status(reviews, 15020), status(reviews, 15021)), (200, 200));
    assert_eq!((web.get("reviews").status, reviews.get("web").status), (200, 200));
    let mut of_application = RawClient::connect(reviews.outbound()).unwrap();
    let began = Instant::now();
    drain(reviews);
    wait::until("it is not ready", || status(reviews, 15020) == 503 && status(reviews, 15021) == 503);
    // Callers that don't know yet are served.
    assert_eq!(web.get("reviews").status, 200);
    assert!(accepts_inbound(reviews));
    wait::until("inbound is closed", || !accepts_inbound(reviews));
    assert!(began.elapsed() >= Duration::from_secs(1));
    // The application may still call others, and those that it does not know yet.
    assert_eq!(reviews.get("web").status, 200);
    assert_eq!(of_application.get("web:9080", "/").unwrap().status, 200);

    let reviews = &mut mesh.workloads[1];
    reviews.sidecar().terminate();
    wait::until("SIGTERM is seen", || reviews.sidecar().stderr().contains("caught SIGTERM"));
    for _ in 0..20 {
        assert_eq!(of_application.get("web:9080", "/").unwrap().status, 200);
    }
    assert!(reviews.sidecar_mut().is_running());
    drop(of_application);
    let ended = reviews.sidecar_mut().wait_exit(wait::PATIENCE).expect("it ends with the application");
    assert!(ended.success(), "{}", reviews.sidecar().stderr());
}

#[test]
fn connections_end_at_a_request_boundary() {
    let mesh = Mesh::start_with_env(&PAIR, "", &[MOMENT]);
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
    let gate = Gate::closed();
    let held = gate.clone();
    reviews.upstream.answer_with(move |_| Reply::Hold(held.clone(), Box::new(Reply::status(200, "late"))));
    thread::scope(|scope| {
        let answer = scope.spawn(|| web.get("reviews"));
        wait::until("the request is there", || reviews.upstream.recorded() > 0);
        drain(reviews);
        wait::until("inbound is closed", || !accepts_inbound(reviews));
        assert!(connections(reviews) > 0);
        gate.open();
        let answer = answer.join().unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "late"));
    });
    wait::until("nobody is left", || connections(reviews) == 0);
}

/// Downstream connections of the inbound listener.
fn connections(workload: &Workload) -> usize {
    let name = "http.inbound";
    let stats = workload.sidecar().admin("/stats?filter=downstream_cx_active").text();
    stats
        .lines()
        .filter(|line| line.contains(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok())
        .sum()
}

#[test]
fn nobody_notices_that_a_pod_is_deleted() {
    let pods = [PAIR[0], PAIR[1], ("reviews-v1-1", "reviews", "v1")];
    let mut mesh = Mesh::start_with_env(&pods, "", &[("OUTRIGGER_MINIMUM_DRAIN_TIME_S", "3")]);
    let stop = AtomicBool::new(false);
    let [web, _, leaving] = &mesh.workloads[..] else { unreachable!() };
    let load = || {
        let mut client = RawClient::connect(web.outbound()).unwrap();
        let mut answers = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            match client.get("reviews:9080", "/") {
                Ok(response) => answers.push((response.status, response.text())),
                Err(error) => {
                    answers.push((0, error.to_string()));
                    break;
                }
            }
        }
        answers
    };
    let answers: Vec<(u16, String)> = thread::scope(|scope| {
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        wait::until("it has work", || leaving.upstream.recorded() > 50);
        let (began, served) = (Instant::now(), leaving.upstream.recorded());
        drain(leaving);
        // Its callers learn of it later; until then they are served, over connections that end one after the other.
        wait::until("callers still come", || {
            leaving.upstream.recorded() > served + 50 && began.elapsed() > Duration::from_millis(500)
        });
        mesh.remove_endpoint("reviews-v1-1");
        wait::until("inbound is closed", || !accepts_inbound(leaving));
        leaving.sidecar().terminate();
        wait::until("it is gone", || TcpStream::connect(leaving.agent()).is_err());
        stop.store(true, Ordering::Relaxed);
        loads.into_iter().flat_map(|load| load.join().unwrap()).collect()
    });
    let failed: Vec<_> = answers.iter().filter(|(status, _)| *status != 200).collect();
    assert!(failed.is_empty(), "{} of {}: {:?}", failed.len(), answers.len(), failed[0]);
    let ended = mesh.workloads[2].sidecar_mut().wait_exit(wait::PATIENCE);
    assert!(ended.is_some_and(|status| status.success()));
}

#[test]
fn the_grace_period_is_the_deadline() {
    let mut mesh = Mesh::start_with_env(&PAIR, "", &[MOMENT, ("TERMINATION_GRACE_PERIOD_SECONDS", "4")]);
    let reviews = &mut mesh.workloads[1];
    let _open = RawClient::connect(reviews.outbound()).unwrap();
    wait::until("it is accepted", || {
        reviews.sidecar().stat("server.total_connections").is_some_and(|n| n > 0)
    });
    let began = Instant::now();
    reviews.sidecar().terminate();
    let ended = reviews.sidecar_mut().wait_exit(wait::PATIENCE);
    assert!(ended.is_some_and(|status| status.success()), "{}", reviews.sidecar().stderr());
    // Three seconds of draining and one for the rest; without a grace period it would be 25.
    let took = began.elapsed();
    assert!((Duration::from_millis(2_900)..Duration::from_secs(20)).contains(&took), "{took:?}");
    assert!(reviews.sidecar().stderr().contains("connections are left"), "{}", reviews.sidecar().stderr());
}

#[test]
fn without_anybody_it_ends_as_soon_as_callers_know_and_a_second_signal_does_not_wait() {
    let mut mesh = Mesh::start_with_env(&PAIR, "", &[MOMENT]);
    let [web, reviews] = &mut mesh.workloads[..] else { unreachable!() };
    let began = Instant::now();
    web.sidecar().terminate();
    assert!(web.sidecar_mut().wait_exit(wait::PATIENCE).is_some_and(|status| status.success()));
    assert!(began.elapsed() >= Duration::from_secs(1));

    let _open = RawClient::connect(reviews.outbound()).unwrap();
    reviews.sidecar().terminate();
    wait::until("it drains", || reviews.sidecar().stderr().contains("draining"));
    reviews.sidecar().terminate();
    assert!(reviews.sidecar_mut().wait_exit(wait::PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn hooks_wait_and_ask() {
    let mesh = Mesh::start(&PAIR[..1], "");
    let web = mesh.workload("web-0");
    let output = hook(web, &["wait", "--timeout-s=20"]);
    assert!(output.status.success(), "{output:?}");
    let output = hook(web, &["request", "get", "stats/prometheus"]);
    assert!(String::from_utf8(output.stdout).unwrap().contains("envoy_server_live 1"));
    let output = hook(web, &["request", "GET", "/drain"]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("405"),
        "{output:?}"
    );
    let nobody = format!("--agent-address={}", addr::free_addr());
    let output = hook(web, &["wait", "--timeout-s=1", &nobody]);
    assert!(
        !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("not ready"),
        "{output:?}"
    );
    let output = hook(web, &["request", "POST", "/quitquitquit"]);
    assert!(output.status.success(), "{output:?}");
    wait::until("it is gone", || TcpStream::connect(web.agent()).is_err());
}

#[test]
fn probes_and_metrics_pass_the_capture() {
    let Some(mut network) = Network::new() else { return };
    for program in ["nft", "setpriv"] {
        if require_tool(program).is_none() {
            return;
        }
    }
    let (pod, outside) = (network.pod(), network.pod());
    pod.sh(&format!("{} capture", binary("outrigger-proxy").display()));
    let app = [pod.v4.into(), pod.v6.into(), [127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()]
        .map(|ip: IpAddr| {
            let upstream = pod.enter(0, || Upstream::start_at((ip, 8080).into()));
            upstream.answer_with(move |request| {
                Reply::status(200, &format!("app_called_from{{ip=\"{}\"}} 1\n", request.peer.ip()))
            });
            upstream
        });
    let probes =
        r#"{"/app-health/app/livez": {"httpGet": {"path": "/", "port": 8080}, "timeoutSeconds": 5}}"#;
    for (ip, from) in [(IpAddr::from(pod.v4), "127.0.0.6"), (pod.v6.into(), "::6")] {
        // No control plane: the agent serves without. The capability is for the way to the program.
        let sidecar = pod
            .command("setpriv")
            .args(["--reuid=1337", "--regid=1337", "--clear-groups"])
            .args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"])
            .arg(binary("outrigger-proxy"))
            .args(["sidecar", "--interception-mode=REDIRECT", "--xds-address=127.0.0.1:1"])
            .env("INSTANCE_IP", ip.to_string())
            .envs([("POD_NAME", "app-0"), ("POD_NAMESPACE", "default")])
            .env("ISTIO_KUBE_APP_PROBERS", probes)
            .env("ISTIO_PROMETHEUS_ANNOTATIONS", r#"{"scrape":"true","port":"8080"}"#)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut sidecar = Killed(sidecar);
        let agent = (ip, 15020).into();
        let ask = |head: &str| {
            outside.enter(1000, || {
                let mut client = RawClient::connect(agent).ok()?;
                client.send(format!("{head} HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").as_bytes());
                client.response().ok()
            })
        };
        let answer = wait::eventually("the agent answers", || ask("GET /app-health/app/livez"));
        assert_eq!((answer.status, answer.text()), (200, format!("app_called_from{{ip=\"{from}\"}} 1\n")));
        let page = ask("GET /stats/prometheus").unwrap().text();
        assert!(page.contains("envoy_server_live 0") && page.contains("app_called_from"), "{page}");
        // Only the pod itself may end it.
        assert_eq!(ask("POST /quitquitquit").unwrap().status, 403);
        assert_eq!(ask("POST /drain").unwrap().status, 403);
        let quit =
            format!("INSTANCE_IP={ip} {} request POST /quitquitquit", binary("outrigger-proxy").display());
        assert_eq!(pod.sh(&quit), "OK\n");
        assert!(sidecar.0.wait().unwrap().success());
    }
    drop(app);
}

/// A process that does not outlive the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
