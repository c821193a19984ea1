//! `outrigger-proxy sds`: a pod's secrets for a program that is not ours.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::mesh::Mesh;
use crate::proxy::binary;
use crate::wait;

/// `outrigger-proxy sds` for a pod of the namespace `default`; killed when dropped.
#[derive(Debug)]
pub struct SecretServer(Child);

impl SecretServer {
    /// Starts it with `args` that say what to do with the secrets, and what it writes going to `log`.
    #[track_caller]
    pub fn start(mesh: &Mesh, pod: &str, service_account: &str, args: &[&OsStr], log: &Path) -> Self {
        let token = mesh.token_file(pod);
        wait::until("a token", || token.exists());
        let child = Command::new(binary("outrigger-proxy"))
            .arg("sds")
            .args(args)
            .args(["--ca-address", &mesh.control_plane.xds_tls().to_string()])
            .arg("--ca-root-cert")
            .arg(mesh.root())
            .arg("--token-file")
            .arg(token)
            .env("POD_NAMESPACE", "default")
            .env("SERVICE_ACCOUNT", service_account)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("log file"))
            .spawn();
        SecretServer(child.expect("start outrigger-proxy sds"))
    }
}

impl Drop for SecretServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
