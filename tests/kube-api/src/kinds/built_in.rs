//! Kubernetes' own kinds, as far as a mesh meets them.

use super::Resource;

/// Group version, kind, plural, short names, namespaced?, `/status`?, in the category `all`?
type Row = (&'static str, &'static str, &'static str, &'static str, bool, bool, bool);

#[rustfmt::skip]
const STORED: &[Row] = &[
    ("v1", "ConfigMap", "configmaps", "cm", true, false, false),
    ("v1", "Endpoints", "endpoints", "ep", true, false, false),
    ("v1", "Event", "events", "ev", true, false, false),
    ("v1", "LimitRange", "limitranges", "limits", true, false, false),
    ("v1", "Namespace", "namespaces", "ns", false, true, false),
    ("v1", "Node", "nodes", "no", false, true, false),
    ("v1", "PersistentVolumeClaim", "persistentvolumeclaims", "pvc", true, true, false),
    ("v1", "Pod", "pods", "po", true, true, true),
    ("v1", "ReplicationController", "replicationcontrollers", "rc", true, true, true),
    ("v1", "ResourceQuota", "resourcequotas", "quota", true, true, false),
    ("v1", "Secret", "secrets", "", true, false, false),
    ("v1", "Service", "services", "svc", true, true, true),
    ("v1", "ServiceAccount", "serviceaccounts", "sa", true, false, false),
    ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", "", false, false, false),
    ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "validatingwebhookconfigurations", "", false, false, false),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", "crd,crds", false, true, false),
    ("apps/v1", "DaemonSet", "daemonsets", "ds", true, true, true),
    ("apps/v1", "Deployment", "deployments", "deploy", true, true, true),
    ("apps/v1", "ReplicaSet", "replicasets", "rs", true, true, true),
    ("apps/v1", "StatefulSet", "statefulsets", "sts", true, true, true),
    ("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", "hpa", true, true, true),
    ("batch/v1", "CronJob", "cronjobs", "cj", true, true, true),
    ("batch/v1", "Job", "jobs", "", true, true, true),
    ("coordination.k8s.io/v1", "Lease", "leases", "", true, false, false),
    ("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", "", true, false, false),
    ("events.k8s.io/v1", "Event", "events", "ev", true, false, false),
    ("networking.k8s.io/v1", "Ingress", "ingresses", "ing", true, true, false),
    ("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", "netpol", true, false, false),
    ("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", "pdb", true, true, false),
    ("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", "", false, false, false),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", "", false, false, false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", "", true, false, false),
    ("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", "", true, false, false),
    ("scheduling.k8s.io/v1", "PriorityClass", "priorityclasses", "pc", false, false, false),
];

/// Questions: group version, kind, plural, namespaced?
const REVIEWS: &[(&str, &str, &str, bool)] = &[
    ("authentication.k8s.io/v1", "SelfSubjectReview", "selfsubjectreviews", false),
    ("authentication.k8s.io/v1", "TokenReview", "tokenreviews", false),
    ("authorization.k8s.io/v1", "LocalSubjectAccessReview", "localsubjectaccessreviews", true),
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview", "selfsubjectaccessreviews", false),
    ("authorization.k8s.io/v1", "SubjectAccessReview", "subjectaccessreviews", false),
];

pub(crate) fn all() -> Vec<Resource> {
    let stored = STORED.iter().map(|&(group_version, kind, plural, short, namespaced, status, all)| {
        let mut one = resource(group_version, kind, plural, namespaced);
        one.short_names = short.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        one.categories = if all { vec!["all".to_owned()] } else { Vec::new() };
        one.status = status;
        one
    });
    let reviews = REVIEWS.iter().map(|&(group_version, kind, plural, namespaced)| Resource {
        review: true,
        ..resource(group_version, kind, plural, namespaced)
    });
    stored.chain(reviews).collect()
}

fn resource(group_version: &str, kind: &str, plural: &str, namespaced: bool) -> Resource {
    let (group, version) = group_version.split_once('/').unwrap_or(("", group_version));
    Resource {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        singular: kind.to_lowercase(),
        namespaced,
        short_names: Vec::new(),
        categories: Vec::new(),
        status: false,
        review: false,
        custom: None,
    }
}
