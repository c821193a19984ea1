//! The processes of the demo: one control plane, one sidecar per pod, and the applications.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::application::Application;
use super::objects::{self, PODS, Pod, REVIEWS_V1_A, REVIEWS_V1_B, REVIEWS_V2, WEB};

/// The running mesh. Everything ends with it.
#[derive(Debug)]
pub(super) struct Mesh {
    dir: TempDir,
    control_plane: Child,
    sidecars: Vec<Child>,
    /// Address of the control plane's admin pages.
    pub(super) admin: SocketAddr,
    /// The instance that will fail.
    pub(super) reviews_v1_b: Application,
    _others: [Application; 2],
}

impl Mesh {
    /// Starts everything and waits until all sidecars are ready.
    pub(super) async fn start(bin_dir: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("outrigger-demo-").tempdir()?;
        let objects = dir.path().join("objects");
        fs::create_dir(&objects)?;
        fs::create_dir(dir.path().join("logs"))?;
        fs::write(objects.join("workloads.yaml"), objects::workloads())?;
        fs::write(objects.join("policies.yaml"), objects::policies())?;
        fs::write(objects.join("reviews-route.yaml"), objects::route(90, 10))?;

        let applications = (
            Application::start(REVIEWS_V1_A).await?,
            Application::start(REVIEWS_V1_B).await?,
            Application::start(REVIEWS_V2).await?,
        );
        println!("starting the control plane on a directory of {} files", fs::read_dir(&objects)?.count());
        let data = dir.path().join("data");
        let mut control_plane = Command::new(bin_dir.join("outrigger-control-plane"))
            .arg("--source")
            .arg(format!("file:{}", objects.display()))
            .arg("--data-dir")
            .arg(&data)
            .args([
                "--xds-address",
                "127.0.0.1:0",
                "--xds-tls-address",
                "127.0.0.1:0",
                "--admin-address",
                "127.0.0.1:0",
            ])
            .arg("--access-log")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.path().join("logs/control-plane.log"))?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start outrigger-control-plane")?;
        let addresses = addresses(&data, &mut control_plane, dir.path()).await?;
        let address = |name: &str| addresses[name].as_str().and_then(|a| a.parse::<SocketAddr>().ok());
        let (Some(admin), Some(xds)) = (address("admin"), address("xds_tls")) else {
            bail!("addresses.json is incomplete: {addresses}");
        };

        println!("starting {} sidecars: {}", PODS.len(), PODS.map(|p| p.name).join(", "));
        let mut sidecars = Vec::new();
        for pod in PODS {
            sidecars.push(sidecar(bin_dir, dir.path(), &data, xds, pod).await?);
        }
        for (pod, child) in PODS.iter().zip(&mut sidecars) {
            ready(*pod, child, dir.path()).await?;
        }
        Ok(Self {
            dir,
            control_plane,
            sidecars,
            admin,
            reviews_v1_b: applications.1,
            _others: [applications.0, applications.2],
        })
    }

    /// Writes one of the objects, as an editor would.
    pub(super) fn write(&self, file: &str, text: &str) -> anyhow::Result<()> {
        let objects = self.dir.path().join("objects");
        let part = objects.join(format!(".{file}.part"));
        fs::write(&part, text)?;
        Ok(fs::rename(part, objects.join(file))?)
    }

    /// A JSON page of the control plane.
    pub(super) async fn control_plane(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&super::http::get(self.admin, path).await?)?)
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub(super) fn print_last_log_lines(&self) {
        for name in
            ["control-plane.log".to_owned()].into_iter().chain(PODS.map(|p| format!("{}.log", p.name)))
        {
            let text = fs::read_to_string(self.log_dir().join(&name)).unwrap_or_default();
            println!("\n--- {name}");
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(12)..] {
                println!("{line}");
            }
        }
    }

    pub(super) fn print_commands_to_try(&self) {
        let web = WEB.address;
        let route = self.dir.path().join("objects/reviews-route.yaml");
        println!("\nThe mesh stays up until you press Ctrl-C. Try:\n");
        println!(
            "  curl -x http://{web}:15001 http://reviews:{}/            # as web would",
            objects::APP_PORT
        );
        println!("  outrigger status --control-plane {}          # how far every sidecar is", self.admin);
        println!("  outrigger config routes --proxy-admin {web}:15000        # what web's sidecar runs");
        println!("  curl http://{web}:15090/stats/prometheus | grep istio_    # its mesh metrics");
        let objects = self.dir.path().join("objects");
        println!("  cat {}/.status/*    # what became of the objects", objects.display());
        println!(
            "  $EDITOR {}                                                # change the split",
            route.display()
        );
        println!("  tail -f {}/*.log", self.log_dir().display());
    }

    /// Asks every process to end, and waits.
    pub(super) async fn stop(mut self) {
        for child in self.sidecars.iter_mut().chain([&mut self.control_plane]) {
            terminate(child).await;
        }
        let logs = self.log_dir();
        // The logs go with the directory; nothing else is left behind.
        let _ = fs::remove_dir_all(logs);
    }
}

