//! The kinds that the server serves: Kubernetes' own, from a table, and those of the stored CustomResourceDefinitions.

pub(crate) mod built_in;
pub(crate) mod custom;

use std::sync::Arc;

use serde_json::{Value, json};

/// One served version of one kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version, for instance `v1`.
    pub version: String,
    /// Kind, for instance `Service`.
    pub kind: String,
    /// Name in paths, for instance `services`.
    pub plural: String,
    /// For instance `service`.
    pub singular: String,
    /// Does an object live in a namespace?
    pub namespaced: bool,
    /// Short names for command lines.
    pub short_names: Vec<String>,
    /// Groups for command lines, for instance `all`.
    pub categories: Vec<String>,
    /// Is there `/status`?
    pub status: bool,
    /// Is it a question (`TokenReview`) that is answered but never stored?
    pub review: bool,
    /// For a custom resource, what its definition says.
    pub custom: Option<Arc<custom::Definition>>,
}

/// Names a collection in the store, whatever version it is asked for in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Collection {
    /// API group; empty for the core group.
    pub group: String,
    /// For instance `services`.
    pub plural: String,
}

impl Collection {
    /// The collection `plural` of `group`.
    pub fn new(group: &str, plural: &str) -> Self {
        Collection { group: group.into(), plural: plural.into() }
    }
}

impl Resource {
    pub(crate) fn collection(&self) -> Collection {
        Collection::new(&self.group, &self.plural)
    }

    /// `v1` or `GROUP/VERSION`.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    pub(crate) fn list_kind(&self) -> String {
        match &self.custom {
            Some(definition) => definition.list_kind.clone(),
            None => format!("{}List", self.kind),
        }
    }

    pub(crate) fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }

    /// The verbs in the order of the discovery documents.
    pub(crate) fn verbs(&self) -> Vec<&'static str> {
        if self.review {
            vec!["create"]
        } else if self.custom.is_some() {
            vec!["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"]
        } else if self.is("", "namespaces") {
            vec!["create", "delete", "get", "list", "patch", "update", "watch"]
        } else {
            vec!["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        }
    }

    /// Name, kind and group version of the kind, and verbs of every subresource.
    pub(crate) fn subresources(&self) -> Vec<Subresource> {
        let own = (self.group.as_str(), self.version.as_str());
        let status = |name| Subresource {
            name,
            kind: self.kind.clone(),
            group: own.0.into(),
            version: own.1.into(),
            verbs: &["get", "patch", "update"],
        };
        let mut subresources = Vec::new();
        if self.is("", "serviceaccounts") {
            subresources.push(Subresource {
                name: "token",
                kind: "TokenRequest".into(),
                group: "authentication.k8s.io".into(),
                version: "v1".into(),
                verbs: &["create"],
            });
        }
        if self.is("", "pods") {
            subresources.push(Subresource {
                name: "eviction",
                kind: "Eviction".into(),
                group: "policy".into(),
                version: "v1".into(),
                verbs: &["create"],
            });
            subresources.push(status("ephemeralcontainers"));
            subresources.push(Subresource {
                name: "exec",
                kind: "PodExecOptions".into(),
                group: own.0.into(),
                version: own.1.into(),
                verbs: &["create", "get"],
            });
            subresources.push(Subresource {
                name: "portforward",
                kind: "PodPortForwardOptions".into(),
                group: own.0.into(),
                version: own.1.into(),
                verbs: &["create", "get"],
            });
        }
        if self.status {
            subresources.push(status("status"));
        }
        subresources
    }

    /// The paths that a field selector may name.
    pub(crate) fn selectable_fields(&self) -> Vec<String> {
        let own: &[&str] = match (self.group.as_str(), self.plural.as_str()) {
            ("", "pods") => &[
                "spec.nodeName",
                "spec.restartPolicy",
                "spec.schedulerName",
                "spec.serviceAccountName",
                "spec.hostNetwork",
                "status.phase",
                "status.podIP",
                "status.nominatedNodeName",
            ],
            ("", "services") => &["spec.clusterIP", "spec.type"],
            ("", "secrets") => &["type"],
            ("", "nodes") => &["spec.unschedulable"],
            ("", "namespaces") => &["status.phase"],
            ("", "events") => &[
                "involvedObject.kind",
                "involvedObject.namespace",
                "involvedObject.name",
                "involvedObject.uid",
                "reason",
                "type",
            ],
            ("batch", "jobs") => &["status.successful"],
            _ => &[],
        };
        let mut fields = vec!["metadata.name".to_owned()];
        if self.namespaced {
            fields.push("metadata.namespace".to_owned());
        }
        fields.extend(own.iter().map(|field| (*field).to_owned()));
        if let Some(definition) = &self.custom {
            fields.extend(definition.selectable_fields.iter().cloned());
        }
        fields
    }

    /// May a PUT leave `resourceVersion` out?
    pub(crate) fn unconditional_update(&self) -> bool {
        self.custom.is_none()
            && !matches!(self.group.as_str(), "coordination.k8s.io" | "apiextensions.k8s.io")
    }

    /// Does a change of the object's content raise `metadata.generation`?
    pub(crate) fn counts_generations(&self) -> bool {
        let without = [
            "configmaps",
            "secrets",
            "services",
            "endpoints",
            "events",
            "namespaces",
            "nodes",
            "serviceaccounts",
            "leases",
            "roles",
            "rolebindings",
            "clusterroles",
            "clusterrolebindings",
        ];
        self.custom.is_some() || !without.contains(&self.plural.as_str())
    }

    /// The form in which an object leaves the server: a custom resource in the version that was asked for.
    pub(crate) fn present(&self, stored: &Value) -> Value {
        let mut object = stored.clone();
        if self.custom.is_some() {
            object["apiVersion"] = self.api_version().into();
        }
        object
    }

    /// The form inside a list: Kubernetes' own kinds leave out what the list says already.
    pub(crate) fn present_item(&self, stored: &Value) -> Value {
        let mut object = self.present(stored);
        if self.custom.is_none()
            && let Some(map) = object.as_object_mut()
        {
            map.shift_remove("apiVersion");
            map.shift_remove("kind");
        }
        object
    }

    /// An object without content, as it comes in a bookmark. Go writes the fields that cannot be left out.
    pub(crate) fn empty(&self) -> Value {
        let mut object = json!({"kind": self.kind, "apiVersion": self.api_version(), "metadata": {}});
        match (self.group.as_str(), self.plural.as_str()) {
            ("discovery.k8s.io", "endpointslices") => {
                object["addressType"] = "".into();
                object["endpoints"] = Value::Null;
                object["ports"] = Value::Null;
            }
            ("", "services") => {
                object["spec"] = json!({});
                object["status"] = json!({"loadBalancer": {}});
            }
            _ => {}
        }
        object
    }
}

