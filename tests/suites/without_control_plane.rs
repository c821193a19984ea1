//! The control plane dies, hangs, or is not there when a sidecar starts: the traffic goes on, and what was missed is caught up with.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;

use outrigger_tests::load::Load;
use outrigger_tests::mesh::{APP_PORT, Mesh, Workload};
use outrigger_tests::{RawClient, wait};
use serde_json::Value;

const PODS: [(&str, &str, &str); 3] =
    [("web-0", "web", "v1"), ("reviews-0", "reviews", "v1"), ("reviews-1", "reviews", "v2")];
const WEB: usize = 0;

/// Sends all requests to one version.
fn route(version: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         parentRefs: [{{group: '', kind: Service, name: reviews}}]\n  rules:\n  - backendRefs:\n    \
         - {{name: reviews-{version}, port: {APP_PORT}}}\n"
    )
}

fn mesh() -> Mesh {
    let mesh = Mesh::start(&PODS, &route("v1"));
    wait_answer(mesh.workload("web-0"), "reviews-0");
    mesh
}

fn answer(web: &Workload) -> Option<String> {
    let response = RawClient::connect(web.outbound()).ok()?.get(&format!("reviews:{APP_PORT}"), "/").ok()?;
    (response.status == 200).then(|| response.text())
}

#[track_caller]
fn wait_answer(web: &Workload, from: &str) {
    wait::until(&format!("{from} answers"), || answer(web).is_some_and(|name| name == from));
}

fn load(mesh: &Mesh) -> Load {
    Load::start(mesh.workload("web-0").outbound(), &format!("reviews:{APP_PORT}"), 2)
}

fn serial(web: &Workload) -> Value {
    let page: Value = serde_json::from_str(&web.sidecar().admin("/certs").text()).unwrap();
    let mut all = page["certificates"].as_array().unwrap().iter();
    let own = all.find(|entry| !entry["cert_chain"].as_array().unwrap().is_empty()).unwrap();
    own["cert_chain"][0]["serial_number"].clone()
}

#[test]
fn one_that_died_is_caught_up_with_and_sends_the_difference_alone() {
    let mut mesh = mesh();
    let load = load(&mesh);
    mesh.control_plane.kill();
    load.more(50);
    mesh.write("more.yaml", &route("v2"));
    mesh.control_plane.start_again();
    wait_answer(mesh.workload("web-0"), "reviews-1");
    load.more(50);
    load.finish();
    // At first each type came once; after the return one resource of one type.
    let log = mesh.workload("web-0").sidecar().stderr();
    let updates =
        log.lines().filter(|line| line.contains(" updated, ") && !line.contains(": 0 updated, 0 removed"));
    let updates: Vec<&str> = updates.collect();
    assert_eq!(updates.len(), 5, "{updates:#?}");
    assert!(updates[4].contains("rds: 1 updated, 0 removed, 0 rejected"), "{updates:#?}");
}

#[test]
fn one_that_hangs_stops_nobody() {
    let mesh = mesh();
    let load = load(&mesh);
    mesh.control_plane.signal("STOP");
    mesh.write("more.yaml", &route("v2"));
    load.more(200);
    mesh.control_plane.signal("CONT");
    wait_answer(mesh.workload("web-0"), "reviews-1");
    load.finish();
}

#[test]
fn a_sidecar_starts_from_its_last_good_state() {
    let mut mesh = mesh();
    let identity = serial(mesh.workload("web-0"));
    mesh.control_plane.kill();
    mesh.restart_sidecar(WEB);
    mesh.wait_ready(WEB);
    let web = mesh.workload("web-0");
    assert_eq!(answer(web).as_deref(), Some("reviews-0"));
    assert_eq!(serial(web), identity, "it is still who it was");
    mesh.write("more.yaml", &route("v2"));
    mesh.control_plane.start_again();
    wait_answer(mesh.workload("web-0"), "reviews-1");
}

#[test]
fn a_state_that_is_damaged_is_not_believed() {
    let mut mesh = mesh();
    mesh.control_plane.kill();
    let folder = mesh.folder().join("state/web-0-web-0");
    mesh.workloads[WEB].sidecar_mut().terminate();
    let mut damaged = 0;
    for entry in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        let mut bytes = fs::read(entry.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle..].fill(b'x');
        fs::write(entry.path(), bytes).unwrap();
        damaged += 1;
    }
    assert!(damaged > 0);
    mesh.restart_sidecar(WEB);
    // It waits for what it needs, and says so.
    wait::until("it says what is wrong", || {
        let log = mesh.workload("web-0").sidecar().stderr();
        log.contains("damaged and do not count")
            && log.contains("from before the start does not count: it is damaged")
    });
    mesh.control_plane.start_again();
    mesh.wait_ready(WEB);
    assert_eq!(answer(mesh.workload("web-0")).as_deref(), Some("reviews-0"));
}

/// A control plane whose objects are not there, as when a volume is not mounted yet, ends rather than take everything away.
#[test]
fn one_whose_source_is_not_there_yet_takes_nothing_away() {
    let mut mesh = mesh();
    let load = load(&mesh);
    mesh.control_plane.kill();
    let (objects, aside) = (mesh.folder().join("objects"), mesh.folder().join("aside"));
    fs::rename(&objects, &aside).unwrap();
    mesh.control_plane.spawn();
    wait::until("it ends with the reason", || {
        mesh.control_plane.has_ended() && mesh.control_plane.log().contains("No such file or directory")
    });
    load.more(100);
    assert_eq!(answer(mesh.workload("web-0")).as_deref(), Some("reviews-0"));
    fs::rename(&aside, &objects).unwrap();
    mesh.write("more.yaml", &route("v2"));
    mesh.control_plane.start_again();
    wait_answer(mesh.workload("web-0"), "reviews-1");
    load.finish();
}
