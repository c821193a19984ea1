//! Authorization by the stored roles and bindings, as a real server does it: nothing is allowed that no role allows.

use serde_json::Value;

use super::User;
use crate::cluster::Cluster;
use crate::http::path::{Target, Verb};
use crate::kinds::Collection;
use crate::object;
use crate::status::{Result, Status};

const GROUP: &str = "rbac.authorization.k8s.io";

/// What is asked for, in the words of a `ResourceAttributes`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attributes<'a> {
    pub(crate) verb: &'a str,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
}

/// May the user do this to an object or a collection?
pub(crate) fn check(cluster: &Cluster, user: &User, verb: Verb, target: &Target) -> Result<()> {
    let attributes = Attributes {
        verb: verb.as_str(),
        group: &target.group,
        resource: &target.plural,
        subresource: target.subresource.as_deref().unwrap_or_default(),
        // The authorizer sees a namespace as if it lived in itself.
        namespace: target.namespace.as_deref().unwrap_or_default(),
        name: target.name.as_deref().unwrap_or_default(),
    };
    if allowed(cluster, user, attributes) {
        return Ok(());
    }
    let resource = match attributes.subresource {
        "" => attributes.resource.to_owned(),
        subresource => format!("{}/{subresource}", attributes.resource),
    };
    let scope = match attributes.namespace {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {scope}",
        user.name, attributes.verb, attributes.group
    );
    Err(Status::forbidden(attributes.group, attributes.resource, attributes.name, &why))
}

/// May the user read a path that is no object?
pub(crate) fn check_path(cluster: &Cluster, user: &User, method: &str, path: &str) -> Result<()> {
    const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
    let is_public = PUBLIC.iter().any(|public| path.starts_with(public));
    let is_authenticated = user.groups.iter().any(|group| group == "system:authenticated");
    let verb = method.to_lowercase();
    let granted = || {
        rules_for(cluster, user, "").iter().any(|rule| {
            has(&rule["verbs"], &verb)
                && list(&rule["nonResourceURLs"]).any(|url| match url.strip_suffix('*') {
                    Some(prefix) => path.starts_with(prefix),
                    None => path == url,
                })
        })
    };
    if is_public || is_authenticated || granted() {
        return Ok(());
    }
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
    let mut status = Status::new(403, "Forbidden", message);
    status.details = Some(Box::new(serde_json::json!({})));
    Err(status)
}

/// Does any rule allow it?
pub(crate) fn allowed(cluster: &Cluster, user: &User, asked: Attributes<'_>) -> bool {
    if user.groups.iter().any(|group| group == "system:masters") {
        return true;
    }
    // The role `system:basic-user`: everybody may ask about themselves.
    let about_self = matches!(asked.resource, "selfsubjectaccessreviews" | "selfsubjectreviews");
    if about_self && user.groups.iter().any(|group| group == "system:authenticated") {
        return true;
    }
    rules_for(cluster, user, asked.namespace).iter().any(|rule| {
        let wanted = match asked.subresource {
            "" => asked.resource.to_owned(),
            subresource => format!("{}/{subresource}", asked.resource),
        };
        let named = list(&rule["resourceNames"]).count() > 0;
        has(&rule["verbs"], asked.verb)
            && has(&rule["apiGroups"], asked.group)
            && (has(&rule["resources"], &wanted)
                || has(&rule["resources"], &format!("*/{}", asked.subresource))
                    && !asked.subresource.is_empty())
            && (!named || list(&rule["resourceNames"]).any(|name| name == asked.name))
    })
}

fn list(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn has(value: &Value, wanted: &str) -> bool {
    list(value).any(|one| one == "*" || one == wanted)
}

/// The rules of all roles that are bound to the user, for the cluster and for a namespace.
fn rules_for(cluster: &Cluster, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    for (plural, in_namespace) in [("clusterrolebindings", ""), ("rolebindings", namespace)] {
        if plural == "rolebindings" && namespace.is_empty() {
            continue;
        }
        let bindings = cluster.read(|store| store.list(&Collection::new(GROUP, plural)));
        for binding in bindings.values().filter(|binding| object::namespace(binding) == in_namespace) {
            if binding["subjects"].as_array().into_iter().flatten().any(|subject| is_subject(user, subject)) {
                rules.extend(role_rules(cluster, &binding["roleRef"], in_namespace));
            }
        }
    }
    rules
}

fn is_subject(user: &User, subject: &Value) -> bool {
    let name = subject["name"].as_str().unwrap_or_default();
    match subject["kind"].as_str() {
        Some("User") => name == user.name,
        Some("Group") => user.groups.iter().any(|group| group == name),
        Some("ServiceAccount") => {
            let namespace = subject["namespace"].as_str().unwrap_or_default();
            user.name == format!("system:serviceaccount:{namespace}:{name}")
        }
        _ => false,
    }
}

fn role_rules(cluster: &Cluster, reference: &Value, namespace: &str) -> Vec<Value> {
    let name = reference["name"].as_str().unwrap_or_default();
    let (plural, namespace) = match reference["kind"].as_str() {
        Some("ClusterRole") => ("clusterroles", ""),
        _ => ("roles", namespace),
    };
    let Some(role) = cluster.get(&Collection::new(GROUP, plural), namespace, name) else { return Vec::new() };
    let mut rules = role["rules"].as_array().cloned().unwrap_or_default();
    // An aggregated role has the rules of every role that its selectors pick.
    let selectors = role["aggregationRule"]["clusterRoleSelectors"].as_array().cloned().unwrap_or_default();
    if !selectors.is_empty() {
        let roles = cluster.read(|store| store.list(&Collection::new(GROUP, "clusterroles")));
        for one in roles.values() {
            let labels = &one["metadata"]["labels"];
            if selectors.iter().any(|selector| crate::selector::label_selector_matches(selector, labels)) {
                rules.extend(one["rules"].as_array().cloned().unwrap_or_default());
            }
        }
    }
    rules
}