/// One subresource in the discovery documents.
#[derive(Debug)]
pub(crate) struct Subresource {
    pub(crate) name: &'static str,
    pub(crate) kind: String,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) verbs: &'static [&'static str],
}

/// All that is served now.
#[derive(Debug)]
pub(crate) struct Kinds {
    built_in: Vec<Arc<Resource>>,
    custom: Vec<Arc<Resource>>,
    /// Those whose definitions are stored but not established yet.
    pending: Vec<Collection>,
}

impl Kinds {
    pub(crate) fn new() -> Self {
        Kinds {
            built_in: built_in::all().into_iter().map(Arc::new).collect(),
            custom: Vec::new(),
            pending: Vec::new(),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.built_in.iter().chain(&self.custom)
    }

    /// What is at `/apis/GROUP/VERSION/PLURAL`?
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.iter().find(|one| one.version == version && one.is(group, plural)).cloned()
    }

    /// Which resource has objects of this `apiVersion` and `kind`?
    pub(crate) fn of_object(&self, object: &Value) -> Option<Arc<Resource>> {
        let api_version = object["apiVersion"].as_str()?;
        let kind = object["kind"].as_str()?;
        self.iter().find(|one| one.kind == kind && one.api_version() == api_version).cloned()
    }

    /// Is any version of the collection served?
    pub(crate) fn serves(&self, collection: &Collection) -> bool {
        self.iter().any(|one| one.is(&collection.group, &collection.plural))
    }

    /// Takes over what a stored CustomResourceDefinition says; `None` for one that is gone.
    pub(crate) fn define(&mut self, group: &str, plural: &str, definition: Option<&Value>) {
        self.custom.retain(|one| !one.is(group, plural));
        self.pending.retain(|one| *one != Collection::new(group, plural));
        if let Some(definition) = definition {
            self.custom.extend(custom::resources(definition).into_iter().map(Arc::new));
        }
    }

    /// Notes a definition that is stored and will be served later.
    pub(crate) fn announce(&mut self, group: &str, plural: &str) {
        self.pending.push(Collection::new(group, plural));
    }

    /// Will this be served later?
    pub(crate) fn is_pending(&self, group: &str, plural: &str) -> bool {
        self.pending.contains(&Collection::new(group, plural))
    }
}
