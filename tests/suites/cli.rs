//! What a person sees of a running mesh, and what a script reads: `outrigger status`, `config`, `diff`, `analyze`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use outrigger_tests::addr::pod_ip;
use outrigger_tests::cli::{outrigger, run};
use outrigger_tests::mesh::Mesh;
use outrigger_tests::prometheus::Scrape;
use outrigger_tests::proxy::Ended;
use outrigger_tests::wait;
use regex::Regex;
use serde_json::{Value, json};

const PODS: [(&str, &str, &str); 2] = [("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1")];

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: default}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - matches: [{path: {value: /api}}]
    backendRefs: [{name: reviews-v1, port: 9080}]
---
";

fn policy(connections: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: limits, namespace: default}}\n\
         spec: {{host: reviews, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: {connections}}}}}}}}}\n"
    )
}

/// A mesh whose control plane and first proxy the command is told of by address.
struct Watched {
    mesh: Mesh,
    control_plane: String,
    proxy: String,
}

impl Watched {
    fn start() -> Self {
        let mesh = Mesh::start(&PODS, &(ROUTE.to_owned() + &policy(5)));
        let proxy = format!("http://{}", mesh.workload("web-0").sidecar().admin_addr());
        let watched = Self { control_plane: format!("http://{}", mesh.control_plane.admin()), mesh, proxy };
        wait::until("everything is synced", || {
            let page = watched.status(&["-o", "json"]).json();
            let rows = page["proxies"].as_array().unwrap();
            rows.len() == PODS.len()
                && rows.iter().all(|row| {
                    ["cds", "eds", "lds", "rds"].iter().all(|of| row["types"][of]["state"] == "synced")
                })
        });
        watched
    }

    fn status(&self, more: &[&str]) -> Ended {
        outrigger(&[&["status", "--control-plane", &self.control_plane], more].concat())
    }

