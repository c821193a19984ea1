//! What a path asks for.

use http::Method;

use super::query::{Query, decode_segment};

/// A path of the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Path {
    /// Something that is no object: `/version`, `/readyz`, discovery.
    Other(Vec<String>),
    /// A collection or an object.
    Resource(Target),
}

/// A collection, an object or a subresource of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
    /// `None` for objects of the cluster, and for a collection over all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) subresource: Option<String>,
    /// The old form `/api/v1/watch/…`.
    pub(crate) watch: bool,
}

/// What a request wants to do, in the words of authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
        }
    }
}

impl Path {
    pub(crate) fn parse(path: &str) -> Self {
        let segments: Vec<String> =
            path.split('/').filter(|part| !part.is_empty()).map(decode_segment).collect();
        let words: Vec<&str> = segments.iter().map(String::as_str).collect();
        let (group, version, rest) = match words.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
            ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
            _ => return Path::Other(segments),
        };
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let (namespace, rest) = match rest {
            // Namespaces are objects of the cluster that look like a part of the path.
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let mut rest = rest.iter().map(|part| (*part).to_owned());
        Path::Resource(Target {
            group: group.into(),
            version: version.into(),
            namespace: namespace.map(str::to_owned),
            plural: rest.next().unwrap_or_default(),
            name: rest.next(),
            subresource: rest.next(),
            watch,
        })
    }
}

impl Target {
    /// `None`: no verb goes with this method here.
    pub(crate) fn verb(&self, method: &Method, query: &Query) -> Option<Verb> {
        Some(match (method, &self.name) {
            (&Method::GET, _) if self.watch => Verb::Watch,
            (&Method::GET, _) if self.subresource.is_none() && query.flag("watch") => Verb::Watch,
            (&Method::GET, Some(_)) => Verb::Get,
            (&Method::GET, None) => Verb::List,
            (&Method::POST, _) => Verb::Create,
            (&Method::PUT, Some(_)) => Verb::Update,
            (&Method::PATCH, Some(_)) => Verb::Patch,
            (&Method::DELETE, Some(_)) => Verb::Delete,
            (&Method::DELETE, None) => Verb::DeleteCollection,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match Path::parse(path) {
            Path::Resource(target) => target,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn paths_name_their_target() {
        let pod = target("/api/v1/namespaces/demo/pods/web/status");
        assert_eq!((pod.group.as_str(), pod.plural.as_str()), ("", "pods"));
        assert_eq!(
            (pod.namespace.as_deref(), pod.name.as_deref(), pod.subresource.as_deref()),
            (Some("demo"), Some("web"), Some("status"))
        );
        let leases = target("/apis/coordination.k8s.io/v1/leases");
        assert_eq!((leases.namespace, leases.name), (None, None));
        let namespace = target("/api/v1/namespaces/demo");
        assert_eq!((namespace.plural.as_str(), namespace.name.as_deref()), ("namespaces", Some("demo")));
        assert_eq!(target("/api/v1/namespaces/demo/status").subresource.as_deref(), Some("status"));
        assert!(target("/api/v1/watch/namespaces/demo/services").watch);
        assert_eq!(
            Path::parse("/apis/apps/v1"),
            Path::Other(vec!["apis".into(), "apps".into(), "v1".into()])
        );
    }
}
