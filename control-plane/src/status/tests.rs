#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::wire::core::v3::Node;
use time::OffsetDateTime;
use tokio::sync::mpsc;

use super::files::StatusFiles;
use super::objects::statuses;
use crate::ads::proxies::Proxy;
use crate::ads::refusals::Refusal;
use crate::auth::PeerAddress;
use crate::model::MeshSettings;
use crate::snapshot::{Engine, Snapshot};
use crate::source::{Event, ObjectKey, file, read_files};

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: s}]
  rules:
  - backendRefs: [{name: s, port: 80, weight: WEIGHT}]
";
const SERVICE: &str = "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}";

/// A source with its statuses, and an engine that follows it as the control plane does.
struct World {
    folder: tempfile::TempDir,
    engine: Engine,
    files: StatusFiles,
    last: Arc<Snapshot>,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("mesh");
        fs::create_dir(&source).unwrap();
        let files = StatusFiles::new(source.clone(), source.join(super::FOLDER));
        Self { folder, engine: Engine::new(MeshSettings::default()), files, last: Arc::default() }
    }

    fn source(&self) -> std::path::PathBuf {
        self.folder.path().join("mesh")
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads the source and writes the statuses.
    fn look(&mut self, proxies: &[Arc<Proxy>]) {
        self.engine.apply(read_files(&[self.source()]));
        self.last = self.engine.publish().unwrap_or(self.last.clone());
        self.files.write(&statuses(&self.last, proxies));
    }

    /// A status without the times and the path of the source.
    fn status(&self, name: &str) -> String {
        let text = fs::read_to_string(self.source().join(super::FOLDER).join(name)).unwrap();
        let source = self.source().display().to_string();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("since: "));
        lines.map(|line| line.replace(&source, "MESH") + "\n").collect()
    }

    fn has(&self, name: &str) -> bool {
        self.source().join(super::FOLDER).join(name).exists()
    }
}

fn refusing(field: &str) -> Arc<Proxy> {
    let node =
        Node { id: "sidecar~127.0.0.1~web.default~default.svc.cluster.local".into(), ..Node::default() };
    let proxy = Proxy::new(&node, String::new(), PeerAddress::Unix(None), "ads", "delta");
    let route = ObjectKey {
        group: "gateway.networking.k8s.io".into(),
        kind: "HTTPRoute".into(),
        namespace: "default".into(),
        name: "r".into(),
    };
    let refusal = Refusal {
        resource: "15001".into(),
        field: field.into(),
        reason: "no".into(),
        objects: vec![(route, "spec.rules[0]".into())],
        at: OffsetDateTime::now_utc(),
    };
    proxy.update(ResourceType::RouteConfiguration, |status| {
        status.answered(0, vec!["15001".into()], vec![refusal]);
    });
    Arc::new(proxy)
}

