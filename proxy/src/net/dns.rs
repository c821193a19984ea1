//! Asking DNS for addresses: which servers, in which way, for which IP versions. Runs on main.
//!
//! Nothing is cached, and the system's files are read anew for each look-up: what they say may have changed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::system_conf::parse_resolv_conf;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Longest look-up of one type of record, all search domains and DNS servers included, unless tries and their time are configured.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// Envoy's defaults of `query_timeout_seconds` and `query_tries`, where one of them is configured.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
const QUERY_TRIES: u32 = 4;
/// Look-ups that one resolver makes at once; more wait. Each needs a socket or two.
const MAX_LOOKUPS: usize = 128;

/// How the system looks names up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsOptions {
    /// `resolv.conf(5)`: DNS servers, search domains, `ndots`, timeouts.
    pub resolv_conf: PathBuf,
    /// The port of the DNS servers, over UDP and TCP.
    pub port: u16,
}

impl Default for DnsOptions {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), port: 53 }
    }
}

/// What a configuration says of looking names up; the default is the system's way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolverSettings {
    /// The DNS servers to ask; empty: the system's. Port 0 is 53.
    pub servers: Vec<SocketAddr>,
    /// Ask `servers` only where the system has none.
    pub as_fallback: bool,
    /// Over TCP only.
    pub use_tcp: bool,
    /// Names are complete: no search domain is tried.
    pub no_search: bool,
    /// How long a server is waited for, the first time.
    pub query_timeout: Option<Duration>,
    /// How often servers are asked in all, at least 1.
    pub query_tries: Option<u32>,
}

/// Which addresses of a name are wanted (`DnsLookupFamily`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupFamily {
    /// IPv6, and IPv4 where there is none.
    Auto,
    /// IPv4.
    V4Only,
    /// IPv6.
    V6Only,
    /// IPv4, and IPv6 where there is none.
    V4Preferred,
    /// Both, IPv4 first.
    All,
}

/// What a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Each address once, in the order of the DNS server. Empty: there is no such name, or it has no address.
    pub addresses: Vec<IpAddr>,
    /// For how long this holds: the shortest of its records. `None`: it does not come from a DNS server.
    pub ttl: Option<Duration>,
}

/// Looks names up.
#[derive(Debug)]
pub struct Resolver {
    settings: ResolverSettings,
    system: DnsOptions,
    permits: Semaphore,
}

impl Resolver {
    /// Asks nobody yet.
    pub fn new(settings: ResolverSettings, system: DnsOptions) -> Self {
        Self { settings, system, permits: Semaphore::new(MAX_LOOKUPS) }
    }

    /// The addresses of a name, or of an address itself.
    ///
    /// # Errors
    /// Nobody could tell, in time. That there is no such name is an answer.
    pub async fn look_up(&self, name: &str, family: LookupFamily) -> Result<Answer, String> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            let is_wanted = match family {
                LookupFamily::V4Only => ip.is_ipv4(),
                LookupFamily::V6Only => ip.is_ipv6(),
                LookupFamily::Auto | LookupFamily::V4Preferred | LookupFamily::All => true,
            };
            return Ok(Answer { addresses: is_wanted.then_some(ip).into_iter().collect(), ttl: None });
        }
        let _permit = self.permits.acquire().await.map_err(|e| e.to_string())?;
        self.ask(name, family).await
    }

    /// How long the records of one type may take: servers that drop questions for IPv6 still answer those for IPv4.
    fn time_limit(&self) -> Duration {
        let ResolverSettings { query_timeout, query_tries, .. } = &self.settings;
        match (query_timeout, query_tries) {
            (None, None) => LOOKUP_TIMEOUT,
            (timeout, tries) => timeout.unwrap_or(QUERY_TIMEOUT) * tries.unwrap_or(QUERY_TRIES),
        }
    }

    async fn ask(&self, name: &str, family: LookupFamily) -> Result<Answer, String> {
        use LookupIpStrategy::{Ipv4Only as V4, Ipv6Only as V6};
        let (config, options) = self.configuration()?;
        let limit = self.time_limit();
        let one = |strategy| {
            let asked = timeout(limit, ask_for(name, strategy, &config, &options));
            async move { asked.await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}"))) }
        };
        let in_turn = |first, second| async move {
            match one(first).await {
                Ok(found) if !found.addresses.is_empty() => Ok(found),
                // What the first one could not tell, the second one may not deny.
                nothing => match (nothing, one(second).await) {
                    (Err(reason), Ok(found)) if found.addresses.is_empty() => Err(reason),
                    (_, other) => other,
                },
            }
        };
        match family {
            LookupFamily::V4Only => one(V4).await,
            LookupFamily::V6Only => one(V6).await,
            LookupFamily::Auto => in_turn(V6, V4).await,
            LookupFamily::V4Preferred => in_turn(V4, V6).await,
            LookupFamily::All => match tokio::join!(one(V4), one(V6)) {
                (Ok(v4), Ok(v6)) => Ok(v4.and(v6)),
                (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.addresses.is_empty() => Ok(found),
                (Err(reason), _) | (_, Err(reason)) => Err(reason),
            },
        }
    }

    /// The system's configuration with what the settings say instead.
    fn configuration(&self) -> Result<(ResolverConfig, ResolverOpts), String> {
        let ResolverSettings { servers, as_fallback, use_tcp, no_search, query_timeout, query_tries } =
            &self.settings;
        let own = || servers.iter().map(|server| name_server(*server)).collect::<Vec<_>>();
        let (mut config, mut options) = match self.system_configuration() {
            Ok((mut config, options)) => {
                if !servers.is_empty() && !as_fallback {
                    config.name_servers = own();
                }
                (config, options)
            }
            // Search domains and `ndots` are all that is missed then.
            Err(_) if !servers.is_empty() => {
                (ResolverConfig::from_parts(None, Vec::new(), own()), ResolverOpts::default())
            }
            Err(reason) => return Err(reason),
        };
        // The domain of this machine's host name: as in the C library it only counts where there is no `search`, which holds it then.
        config.domain = None;
        if *no_search {
            config.search.clear();
        }
        if *use_tcp {
            for server in &mut config.name_servers {
                server.connections.retain(|connection| matches!(connection.protocol, ProtocolConfig::Tcp));
            }
        }
        // The shortest time to live counts, that of an alias too.
        options.preserve_intermediates = true;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.timeout = query_timeout.unwrap_or(options.timeout);
        options.attempts = query_tries.map_or(options.attempts, |tries| tries.saturating_sub(1) as usize);
        Ok((config, options))
    }

    fn system_configuration(&self) -> Result<(ResolverConfig, ResolverOpts), String> {
        let DnsOptions { resolv_conf, port } = &self.system;
        let file = resolv_conf.display();
        let text = std::fs::read(resolv_conf).map_err(|e| format!("cannot read '{file}': {e}"))?;
        let (mut config, options) = parse_resolv_conf(text).map_err(|e| format!("'{file}': {e}"))?;
        for server in &mut config.name_servers {
            server.connections.iter_mut().for_each(|connection| connection.port = *port);
        }
        Ok((config, options))
    }
}

