//! `http`: rules for requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Context, policies, weights, wire};
use crate::api::Refusal;
use crate::api::values::{expression, go_duration, number, port, substitution};
use crate::model::{
    ALL_PPM, Backend, DelegateRule, DirectResponse, Forward, HttpRules, Mirror, Name, PathRewrite, Redirect,
    RedirectPort, RequestMatch, RouteAction, RouteRule,
};

impl Context<'_> {
    /// One rule; `None` when all of it is for other gateways.
    pub(super) fn http(
        &mut self,
        wire: wire::Http,
        is_delegate: bool,
        field: String,
    ) -> Result<Option<HttpRules>, Refusal> {
        let Some(matches) = self.http_matches(wire.r#match, &field)? else { return Ok(None) };
        let forwarded = [
            ("timeout", wire.timeout.is_some()),
            ("retries", wire.retries.is_some()),
            ("rewrite", wire.rewrite.is_some()),
            ("mirror", wire.mirror.is_some()),
            ("mirrors", !wire.mirrors.is_empty()),
        ];
        let mut forward = Forward {
            timeout: go_duration(wire.timeout, format!("{field}.timeout"))?,
            retry: match wire.retries {
                Some(retries) => policies::retry(retries, &format!("{field}.retries"))?,
                None => None,
            },
            ..Forward::default()
        };
        let (headers, host) = policies::headers(wire.headers, &format!("{field}.headers"))?;
        (forward.path, forward.host) = rewrite(wire.rewrite, host, &field)?;
        forward.mirrors = self.mirrors(
            wire.mirror.map(|mirror| (mirror, wire.mirror_percentage, wire.mirror_percent)),
            wire.mirrors,
            &field,
        )?;
        let fault = wire.fault.map(|fault| policies::fault(fault, &format!("{field}.fault"))).transpose()?;
        let cors = wire.cors_policy.map(|cors| policies::cors(cors, &format!("{field}.corsPolicy")));
        let cors = cors.transpose()?;
        let route = self.backends(wire.route, &field)?;
        let ways = [
            !route.is_empty(),
            wire.redirect.is_some(),
            wire.direct_response.is_some(),
            wire.delegate.is_some(),
        ];
        if ways.into_iter().filter(|is_there| *is_there).count() != 1 {
            let reason = "must have one of route, redirect, directResponse and delegate";
            return Err(Refusal::new(field, reason));
        }
        if let Some(delegate) = wire.delegate {
            if is_delegate {
                let reason = "a VirtualService that is delegated to cannot delegate";
                return Err(Refusal::new(format!("{field}.delegate"), reason));
            }
            let namespace = delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            let to = Name::new(namespace.unwrap_or(&self.name.namespace), delegate.name);
            let (name, defaults) = (wire.name, forward);
            let rule = DelegateRule { to, name, matches, defaults, headers, fault, cors, field };
            return Ok(Some(HttpRules::Delegate(rule)));
        }
        if route.is_empty()
            && let Some((name, _)) = forwarded.into_iter().find(|(_, is_there)| *is_there)
        {
            let reason = "has no effect beside redirect or directResponse: nothing is forwarded";
            return Err(Refusal::new(format!("{field}.{name}"), reason));
        }
        let action = match (wire.redirect, wire.direct_response) {
            (Some(redirect), _) => RouteAction::Redirect(of_redirect(redirect, &field)?),
            (None, Some(response)) => RouteAction::Respond(respond(response, &field)?),
            (None, None) => {
                forward.backends = route;
                RouteAction::Forward(Box::new(forward))
            }
        };
        Ok(Some(HttpRules::Rule(RouteRule { name: wire.name, matches, action, headers, fault, cors, field })))
    }

    fn http_matches(
        &mut self,
        wire: Vec<wire::HttpMatch>,
        field: &str,
    ) -> Result<Option<Vec<RequestMatch>>, Refusal> {
        if wire.is_empty() {
            return Ok(Some(vec![RequestMatch::everything()]));
        }
        let mut matches = Vec::new();
        for (index, request) in wire.into_iter().enumerate() {
            matches.extend(self.http_match(request, format!("{field}.match[{index}]"))?);
        }
        Ok(Some(matches).filter(|matches| !matches.is_empty()))
    }

    fn backends(&self, route: Vec<wire::HttpDestination>, field: &str) -> Result<Vec<Backend>, Refusal> {
        if route.is_empty() {
            return Ok(Vec::new());
        }
        let shares = weights(&route.iter().map(|to| to.weight).collect::<Vec<_>>(), field)?;
        let mut backends = Vec::new();
        for (index, (to, weight)) in route.into_iter().zip(shares).enumerate() {
            let field = format!("{field}.route[{index}]");
            let destination = self.destination(to.destination, &format!("{field}.destination"))?;
            let (headers, host) = policies::headers(to.headers, &format!("{field}.headers"))?;
            let field = format!("{field}.destination");
            backends.push(Backend { destination, weight, headers, host, field });
        }
        Ok(backends)
    }

    /// `mirror` with its share, and `mirrors`.
    fn mirrors(
        &self,
        one: Option<(wire::Destination, Option<wire::Percent>, Option<i64>)>,
        several: Vec<wire::Mirror>,
        field: &str,
    ) -> Result<Vec<Mirror>, Refusal> {
        let mut mirrors = Vec::new();
        if let Some((destination, percentage, percent)) = one {
            if !several.is_empty() {
                return Err(Refusal::new(
                    format!("{field}.mirror"),
                    "only one of mirror and mirrors can apply",
                ));
            }
            let share = match (percentage, percent) {
                (Some(percent), _) => policies::share(&percent, &format!("{field}.mirrorPercentage"))?,
                (None, Some(percent)) => {
                    number(percent, 0, 100, format!("{field}.mirrorPercent"))? * (ALL_PPM / 100)
                }
                (None, None) => ALL_PPM,
            };
            let field = format!("{field}.mirror");
            mirrors.push(Mirror { destination: self.destination(destination, &field)?, share, field });
        }
        for (index, mirror) in several.into_iter().enumerate() {
            let field = format!("{field}.mirrors[{index}]");
            let share = match mirror.percentage {
                Some(percent) => policies::share(&percent, &format!("{field}.percentage"))?,
                None => ALL_PPM,
            };
            let field = format!("{field}.destination");
            mirrors.push(Mirror { destination: self.destination(mirror.destination, &field)?, share, field });
        }
        mirrors.retain(|mirror| mirror.share > 0);
        Ok(mirrors)
    }
}

