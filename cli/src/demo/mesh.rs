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
use super::envoy::Envoy;
use super::objects::{self, ENVOY, PODS, Pod, REVIEWS_V1_A, REVIEWS_V1_B, REVIEWS_V2, WEB};

/// The running mesh. Everything ends with it.
#[derive(Debug)]
pub(super) struct Mesh {
    dir: TempDir,
    bin_dir: PathBuf,
    control_plane: Child,
    addresses: Addresses,
    sidecars: Vec<Child>,
    envoy: Option<Envoy>,
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
        let (control_plane, addresses) = control_plane(bin_dir, dir.path(), Addresses::any()).await?;

        println!("starting {} sidecars: {}", PODS.len(), PODS.map(|p| p.name).join(", "));
        let mut sidecars = Vec::new();
        for pod in PODS {
            sidecars.push(sidecar(bin_dir, dir.path(), addresses.xds, pod).await?);
        }
        for (pod, child) in PODS.iter().zip(&mut sidecars) {
            ready(*pod, child, dir.path()).await?;
        }
        Ok(Self {
            dir,
            bin_dir: bin_dir.to_owned(),
            control_plane,
            addresses,
            sidecars,
            envoy: None,
            reviews_v1_b: applications.1,
            _others: [applications.0, applications.2],
        })
    }

    /// Kills the control plane.
    pub(super) async fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        Ok(self.control_plane.kill().await?)
    }

    /// Starts the control plane again where it was.
    pub(super) async fn restart_control_plane(&mut self) -> anyhow::Result<()> {
        fs::remove_file(self.dir.path().join("data/addresses.json"))?;
        (self.control_plane, self.addresses) =
            control_plane(&self.bin_dir, self.dir.path(), self.addresses).await?;
        Ok(())
    }

    /// Lets web's sidecar drain and end, and starts another one.
    pub(super) async fn restart_web(&mut self) -> anyhow::Result<()> {
        terminate(&mut self.sidecars[0]).await;
        self.sidecars[0] = sidecar(&self.bin_dir, self.dir.path(), self.addresses.xds, WEB).await?;
        ready(WEB, &mut self.sidecars[0], self.dir.path()).await
    }

    /// Lets a real Envoy join as one more workload.
    pub(super) async fn join_envoy(&mut self, program: &Path) -> anyhow::Result<()> {
        self.write("envoy.yaml", &objects::pod_object(ENVOY))?;
        self.envoy = Some(Envoy::start(self, program).await?);
        Ok(())
    }

    /// `outrigger-proxy` with what it needs to be certified as a pod.
    pub(super) async fn proxy(&self, command: &str, pod: Pod) -> anyhow::Result<Command> {
        proxy(&self.bin_dir, self.dir.path(), command, self.addresses.xds, pod).await
    }

    /// Where the control plane serves xDS and certificates.
    pub(super) fn xds(&self) -> SocketAddr {
        self.addresses.xds
    }

    /// Where the mesh keeps its files.
    pub(super) fn folder(&self) -> &Path {
        self.dir.path()
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
        Ok(serde_json::from_str(&super::http::get(self.addresses.admin, path).await?)?)
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
        println!(
            "  outrigger status --control-plane {}          # how far every sidecar is",
            self.addresses.admin
        );
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
        let envoy = self.envoy.iter_mut().flat_map(|envoy| [&mut envoy.proxy, &mut envoy.secrets]);
        for child in envoy.chain(self.sidecars.iter_mut()).chain([&mut self.control_plane]) {
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

/// Where the control plane listens.
#[derive(Debug, Clone, Copy)]
struct Addresses {
    /// xDS and the certificate service.
    xds: SocketAddr,
    admin: SocketAddr,
}

impl Addresses {
    fn any() -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { xds: any, admin: any }
    }
}

async fn control_plane(bin_dir: &Path, dir: &Path, at: Addresses) -> anyhow::Result<(Child, Addresses)> {
    let (data, log) = (dir.join("data"), dir.join("logs/control-plane.log"));
    let mut child = Command::new(bin_dir.join("outrigger-control-plane"))
        .arg("--source")
        .arg(format!("file:{}", dir.join("objects").display()))
        .arg("--data-dir")
        .arg(&data)
        .args(["--xds-address", "127.0.0.1:0", "--xds-tls-address", &at.xds.to_string()])
        .args(["--admin-address", &at.admin.to_string(), "--access-log"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::options().create(true).append(true).open(&log)?)
        .kill_on_drop(true)
        .spawn()
        .context("cannot start outrigger-control-plane")?;
    let file = data.join("addresses.json");
    let addresses = wait_for("the control plane", &mut child, &log, async || {
        fs::read(&file).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok())
    });
    let addresses = addresses.await?;
    let address = |name: &str| addresses[name].as_str().and_then(|a| a.parse::<SocketAddr>().ok());
    match (address("xds_tls"), address("admin")) {
        (Some(xds), Some(admin)) => Ok((child, Addresses { xds, admin })),
        _ => bail!("addresses.json is incomplete: {addresses}"),
    }
}

/// `outrigger-proxy` with what it needs to be certified as `pod` by the control plane at `xds`.
async fn proxy(
    bin_dir: &Path,
    dir: &Path,
    command: &str,
    xds: SocketAddr,
    pod: Pod,
) -> anyhow::Result<Command> {
    let data = dir.join("data");
    let token = data.join("tokens/default").join(pod.name);
    let until = Instant::now() + Duration::from_secs(10);
    while !token.exists() {
        if Instant::now() > until {
            bail!("the control plane made no token for {}", pod.name);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut proxy = Command::new(bin_dir.join("outrigger-proxy"));
    proxy.args([command, "--ca-address", &xds.to_string()]);
    proxy.arg("--ca-root-cert").arg(data.join("root-cert.pem")).arg("--token-file").arg(token);
    Ok(proxy)
}

async fn sidecar(bin_dir: &Path, dir: &Path, xds: SocketAddr, pod: Pod) -> anyhow::Result<Child> {
    let log = |kind: &str| {
        File::options().create(true).append(true).open(dir.join("logs").join(format!("{}.{kind}", pod.name)))
    };
    proxy(bin_dir, dir, "sidecar", xds, pod)
        .await?
        .args(["--xds-address", &xds.to_string(), "--interception-mode", "NONE", "--concurrency", "1"])
        .arg("--state-dir")
        .arg(dir.join("state").join(pod.name))
        .env("SECRET_TTL", format!("{}s", pod.certificate_lifetime.as_secs()))
        .env("INSTANCE_IP", pod.address.to_string())
        .env("POD_NAME", pod.name)
        .env("POD_NAMESPACE", "default")
        .env("SERVICE_ACCOUNT", pod.app)
        .env("TRUST_DOMAIN", "cluster.local")
        .env("ISTIO_META_WORKLOAD_NAME", format!("{}-{}", pod.app, pod.version))
        .env("ISTIO_METAJSON_LABELS", format!(r#"{{"app":"{}","version":"{}"}}"#, pod.app, pod.version))
        .stdin(Stdio::null())
        .stdout(log("access.log")?)
        .stderr(log("log")?)
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
pub(super) async fn wait_for<T>(
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
