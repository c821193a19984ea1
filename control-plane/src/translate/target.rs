//! What the destination of a rule comes to.

use crate::model::{ConnectionPool, Destination, DestinationSettings, HashOf, Service, ServicePort};
use crate::translate::{InputView, names};

/// The port of a Service, or of a subset of it, that a rule leads to.
pub(super) struct Target<'a> {
    pub(super) service: &'a Service,
    pub(super) port: &'a ServicePort,
    /// How its endpoints are treated.
    settings: DestinationSettings,
    subset: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// The target of a destination for a client that called `called`, which stands for a port that is not written and not
    /// the only one. `None`: there is none.
    pub(super) fn of(view: &InputView<'a>, destination: &'a Destination, called: u16) -> Option<Self> {
        let service: &Service = view.resolve(&destination.service)?;
        let port = match (destination.port, service.ports.as_slice()) {
            (Some(number), _) => service.port(number)?,
            (None, [only]) => only,
            (None, _) => service.port(called)?,
        };
        let subset = destination.subset.as_deref();
        let policies = view.destination_of(service);
        let settings = policies.settings_of(subset)?.at(port.number).clone();
        Some(Self { service, port, settings, subset })
    }

    /// What is hashed to choose an endpoint, if something is.
    pub(super) fn hash_of(&self) -> Option<&HashOf> {
        self.settings.load_balancing(self.service).hash_of()
    }

    /// Limits of connections.
    pub(super) fn pool(&self) -> &ConnectionPool {
        &self.settings.connection_pool
    }

    /// The cluster for requests.
    pub(super) fn cluster(&self, domain: &str) -> String {
        names::outbound_cluster(&self.service.name, self.port.number, self.subset, domain)
    }

    /// The cluster for other connections.
    pub(super) fn tcp_cluster(&self, domain: &str) -> String {
        names::outbound_tcp_cluster(&self.service.name, self.port, self.subset, domain)
    }
}