/// New path and new host. `host` is what `headers` makes of it; `rewrite` comes first.
fn rewrite(
    wire: Option<wire::Rewrite>,
    host: Option<String>,
    field: &str,
) -> Result<(Option<PathRewrite>, Option<String>), Refusal> {
    let Some(wire) = wire else { return Ok((None, host)) };
    let field = format!("{field}.rewrite");
    if [&wire.uri, &wire.authority].into_iter().any(|text| text.chars().any(char::is_control)) {
        return Err(Refusal::new(field, "must not contain control characters"));
    }
    let path = match (wire.uri, wire.uri_regex_rewrite) {
        (uri, None) if uri.is_empty() => None,
        (uri, None) => Some(PathRewrite::Characters(uri)),
        (uri, Some(rewrite)) if uri.is_empty() => {
            let field = format!("{field}.uriRegexRewrite");
            let found = expression(rewrite.r#match, &format!("{field}.match"))?;
            if rewrite.rewrite.chars().any(char::is_control) {
                return Err(Refusal::new(format!("{field}.rewrite"), "must not contain control characters"));
            }
            substitution(&rewrite.rewrite, &found, format!("{field}.rewrite"))?;
            Some(PathRewrite::Regex(found, rewrite.rewrite))
        }
        _ => return Err(Refusal::new(field, "only one of uri and uriRegexRewrite can apply")),
    };
    Ok((path, Some(wire.authority).filter(|authority| !authority.is_empty()).or(host)))
}

fn of_redirect(wire: wire::Redirect, field: &str) -> Result<Redirect, Refusal> {
    let field = format!("{field}.redirect");
    let some = |text: String| Some(text).filter(|text| !text.is_empty());
    if [&wire.uri, &wire.authority].into_iter().any(|text| text.chars().any(char::is_control)) {
        return Err(Refusal::new(field, "must not contain control characters"));
    }
    if !matches!(wire.scheme.as_str(), "" | "http" | "https") {
        let reason = format!("{:?} is not http or https", wire.scheme);
        return Err(Refusal::new(format!("{field}.scheme"), reason));
    }
    let status = match wire.redirect_code {
        0 => 301,
        code @ (301 | 302 | 303 | 307 | 308) => code as u16,
        code => {
            let reason = format!("{code} is not one of 301, 302, 303, 307, 308");
            return Err(Refusal::new(format!("{field}.redirectCode"), reason));
        }
    };
    let port = match (wire.port, wire.derive_port.as_deref()) {
        (None, None | Some("FROM_PROTOCOL_DEFAULT")) => None,
        (None, Some("FROM_REQUEST_PORT")) => Some(RedirectPort::OfRequest),
        (None, Some(other)) => {
            let reason = format!("{other:?} is neither FROM_PROTOCOL_DEFAULT nor FROM_REQUEST_PORT");
            return Err(Refusal::new(format!("{field}.derivePort"), reason));
        }
        (Some(number), None) => Some(RedirectPort::Number(port(number, format!("{field}.port"))?)),
        (Some(_), Some(_)) => return Err(Refusal::new(field, "only one of port and derivePort can apply")),
    };
    let (scheme, hostname) = (some(wire.scheme), some(wire.authority));
    Ok(Redirect { scheme, hostname, port, path: some(wire.uri).map(PathRewrite::Full), status })
}

fn respond(wire: wire::DirectResponse, field: &str) -> Result<DirectResponse, Refusal> {
    let field = format!("{field}.directResponse");
    let status = number(wire.status, 200, 599, format!("{field}.status"))? as u16;
    let body = match (wire.body.string, wire.body.bytes) {
        (text, None) => text.unwrap_or_default().into_bytes(),
        (None, Some(bytes)) => STANDARD.decode(bytes).map_err(|error| {
            Refusal::new(format!("{field}.body.bytes"), format!("is not base64: {error}"))
        })?,
        (Some(_), Some(_)) => {
            return Err(Refusal::new(format!("{field}.body"), "only one of string and bytes can apply"));
        }
    };
    // Envoy's limit for a body in a route.
    if body.len() > 4096 {
        return Err(Refusal::new(format!("{field}.body"), "must not be longer than 4096 bytes"));
    }
    Ok(DirectResponse { status, body })
}
