//! Which VirtualService speaks for a host name.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Name, ServiceRef, VirtualService};
use crate::translate::{InputView, names};

/// The VirtualServices that clients of one namespace see, by the host names that each speaks for alone.
///
/// A whole name comes before one with `*`, a longer one of these before a shorter one. For one and the same host the
/// VirtualService that only the clients' own namespace sees comes first, then the older one (Istio).
#[derive(Default)]
pub(in crate::translate) struct Hosts<'a> {
    whole: BTreeMap<&'a str, &'a Arc<VirtualService>>,
    /// What a name ends in, longest first.
    wildcards: Vec<(&'a str, &'a Arc<VirtualService>)>,
}

impl<'a> Hosts<'a> {
    /// What clients in `namespace` see.
    pub(in crate::translate) fn seen_in(view: &InputView<'a>, namespace: &str) -> Self {
        Self::among(view.virtual_services(), namespace)
    }

    /// Likewise, of the VirtualServices that have rules for connections.
    pub(in crate::translate) fn with_connections(view: &InputView<'a>, namespace: &str) -> Self {
        Self::among(view.connection_rules().collect(), namespace)
    }

    /// `services` are in the order of age.
    fn among(mut services: Vec<&'a Arc<VirtualService>>, namespace: &str) -> Self {
        services.retain(|service| service.visibility.includes(namespace));
        services.sort_by_key(|service| !service.is_private());
        let mut hosts = Self { whole: BTreeMap::new(), wildcards: Vec::new() };
        for service in services {
            for host in &service.hosts {
                match host.name.strip_prefix('*') {
                    None => {
                        hosts.whole.entry(&host.name).or_insert(service);
                    }
                    Some(end) => hosts.wildcards.push((end, service)),
                }
            }
        }
        // Stable, so the first of one host stays the first.
        hosts.wildcards.sort_by_key(|(end, _)| std::cmp::Reverse(end.len()));
        hosts
    }

    /// The VirtualService that speaks for a whole host name.
    pub(in crate::translate) fn of(&self, host: &str) -> Option<&'a Arc<VirtualService>> {
        let by_end = || {
            let ends = self.wildcards.iter();
            let mut found = ends.filter(|(end, _)| host.len() > end.len() && host.ends_with(end));
            found.next().map(|(_, service)| *service)
        };
        self.whole.get(host).copied().or_else(by_end)
    }

    /// The VirtualService that speaks for a Service.
    pub(in crate::translate) fn of_service(
        &self,
        view: &InputView<'_>,
        service: &Name,
    ) -> Option<&'a Arc<VirtualService>> {
        self.of(&names::fqdn(service, &view.settings().cluster_domain))
    }

    /// Host names that are not those of Services which clients in `namespace` see, each with the VirtualService that speaks
    /// for it. One with `*` stands for names that are written nowhere; a name under the cluster's own domain is a Service's.
    pub(super) fn without_service(
        &self,
        view: &InputView<'_>,
        namespace: &str,
    ) -> Vec<(String, &'a Arc<VirtualService>)> {
        let domain = &view.settings().cluster_domain;
        let is_free = |host: &str| {
            !host.ends_with(&format!(".svc.{domain}"))
                && view
                    .resolve(&ServiceRef::Host(host.to_owned()))
                    .is_none_or(|service| !service.is_visible_in(namespace))
        };
        let whole = self.whole.iter().filter(|(host, _)| is_free(host));
        let mut found: BTreeMap<String, _> =
            whole.map(|(host, service)| ((*host).to_owned(), *service)).collect();
        // Envoy's `*` in a domain stands before whole labels or a part of one alike.
        for (end, service) in self.wildcards.iter().filter(|(end, _)| is_free(end)) {
            found.entry(format!("*{end}")).or_insert(service);
        }
        found.into_iter().collect()
    }
}
