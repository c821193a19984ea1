//! The steps, in the order in which they are shown. Each says what it does and checks what it claims.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use super::envoy;
use super::http::Connection;
use super::load::{CALLERS, Counts, Load};
use super::mesh::Mesh;
use super::objects::{
    self, APP_PORT, CONSECUTIVE_ERRORS, ENVOY, REVIEWS_V1_A, REVIEWS_V1_B, STRANGER, WEB, broken_route, route,
};
use super::prometheus::Scrape;
use super::report::Report;

/// Requests in each measured stretch of load.
const SAMPLE: u64 = 3_000;
/// 99.9 % of a normal distribution lies within so many standard deviations.
const Z_999: f64 = 3.2905;

pub(super) async fn run(mesh: &mut Mesh, report: &mut Report) -> anyhow::Result<()> {
    let sidecar = SocketAddr::from((WEB.address, 15001));
    identities(sidecar, report).await?;
    stranger(report).await?;
    latency(sidecar, report).await?;
    let load = Load::start(sidecar);
    let outcome = under_load(mesh, &load, report).await;
    report.row("requests under load", load.total().to_string());
    load.stop().await;
    outcome?;
    envoy_joins(mesh, report).await?;
    samples(report).await
}

async fn under_load(mesh: &mut Mesh, load: &Load, report: &mut Report) -> anyhow::Result<()> {
    let mut failures = split(load, report).await?;
    failures += swap(mesh, load, report).await?;
    let errors = ejection(mesh, load, report).await?;
    failures += refusal(mesh, load, report).await?;
    failures += rotation(load, report).await?;
    failures += without_control_plane(mesh, load, report).await?;
    report
        .row("failed requests", format!("{failures} (and the {errors} answers 500 of the broken instance)"));
    Ok(())
}

/// web → its sidecar → mutual TLS 1.3 → the peer's sidecar → reviews.
async fn identities(sidecar: SocketAddr, report: &mut Report) -> anyhow::Result<()> {
    report.step("One request through two sidecars");
    let (status, body) = Connection::open(sidecar).await?.get(&format!("reviews:{APP_PORT}"), "/").await?;
    let answer = String::from_utf8_lossy(&body).trim().to_owned();
    report.check(format!("web → reviews answers {status}: \"{answer}\""), status.is_success());
    let requests =
        |side: &'static str| [side, "destination_service_namespace=\"default\"", "response_code=\"200\""];
    let source = Scrape::of(WEB.address).await?;
    let labels = requests("reporter=\"source\"");
    let identity = |name| source.label("istio_requests_total", &labels, name).unwrap_or_default();
    let (from, to) = (identity("source_principal"), identity("destination_principal"));
    report.check(
        format!("mutual TLS: {from} called {to}"),
        from == "spiffe://cluster.local/ns/default/sa/web"
            && to == "spiffe://cluster.local/ns/default/sa/reviews",
    );
    report.row("identities", format!("{from} → {to}"));
    let certs = super::http::get(SocketAddr::from((WEB.address, 15000)), "/certs").await?;
    report.check(
        "web's certificate was issued for a CSR made in its sidecar",
        certs.contains("spiffe://cluster.local/ns/default/sa/web"),
    );
    let tls = source.lines("envoy_cluster_ssl_versions_total", &["TLSv1.3"]).next().is_some()
        || source.sum("envoy_cluster_ssl_handshake", &["reviews"]) >= 1.0
        || source.sum("envoy_cluster_ssl_handshake_total", &["reviews"]) >= 1.0;
    report.check("the handshake was counted by web's sidecar", tls);
    Ok(())
}

