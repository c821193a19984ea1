//! Which lists of Kubernetes' own kinds are keyed, and which maps are one value: what their types say with
//! `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` and `x-kubernetes-map-type`.

/// How the items of a list are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListType {
    /// The whole list is one value.
    Atomic,
    /// Items are values that occur once.
    Set,
    /// Items are objects with these keys.
    Map(&'static [&'static str]),
}

/// The type of the list at a path: the kind, then the names of fields, without indexes.
pub(crate) fn list_type(path: &[String]) -> ListType {
    let kind = path.first().map(String::as_str).unwrap_or_default();
    let field = path.last().map(String::as_str).unwrap_or_default();
    let parent = path.len().checked_sub(2).and_then(|index| path.get(index)).map(String::as_str);
    match (parent.unwrap_or_default(), field) {
        ("metadata", "finalizers") => ListType::Set,
        ("metadata", "ownerReferences") => ListType::Map(&["uid"]),
        ("spec", "ports") if kind == "Service" => ListType::Map(&["port", "protocol"]),
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
            ListType::Map(&["containerPort", "protocol"])
        }
        (
            _,
            "containers" | "initContainers" | "ephemeralContainers" | "volumes" | "env" | "imagePullSecrets",
        ) => ListType::Map(&["name"]),
        (_, "webhooks" | "secrets") => ListType::Map(&["name"]),
        (_, "volumeMounts") => ListType::Map(&["mountPath"]),
        (_, "volumeDevices") => ListType::Map(&["devicePath"]),
        (_, "hostAliases") => ListType::Map(&["ip"]),
        (_, "topologySpreadConstraints") => ListType::Map(&["topologyKey", "whenUnsatisfiable"]),
        ("status", "conditions") => ListType::Map(&["type"]),
        ("status", "podIPs" | "hostIPs") => ListType::Map(&["ip"]),
        _ => ListType::Atomic,
    }
}

/// Is the map at a path one value, owned as a whole?
pub(crate) fn is_atomic_map(path: &[String]) -> bool {
    let field = path.last().map(String::as_str).unwrap_or_default();
    matches!(
        field,
        "selector"
            | "nodeSelector"
            | "podSelector"
            | "namespaceSelector"
            | "objectSelector"
            | "labelSelector"
            | "fieldRef"
            | "resourceFieldRef"
            | "configMapKeyRef"
            | "secretKeyRef"
            | "scaleTargetRef"
            | "targetRef"
            | "involvedObject"
            | "roleRef"
    )
}
