//! GRPCRoute -> [`HttpRoute`]: a gRPC call is a request whose path is `/SERVICE/METHOD`.

use super::filters::Filters;
use super::{matches, references, wire};
use crate::api::{Refusal, name_of, names};
use crate::model::{Forward, HttpRoute, Name, RequestMatch, RouteAction, RouteKey, RouteKind, RouteRule};
use crate::source::Object;

/// Decodes a GRPCRoute.
pub(in crate::api) fn grpc_route(object: &Object) -> Result<HttpRoute, Refusal> {
    let name = name_of(object);
    let references::Written { parents, others, rules: written, created } =
        references::read_route(object, &name)?;
    let mut rules = Vec::new();
    for (index, wire_rule) in written.into_iter().enumerate() {
        rules.push(rule(wire_rule, &name, format!("spec.rules[{index}]"))?);
    }
    let key = RouteKey { kind: RouteKind::Grpc, name };
    Ok(HttpRoute { key, parents, others, rules, created, origin: object.origin.clone() })
}

fn rule(rule: wire::GrpcRule, route: &Name, field: String) -> Result<RouteRule, Refusal> {
    if !rule.name.is_empty() {
        names::subdomain(&format!("{field}.name"), &rule.name)?;
    }
    let mut matches = Vec::new();
    for (index, wire_match) in rule.matches.into_iter().enumerate() {
        matches.push(matches::grpc(wire_match, format!("{field}.matches[{index}]"))?);
    }
    if matches.is_empty() {
        matches.push(RequestMatch::everything());
    }
    let Filters { headers, mirrors, .. } = Filters::of_grpc_rule(rule.filters, route, &field)?;
    let backends = references::backends(rule.backend_refs, route, &field)?;
    let action = RouteAction::Forward(Box::new(Forward { backends, mirrors, ..Forward::default() }));
    Ok(RouteRule { name: rule.name, matches, action, headers, fault: None, cors: None, field })
}
