//! Certificates from files: shared, read again when they change, and never half.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrigger_xds_api::ResourceType::{Cluster, Secret};
use tempfile::TempDir;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;

use super::certificate_files::{Folders, follow};
use super::configuration::Configuration;
use super::handle::ConfigurationHandle;
use super::sources::SourceId;
use super::testing::{apply, inputs, remove};
use crate::transport_socket::test_certificates::{Authority, Issued};

/// A configuration beside a folder with `chain.pem` and `key.pem`.
struct World {
    folder: TempDir,
    authority: Authority,
    configuration: Configuration,
    folders: UnboundedReceiver<std::path::PathBuf>,
}

impl World {
    fn new() -> Self {
        let mut inputs = inputs();
        inputs.read_file = Box::new(|path| std::fs::read(path));
        let (wanted, folders) = Folders::channel();
        inputs.folders = wanted;
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            authority: Authority::new("files"),
            configuration: Configuration::new(inputs, 0),
            folders,
        };
        world.write(&world.issue());
        world
    }

    fn issue(&self) -> Issued {
        self.authority.issue("spiffe://cluster.local/ns/n/sa/web")
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn write(&self, issued: &Issued) {
        std::fs::write(self.path().join("key.pem"), &issued.key).unwrap();
        std::fs::write(self.path().join("chain.pem"), &issued.chain).unwrap();
    }

    /// A `TlsCertificate` message, with more fields.
    fn certificate(&self, more: &str) -> String {
        let folder = self.path().display();
        format!(
            "{{certificate_chain: {{filename: {folder}/chain.pem}}, private_key: {{filename: {folder}/key.pem}}{more}}}"
        )
    }

    fn add_cluster(&mut self, name: &str, certificate: &str) {
        self.add_cluster_with(name, &format!("tls_certificates: [{certificate}]"));
    }

    fn add_cluster_with(&mut self, name: &str, common: &str) {
        let cluster = format!(
            "{{name: {name}, transport_socket: {{name: tls, typed_config: {{'@type': type.googleapis.com/envoy.extensions.\
             transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {{{common}}}}}}}}}"
        );
        assert_eq!(apply(&mut self.configuration, Cluster, name, &cluster, Instant::now()), []);
    }

    fn read_again(&mut self) {
        let folder = self.folder.path().to_owned();
        self.configuration.read_files_again(&folder);
    }

    /// The serials of all certificates that stand in contexts.
    fn serials(&self) -> Vec<String> {
        serials(&self.configuration)
    }

    fn secret_serial(&self) -> String {
        let certificates = self.configuration.inputs().registry.certificates.of(SourceId::ADS).unwrap();
        certificates.get("s").unwrap().leaf().serial.clone()
    }
}

fn serials(configuration: &Configuration) -> Vec<String> {
    let all = configuration.inputs().inline_certificates.iter();
    all.map(|(_, certificate)| certificate.leaf().serial.clone()).collect()
}

#[test]
fn contexts_with_the_same_certificate_share_it_as_long_as_one_is_there() {
    let mut world = World::new();
    let certificate = world.certificate("");
    for name in ["a", "b"] {
        world.add_cluster(name, &certificate);
    }
    assert_eq!(world.serials().len(), 1);
    remove(&mut world.configuration, Cluster, "a", Instant::now());
    assert_eq!(world.serials().len(), 1);
    remove(&mut world.configuration, Cluster, "b", Instant::now());
    assert_eq!(world.serials().len(), 0);
}

#[test]
fn a_pair_is_taken_when_both_files_fit_and_not_before() {
    let mut world = World::new();
    let certificate = world.certificate("");
    world.add_cluster("a", &certificate);
    let first = world.serials();
    world.read_again();
    assert_eq!(world.serials(), first);
    let renewed = world.issue();
    std::fs::write(world.path().join("chain.pem"), &renewed.chain).unwrap();
    world.read_again();
    assert_eq!(world.serials(), first, "its key is not there yet");
    world.write(&renewed);
    world.configuration.read_files_again(Path::new("/elsewhere"));
    assert_eq!(world.serials(), first, "nothing changed elsewhere");
    world.read_again();
    assert_eq!(world.serials(), [renewed.load().leaf().serial.clone()]);
    // One that comes later has the new one too.
    world.add_cluster("b", &certificate);
    assert_eq!(world.serials(), [renewed.load().leaf().serial.clone()]);
    std::fs::remove_file(world.path().join("key.pem")).unwrap();
    world.read_again();
    assert_eq!(world.serials().len(), 1, "the last good one stays");
}