    fn config(&self, what: &str, more: &[&str]) -> Ended {
        let ended = outrigger(&[&["config", what, "--proxy-admin", &self.proxy], more].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended
    }

    fn diff(&self, more: &[&str]) -> Ended {
        let both = ["diff", "--control-plane", &self.control_plane, "--proxy-admin", &self.proxy];
        outrigger(&[&both, more].concat())
    }
}

/// A table with one space between columns, and `T` for every time.
fn plain(text: &str) -> String {
    let text = Regex::new(r"\b\d+(ms|s|m)\b").unwrap().replace_all(text, "T").into_owned();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn status_of_a_mesh_that_is_well() {
    let watched = Watched::start();
    let status = watched.status(&[]);
    let agent = format!("outrigger-proxy/{}", env!("CARGO_PKG_VERSION"));
    let row = |name: &str| format!("{name} {agent} SYNCED (T) SYNCED (T) SYNCED (T) SYNCED (T) NOT SENT T\n");
    let expected = "NAME PROXY CDS EDS LDS RDS SDS CONNECTED\n".to_owned()
        + &row("reviews-v1-0.default")
        + &row("web-0.default");
    assert_eq!((status.code, plain(&status.stdout)), (Some(0), expected));
    let page = watched.status(&["-o", "json", "--name", "web"]).json();
    assert_eq!((&page["well"], page["proxies"].as_array().unwrap().len()), (&true.into(), 1));
    assert_eq!(page["proxies"][0]["name"], "web-0.default");
    assert_eq!(page["proxies"][0]["control_plane"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(watched.status(&["-o", "yaml"]).stdout.starts_with("well: true\nproxies:\n- id: "));
    assert_eq!(watched.status(&["-n", "shop"]).stdout, "no proxy is connected\n");

    let nobody = outrigger(&["status", "--control-plane", "http://127.0.0.1:1"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(nobody.stderr.contains("http://127.0.0.1:1/: /version: "), "{nobody:?}");
    let nowhere = outrigger(&["status"]);
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
    assert!(nowhere.stderr.contains("no --control-plane was given"), "{nowhere:?}");
}

#[test]
fn the_configuration_of_one_proxy() {
    let watched = Watched::start();
    let (web, reviews) = (watched.mesh.workload("web-0"), watched.mesh.workload("reviews-v1-0"));
    let ip = web.ip;
    let listeners = plain(&watched.config("listeners", &[]).stdout);
    let expected = format!(
        "NAME ADDRESS PORT MATCH DESTINATION STATE\n{ip}_15001 {ip} 15001 from this workload routes 15001\n"
    );
    assert!(listeners.starts_with(&expected), "{listeners}");
    assert_eq!(watched.config("listeners", &["--port", "15001"]).stdout.lines().count(), 2);
    let raw = watched.config("listeners", &["--port", "15001", "-o", "json"]).json();
    assert_eq!(raw[0]["name"], format!("{ip}_15001"));

    let routes = plain(&watched.config("routes", &["--domain", "reviews:9080"]).stdout);
    let to_v1 = "outbound|9080||reviews-v1.default.svc.cluster.local";
    let expected = format!(
        "NAME VIRTUAL HOST DOMAINS MATCH DESTINATION MADE BY STATE\n15001 reviews.default.svc.cluster.local:9080 \
         reviews.default.svc.cluster.local:9080 + 3 more /api/* {to_v1} HTTPRoute default/reviews\n"
    );
    assert_eq!(routes, expected);

    let clusters = plain(&watched.config("clusters", &["--fqdn", "reviews.default"]).stdout);
    let expected = "SERVICE PORT SUBSET DIRECTION TYPE POLICY STATE\nreviews.default.svc.cluster.local 9080 outbound EDS \
                    DestinationRule default/limits\n";
    assert_eq!(clusters, expected);

    assert_eq!(web.get("reviews-v1").status, 200);
    wait::until("the request is counted", || {
        let endpoints = plain(&watched.config("endpoints", &["--name", to_v1]).stdout);
        endpoints.contains(&format!("{}:15006 HEALTHY OK 1 0 {to_v1}\n", reviews.ip))
    });
    assert_eq!(watched.config("endpoints", &["--status", "unhealthy"]).stdout.lines().count(), 1);

    let secrets = plain(&watched.config("secrets", &[]).stdout);
    assert!(secrets.contains("\ndefault certificate yes "), "{secrets}");
    assert!(secrets.contains(" spiffe://cluster.local/ns/default/sa/web\n"), "{secrets}");
    let raw = watched.config("secrets", &["-o", "json"]);
    assert!(!raw.stdout.to_lowercase().contains("private"), "{raw:?}");

    // A dump in a file says the same.
    let file = watched.mesh.folder().join("dump.json");
    fs::write(&file, web.sidecar().admin("/config_dump?include_eds").body).unwrap();
    for what in ["listeners", "routes", "clusters"] {
        let of_file = outrigger(&["config", what, "--file", file.to_str().unwrap()]);
        assert_eq!(of_file.stdout, watched.config(what, &[]).stdout, "{of_file:?}");
    }
}

/// A TCP Service. Every proxy listens at its port on its own address.
fn tcp_service(port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: cache, namespace: default}}\nspec:\n  selector: {{app: cache}}\n  \
         ports:\n  - {{name: tcp, port: {port}}}\n"
    )
}

#[test]
fn a_refused_resource_is_told_everywhere_and_not_tried_again_until_it_changes() {
    let watched = Watched::start();
    let (mesh, ip) = (&watched.mesh, watched.mesh.workload("web-0").ip);
    let taken = TcpListener::bind((ip, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    mesh.write("cache.yaml", &tcp_service(port));
    let name = format!("{ip}_{port}");
    let refused = || {
        let page = watched.status(&["-o", "json", "--name", "web"]).json();
        page["proxies"][0]["types"]["lds"]["refusals"][0].clone()
    };
    wait::until("the listener is refused", || refused()["resource"] == name.as_str());

    let status = watched.status(&[]);
    assert_eq!(status.code, Some(1), "{status:?}");
    let shown = plain(&status.stdout);
    assert!(shown.contains(" SYNCED (T) SYNCED (T) REFUSED 1 (T) SYNCED (T) NOT SENT T\n"), "{shown}");
    let file = mesh.folder().join("objects/cache.yaml");
    let expected = format!(
        "Refused: web-0.default LDS {name}: address: REASON from Service default/cache ({}:1)",
        file.display()
    );
    let told = shown.split("\n\n").nth(1).unwrap().replace('\n', " ");
    let reason = refused()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains(&port.to_string()), "{reason}");
    assert_eq!(told.trim(), expected.replace("REASON", &reason));

    // The status file beside the object, the page of rejections, the metric, the log.
    let beside = mesh.folder().join("objects/.status/cache.yaml");
    wait::until("the status file", || {
        fs::read_to_string(&beside).is_ok_and(|text| text.contains("state: refused_by_proxies"))
    });
    let beside = fs::read_to_string(&beside).unwrap();
    assert!(beside.contains(&name) && beside.contains("field: address"), "{beside}");
    let page: Value = serde_json::from_str(&mesh.control_plane.page("/rejections").text()).unwrap();
    let row = &page["refused_by_proxies"][0];
    assert_eq!(
        (&row["object"]["kind"], &row["object"]["name"]),
        (&"Service".into(), &"cache".into()),
        "{row}"
    );
    assert_eq!(row["resource"]["field"], "address");
    let metric = |metric: &str, labels: &[(&str, &str)]| {
        Scrape::parse(&mesh.control_plane.page("/metrics").text()).unwrap().sum(metric, labels)
    };
    let labels = [("type", "lds"), ("resource", name.as_str())];
    assert_eq!(metric("outrigger_xds_refused_resources", &labels), 1.0);
    let log = mesh.control_plane.log();
    let line = log.lines().find(|line| line.contains("NACK")).unwrap();
    assert!(line.contains(&name) && line.contains("Service default/cache"), "{line}");

    let diff = watched.diff(&[]);
    assert_eq!(diff.code, Some(1), "{diff:?}");
    let expected = format!("listener {name}: only the control plane has it\n  refused: address: {reason}\n");
    assert!(diff.stdout.contains(&expected), "{diff:?}");

    // Other changes of the same type go by; the refused one is left alone.
    let nacks = || metric("outrigger_xds_nacks_total", &[("type", "lds")]);
    assert_eq!(nacks(), 1.0);
    let other = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
    mesh.write("other.yaml", &tcp_service(other).replace("name: cache", "name: other"));
    wait::until("the other listener is there", || TcpStream::connect((ip, other)).is_ok());
    assert_eq!((nacks(), refused()["resource"].as_str()), (1.0, Some(name.as_str())));

    // It changes, and with it the refusal goes from everywhere.
    let free = TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
    mesh.write("cache.yaml", &tcp_service(free));
    wait::until("all is well", || watched.status(&[]).code == Some(0));
    assert_eq!(metric("outrigger_xds_refused_resources", &labels), 0.0);
    wait::until("the status file", || {
        let text = fs::read_to_string(mesh.folder().join("objects/.status/cache.yaml")).unwrap();
        text.contains("state: accepted")
    });
    assert_eq!(watched.diff(&[]).code, Some(0));
}

#[test]
fn a_proxy_that_missed_a_change_differs() {
    let mut watched = Watched::start();
    let same = watched.diff(&[]);
    let counts = "clusters 6 the same, 0 different\nendpoints 4 the same, 0 different\nlisteners 2 the same, 0 different\n\
                  route configurations 1 the same, 0 different\n";
    assert_eq!((same.code, plain(&same.stdout).as_str()), (Some(0), counts), "{same:?}");

    // The sidecars do not find the new one, and go on with what they have.
    watched.mesh.control_plane.relocate();
    watched.mesh.control_plane.start_again();
    watched.control_plane = format!("http://{}", watched.mesh.control_plane.admin());
    watched.mesh.write("more.yaml", &policy(6));
    let differs = wait::eventually("the change is published", || {
        let diff = watched.diff(&[]);
        (diff.code == Some(1) && diff.stdout.contains("+++ proxy")).then_some(diff)
    });
    let stdout = &differs.stdout;
    let begin = "web-0.default is not connected to the control plane: it runs what it had last\n";
    assert!(stdout.starts_with(begin), "{stdout}");
    assert!(
        stdout.contains("cluster outbound|9080||reviews.default.svc.cluster.local: differs\n"),
        "{stdout}"
    );
    assert!(stdout.contains("\n-  - max_connections: 6\n"), "{stdout}");
    assert!(stdout.contains("\n+  - max_connections: 5\n"), "{stdout}");
    // The route is gone with its file.
    assert!(stdout.contains("route configuration 15001: differs\n"), "{stdout}");
    let page = watched.diff(&["-o", "json"]).json();
    assert_eq!((&page["proxy"], &page["connected"]), (&"web-0.default".into(), &false.into()));
    let states: Vec<&Value> = page["resources"].as_array().unwrap().iter().map(|row| &row["state"]).collect();
    assert_eq!(states.iter().filter(|state| ***state == json!("differs")).count(), 2, "{states:?}");
}

const GOOD: &str = "apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews}
spec:
  template:
    metadata: {labels: {app: reviews}}
";

const BROKEN: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews}]
  rules:
  - backendRefs: [{name: reviews, port: 9080, weight: -1}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: limits}
spec:
  host: ratings
---
apiVersion: v1
kind: Service
metadata: {name: typing-mistake}
spec:
  selector:
    app: reveiws
  ports: [{port: 80}]
";

const FINDINGS: &str = "\
mesh/broken.yaml:7:47: error: HTTPRoute default/reviews: spec.rules[0].backendRefs[0].weight: -1 is not between 0 and 1000000
mesh/broken.yaml:13:3: warning: DestinationRule default/limits: spec.host: Service default/ratings does not exist
mesh/broken.yaml:19:3: warning: Service default/typing-mistake: spec.selector: has no endpoints: selects no workload of namespace default
mesh/half.yaml:3:1: error: while parsing a node, did not find expected node content
2 errors, 2 warnings in 5 objects
";

#[test]
fn analyze_files() {
    let folder = tempfile::tempdir().unwrap();
    let analyze = |arguments: &[&str], input: Option<&str>| {
        run(&[&["analyze"], arguments].concat(), input, folder.path())
    };
    fs::create_dir(folder.path().join("mesh")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join("mesh").join(name), text).unwrap();
    write("good.yaml", GOOD);
    let clean = analyze(&["-f", "mesh"], None);
    assert_eq!((clean.code, clean.stdout.as_str()), (Some(0), "0 errors, 0 warnings in 2 objects\n"));
    assert_eq!(analyze(&["-f", "-"], Some(GOOD)).stdout, clean.stdout);

    write("broken.yaml", BROKEN);
    write("half.yaml", "apiVersion: v1\nkind: [\n");
    let broken = analyze(&["-f", "mesh"], None);
    assert_eq!((broken.code, broken.stdout.as_str()), (Some(1), FINDINGS));
    assert_eq!(
        analyze(&["-f", "mesh/half.yaml", "-f", "mesh/good.yaml", "-f", "mesh/broken.yaml"], None).stdout,
        FINDINGS
    );
    let page = analyze(&["-f", "mesh", "-o", "json"], None).json();
    assert_eq!((&page["errors"], &page["warnings"]), (&2.into(), &2.into()));
    let finding = &page["findings"][0];
    assert_eq!((&finding["severity"], &finding["line"]), (&"error".into(), &7.into()));
    assert_eq!(finding["object"]["name"], "reviews");
    assert_eq!(finding["field"], "spec.rules[0].backendRefs[0].weight");

    fs::remove_file(folder.path().join("mesh/half.yaml")).unwrap();
    write("broken.yaml", &BROKEN.replace("-1", "1"));
    assert_eq!(analyze(&["-f", "mesh"], None).code, Some(1));
    assert_eq!(analyze(&["-f", "mesh", "--fail-on", "error"], None).code, Some(0));
    for (arguments, text) in [
        (&["-f", "mesh/gone.yaml"][..], "mesh/gone.yaml: "),
        (&[], "--filename"),
        (&["--cluster"], "kubeconfig"),
    ] {
        let cannot = analyze(arguments, None);
        assert_eq!(cannot.code, Some(2), "{cannot:?}");
        assert!(cannot.stderr.contains(text), "{cannot:?}");
    }
}

/// Carries connections on to `target` for as long as the test runs.
fn relay(at: SocketAddr, target: SocketAddr) {
    let listener = TcpListener::bind(at).unwrap();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(target).unwrap();
            let (mut there, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || io::copy(&mut there, &mut back));
            let (mut there, mut back) = (server, client);
            thread::spawn(move || io::copy(&mut there, &mut back));
        }
    });
}

