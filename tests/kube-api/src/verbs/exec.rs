//! `pods/exec`: a command in a container. Whoever plays the nodes runs it; what it wrote goes to the client over a WebSocket, as
//! Kubernetes' protocol `v5.channel.k8s.io`, when the command has ended. No standard input, no terminal, no SPDY.

use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use http::HeaderMap;
use hyper::upgrade::OnUpgrade;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use crate::access::{User, rbac};
use crate::cluster::{Cluster, lock};
use crate::http::path::{Target, Verb};
use crate::http::query::Query;
use crate::http::respond::Answer;
use crate::http::websocket::{self, Socket};
use crate::kinds::Collection;
use crate::status::{Result, Status};

const PROTOCOL: &str = "v5.channel.k8s.io";

/// The channels of the protocol: the first byte of each message.
const STANDARD_OUTPUT: u8 = 1;
const STANDARD_ERROR: u8 = 2;
const ERROR: u8 = 3;

/// How long a client may take to end the connection after us.
const PATIENCE: Duration = Duration::from_secs(5);

/// A command for a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The Pod's namespace.
    pub namespace: String,
    /// The Pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
    /// Program and arguments.
    pub command: Vec<String>,
}

/// What came of a command; an error when it could not be started.
pub type Ran = std::result::Result<Output, String>;

type Run = dyn Fn(&Exec) -> Ran + Send + Sync;

/// The nodes, as far as they run commands.
#[derive(Default)]
pub(crate) struct Nodes(Mutex<Option<Arc<Run>>>);

impl Nodes {
    pub(crate) fn set(&self, run: Arc<Run>) {
        *lock(&self.0) = Some(run);
    }
}

impl fmt::Debug for Nodes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Nodes")
    }
}

/// Checks a request and answers with the change of the protocol, after which the command runs.
pub(crate) fn start(
    cluster: &Arc<Cluster>,
    user: &User,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
    upgrade: OnUpgrade,
) -> Result<Answer> {
    // Whatever the method is: it is no reading.
    rbac::check(cluster, user, Verb::Create, target)?;
    let answer = websocket::accept(headers, PROTOCOL)?;
    if query.flag("stdin") || query.flag("tty") {
        return Err(Status::bad_request("here exec has no standard input and no terminal"));
    }
    let exec = read(cluster, target, query)?;
    let run = lock(&cluster.nodes.0).clone();
    let run = run.ok_or_else(|| Status::new(500, "InternalError", "no node runs commands"))?;
    tokio::spawn(async move {
        let ran = tokio::task::spawn_blocking(move || run(&exec)).await;
        // Otherwise the client is gone, or a panic has been printed.
        if let (Some(socket), Ok(ran)) = (websocket::open(upgrade).await, ran) {
            let _ = send(socket, &ran).await;
        }
    });
    Ok(answer)
}

/// What a request asks for; its container must be one of the Pod's.
fn read(cluster: &Cluster, target: &Target, query: &Query) -> Result<Exec> {
    let namespace = target.namespace.clone().unwrap_or_default();
    let name = target.name.clone().unwrap_or_default();
    let pod = cluster.get(&Collection::new("", "pods"), &namespace, &name);
    let pod = pod.ok_or_else(|| Status::not_found("", "pods", &name))?;
    let lists = ["containers", "initContainers"].into_iter();
    let mut names = lists
        .flat_map(|list| pod["spec"][list].as_array().into_iter().flatten())
        .filter_map(|container| container["name"].as_str());
    let wanted = query.get("container");
    let container = if wanted.is_empty() { names.next() } else { names.find(|name| *name == wanted) };
    let container = container
        .ok_or_else(|| Status::bad_request(format!("container {wanted} is not valid for pod {name}")))?;
    Ok(Exec { container: container.to_owned(), namespace, pod: name, command: query.all("command") })
}

/// What the command wrote, how it ended, and the end of the connection.
async fn send(mut socket: Socket, ran: &Ran) -> std::result::Result<(), Error> {
    let status = match ran {
        Ok(output) => {
            for (channel, text) in [(STANDARD_OUTPUT, &output.stdout), (STANDARD_ERROR, &output.stderr)] {
                if !text.is_empty() {
                    socket.send(message(channel, text)).await?;
                }
            }
            ended(output.status)
        }
        Err(why) => {
            json!({"metadata": {}, "status": "Failure", "reason": "InternalError", "message": why, "code": 500})
        }
    };
    socket.send(message(ERROR, status.to_string().as_bytes())).await?;
    let all_went_well = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    socket.close(Some(all_went_well)).await?;
    // Leaving before the client has would reset the connection, and with it what is still under way.
    let _ = timeout(PATIENCE, async { while socket.next().await.is_some_and(|next| next.is_ok()) {} }).await;
    Ok(())
}

fn message(channel: u8, text: &[u8]) -> Message {
    Message::binary([&[channel], text].concat())
}

/// The end of a command, as the kubelet tells it.
fn ended(status: ExitStatus) -> Value {
    if status.success() {
        return json!({"metadata": {}, "status": "Success"});
    }
    // A signal, as shells tell it.
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    json!({"metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]}})
}
