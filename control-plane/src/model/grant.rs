//! Who may lead requests into a namespace.

use crate::model::Name;

/// A ReferenceGrant: objects of other namespaces may name objects of its own.
#[derive(Debug)]
pub struct Grant {
    /// Its name; its namespace is the one whose objects may be named.
    pub name: Name,
    /// Who may.
    pub from: Vec<GrantFrom>,
    /// What may be named.
    pub to: Vec<GrantTo>,
}

/// Objects that may name others.
#[derive(Debug)]
pub struct GrantFrom {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
}

/// Objects that may be named.
#[derive(Debug)]
pub struct GrantTo {
    /// API group; empty for the core group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Only the one of this name.
    pub name: Option<String>,
}

impl Grant {
    /// Whether routes of `kind` in `namespace` may lead to the Service `service` of the grant's namespace.
    pub fn allows(&self, kind: &str, namespace: &str, service: &str) -> bool {
        let from = |from: &GrantFrom| {
            from.group == "gateway.networking.k8s.io" && from.kind == kind && from.namespace == namespace
        };
        let to = |to: &GrantTo| {
            to.group.is_empty()
                && to.kind == "Service"
                && to.name.as_deref().is_none_or(|name| name == service)
        };
        self.from.iter().any(from) && self.to.iter().any(to)
    }
}
