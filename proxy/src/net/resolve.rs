//! Finding a server that may be known by its name only. Runs on main.
//!
//! There is no cache: a name is looked up for each attempt to connect, so that a server that moved is found again, and the pauses
//! between attempts are the pauses between look-ups. When a look-up fails, the last good answer is tried: whoever is there now
//! has to prove its name by TLS.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::time::timeout;

use super::HostPort;

/// Longest look-up, all search domains and DNS servers included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// How names are looked up.
#[derive(Clone, Debug)]
pub struct DnsOptions {
    /// `resolv.conf(5)`: DNS servers, search domains, `ndots`, timeouts. Read anew for each look-up.
    pub resolv_conf: PathBuf,
    /// The port of the DNS servers, over UDP and TCP.
    pub port: u16,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), port: 53 }
    }
}

/// A server to connect to (gRPC's word), and where it was found last.
#[derive(Debug)]
pub struct Target {
    at: HostPort,
    dns: DnsOptions,
    last: Mutex<Vec<IpAddr>>,
}

impl Target {
    /// Asks nobody yet.
    pub fn new(at: HostPort, dns: DnsOptions) -> Self {
        Self { at, dns, last: Mutex::default() }
    }

    /// As it was written.
    pub fn at(&self) -> &HostPort {
        &self.at
    }

    /// Its addresses now, IPv4 first; never empty.
    ///
    /// # Errors
    /// The name cannot be resolved now, and could not be before either.
    pub async fn addresses(&self) -> Result<Vec<SocketAddr>, String> {
        let (name, port) = match &self.at {
            HostPort::Address(address) => return Ok(vec![*address]),
            HostPort::Name(name, port) => (name, *port),
        };
        let found = match timeout(LOOKUP_TIMEOUT, look_up(name, &self.dns)).await {
            Ok(found) => found,
            Err(_) => Err(format!("no answer within {LOOKUP_TIMEOUT:?}")),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) if *last != found => {
                tracing::info!(target: "config", "'{name}' is at {found:?}");
                *last = found;
            }
            Ok(_) => {}
            Err(reason) if last.is_empty() => return Err(format!("cannot resolve '{name}': {reason}")),
            Err(reason) => {
                tracing::warn!(target: "config", "cannot resolve '{name}': {reason}; trying the last answer, {last:?}");
            }
        }
        Ok(last.iter().map(|ip| SocketAddr::new(*ip, port)).collect())
    }
}

/// A and AAAA records, or what `/etc/hosts` says.
async fn look_up(name: &str, dns: &DnsOptions) -> Result<Vec<IpAddr>, String> {
    let file = dns.resolv_conf.display();
    let text = std::fs::read(&dns.resolv_conf).map_err(|e| format!("cannot read '{file}': {e}"))?;
    let (mut config, options) = parse_resolv_conf(text).map_err(|e| format!("'{file}': {e}"))?;
    // The domain of this machine's host name: as in the C library it only counts where there is no `search`, which holds it then.
    config.domain = None;
    for server in &mut config.name_servers {
        server.connections.iter_mut().for_each(|connection| connection.port = dns.port);
    }
    let servers: Vec<String> = config.name_servers.iter().map(|server| server.ip.to_string()).collect();
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = resolver
        .lookup_ip(name)
        .await
        .map_err(|e| format!("{} (DNS servers: {})", reason(&e), servers.join(", ")))?;
    let mut found: Vec<IpAddr> = Vec::new();
    for ip in answer.iter() {
        if !found.contains(&ip) {
            found.push(ip);
        }
    }
    // Servers like to turn the order round; that is no move.
    found.sort_unstable();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

fn reason(error: &NetError) -> String {
    match error {
        _ if error.is_nx_domain() => "there is no such name".to_owned(),
        _ if error.is_no_records_found() => "it has no address".to_owned(),
        NetError::Timeout | NetError::NoConnections => "no answer".to_owned(),
        other => other.to_string(),
    }
}
