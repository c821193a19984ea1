//! `outrigger-proxy request` and `outrigger-proxy wait`: what the lifecycle hooks of a pod run beside its sidecar. Blocking, no
//! runtime.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use clap::Args;

/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks of `wait`.
const PERIOD: Duration = Duration::from_millis(500);
const AGENT_PORT: u16 = 15020;

/// Flags of `outrigger-proxy request`.
#[derive(Debug, Clone, Args)]
pub struct RequestFlags {
    /// GET or POST
    #[arg(value_parser = ["GET", "POST"], ignore_case = true)]
    pub method: String,
    /// /drain, /quitquitquit, /healthz/ready, /stats/prometheus
    pub path: String,
    #[command(flatten)]
    agent: AgentAddress,
}

/// Flags of `outrigger-proxy wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitFlags {
    /// How long at most
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub timeout_s: u64,
    #[command(flatten)]
    agent: AgentAddress,
}

#[derive(Debug, Clone, Args)]
struct AgentAddress {
    /// The sidecar's agent; default: INSTANCE_IP:15020 when that is a loopback address, else 127.0.0.1:15020
    #[arg(long, env = "OUTRIGGER_AGENT_ADDRESS")]
    agent_address: Option<SocketAddr>,
    #[arg(long, env = "INSTANCE_IP", hide = true)]
    instance_ip: Option<IpAddr>,
}

impl AgentAddress {
    fn resolve(&self) -> SocketAddr {
        let own = self.instance_ip.filter(IpAddr::is_loopback).unwrap_or(Ipv4Addr::LOCALHOST.into());
        match self.agent_address {
            // Where it listens on all addresses, it is here too.
            Some(address) if address.ip().is_unspecified() => SocketAddr::new(own, address.port()),
            Some(address) => address,
            None => SocketAddr::new(own, AGENT_PORT),
        }
    }
}

/// One request to the sidecar's agent; gives the body of the answer.
///
/// # Errors
/// Nobody answers, or not with a success.
pub fn run(flags: &RequestFlags) -> Result<String, String> {
    let address = flags.agent.resolve();
    let path = if flags.path.starts_with('/') { flags.path.clone() } else { format!("/{}", flags.path) };
    let told = |problem: String| format!("{} http://{address}{path}: {problem}", flags.method);
    let (status, body) =
        ask(address, &flags.method.to_uppercase(), &path).map_err(|e| told(e.to_string()))?;
    if (200..300).contains(&status) { Ok(body) } else { Err(told(format!("{status} {}", body.trim_end()))) }
}

/// Waits until the sidecar is ready.
///
/// # Errors
/// It is not ready in time.
pub fn wait(flags: &WaitFlags) -> Result<(), String> {
    let address = flags.agent.resolve();
    let deadline = Instant::now() + Duration::from_secs(flags.timeout_s);
    loop {
        let problem = match ask(address, "GET", "/healthz/ready") {
            Ok((200, _)) => return Ok(()),
            Ok((status, body)) => format!("{status} {}", body.trim_end()),
            Err(error) => error.to_string(),
        };
        if Instant::now() + PERIOD >= deadline {
            return Err(format!(
                "the sidecar at {address} is not ready after {} s: {problem}",
                flags.timeout_s
            ));
        }
        std::thread::sleep(PERIOD);
    }
}

fn ask(address: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the answer ends with the connection and has no chunks.
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP");
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(malformed)?;
    Ok((status, body.to_owned()))
}
