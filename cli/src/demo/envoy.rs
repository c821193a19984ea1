//! A real Envoy as the sidecar of one more workload: its configuration comes from our control plane, its secrets from
//! `outrigger-proxy sds`.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use tokio::process::{Child, Command};

use super::mesh::{Mesh, wait_for};
use super::objects::ENVOY;

/// What a user is told to write.
const BOOTSTRAP: &str = include_str!("../../../docs/foreign-peers/envoy.yaml");

/// The running Envoy and the server of its secrets.
#[derive(Debug)]
pub(super) struct Envoy {
    pub(super) proxy: Child,
    pub(super) secrets: Child,
}

/// The Envoy on the `PATH`.
pub(super) fn program() -> Option<PathBuf> {
    let folders = env::var_os("PATH")?;
    env::split_paths(&folders).map(|folder| folder.join("envoy")).find(|file| file.is_file())
}

impl Envoy {
    /// Starts both and waits until the Envoy has listeners.
    pub(super) async fn start(mesh: &Mesh, program: &Path) -> anyhow::Result<Self> {
        let folder = mesh.folder();
        let (socket, file) = (folder.join("sds.sock"), folder.join("envoy.yaml"));
        let log = |name: &str| File::create(mesh.log_dir().join(name));
        let mut secrets = mesh
            .proxy("sds", ENVOY)
            .await?
            .arg("--uds")
            .arg(&socket)
            .env("POD_NAMESPACE", "default")
            .env("SERVICE_ACCOUNT", ENVOY.app)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log("envoy-0.sds.log")?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start outrigger-proxy sds")?;
        let sds_log = mesh.log_dir().join("envoy-0.sds.log");
        wait_for("the server of secrets", &mut secrets, &sds_log, async || socket.exists().then_some(()))
            .await?;

        let (ip, admin) = (ENVOY.address.to_string(), SocketAddr::from((ENVOY.address, 15000)));
        let control_plane = mesh.xds();
        let values = [
            ("pod", ENVOY.name),
            ("namespace", "default"),
            ("app", ENVOY.app),
            ("pod_ip", &ip),
            ("admin_ip", &ip),
            ("admin_port", "15000"),
            ("api_type", "DELTA_GRPC"),
            ("sds_socket", &socket.display().to_string()),
            ("control_plane_ip", &control_plane.ip().to_string()),
            ("control_plane_port", &control_plane.port().to_string()),
        ];
        let bootstrap = values.iter().fold(BOOTSTRAP.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        });
        fs::write(&file, bootstrap)?;
        let mut proxy = Command::new(program)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warning"])
            .stdin(Stdio::null())
            .stdout(log("envoy-0.access.log")?)
            .stderr(log("envoy-0.log")?)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start envoy")?;
        let envoy_log = mesh.log_dir().join("envoy-0.log");
        wait_for("the Envoy", &mut proxy, &envoy_log, async || {
            let page = super::http::get(admin, "/listeners").await.ok()?;
            (!page.trim().is_empty()).then_some(())
        })
        .await?;
        Ok(Self { proxy, secrets })
    }
}