/// The Pod of a control plane, as the chart makes it.
fn control_plane_pod(ip: Ipv4Addr) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: outrigger-system}}\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  \
         name: outrigger-control-plane-0\n  namespace: outrigger-system\n  labels: {{app.kubernetes.io/name: \
         outrigger-control-plane}}\nspec:\n  containers:\n  - {{name: control-plane, image: i}}\nstatus: {{phase: Running, podIP: \
         {ip}}}\n"
    )
}

#[test]
fn the_same_through_an_api_server() {
    let mesh = Mesh::start_on_cluster(&PODS, ROUTE);
    let ip = pod_ip();
    relay((ip, 15014).into(), mesh.control_plane.admin());
    mesh.cluster().put(&control_plane_pod(ip));
    let kubeconfig = mesh.kubeconfig();
    let kube = |arguments: &[&str]| {
        outrigger(&[arguments, &["--kubeconfig", kubeconfig.to_str().unwrap()]].concat())
    };
    wait::until("everything is synced", || {
        let status = kube(&["status"]);
        status.code == Some(0) && status.stdout.matches("SYNCED").count() == 4 * PODS.len()
    });
    let page = kube(&["status", "-o", "json"]).json();
    assert_eq!(page["proxies"][0]["control_plane"]["name"], "outrigger-control-plane-0.outrigger-system");

    let routes = kube(&["config", "routes", "web-0.default", "--domain", "reviews:9080"]);
    assert!(routes.stdout.contains("HTTPRoute default/reviews"), "{routes:?}");
    assert_eq!(
        kube(&["config", "routes", "web-0", "-n", "default", "--domain", "reviews:9080"]).stdout,
        routes.stdout
    );
    let diff = kube(&["diff", "web-0.default"]);
    assert_eq!(diff.code, Some(0), "{diff:?}");
    let gone = kube(&["config", "routes", "web-9.default"]);
    assert_eq!(gone.code, Some(2));
    assert!(gone.stderr.contains("web-9.default"), "{gone:?}");
    let none = kube(&["status", "-i", "elsewhere"]);
    assert!(
        none.code == Some(2) && none.stderr.contains("no control plane runs in namespace elsewhere"),
        "{none:?}"
    );

    analyze_a_cluster(&mesh, &kube);
}

fn analyze_a_cluster(mesh: &Mesh, kube: &dyn Fn(&[&str]) -> Ended) {
    let now = kube(&["analyze", "--cluster"]);
    assert_eq!(now.code, Some(0), "{now:?}");
    let file = mesh.folder().join("new.yaml");
    let path = file.to_str().unwrap();
    fs::write(&file, ROUTE.replace("name: reviews, namespace", "name: another, namespace")).unwrap();
    let alone = kube(&["analyze", "-f", path]);
    assert!(alone.stdout.contains("spec.parentRefs[0]: Service default/reviews does not exist"), "{alone:?}");
    let applied = kube(&["analyze", "--cluster", "-f", path]);
    let expected = format!(
        "{path}:7:15: warning: HTTPRoute default/another: spec.rules[0].matches[0]: has no effect: spec.rules[0] of HTTPRoute \
         default/reviews has the same match\n0 errors, 1 warning in "
    );
    assert_eq!(applied.code, Some(1), "{applied:?}");
    assert!(applied.stdout.starts_with(&expected), "{applied:?}");
}