async fn terminate(child: &mut Child) {
    if let Some(pid) = child.id() {
        let _ = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
    }
    if tokio::time::timeout(Duration::from_secs(5), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

async fn addresses(data: &Path, control_plane: &mut Child, dir: &Path) -> anyhow::Result<Value> {
    let file = data.join("addresses.json");
    wait_for("the control plane", control_plane, &dir.join("logs/control-plane.log"), async || {
        fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
    })
    .await
}

async fn sidecar(
    bin_dir: &Path,
    dir: &Path,
    data: &Path,
    xds: SocketAddr,
    pod: Pod,
) -> anyhow::Result<Child> {
    let token = data.join("tokens/default").join(pod.name);
    let until = Instant::now() + Duration::from_secs(10);
    while !token.exists() {
        if Instant::now() > until {
            bail!("the control plane made no token for {}", pod.name);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let log = File::create(dir.join("logs").join(format!("{}.log", pod.name)))?;
    let access_log = File::create(dir.join("logs").join(format!("{}.access.log", pod.name)))?;
    Command::new(bin_dir.join("outrigger-proxy"))
        .arg("sidecar")
        .args([
            "--xds-address",
            &xds.to_string(),
            "--ca-address",
            &xds.to_string(),
            "--interception-mode",
            "NONE",
        ])
        .args(["--concurrency", "1"])
        .arg("--ca-root-cert")
        .arg(data.join("root-cert.pem"))
        .arg("--token-file")
        .arg(token)
        .arg("--state-dir")
        .arg(dir.join("state").join(pod.name))
        .env("INSTANCE_IP", pod.address.to_string())
        .env("POD_NAME", pod.name)
        .env("POD_NAMESPACE", "default")
        .env("SERVICE_ACCOUNT", pod.app)
        .env("TRUST_DOMAIN", "cluster.local")
        .env("ISTIO_META_WORKLOAD_NAME", format!("{}-{}", pod.app, pod.version))
        .env("ISTIO_METAJSON_LABELS", format!(r#"{{"app":"{}","version":"{}"}}"#, pod.app, pod.version))
        .stdin(Stdio::null())
        .stdout(access_log)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start outrigger-proxy")
}

async fn ready(pod: Pod, child: &mut Child, dir: &Path) -> anyhow::Result<()> {
    let log = dir.join("logs").join(format!("{}.log", pod.name));
    let status = SocketAddr::from((pod.address, 15021));
    wait_for(&format!("the sidecar of {}", pod.name), child, &log, async || {
        super::http::get(status, "/healthz/ready").await.ok()
    })
    .await
    .map(drop)
}

/// Polls until there is a value; fails with the end of the log when the process ends or 20 s have passed.
async fn wait_for<T>(
    what: &str,
    child: &mut Child,
    log: &Path,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let until = Instant::now() + Duration::from_secs(20);
    let why = loop {
        if let Some(value) = poll().await {
            return Ok(value);
        }
        if let Some(status) = child.try_wait()? {
            break format!("{what} ended with {status}");
        }
        if Instant::now() > until {
            break format!("{what} is not ready after 20 s");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    bail!("{why}; its log ends with:\n{}", lines[lines.len().saturating_sub(15)..].join("\n"))
}