#[test]
fn a_secret_that_names_files_follows_them() {
    let mut world = World::new();
    world.add_cluster_with("a", "tls_certificate_sds_secret_configs: [{name: s, sds_config: {ads: {}}}]");
    let secret = format!("{{name: s, tls_certificate: {}}}", world.certificate(""));
    assert_eq!(apply(&mut world.configuration, Secret, "s", &secret, Instant::now()), []);
    let first = world.secret_serial();
    let renewed = world.issue();
    world.write(&renewed);
    world.read_again();
    assert_ne!(world.secret_serial(), first);
    assert_eq!(world.secret_serial(), renewed.load().leaf().serial);
    // Without files in it, it follows none.
    let inline = |pem: &str| serde_json::Value::String(pem.to_owned()).to_string();
    let other = world.issue();
    let secret = format!(
        "{{name: s, tls_certificate: {{certificate_chain: {{inline_string: {}}}, private_key: {{inline_string: {}}}}}}}",
        inline(&other.chain),
        inline(&other.key)
    );
    assert_eq!(apply(&mut world.configuration, Secret, "s", &secret, Instant::now()), []);
    world.write(&world.issue());
    world.read_again();
    assert_eq!(world.secret_serial(), other.load().leaf().serial);
}

#[test]
fn a_folder_is_asked_for_once_and_a_watched_directory_instead() {
    let mut world = World::new();
    let plain = world.certificate("");
    world.add_cluster("a", &plain);
    world.add_cluster("b", &plain);
    let elsewhere = tempfile::tempdir().unwrap();
    let watched =
        world.certificate(&format!(", watched_directory: {{path: {}}}", elsewhere.path().display()));
    world.add_cluster("c", &watched);
    let folder = world.path().to_owned();
    assert_eq!(world.folders.try_recv().unwrap(), folder);
    assert_eq!(world.folders.try_recv().unwrap(), elsewhere.path());
    assert!(world.folders.try_recv().is_err());
    let first = world.serials();
    let renewed = world.issue();
    world.write(&renewed);
    world.configuration.read_files_again(elsewhere.path());
    let seen = world.serials();
    assert_eq!(seen.iter().filter(|serial| !first.contains(serial)).count(), 1, "{first:?} {seen:?}");
}

/// As Kubernetes does it: the files are links into a folder behind a link, which is replaced.
#[tokio::test]
async fn a_mounted_secret_that_is_replaced_is_seen() {
    let mut world = World::new();
    let (folder, next) = (world.path().to_owned(), world.issue());
    let put = |version: &str, issued: &Issued| {
        let target = folder.join(version);
        std::fs::create_dir(&target).unwrap();
        std::fs::write(target.join("chain.pem"), &issued.chain).unwrap();
        std::fs::write(target.join("key.pem"), &issued.key).unwrap();
        std::os::unix::fs::symlink(version, folder.join("..new")).unwrap();
        std::fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    };
    put("..1", &world.issue());
    for name in ["chain.pem", "key.pem"] {
        std::fs::remove_file(folder.join(name)).unwrap();
        std::os::unix::fs::symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    let certificate = world.certificate("");
    world.add_cluster("a", &certificate);
    let World { configuration, folders, folder: _kept, .. } = world;
    let (watches, _changes) = unbounded_channel();
    let configuration = Arc::new(ConfigurationHandle::new(configuration, Box::new(|_| {}), watches));
    let following = tokio::spawn(follow(configuration.clone(), folders));
    put("..2", &next);
    let wanted = [next.load().leaf().serial.clone()];
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while configuration.read(serials) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the new certificate is in use");
    following.abort();
}
