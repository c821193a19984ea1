//! What is hashed of requests and connections, for clusters with a hash table.

use ::http::{HeaderName, HeaderValue};
use outrigger_xds_api::wire::route::v3::route_action as wire;
use outrigger_xds_api::wire::r#type::v3 as connection;

use super::cx::{CompileCx, Compiled};
use super::rewrite::compile_regex_rewrite;
use super::values;
use crate::route::{HashCookie, HashPolicy, HashSource, MatchedHeader};

/// Compiles `RouteAction.hash_policy`.
pub(super) fn compile_hash_policies(
    cx: &mut CompileCx<'_>,
    policies: &[wire::HashPolicy],
) -> Compiled<Box<[HashPolicy]>> {
    let policies = cx.each("hash_policy", policies, compile_hash_policy)?;
    Ok(policies.into_iter().flatten().collect())
}

/// `None`: the policy says of itself that it hashes nothing.
fn compile_hash_policy(value: &wire::HashPolicy, cx: &mut CompileCx<'_>) -> Compiled<Option<HashPolicy>> {
    use wire::hash_policy::{ConnectionProperties, Header, PolicySpecifier, QueryParameter};
    let wire::HashPolicy { terminal, policy_specifier } = value;
    let source = match policy_specifier {
        Some(PolicySpecifier::Header(header)) => cx.field("header", |cx| {
            let Header { header_name, regex_rewrite } = header;
            let name = MatchedHeader::from_name(header_name).map_err(|e| cx.refuse("header_name", e));
            let rewrite = match regex_rewrite {
                Some(regex) => cx.field("regex_rewrite", |cx| compile_regex_rewrite(cx, regex)).map(Some),
                None => Ok(None),
            };
            Ok(HashSource::Header { name: name?, rewrite: rewrite? })
        })?,
        Some(PolicySpecifier::Cookie(cookie)) => {
            HashSource::Cookie(cx.field("cookie", |cx| compile_cookie(cx, cookie))?)
        }
        Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })) => {
            HashSource::SourceIp
        }
        Some(PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: false })) => {
            return Ok(None);
        }
        Some(PolicySpecifier::QueryParameter(QueryParameter { name })) => {
            HashSource::QueryParameter(name.as_str().into())
        }
        // No filter here leaves an object behind that could be hashed.
        Some(PolicySpecifier::FilterState(_)) => return Err(cx.refuse("filter_state", "not supported")),
        None => return Err(cx.refuse("", "a policy is required")),
    };
    Ok(Some(HashPolicy { source, terminal: *terminal }))
}

fn compile_cookie(cx: &mut CompileCx<'_>, value: &wire::hash_policy::Cookie) -> Compiled<HashCookie> {
    use wire::hash_policy::CookieAttribute;
    let wire::hash_policy::Cookie { name, ttl, path, attributes } = value;
    let made = values::duration(cx, "ttl", ttl).map(|ttl| {
        let mut made = String::new();
        // Zero: until the browser is closed.
        if ttl.as_secs() > 0 {
            made.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        if !path.is_empty() {
            made.push_str(&format!("; Path={path}"));
        }
        for CookieAttribute { name, value } in attributes {
            match value.is_empty() {
                true => made.push_str(&format!("; {name}")),
                false => made.push_str(&format!("; {name}={value}")),
            }
        }
        made.push_str("; HttpOnly");
        made
    });
    // A cookie's name is a token, as a header's is (RFC 6265 section 4.1.1).
    if HeaderName::try_from(name.as_str()).is_err() {
        return Err(cx.refuse("name", "not the name of a cookie"));
    }
    if made.as_deref().is_some_and(|made| HeaderValue::from_str(made).is_err()) {
        return Err(cx.refuse("", "path or attributes are not allowed in a header"));
    }
    Ok(HashCookie { name: name.as_str().into(), made: made.map(String::into_boxed_str) })
}

/// Compiles `TcpProxy.hash_policy`, of which there is at most one: whether the source address is hashed.
pub(super) fn compile_tcp_hash_policy(
    cx: &mut CompileCx<'_>,
    policies: &[connection::HashPolicy],
) -> Compiled<bool> {
    use connection::hash_policy::{PolicySpecifier, SourceIp};
    let policies = cx.each("hash_policy", policies, |policy, cx| match &policy.policy_specifier {
        Some(PolicySpecifier::SourceIp(SourceIp {})) => Ok(()),
        Some(PolicySpecifier::FilterState(_)) => Err(cx.refuse("filter_state", "not supported")),
        None => Err(cx.refuse("", "a policy is required")),
    })?;
    Ok(!policies.is_empty())
}