#[test]
fn a_status_says_what_became_of_each_object() {
    let mut world = World::new();
    world.write("below/route.yaml", &ROUTE.replace("WEIGHT", "1"));
    world.write("service.json", &SERVICE.replace("{port: 80}", "{port: 80}, {port: 81}"));
    world.look(&[]);
    let accepted = "written_by: outrigger-control-plane\nfile: MESH/below/route.yaml\nobjects:\n\
                    - group: gateway.networking.k8s.io\n  kind: HTTPRoute\n  namespace: default\n  name: r\n  line: 1\n  \
                    state: accepted\n";
    assert_eq!(world.status("below/route.yaml"), accepted);
    let json: serde_json::Value = serde_json::from_str(&world.status("service.json")).unwrap();
    assert_eq!(json["objects"][0]["state"], "accepted", "a JSON file has a JSON status");

    let by_proxies = "  state: refused_by_proxies\n  refused_by_proxies:\n  - line: 7\n    column: 5\n    \
                      field: spec.rules[0]\n    reason: \"no\"\n    resource:\n      type: rds\n      name: \"15001\"\n      \
                      field: virtual_hosts[0]\n    proxies:\n    \
                      - sidecar~127.0.0.1~web.default~default.svc.cluster.local\n";
    world.look(&[refusing("virtual_hosts[0]")]);
    let by_proxies = accepted.replace("  state: accepted\n", by_proxies);
    assert_eq!(world.status("below/route.yaml"), by_proxies);

    world.write("below/route.yaml", &ROUTE.replace("WEIGHT", "-1").replace("name: s,", "name: t,"));
    world.look(&[]);
    let refused = "  state: refused\n  refused:\n  - line: 7\n    column: 39\n    field: spec.rules[0].backendRefs[0].weight\n    \
                   reason: \"-1 is not between 0 and 1000000\"\n";
    assert_eq!(world.status("below/route.yaml"), accepted.replace("  state: accepted\n", refused));

    world.write("below/route.yaml", &ROUTE.replace("WEIGHT", "1").replace("{name: s,", "{name: t,"));
    world.look(&[]);
    assert!(world.status("below/route.yaml").contains("state: accepted\n  warnings:\n  - line: 7\n"));
    world.write("below/route.yaml", "kind: [");
    world.look(&[]);
    assert!(world.status("below/route.yaml").contains("failures:\n- line: "));
    fs::remove_file(world.source().join("below/route.yaml")).unwrap();
    world.engine = Engine::new(MeshSettings::default());
    world.look(&[]);
    assert!(!world.has("below/route.yaml") && world.has("service.json"));
}

#[test]
fn the_time_is_that_of_the_state_and_nothing_is_written_twice() {
    let mut world = World::new();
    world.write("s.yaml", SERVICE);
    world.look(&[]);
    let path = world.source().join(super::FOLDER).join("s.yaml");
    let first = fs::read_to_string(&path).unwrap();
    let written = fs::metadata(&path).unwrap().modified().unwrap();
    world.write("other.yaml", &ROUTE.replace("WEIGHT", "1"));
    world.look(&[]);
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), written);
    world.write("s.yaml", &format!("# a comment\n{SERVICE}"));
    world.look(&[]);
    let second = fs::read_to_string(&path).unwrap();
    assert_eq!(second.replace("line: 2", "line: 1"), first, "the line moved, the state did not");
}

#[test]
fn only_files_of_a_control_plane_are_replaced_or_removed() {
    let mut world = World::new();
    world.write("s.yaml", SERVICE);
    world.write(".status/old.yaml", "written_by: outrigger-control-plane\nfile: x\nobjects: []\n");
    world.write(".status/notes.yaml", "written_by: me\n");
    world.write(".status/s.yaml", "mine: true\n");
    world.look(&[]);
    assert!(!world.has("old.yaml") && world.has("notes.yaml"));
    assert_eq!(world.status("s.yaml"), "mine: true\n");
    fs::remove_file(world.source().join(".status/s.yaml")).unwrap();
    world.look(&[]);
    assert!(world.status("s.yaml").contains("state: accepted"));
}

#[test]
fn writing_a_status_is_no_change_of_the_source() {
    let mut world = World::new();
    world.write("s.yaml", SERVICE);
    let (sender, mut events) = mpsc::channel(8);
    let source = world.source();
    file::watch(source.clone(), Some(source.join(super::FOLDER)), sender).unwrap();
    let mut next = || events.blocking_recv().expect("the watch ended");
    assert!(matches!(next().as_slice(), [Event::Upsert(_), Event::Synced]));
    world.look(&[]);
    assert!(Path::new(&source.join(".status/s.yaml")).exists());
    world.write("t.yaml", &SERVICE.replace("name: s", "name: t"));
    // The next news is the next object: a status among them would be an unreadable file.
    let batch = next();
    assert!(matches!(batch.as_slice(), [Event::Upsert(object)] if object.key().name == "t"), "{batch:?}");
}