fn name_server(at: SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(at.ip());
    let port = if at.port() == 0 { 53 } else { at.port() };
    server.connections.iter_mut().for_each(|connection| connection.port = port);
    server
}

impl Answer {
    /// Both.
    fn and(mut self, other: Answer) -> Answer {
        self.addresses.extend(other.addresses);
        self.ttl = [self.ttl, other.ttl].into_iter().flatten().min();
        self
    }
}

/// The records of one type, or what `/etc/hosts` says.
async fn ask_for(
    name: &str,
    strategy: LookupIpStrategy,
    config: &ResolverConfig,
    options: &ResolverOpts,
) -> Result<Answer, String> {
    let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
    *builder.options_mut() = options.clone();
    builder.options_mut().ip_strategy = strategy;
    let resolver = builder.build().map_err(|e| e.to_string())?;
    let answer = match resolver.lookup_ip(name).await {
        Ok(answer) => answer,
        Err(nothing) if nothing.is_no_records_found() => return Ok(Answer::default()),
        Err(failure) => {
            let servers: Vec<String> =
                config.name_servers.iter().map(|server| server.ip.to_string()).collect();
            return Err(format!("{} (DNS servers: {})", reason(&failure), servers.join(", ")));
        }
    };
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in answer.iter() {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    let ttl = answer.as_lookup().answers().iter().map(|record| record.ttl).min();
    Ok(Answer { addresses, ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())) })
}

fn reason(error: &NetError) -> String {
    match error {
        NetError::Timeout | NetError::NoConnections => "no answer".to_owned(),
        other => other.to_string(),
    }
}

/// The resolvers of a process: those with the same settings are one.
#[derive(Debug, Default)]
pub struct Resolvers {
    /// How the system looks names up.
    system: DnsOptions,
    /// What counts where nothing is said: the bootstrap's settings.
    pub default: ResolverSettings,
    all: Vec<Arc<Resolver>>,
}

impl Resolvers {
    /// None is wanted yet.
    pub fn new(system: DnsOptions) -> Self {
        Self { system, ..Self::default() }
    }

    /// The resolver with these settings, or with the default ones.
    pub fn get(&mut self, settings: Option<ResolverSettings>) -> Arc<Resolver> {
        let settings = settings.unwrap_or_else(|| self.default.clone());
        if let Some(known) = self.all.iter().find(|known| known.settings == settings) {
            return known.clone();
        }
        self.all.retain(|known| Arc::strong_count(known) > 1);
        let resolver = Arc::new(Resolver::new(settings, self.system.clone()));
        self.all.push(resolver.clone());
        resolver
    }
}
