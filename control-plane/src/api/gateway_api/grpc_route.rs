//! GRPCRoute -> [`HttpRoute`]: a gRPC call is a request whose path is `/SERVICE/METHOD`.

use super::filters::Filters;
use super::{matches, references, wire};
use crate::api::Refusal;
use crate::model::{Forward, HttpRoute, Name, RouteAction, RouteKind, RouteRule};
use crate::source::Object;

/// Decodes a GRPCRoute.
pub(in crate::api) fn grpc_route(object: &Object) -> Result<HttpRoute, Refusal> {
    references::read_route(object, RouteKind::Grpc, rule)
}

fn rule(rule: wire::GrpcRule, route: &Name, field: String) -> Result<RouteRule, Refusal> {
    references::check_rule_name(&rule.name, &field)?;
    let matches = matches::of_rule(rule.matches, &field, matches::grpc)?;
    let Filters { headers, mirrors, .. } = Filters::of_grpc_rule(rule.filters, route, &field)?;
    let backends = references::backends(rule.backend_refs, route, &field)?;
    let action = RouteAction::Forward(Box::new(Forward { backends, mirrors, ..Forward::default() }));
    Ok(RouteRule { name: rule.name, matches, action, headers, fault: None, cors: None, field })
}
