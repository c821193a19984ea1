//! The images: the same input gives the same bytes, and the archive says what a registry and a runtime need.
//!
//! Built of small files here; `make images` builds them of the programs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use outrigger_tests::tools::repository;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a "program" (a script: its content is nobody's business), and what is built from it.
struct Workshop(TempDir);

impl Workshop {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        fs::write(&program, "#!/bin/sh\necho hello\n").unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.path().join("LICENSE"), "as you like").unwrap();
        Workshop(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn build(&self, output: &str, more: &[&str]) -> Output {
        let from = |name: &str, to: &str| format!("{}={to}", self.path(name).display());
        Command::new("python3")
            .arg(repository().join("scripts/oci_image.py"))
            .arg("--output")
            .arg(self.path(output))
            .args(["--name", "registry.example.com/program:1.2"])
            .args(["--file", &from("program", "/usr/bin/program"), "--file", &from("LICENSE", "/LICENSE")])
            .args(["--entrypoint", "/usr/bin/program"])
            .args(["--label", "org.opencontainers.image.version=1.2", "--architecture", "amd64"])
            .args(more)
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .unwrap()
    }

    /// Builds and unpacks the archive.
    fn unpacked(&self) -> PathBuf {
        let output = self.build("image.tar", &[]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folder = self.path("layout");
        fs::create_dir(&folder).unwrap();
        tar(&["-xf", self.path("image.tar").to_str().unwrap(), "-C", folder.to_str().unwrap()]);
        folder
    }
}

fn tar(arguments: &[&str]) -> String {
    let output = Command::new("tar").args(arguments).env("TZ", "UTC").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The file of a descriptor, whose digest and size are right.
fn blob(layout: &Path, descriptor: &Value) -> PathBuf {
    let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
    let file = layout.join("blobs/sha256").join(digest);
    assert_eq!(sha256(&fs::read(&file).unwrap()), digest);
    assert_eq!(fs::metadata(&file).unwrap().len(), descriptor["size"].as_u64().unwrap());
    file
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let rustls::SupportedCipherSuite::Tls13(suite) = suite else { unreachable!("a suite of TLS 1.3") };
    let hash = suite.common.hash_provider.hash(bytes);
    hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let (first, second) = (Workshop::new(), Workshop::new());
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    fs::File::open(second.path("program")).unwrap().set_modified(old).unwrap();
    for workshop in [&first, &second] {
        assert!(workshop.build("image.tar", &[]).status.success());
    }
    let bytes = |workshop: &Workshop| fs::read(workshop.path("image.tar")).unwrap();
    assert!(bytes(&first) == bytes(&second), "two builds differ");
    fs::write(second.path("LICENSE"), "as you like!").unwrap();
    assert!(second.build("image.tar", &[]).status.success());
    assert!(bytes(&first) != bytes(&second), "a changed file changes nothing");
}

#[test]
fn the_image_runs_the_program_as_nobody_special() {
    let workshop = Workshop::new();
    let layout = workshop.unpacked();
    assert_eq!(read(&layout.join("oci-layout"))["imageLayoutVersion"], "1.0.0");
    let index = read(&layout.join("index.json"));
    let entry = &index["manifests"][0];
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "1.2");
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "registry.example.com/program:1.2");
    assert_eq!(entry["platform"], json!({"architecture": "amd64", "os": "linux"}));
    let manifest = read(&blob(&layout, entry));
    assert_eq!(manifest["annotations"]["org.opencontainers.image.version"], "1.2");
    let image = read(&blob(&layout, &manifest["config"]));
    assert_eq!(image["config"]["User"], "1337:1337");
    assert_eq!(image["config"]["Entrypoint"], json!(["/usr/bin/program"]));
    assert_eq!(image["config"]["Env"], json!(["PATH=/usr/bin:/usr/sbin"]));
    assert_eq!(image["config"]["Labels"]["org.opencontainers.image.version"], "1.2");
    assert_eq!(image["created"], "2023-11-14T22:13:20Z");
    assert_eq!((&image["os"], &image["architecture"]), (&json!("linux"), &json!("amd64")));

    let layers = manifest["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 1);
    let layer = blob(&layout, &layers[0]);
    let plain = Command::new("gzip").args(["-dc"]).arg(&layer).output().unwrap().stdout;
    assert_eq!(image["rootfs"]["diff_ids"], json!([format!("sha256:{}", sha256(&plain))]));
    let listed = tar(&["-tvzf", layer.to_str().unwrap(), "--full-time", "--numeric-owner"]);
    let listed: Vec<String> =
        listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let date = "2023-11-14 22:13:20";
    assert_eq!(
        listed,
        [
            format!("-rw-r--r-- 0/0 11 {date} LICENSE"),
            format!("drwxr-xr-x 0/0 0 {date} usr/"),
            format!("drwxr-xr-x 0/0 0 {date} usr/bin/"),
            format!("-rwxr-xr-x 0/0 21 {date} usr/bin/program"),
        ]
    );

    // Docker's own index names the same blobs.
    let docker = &read(&layout.join("manifest.json"))[0];
    let path =
        |descriptor: &Value| descriptor["digest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    assert_eq!(docker["Config"], path(&manifest["config"]));
    assert_eq!(docker["Layers"], json!([path(&layers[0])]));
    assert_eq!(docker["RepoTags"], json!(["registry.example.com/program:1.2"]));
}

#[test]
fn what_would_not_run_is_refused() {
    let workshop = Workshop::new();
    let shell = "/bin/sh=/bin/sh";
    for (more, expected) in [
        (&["--file", shell][..], "is dynamically linked"),
        (&["--file", "/nowhere/file=/x"], "/nowhere/file"),
        (&["--file", "/etc/hostname=etc/hostname"], "not an absolute path"),
        (&["--file", "/etc/hostname"], "not of the form"),
        (&["--entrypoint", "/usr/bin/other"], "not among the files"),
        (&["--name", "program"], "REPOSITORY:TAG"),
        (&["--limit-bytes", "100"], "more than the limit 100"),
    ] {
        let output = workshop.build("refused.tar", more);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{more:?}");
        assert!(text.contains(expected), "{more:?}: no `{expected}` in {text}");
        assert!(!workshop.path("refused.tar").exists(), "{more:?}");
    }
}

#[test]
fn the_proxys_image_gives_memory_back_at_once() {
    let workshop = Workshop::new();
    for name in ["outrigger", "outrigger-proxy", "outrigger-control-plane"] {
        fs::copy(workshop.path("program"), workshop.path(name)).unwrap();
    }
    let built = Command::new(repository().join("scripts/build-images.sh"))
        .arg(workshop.path("images"))
        .env("BINARIES", workshop.path(""))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let layout = workshop.path("proxy");
    fs::create_dir(&layout).unwrap();
    let archive = workshop.path("images/outrigger-proxy.tar");
    tar(&["-xf", archive.to_str().unwrap(), "-C", layout.to_str().unwrap()]);
    let manifest = read(&blob(&layout, &read(&layout.join("index.json"))["manifests"][0]));
    let image = read(&blob(&layout, &manifest["config"]));
    // What tests/suites/scale.rs measures the proxy's memory with.
    let environment = image["config"]["Env"].as_array().unwrap();
    assert!(environment.contains(&json!("MIMALLOC_PURGE_DELAY=0")), "{environment:?}");
}
