//! Files as sources: what is read when, and what becomes of a file that is no good.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType::{self, Cluster, Listener, RouteConfiguration};
use tempfile::TempDir;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use super::{FileTrigger, parse};
use crate::config::compile::Fetch;
use crate::config::configuration::Configuration;
use crate::config::handle::ConfigurationHandle;
use crate::config::sources::{FileSource, SourceId, SourceSpec};
use crate::config::testing::inputs;
use crate::xds::{XdsOptions, run};

/// A configuration whose clusters come from a file.
struct World {
    folder: TempDir,
    configuration: Arc<ConfigurationHandle>,
}

impl World {
    async fn start(trigger: impl FnOnce(&TempDir) -> FileTrigger, content: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("cds.yaml"), content).unwrap();
        let path = folder.path().join("cds.yaml").to_str().unwrap().into();
        let mut inputs = inputs();
        let source = inputs.sources.id(SourceSpec::File(FileSource { path, trigger: trigger(&folder) }));
        inputs.read_file = Box::new(|path| std::fs::read(path));
        let (watches, changes) = unbounded_channel();
        let configuration = Configuration::new(inputs, 0);
        let configuration = Arc::new(ConfigurationHandle::new(configuration, Box::new(|_| {}), watches));
        let options = XdsOptions {
            ads: None,
            named: None,
            node: Default::default(),
            token_file: None,
            recorder: None,
            restored: Default::default(),
        };
        tokio::spawn(run(options, configuration.clone(), changes));
        configuration.update(|c| {
            c.take_all(Cluster, Fetch { source, timeout: Duration::from_secs(15) }, Instant::now());
        });
        configuration.initialized().await;
        Self { folder, configuration }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file in its place at once.
    fn replace(&self, content: &str) {
        std::fs::write(self.path("new"), content).unwrap();
        std::fs::rename(self.path("new"), self.path("cds.yaml")).unwrap();
    }

    fn clusters(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.configuration.read(|c| c.clusters().iter().map(|(name, _)| name.to_string()).collect());
        names.sort();
        names
    }

    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(30), async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{:?}", self.clusters()));
    }

    fn counters(&self) -> [u64; 4] {
        self.configuration.read(|c| {
            let server = c.inputs().stats.server();
            [
                &server.cds_update_attempt,
                &server.cds_update_success,
                &server.cds_update_rejected,
                &server.cds_update_failure,
            ]
            .map(|counter| counter.get())
        })
    }
}

fn clusters(names: &[&str]) -> String {
    let cluster = |name: &&str| format!("- {{'@type': {}, name: {name}}}\n", Cluster.type_url());
    format!("version_info: '1'\nresources:\n{}", names.iter().map(cluster).collect::<String>())
}

#[tokio::test]
async fn a_file_that_takes_the_place_of_another_is_read_and_a_bad_one_changes_nothing() {
    let world = World::start(|_| FileTrigger::Moved, &clusters(&["a", "b"])).await;
    assert_eq!(world.clusters(), ["a", "b"]);
    world.replace("resources: [");
    world.until(|world| world.counters() == [2, 1, 0, 1]).await;
    assert_eq!(world.clusters(), ["a", "b"]);
    world.replace(&clusters(&["b", "c"]).replace("name: c}", "name: c, lb_policy: CLUSTER_PROVIDED}"));
    world.until(|world| world.counters() == [3, 1, 1, 1]).await;
    assert_eq!(world.clusters(), ["b"], "the good part of it applies");
    world.replace(&clusters(&["b", "d"]));
    world.until(|world| world.clusters() == ["b", "d"]).await;
    let version =
        |world: &World| world.configuration.read(|c| c.clusters().get("b").unwrap().version().to_string());
    assert_eq!(version(&world), "1");
}

#[tokio::test]
async fn a_write_counts_only_where_it_is_asked_for() {
    let folder = |on_write| {
        move |folder: &TempDir| FileTrigger::Directory {
            path: folder.path().to_str().unwrap().into(),
            on_write,
        }
    };
    let world = World::start(folder(true), &clusters(&["a"])).await;
    std::fs::write(world.path("cds.yaml"), clusters(&["b"])).unwrap();
    world.until(|world| world.clusters() == ["b"]).await;

    let world = World::start(folder(false), &clusters(&["a"])).await;
    std::fs::write(world.path("cds.yaml"), clusters(&["b"])).unwrap();
    // A link in the folder is switched, as a ConfigMap's is: whatever moved, the file is read.
    std::fs::write(world.path("other"), "").unwrap();
    assert_eq!(world.clusters(), ["a"]);
    std::fs::rename(world.path("other"), world.path("another")).unwrap();
    world.until(|world| world.clusters() == ["b"]).await;
}

#[tokio::test]
async fn a_file_can_be_polled() {
    let world = World::start(|_| FileTrigger::Every(Duration::from_millis(20)), &clusters(&["a"])).await;
    std::fs::write(world.path("cds.yaml"), clusters(&["b"])).unwrap();
    world.until(|world| world.clusters() == ["b"]).await;
    std::fs::remove_file(world.path("cds.yaml")).unwrap();
    world.until(|world| world.counters()[3] > 0).await;
    assert_eq!(world.clusters(), ["b"]);
}

#[tokio::test]
async fn names_that_are_wanted_later_are_given_from_what_was_read() {
    let world = World::start(|_| FileTrigger::Moved, "resources: []").await;
    let routes = |name: &str| format!("- {{'@type': {}, name: {name}}}\n", RouteConfiguration.type_url());
    let path = world.path("rds.yaml");
    std::fs::write(&path, format!("resources:\n{}{}", routes("r"), routes("s"))).unwrap();
    let path = path.to_str().unwrap();
    let listener = |rds: &str| {
        let yaml = format!(
            "{{name: {rds}, address: {{socket_address: {{address: 127.0.0.1, port_value: 0}}}}, filter_chains: [{{filters: [{{name: h, \
             typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.\
             HttpConnectionManager, stat_prefix: s, rds: {{route_config_name: {rds}, config_source: {{path: {path}}}}}, http_filters: \
             [{{name: router, typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}]}}}}]}}]}}"
        );
        crate::config::testing::resource(Listener, &yaml)
    };
    for name in ["r", "s"] {
        let listener = listener(name);
        world.configuration.update(|c| {
            let update =
                crate::config::apply::Update { name, version: "", resource: &listener, aliases: &[] };
            assert_eq!(c.apply(SourceId::ADS, Listener, &[update], &[], Instant::now()), []);
        });
        world.until(|world| world.configuration.read(|c| c.listeners().active(name).is_some())).await;
    }
}

#[test]
fn what_a_file_may_hold() {
    let read = |name: &str, text: &str| parse(name.as_ref(), text.as_bytes(), ResourceType::Cluster);
    let json =
        r#"{"resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "a"}]}"#;
    assert_eq!(read("x.json", json).unwrap().keys().collect::<Vec<_>>(), ["a"]);
    assert_eq!(read("x", json).unwrap().len(), 1, "JSON is YAML");
    assert!(read("x.pb_text", "").unwrap_err().contains("not supported"));
    assert!(read("x.pb", "\u{1}").is_err());
    let twice = clusters(&["a", "a"]);
    assert_eq!(read("x.yaml", &twice).unwrap_err(), "resources[1]: duplicate name 'a'");
    let other = twice.replace("cluster.v3.Cluster", "listener.v3.Listener");
    assert!(read("x.yaml", &other).unwrap_err().starts_with("resources[0] has type "));
}
