//! gRPC's interoperability tests between a real client and a real server (`tests/grpc_interop`), through both sidecars: calls of every
//! kind, cancellation, deadlines, metadata, statuses, compression; and what the mesh's metrics say of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use outrigger_tests::mesh::Mesh;
use outrigger_tests::tools::{repository, require_tool};
use outrigger_tests::wait;
use tempfile::TempDir;

/// Of the server and of its Service.
const PORT: u16 = 9090;

/// Cases of `client.py`.
const CASES: usize = 20;

fn objects() -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: interop, namespace: default}}\nspec:\n  selector: {{app: reviews}}\n  \
         ports: [{{name: grpc, port: {PORT}}}]\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: \
         {{name: default, namespace: default}}\nspec:\n  mtls: {{mode: STRICT}}\n"
    )
}

#[track_caller]
fn python(program: &str) -> Option<Command> {
    let mut command = Command::new(require_tool("grpc-python")?);
    command.arg("-B").arg(repository().join("tests/grpc_interop").join(program));
    Some(command)
}

struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    #[track_caller]
    fn start(at: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let said = File::create(folder.path().join("stdout")).unwrap();
        let child = python("server.py")?.arg(at.to_string()).stdout(said).spawn().unwrap();
        wait::until("a gRPC server", || TcpStream::connect(at).is_ok());
        Some(Self { child, folder })
    }

    /// Methods whose calls the client has ended before the server had.
    fn cancelled(&self) -> String {
        fs::read_to_string(self.folder.path().join("stdout")).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn real_clients_and_servers_understand_each_other_through_the_mesh() {
    let mesh = Mesh::start(&[("web-0", "web", "v1"), ("reviews-v1-0", "reviews", "v1")], &objects());
    let (web, reviews) = (mesh.workload("web-0"), mesh.workload("reviews-v1-0"));
    let Some(server) = Server::start((reviews.ip, PORT).into()) else { return };
    let mut client = python("client.py").unwrap();
    client.arg(web.outbound().to_string()).arg(format!("interop:{PORT}"));
    let output = client.stderr(Stdio::inherit()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let wrong: Vec<&str> = said.lines().filter(|line| !line.ends_with(": ok")).collect();
    assert!(output.status.success() && wrong.is_empty(), "{wrong:#?}");
    assert_eq!(said.lines().count(), CASES, "{said}");

    // A client that leaves ends the work behind both sidecars. (The server itself takes some of these ends for the client's last word.)
    let cancelled = |method: &str| server.cancelled().lines().filter(|line| *line == method).count();
    let all = || cancelled("StreamingOutputCall") == 1 && cancelled("FullDuplexCall") > 0;
    let ended = wait::within(wait::PATIENCE, || all().then_some(()));
    assert!(ended.is_some(), "calls that were cancelled go on at the server: {}", server.cancelled());
    // Both ends know the status that stands in the trailers.
    let aborted = [("grpc_response_status", "10"), ("response_code", "200"), ("request_protocol", "grpc")];
    for (pod, reporter) in [(web, "source"), (reviews, "destination")] {
        let labels: Vec<_> = aborted.iter().copied().chain([("reporter", reporter)]).collect();
        wait::until("calls that were aborted are counted", || {
            // `every_status` and `status_after_messages`.
            pod.scrape().sum("istio_requests_total", &labels) == 2.0
        });
    }
}
