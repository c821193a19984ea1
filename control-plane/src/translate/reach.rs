//! How clients reach a Service's port: with mutual TLS or without, and at which addresses.
//!
//! A client has one TLS context for a cluster, so all endpoints must agree. Where they do not, only those with mutual TLS
//! are used: the mesh never falls back to plaintext because somebody added a Pod without a sidecar.

use std::collections::BTreeSet;

use crate::model::{
    ClientTls, DestinationSettings, Endpoint, Finding, MutualTlsMode, Service, ServicePort, Subset,
};
use crate::translate::InputView;
use crate::translate::names::INBOUND_PORT;

/// How to reach a port.
pub(super) struct Reach {
    /// Identities that may answer, sorted; `None` for plaintext.
    pub(super) mutual_tls: Option<Vec<String>>,
    /// Where to, in the order of addresses. Endpoints that are not ready are here only where they are told.
    pub(super) addresses: Vec<Dial>,
    /// Whether endpoints had to be left out because they take plaintext only.
    pub(super) mixed: bool,
}

/// One address to connect to.
pub(super) struct Dial {
    /// The port that takes the connection: the endpoint's own, or its sidecar's.
    pub(super) port: u16,
    pub(super) endpoint: Endpoint,
}

/// Who takes the connection at an endpoint.
#[derive(PartialEq, Eq)]
enum Taker {
    /// The sidecar, with mutual TLS.
    SidecarMutualTls,
    /// The sidecar at its own port, in plaintext: the caller or the callee wants none. It tells ports apart by host name, so only for
    /// HTTP.
    SidecarPlaintext,
    /// The application, or a sidecar that captures its connections.
    Application,
}

/// How to reach a port, or a subset of its endpoints, with these settings.
pub(super) fn reach(
    view: &InputView<'_>,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    settings: &DestinationSettings,
) -> Reach {
    let tls = &settings.tls;
    let tells_unready = settings.tells_unready(service);
    let endpoints: Vec<(Endpoint, Taker)> = view
        .endpoints(service, port)
        .into_iter()
        .filter(|endpoint| subset.is_none_or(|subset| subset.selects(endpoint.labels())))
        .map(|endpoint| {
            let taker = taker(view, &endpoint, port, tls);
            (endpoint, taker)
        })
        .collect();
    let with_mutual_tls = endpoints.iter().filter(|(_, taker)| *taker == Taker::SidecarMutualTls).count();
    // With no endpoint at all the answer must be the safe one, where there may be one with mutual TLS at all.
    // Whoever is behind a name in DNS is nobody that the mesh knows, unless it is a workload's.
    let may_be_in_mesh = (service.named.is_none() || !service.selector.is_empty())
        && service.external.as_ref().is_none_or(|external| external.is_internal)
        && !service.is_original_destination();
    let mutual_tls = match tls {
        ClientTls::Plaintext | ClientTls::Origination(_) => false,
        ClientTls::Mutual => true,
        ClientTls::Mesh => with_mutual_tls > 0 || (endpoints.is_empty() && may_be_in_mesh),
    };
    let mixed = mutual_tls && with_mutual_tls < endpoints.len();
    // Pods that are not ready count, so that becoming ready changes endpoints only.
    let identities = mutual_tls.then(|| identities(view, &endpoints));
    let is_told = |endpoint: &Endpoint| endpoint.ready || (tells_unready && !endpoint.is_ending);
    let used = endpoints
        .into_iter()
        .filter(|(endpoint, taker)| is_told(endpoint) && mutual_tls == (*taker == Taker::SidecarMutualTls));
    let addresses = used
        .map(|(endpoint, taker)| Dial {
            port: if taker == Taker::Application { endpoint.port } else { INBOUND_PORT },
            endpoint,
        })
        .collect();
    Reach { mutual_tls: identities, addresses, mixed }
}

/// The problem of a port whose endpoints do not agree.
pub(super) fn mixed(service: &Service, port: &ServicePort) -> Finding {
    let reason = format!(
        "port {}: some endpoints have a sidecar that takes mutual TLS and some take plaintext only; the latter get no \
         traffic",
        port.number
    );
    Finding::at(&service.origin, "spec.selector", reason)
}

fn taker(view: &InputView<'_>, endpoint: &Endpoint, port: &ServicePort, tls: &ClientTls) -> Taker {
    let Some(workload) = endpoint.workload.as_ref().filter(|workload| workload.sidecar) else {
        return Taker::Application;
    };
    // TLS that is not the mesh's is the application's.
    if matches!(tls, ClientTls::Origination(_)) {
        return Taker::Application;
    }
    let is_plaintext = *tls == ClientTls::Plaintext
        || view.mutual_tls_mode(workload, endpoint.port) == MutualTlsMode::Disable;
    match is_plaintext {
        false => Taker::SidecarMutualTls,
        true if port.protocol.may_be_http() && !workload.is_captured() => Taker::SidecarPlaintext,
        true => Taker::Application,
    }
}

fn identities(view: &InputView<'_>, endpoints: &[(Endpoint, Taker)]) -> Vec<String> {
    let trust_domain = &view.settings().trust_domain;
    let workloads = endpoints
        .iter()
        .filter(|(_, taker)| *taker == Taker::SidecarMutualTls)
        .filter_map(|(endpoint, _)| endpoint.workload.as_ref());
    let mut identities: BTreeSet<String> =
        workloads.map(|workload| workload.spiffe_id(trust_domain)).collect();
    if identities.is_empty() {
        // An empty list would accept anybody. This path is no service account's.
        identities.insert(format!("spiffe://{trust_domain}/no-endpoint"));
    }
    identities.into_iter().collect()
}
