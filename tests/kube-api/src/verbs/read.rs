//! Get and list: the present, the past, and lists in chunks.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::dispatch::Call;
use crate::http::respond::{Answer, Reply};
use crate::selector::{Selector, in_namespace};
use crate::status::{Cause, Result, Status};
use crate::store::Name;

/// How long a list waits for a version that is not there yet.
const WAIT_FOR_VERSION: Duration = Duration::from_secs(3);

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. \
    You can start a new list without the continue parameter, or use the continue token in this response to retrieve \
    the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that \
    were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

pub(crate) fn get(call: &Call) -> Result<Reply> {
    let stored = call.cluster.get(&call.resource.collection(), call.namespace(), call.name());
    let stored = stored.ok_or_else(|| call.not_found())?;
    Ok(call.object(200, (*stored).clone()).into())
}

/// Reads a version of the query; nothing is 0.
pub(crate) fn parse_version(text: &str) -> std::result::Result<u64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        )
    })
}

/// A continue token: the version of the first chunk (-1: whatever is current) and the key to go on at.
#[derive(Debug, PartialEq)]
struct Continue {
    version: i64,
    start: String,
}

impl Continue {
    fn encode(&self) -> String {
        let token = json!({"v": "meta.k8s.io/v1", "rv": self.version, "start": self.start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }

    fn decode(text: &str) -> Result<Self> {
        let invalid = |why: &str| Status::bad_request(format!("invalid continue token: {why}"));
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| invalid(&format!("continue key is not valid: {error}")))?;
        let token: Value = serde_json::from_slice(&bytes)
            .map_err(|error| invalid(&format!("continue key is not valid: {error}")))?;
        match (token["v"].as_str(), token["rv"].as_i64(), token["start"].as_str()) {
            (Some("meta.k8s.io/v1"), Some(version), Some(start)) if version != 0 && !start.is_empty() => {
                Ok(Continue { version, start: start.to_owned() })
            }
            _ => Err(invalid("continue key is not valid: encoded version or start key is not valid")),
        }
    }
}

/// A list of the query's parameters that makes no sense is refused before anything is read.
fn check_options(call: &Call) -> Result<()> {
    let query = &call.query;
    let mut causes = Vec::new();
    let matching = query.get("resourceVersionMatch");
    if !matching.is_empty() {
        if query.get("resourceVersion").is_empty() {
            causes.push(Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            let supported = ["Exact", "NotOlderThan"];
            causes.push(Cause::unsupported("resourceVersionMatch", &matching.into(), &supported));
        } else if matching == "Exact" && query.get("resourceVersion") == "0" {
            causes.push(Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
        if query.has("continue") {
            causes.push(Cause::forbidden(
                "resourceVersionMatch",
                "resourceVersionMatch is forbidden when continue is provided",
            ));
        }
    }
    if query.has("sendInitialEvents") {
        let why = "sendInitialEvents is forbidden for list";
        causes.push(Cause::forbidden("sendInitialEvents", why));
    }
    if causes.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", "ListOptions", "", &causes)) }
}

pub(crate) async fn list(call: &Call) -> Result<Reply> {
    check_options(call)?;
    let query = &call.query;
    let selector = Selector::parse(&call.resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let limit: usize = query.get("limit").parse().unwrap_or(0);
    let asked = parse_version(query.get("resourceVersion"))
        .map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
    let token = match query.get("continue") {
        "" => None,
        text => Some(Continue::decode(text)?),
    };
    if token.is_some() && query.has("resourceVersion") && query.get("resourceVersion") != "0" {
        let message = "specifying resource version is not allowed when using continue";
        return Err(Status::bad_request(message));
    }
    wait_for_version(call, asked).await?;

    let collection = call.resource.collection();
    let (version, objects) = call.cluster.read(|store| {
        let exact = match &token {
            Some(token) if token.version > 0 => token.version.unsigned_abs(),
            None if query.get("resourceVersionMatch") == "Exact" => asked,
            _ => store.version(),
        };
        (exact, store.list_at(&collection, exact))
    });
    let Some(objects) = objects else { return Err(expired(token)) };

    // From the watch cache a real server answers the whole list, whatever the limit.
    let limit = if query.get("resourceVersion") == "0" { 0 } else { limit };
    let namespace = call.target.namespace.as_deref();
    let after = token.map(|token| start_key(&token.start, namespace));
    let page = page(&objects, namespace, &selector, after, limit);

    let mut metadata = json!({});
    if call.resource.custom.is_some() {
        metadata["continue"] = "".into();
    }
    metadata["resourceVersion"] = version.to_string().into();
    if let Some(last) = page.last {
        let start = match namespace {
            Some(_) => format!("/{}\0", last.1),
            None if call.resource.namespaced => format!("/{}/{}\0", last.0, last.1),
            None => format!("/{}\0", last.1),
        };
        let next = Continue { version: version.try_into().unwrap_or(i64::MAX), start };
        metadata["continue"] = next.encode().into();
        if selector.is_empty() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    let resource = call.resource.clone();
    Ok(Answer::List { resource, metadata, items: page.items }.into())
}

async fn wait_for_version(call: &Call, asked: u64) -> Result<()> {
    let mut versions = call.cluster.versions();
    if asked <= call.cluster.read(|store| store.version()) {
        return Ok(());
    }
    let reached = versions.wait_for(|version| *version >= asked);
    match tokio::time::timeout(WAIT_FOR_VERSION, reached).await {
        Ok(_) => Ok(()),
        Err(_) => Err(Status::version_too_large(asked, call.cluster.read(|store| store.version()))),
    }
}

fn expired(token: Option<Continue>) -> Status {
    match token {
        Some(token) => {
            let start = token.start.trim_start_matches('/').to_owned();
            let mut status = Status::expired(CONTINUE_EXPIRED);
            status.go_on = Some(Continue { version: -1, start }.encode());
            status
        }
        None => Status::expired("The resourceVersion for the provided list is too old."),
    }
}

/// The name that the last chunk ended with.
fn start_key(start: &str, namespace: Option<&str>) -> Name {
    let key = start.trim_start_matches('/').trim_end_matches('\0');
    match (namespace, key.split_once('/')) {
        (Some(namespace), _) => (namespace.to_owned(), key.to_owned()),
        (None, Some((namespace, name))) => (namespace.to_owned(), name.to_owned()),
        (None, None) => (String::new(), key.to_owned()),
    }
}

struct Page {
    items: Vec<Arc<Value>>,
    /// The last item, when there are more.
    last: Option<Name>,
    remaining: usize,
}

fn page(
    objects: &BTreeMap<Name, Arc<Value>>,
    namespace: Option<&str>,
    selector: &Selector,
    after: Option<Name>,
    limit: usize,
) -> Page {
    let start = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut matching = objects
        .range((start, Bound::Unbounded))
        .filter(|(_, object)| in_namespace(object, namespace) && selector.matches(object));
    let mut page = Page { items: Vec::new(), last: None, remaining: 0 };
    let mut last = None;
    for (name, object) in matching.by_ref() {
        page.items.push(object.clone());
        last = Some(name.clone());
        if limit > 0 && page.items.len() == limit {
            break;
        }
    }
    page.remaining = matching.count();
    page.last = last.filter(|_| page.remaining > 0);
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_its_encoding() {
        let token = Continue { version: 259, start: "/extra\0".into() };
        // The text that a real server made for the same content.
        assert_eq!(
            token.encode(),
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MjU5LCJzdGFydCI6Ii9leHRyYVx1MDAwMCJ9"
        );
        assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        assert_eq!(Continue::decode("garbage").unwrap_err().code, 400);
    }
}