/// A process without a sidecar and without an identity.
async fn stranger(report: &mut Report) -> anyhow::Result<()> {
    report.step("A stranger without an identity calls reviews' sidecar");
    let socket = TcpSocket::new_v4()?;
    socket.bind((IpAddr::from(STRANGER), 0).into())?;
    let mut stream = socket.connect((REVIEWS_V1_A.address, 15006).into()).await?;
    let request = format!("GET / HTTP/1.1\r\nhost: reviews:{APP_PORT}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    // A reset is as good a refusal as an orderly close.
    let ended = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    report.check(
        format!("refused: the connection from {STRANGER} was closed without an answer"),
        ended.is_ok() && answer.is_empty(),
    );
    report.row("stranger", "refused by STRICT mutual TLS");
    Ok(())
}

/// What two sidecars add, one request at a time.
async fn latency(sidecar: SocketAddr, report: &mut Report) -> anyhow::Result<()> {
    report.step("Added latency, one request at a time");
    let host = format!("reviews:{APP_PORT}");
    let direct = quantiles(SocketAddr::from((REVIEWS_V1_A.address, APP_PORT)), &host).await?;
    let mesh = quantiles(sidecar, &host).await?;
    let added = |i: usize| (mesh[i] - direct[i]).max(0.0);
    let text = format!("p50 {:.2} ms, p99 {:.2} ms", added(0), added(1));
    report.say(&format!(
        "direct p50 {:.2} ms p99 {:.2} ms; through the mesh p50 {:.2} ms p99 {:.2} ms",
        direct[0], direct[1], mesh[0], mesh[1]
    ));
    report.row("added latency", text);
    Ok(())
}

async fn quantiles(address: SocketAddr, host: &str) -> anyhow::Result<[f64; 2]> {
    let mut connection = Connection::open(address).await?;
    for _ in 0..100 {
        connection.get(host, "/").await?;
    }
    let mut times = Vec::with_capacity(1000);
    for _ in 0..1000 {
        let start = Instant::now();
        connection.get(host, "/").await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    Ok([times[500], times[990]])
}

/// Whether the split is within the 99.9 % binomial bounds of `share` for v1.
fn within_bounds(counts: &Counts, share: f64) -> (f64, f64, f64, bool) {
    let (v1, v2) = (counts.version("v1") as f64, counts.version("v2") as f64);
    let n = (v1 + v2).max(1.0);
    let (seen, margin) = (v1 / n, Z_999 * (share * (1.0 - share) / n).sqrt());
    (seen * 100.0, (share - margin) * 100.0, (share + margin) * 100.0, (seen - share).abs() <= margin)
}

fn check_split(counts: &Counts, share: f64, name: &str, report: &mut Report) {
    let (seen, low, high, ok) = within_bounds(counts, share);
    report.check(
        format!(
            "{} requests: {seen:.1} % went to v1 (99.9 % bounds: {low:.1} to {high:.1} %)",
            counts.requests
        ),
        ok && counts.requests >= 2_000,
    );
    report.row(name, format!("{} : {} ({seen:.1} % v1)", counts.version("v1"), counts.version("v2")));
}

async fn split(load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    report.step("1. An HTTPRoute splits reviews 90/10 between v1 and v2");
    let counts = load.requests(SAMPLE).await?;
    check_split(&counts, 0.9, "split 90/10", report);
    report.check(format!("{} of them failed", counts.failed()), counts.failed() == 0);
    Ok(counts.failed())
}

/// Connections of web's sidecar that ended, downstream and upstream.
async fn ended_connections() -> anyhow::Result<f64> {
    let scrape = Scrape::of(WEB.address).await?;
    Ok(["envoy_http_downstream_cx_destroy", "envoy_cluster_upstream_cx_destroy"]
        .iter()
        .map(|m| scrape.sum(m, &[]) + scrape.sum(&format!("{m}_total"), &[]))
        .sum())
}

async fn swap(mesh: &Mesh, load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    report.step("2. The file is edited to 50/50 while the load goes on");
    let before = ended_connections().await?;
    load.take();
    mesh.write("reviews-route.yaml", &route(50, 50))?;
    let edited = Instant::now();
    // The new split has arrived when v2 gets clearly more than the old one gave it.
    let mut during = Counts::default();
    let arrived = loop {
        let counts = load.requests(200).await?;
        during.add(counts.clone());
        if counts.version("v2") * 100 >= counts.requests * 30 {
            break edited.elapsed();
        }
        if edited.elapsed() > Duration::from_secs(10) {
            anyhow::bail!("the edited route did not reach web's sidecar within 10 s");
        }
    };
    report.say(&format!("the sidecar follows the new file {} ms after it was written", arrived.as_millis()));
    let counts = load.requests(SAMPLE).await?;
    check_split(&counts, 0.5, "split 50/50", report);
    let failed = during.failed() + counts.failed();
    let requests = during.requests + counts.requests;
    report.check(format!("{failed} of {requests} requests failed during and after the swap"), failed == 0);
    let closed = during.closed + counts.closed;
    let ended = ended_connections().await? - before;
    report.check(
        format!("{closed} client connections closed; {ended} connections ended in web's sidecar"),
        closed == 0 && ended <= 0.0,
    );
    Ok(failed)
}

async fn ejection(mesh: &Mesh, load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    report.step("3. One instance of v1 answers 500");
    // One request at a time, so that the count of errors is the detector's and not that of requests in flight.
    load.set_callers(1);
    load.requests(50).await?;
    mesh.reviews_v1_b.set_broken(true);
    let ejections =
        |scrape: &Scrape| scrape.sum("envoy_cluster_outlier_detection_ejections_active", &["reviews-v1"]);
    load.take();
    let started = Instant::now();
    while ejections(&Scrape::of(WEB.address).await?) < 1.0 {
        if started.elapsed() > Duration::from_secs(10) {
            anyhow::bail!("no ejection within 10 s");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    report.say(&format!("{} was ejected after {} ms", REVIEWS_V1_B.name, started.elapsed().as_millis()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let counts = load.take();
    let errors = counts.failures.get(&500).copied().unwrap_or(0);
    report.check(
        format!("web saw {errors} answers 500 (configured: {CONSECUTIVE_ERRORS}), nothing else failed"),
        errors > 0 && errors <= CONSECUTIVE_ERRORS && counts.failed() == errors,
    );
    mesh.reviews_v1_b.set_broken(false);
    report.say("the instance has recovered; its ejection lasts 3 s");
    load.take();
    let recovered = Instant::now();
    while !load.look().by_pod.contains_key(REVIEWS_V1_B.name) {
        if recovered.elapsed() > Duration::from_secs(12) {
            anyhow::bail!("{} did not come back within 12 s", REVIEWS_V1_B.name);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counts = load.requests(300).await?;
    let back = counts.by_pod.get(REVIEWS_V1_B.name).copied().unwrap_or(0);
    report.check(
        format!(
            "it came back after {:.1} s and serves again ({back} of {})",
            recovered.elapsed().as_secs_f64(),
            counts.requests
        ),
        back > 0 && counts.failed() == 0,
    );
    let total = Scrape::of(WEB.address).await?;
    let enforced = total.sum("envoy_cluster_outlier_detection_ejections_enforced_total", &["reviews-v1"]);
    report.row("ejections", format!("{enforced} (after {errors} errors)"));
    load.set_callers(CALLERS);
    Ok(errors)
}

async fn refusal(mesh: &Mesh, load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    report.step("4. A broken route is written");
    load.take();
    mesh.write("reviews-route.yaml", &broken_route())?;
    let written = Instant::now();
    let refused = loop {
        let page = mesh.control_plane("/rejections").await?;
        if let Some(found) = page["rejections"].as_array().and_then(|r| r.first()).cloned() {
            break found;
        }
        if written.elapsed() > Duration::from_secs(10) {
            anyhow::bail!("the control plane did not refuse the broken route within 10 s");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let text = |name: &str| match &refused[name] {
        serde_json::Value::String(s) => s.clone(),
        other => other.to_string(),
    };
    report.say(&format!("file   {}", text("file")));
    report.say(&format!("field  {}", text("field")));
    report.say(&format!("reason {}", text("reason")));
    report.check(
        "refused with file, field and reason",
        text("file").contains("reviews-route.yaml")
            && text("field").contains("rules[0].matches[0].path")
            && text("reason").len() > 4,
    );
    let counts = load.requests(SAMPLE).await?;
    let (seen, .., ok) = within_bounds(&counts, 0.5);
    report.check(
        format!(
            "traffic goes on by the last good route: {seen:.1} % v1, {} of {} failed",
            counts.failed(),
            counts.requests
        ),
        ok && counts.failed() == 0,
    );
    mesh.write("reviews-route.yaml", &objects::route(50, 50))?;
    Ok(counts.failed())
}

/// Serial number and expiry of the certificate that web's sidecar shows.
async fn certificate() -> anyhow::Result<(String, String)> {
    let page = super::http::get(SocketAddr::from((WEB.address, 15000)), "/certs").await?;
    let page: serde_json::Value = serde_json::from_str(&page)?;
    let all = page["certificates"].as_array().into_iter().flatten();
    let leaf = all.flat_map(|entry| entry["cert_chain"].as_array().into_iter().flatten()).next();
    let text = |name: &str| leaf.and_then(|leaf| leaf[name].as_str()).unwrap_or_default().to_owned();
    Ok((text("serial_number"), text("expiration_time")))
}

async fn rotation(load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    let lifetime = WEB.certificate_lifetime.as_secs();
    report.step(&format!("5. web's certificate, which lives {lifetime} s, is renewed"));
    let renewals = |scrape: &Scrape| scrape.sum("outrigger_identity_renewals_total", &[]);
    let (first, started) = (certificate().await?, Instant::now());
    let mut counts = load.requests(300).await?;
    // The first certificate counts as a renewal too. It may have been renewed before this step.
    while renewals(&Scrape::of(WEB.address).await?) < 2.0 {
        if started.elapsed() > WEB.certificate_lifetime {
            anyhow::bail!("web's certificate was not renewed within its lifetime");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    counts.add(load.requests(300).await?);
    let second = certificate().await?;
    report.say(&format!("serial {} until {}", first.0, first.1));
    report.say(&format!("serial {} until {}", second.0, second.1));
    report.check(
        format!(
            "renewed: {} client connections closed, {} of {} requests failed",
            counts.closed,
            counts.failed(),
            counts.requests
        ),
        counts.closed == 0 && counts.failed() == 0,
    );
    report.row("certificate renewals of web", format!("{}", renewals(&Scrape::of(WEB.address).await?) - 1.0));
    Ok(counts.failed())
}

async fn without_control_plane(mesh: &mut Mesh, load: &Load, report: &mut Report) -> anyhow::Result<u64> {
    report.step("6. The control plane is killed, and web's sidecar restarted meanwhile");
    mesh.kill_control_plane().await?;
    let mut counts = load.requests(500).await?;
    report.check(
        format!("without it {} of {} requests failed", counts.failed(), counts.requests),
        counts.failed() == 0 && counts.closed == 0,
    );
    // Whoever restarts a sidecar stops its application first.
    load.rest().await;
    let (identity, started) = (certificate().await?, Instant::now());
    mesh.restart_web().await?;
    report.say(&format!(
        "web's sidecar drained, ended and was ready again after {} ms",
        started.elapsed().as_millis()
    ));
    report.check("it started from its disk as who it was", certificate().await? == identity);
    load.set_callers(CALLERS);
    counts.add(load.requests(SAMPLE).await?);
    let (seen, .., ok) = within_bounds(&counts, 0.5);
    report.check(
        format!("it serves what it knew: {seen:.1} % v1, {} failed", counts.failed()),
        ok && counts.failed() == 0,
    );
    mesh.write("reviews-route.yaml", &route(0, 100))?;
    let returned = Instant::now();
    mesh.restart_control_plane().await?;
    loop {
        let now = load.requests(100).await?;
        counts.add(now.clone());
        if now.version("v1") == 0 {
            break;
        }
        if returned.elapsed() > Duration::from_secs(30) {
            anyhow::bail!("web's sidecar did not follow the control plane within 30 s of its return");
        }
    }
    report.check(
        format!(
            "the control plane is back: web's sidecar caught up after {} ms, {} of {} failed",
            returned.elapsed().as_millis(),
            counts.failed(),
            counts.requests
        ),
        counts.failed() == 0,
    );
    report.row(
        "without the control plane",
        format!("{} requests, {} failed", counts.requests, counts.failed()),
    );
    Ok(counts.failed())
}

/// One more workload, whose sidecar is not ours.
async fn envoy_joins(mesh: &mut Mesh, report: &mut Report) -> anyhow::Result<()> {
    report.step("7. A real Envoy joins as one more workload");
    let Some(program) = envoy::program() else {
        report.say("skipped: there is no envoy on the PATH; scripts/install-tools.sh envoy installs it");
        report.row("a real Envoy", "not installed");
        return Ok(());
    };
    mesh.write("reviews-route.yaml", &route(90, 10))?;
    let started = Instant::now();
    mesh.join_envoy(&program).await?;
    report.say(&format!("configured by our control plane after {} ms", started.elapsed().as_millis()));
    let (mut connection, host) =
        (Connection::open((ENVOY.address, 15001).into()).await?, format!("reviews:{APP_PORT}"));
    // Until now all went to v2.
    let written = Instant::now();
    while !connection.get(&host, "/").await?.1.starts_with(b"reviews-v1") {
        if written.elapsed() > Duration::from_secs(10) {
            anyhow::bail!("the Envoy did not follow the edited route within 10 s");
        }
    }
    let mut counts = Counts::default();
    for _ in 0..2_000 {
        let (status, body) = connection.get(&host, "/").await?;
        counts.see(status, &body);
    }
    let (seen, low, high, ok) = within_bounds(&counts, 0.9);
    report.check(
        format!(
            "{} requests through it, {} failed: {seen:.1} % went to v1 (99.9 % bounds: {low:.1} to {high:.1} %)",
            counts.requests,
            counts.failed()
        ),
        ok && counts.failed() == 0,
    );
    let callee = Scrape::of(REVIEWS_V1_A.address).await?;
    let labels =
        ["reporter=\"destination\"", "source_principal=\"spiffe://cluster.local/ns/default/sa/envoy\""];
    let known = callee.sum("istio_requests_total", &labels);
    report.check(
        format!("reviews' sidecar saw {known} of them from spiffe://cluster.local/ns/default/sa/envoy"),
        known > 0.0,
    );
    report
        .row("a real Envoy", format!("{} : {} ({seen:.1} % v1)", counts.version("v1"), counts.version("v2")));
    Ok(())
}

/// A few lines of both sidecars' Prometheus pages.
async fn samples(report: &mut Report) -> anyhow::Result<()> {
    for (pod, reporter) in [(WEB, "reporter=\"source\""), (REVIEWS_V1_A, "reporter=\"destination\"")] {
        let scrape = Scrape::of(pod.address).await?;
        let mut lines: Vec<String> = Vec::new();
        for (metric, labels) in [
            ("istio_requests_total", &[reporter, "response_code=\"200\""][..]),
            ("envoy_cluster_upstream_rq_total", &["9080"][..]),
            ("envoy_cluster_upstream_cx_active", &["9080"][..]),
            ("envoy_http_downstream_rq_total", &[][..]),
        ] {
            lines.extend(scrape.lines(metric, labels).take(2).map(str::to_owned));
        }
        report
            .sample(format!("{}'s sidecar, http://{}:15090/stats/prometheus", pod.name, pod.address), lines);
    }
    Ok(())
}
