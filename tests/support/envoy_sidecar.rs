//! A real Envoy as the sidecar of a workload: its configuration comes from our control plane, its secrets from
//! `outrigger-proxy sds`, and it proves itself to the control plane with the workload's certificate.

use std::ffi::OsStr;

use tempfile::TempDir;

use crate::bootstrap::Bootstrap;
use crate::mesh::{Mesh, Workload};
use crate::proxy::{Engine, Launch, Proxy};
use crate::secret_server::SecretServer;
use crate::wait;

/// What a user is told to write.
const BOOTSTRAP: &str = include_str!("../../docs/foreign-peers/envoy.yaml");

/// The variant of xDS that it speaks, as a bootstrap spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// State of the world.
    Sotw,
    /// Incremental.
    Delta,
}

impl Variant {
    /// `api_type` of a bootstrap.
    pub fn api_type(self) -> &'static str {
        match self {
            Variant::Sotw => "GRPC",
            Variant::Delta => "DELTA_GRPC",
        }
    }
}

/// The running Envoy and the server of its secrets.
#[derive(Debug)]
pub struct EnvoySidecar {
    /// The Envoy.
    pub envoy: Proxy,
    _secrets: SecretServer,
    _bootstrap: Bootstrap,
    _folder: TempDir,
}

impl EnvoySidecar {
    /// Starts both for `workload`, which has no other sidecar, and waits until its listeners are there. `None` when Envoy is not
    /// installed, and then the calling test has been reported as skipped.
    #[track_caller]
    pub fn start(mesh: &Mesh, workload: &Workload, variant: Variant) -> Option<Self> {
        Engine::Envoy.program()?;
        let folder = tempfile::tempdir().expect("temporary folder");
        let socket = folder.path().join("sds.sock");
        let args = [OsStr::new("--uds"), socket.as_os_str()];
        let secrets =
            SecretServer::start(mesh, &workload.pod, &workload.app, &args, &folder.path().join("sds.stderr"));
        wait::until("a server of secrets", || socket.exists());
        let control_plane = mesh.control_plane.xds_tls();
        let values = [
            ("pod", workload.pod.clone()),
            ("namespace", "default".to_owned()),
            ("app", workload.app.clone()),
            ("pod_ip", workload.ip.to_string()),
            ("api_type", variant.api_type().to_owned()),
            ("sds_socket", socket.display().to_string()),
            ("control_plane_ip", control_plane.ip().to_string()),
            ("control_plane_port", control_plane.port().to_string()),
        ];
        let bootstrap = Bootstrap::of_yaml(BOOTSTRAP, &values);
        let envoy = Launch::new(Engine::Envoy).start(&bootstrap)?;
        let sidecar = Self { envoy, _secrets: secrets, _bootstrap: bootstrap, _folder: folder };
        // Ready means that what the server had sent is in use; a mesh of which the pod is a part has listeners for it.
        wait::until("Envoy's listeners", || {
            sidecar.envoy.stat("listener_manager.total_listeners_active").is_some_and(|active| active > 0)
        });
        Some(sidecar)
    }
}
