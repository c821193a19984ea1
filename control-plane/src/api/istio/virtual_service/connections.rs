//! `tls` and `tcp`: rules for connections.

use ipnet::IpNet;

use super::matches::source;
use super::{Context, weights, wire};
use crate::api::values::port;
use crate::api::{Refusal, names};
use crate::model::{Host, L4Backend, L4Match, L4Rule};

impl Context<'_> {
    /// One rule of `tls`; `None` when all of it is for other gateways.
    pub(super) fn tls(
        &mut self,
        wire: wire::Tls,
        hosts: &[Host],
        field: String,
    ) -> Result<Option<L4Rule>, Refusal> {
        let mut matches = Vec::new();
        for (index, found) in wire.r#match.into_iter().enumerate() {
            let field = format!("{field}.match[{index}]");
            if !self.is_for_mesh(&found.gateways, &format!("{field}.gateways")) {
                continue;
            }
            if found.sni_hosts.is_empty() {
                return Err(Refusal::new(format!("{field}.sniHosts"), "must name a host"));
            }
            for (index, sni) in found.sni_hosts.iter().enumerate() {
                let field = format!("{field}.sniHosts[{index}]");
                names::subdomain(&field, sni.strip_prefix("*.").unwrap_or(sni))?;
                if !hosts.iter().any(|host| host.name == *sni || host.matches(sni)) {
                    return Err(Refusal::new(field, format!("{sni} is none of spec.hosts")));
                }
            }
            matches.push(L4Match {
                server_names: found.sni_hosts,
                destinations: subnets(&found.destination_subnets, &field)?,
                port: found.port.map(|number| port(number, format!("{field}.port"))).transpose()?,
                source: source(found.source_labels, found.source_namespace),
            });
        }
        self.l4_rule(matches, wire.route, field)
    }

    /// One rule of `tcp`; `None` when all of it is for other gateways.
    pub(super) fn tcp(&mut self, wire: wire::Tcp, field: String) -> Result<Option<L4Rule>, Refusal> {
        let mut matches = Vec::new();
        if wire.r#match.is_empty() {
            matches.push(L4Match::default());
        }
        for (index, found) in wire.r#match.into_iter().enumerate() {
            let field = format!("{field}.match[{index}]");
            if !self.is_for_mesh(&found.gateways, &format!("{field}.gateways")) {
                continue;
            }
            matches.push(L4Match {
                server_names: Vec::new(),
                destinations: subnets(&found.destination_subnets, &field)?,
                port: found.port.map(|number| port(number, format!("{field}.port"))).transpose()?,
                source: source(found.source_labels, found.source_namespace),
            });
        }
        self.l4_rule(matches, wire.route, field)
    }

    fn l4_rule(
        &self,
        matches: Vec<L4Match>,
        route: Vec<wire::L4Destination>,
        field: String,
    ) -> Result<Option<L4Rule>, Refusal> {
        if route.is_empty() {
            return Err(Refusal::new(format!("{field}.route"), "must name a destination"));
        }
        let shares = weights(&route.iter().map(|to| to.weight).collect::<Vec<_>>(), &field)?;
        let mut backends = Vec::new();
        for (index, (to, weight)) in route.into_iter().zip(shares).enumerate() {
            let field = format!("{field}.route[{index}].destination");
            backends.push(L4Backend {
                destination: self.destination(to.destination, &field)?,
                weight,
                field,
            });
        }
        Ok((!matches.is_empty()).then_some(L4Rule { matches, backends, field }))
    }
}

fn subnets(texts: &[String], field: &str) -> Result<Vec<IpNet>, Refusal> {
    let subnet = |(index, text): (usize, &String)| {
        let net = text.parse::<IpNet>().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map_err(|_| {
            let reason = format!("{text:?} is neither an address nor a range of addresses");
            Refusal::new(format!("{field}.destinationSubnets[{index}]"), reason)
        })
    };
    texts.iter().enumerate().map(subnet).collect()
}
