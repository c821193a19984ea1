//! Clusters by DNS name: `STRICT_DNS` and `LOGICAL_DNS`. Main only.
//!
//! Each name of a cluster is a task of its own that asks, says what it heard, and sleeps (`follow`, `pace`): one that gets no answer
//! keeps nobody waiting. What was heard lies here; only a change of it touches the configuration, which then publishes hosts as
//! for any update of endpoints. An update of the cluster that leaves its names as they are keeps all this.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::AbortHandle;

use super::compile::Assignment;
use crate::cluster::HostSpec;
use crate::net::{Address, LookupFamily, Resolver};
use crate::stats::ClusterStats;

mod follow;
mod pace;
#[cfg(test)]
mod tests;

pub use follow::{Started, Wanted, channel, follow};
pub use pace::Refresh;

/// One endpoint of the load assignment: a name and what its hosts are like.
#[derive(Debug, Clone, PartialEq)]
pub struct DnsEndpoint {
    /// `socket_address.address`.
    pub name: Arc<str>,
    /// `socket_address.port_value`.
    pub port: u16,
    /// Its hosts, each with another address than this one.
    pub host: HostSpec,
}

/// What a cluster says of its names.
#[derive(Debug, Clone)]
pub struct DnsSettings {
    /// The endpoints of all localities; exactly one of a logical cluster.
    pub endpoints: Vec<DnsEndpoint>,
    /// `policy.overprovisioning_factor`.
    pub overprovisioning_percent: u32,
    /// `LOGICAL_DNS`: the newest answer is one host, by its first address, and its other addresses are further ways to it. Else each
    /// address is a host.
    pub is_logical: bool,
    /// `dns_lookup_family`.
    pub family: LookupFamily,
    /// Who is asked.
    pub resolver: Arc<Resolver>,
    /// When.
    pub refresh: Refresh,
    /// `wait_for_warm_on_init`: the cluster is not ready before its first look-up has ended.
    pub waits: bool,
}

impl PartialEq for DnsSettings {
    fn eq(&self, other: &Self) -> bool {
        let DnsSettings { endpoints, overprovisioning_percent, is_logical, family, resolver, refresh, waits } =
            self;
        *endpoints == other.endpoints
            && *overprovisioning_percent == other.overprovisioning_percent
            && *is_logical == other.is_logical
            && *family == other.family
            && Arc::ptr_eq(resolver, &other.resolver)
            && *refresh == other.refresh
            && *waits == other.waits
    }
}

/// The names of one cluster and what they stand for now.
#[derive(Debug)]
pub struct DnsDiscovery {
    settings: Arc<DnsSettings>,
    stats: Arc<ClusterStats>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For each endpoint, the addresses of its last good answer.
    answers: Vec<Option<Vec<IpAddr>>>,
    /// A look-up has ended, however.
    has_ended: bool,
    /// The names are being looked up, or are about to be.
    is_followed: bool,
    /// The tasks that do it; they end with this.
    tasks: Vec<AbortHandle>,
}

impl DnsDiscovery {
    /// Nothing is looked up yet. Names that `previous` looked up in the same way stand for what they stood for there.
    pub fn new(settings: DnsSettings, stats: Arc<ClusterStats>, previous: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(previous) = previous
            && *previous.settings == settings
            && Arc::ptr_eq(&previous.stats, &stats)
        {
            return previous.clone();
        }
        let known =
            |endpoint: &DnsEndpoint| previous.and_then(|previous| previous.known(endpoint, &settings));
        let answers = settings.endpoints.iter().map(known).collect();
        let state = Mutex::new(State { answers, ..State::default() });
        Arc::new(Self { settings: Arc::new(settings), stats, state })
    }

    fn known(&self, endpoint: &DnsEndpoint, settings: &DnsSettings) -> Option<Vec<IpAddr>> {
        let is_same = self.settings.family == settings.family
            && self.settings.is_logical == settings.is_logical
            && Arc::ptr_eq(&self.settings.resolver, &settings.resolver);
        let at =
            self.settings.endpoints.iter().position(|own| own.name == endpoint.name).filter(|_| is_same)?;
        self.state().answers[at].clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the cluster may serve.
    pub fn is_warm(&self) -> bool {
        !self.settings.waits || self.settings.endpoints.is_empty() || self.state().has_ended
    }

    /// Takes in what became of a look-up; `None`: it failed. Gives back whether that changes hosts or warmth.
    fn take(&self, endpoint: usize, addresses: Option<&[IpAddr]>) -> bool {
        let mut state = self.state();
        let is_first = !std::mem::replace(&mut state.has_ended, true);
        // A logical cluster has a host or no answer at all.
        let addresses = addresses.filter(|found| !self.settings.is_logical || !found.is_empty());
        let Some(addresses) = addresses else {
            self.stats.update_failure.inc();
            return is_first;
        };
        self.stats.update_success.inc();
        let known = &mut state.answers[endpoint];
        // The order is the server's whim, but for a logical host, whose first address it decides.
        let is_same = known.as_ref().is_some_and(|known| match self.settings.is_logical {
            true => known == addresses,
            false => {
                known.len() == addresses.len() && addresses.iter().all(|address| known.contains(address))
            }
        });
        if is_same {
            self.stats.update_no_rebuild.inc();
            return is_first;
        }
        *known = Some(addresses.to_vec());
        true
    }

    /// The hosts now.
    pub(super) fn assignment(&self) -> Arc<Assignment> {
        let state = self.state();
        let endpoints = self.settings.endpoints.iter().zip(&state.answers);
        let hosts = endpoints.flat_map(|(endpoint, answer)| {
            let addresses: Vec<SocketAddr> =
                answer.iter().flatten().map(|ip| SocketAddr::new(*ip, endpoint.port)).collect();
            let (hosts, more) = match (self.settings.is_logical, addresses.split_first()) {
                (true, Some((first, more))) => (vec![*first], more.to_vec()),
                _ => (addresses, Vec::new()),
            };
            let more = (!more.is_empty()).then(|| Arc::new(more));
            hosts.into_iter().map(move |address| HostSpec {
                address: Address::Ip(address),
                more_addresses: more.clone(),
                ..endpoint.host.clone()
            })
        });
        Arc::new(Assignment {
            name: "".into(),
            hosts: hosts.collect(),
            overprovisioning_percent: self.settings.overprovisioning_percent,
        })
    }
}

impl Drop for DnsDiscovery {
    fn drop(&mut self) {
        self.state().tasks.iter().for_each(AbortHandle::abort);
    }
}
