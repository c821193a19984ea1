//! The kinds that are watched, and which of their fields are kept.
//!
//! What the front ends in [`crate::api`] read must be kept here; a test of [`super::prune`] decodes full and cut-down
//! objects and compares.

use kube::api::{ApiResource, GroupVersionKind};

/// A kind that is watched.
#[derive(Debug)]
pub(crate) struct Kind {
    /// API group; empty for the core group.
    pub(super) group: &'static str,
    /// Versions that the front ends read, the preferred one first.
    pub(crate) versions: &'static [&'static str],
    /// Name of the kind; no two in this file have the same.
    pub(super) kind: &'static str,
    /// Its name in URLs.
    pub(super) plural: &'static str,
    /// Objects in one page of a list: bounds the memory that a list takes for a moment.
    pub(super) page: u32,
    /// Paths of the fields that are kept with all that is below them. `[]` stands for every element of a list. `apiVersion`,
    /// `kind` and the name are always kept.
    pub(super) keep: &'static [&'static str],
}

impl Kind {
    /// How `kube` names it.
    pub(crate) fn resource(&self, version: &str) -> ApiResource {
        let kind = GroupVersionKind::gvk(self.group, version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// Name of the CustomResourceDefinition that installs it.
    pub(super) fn crd_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }
}

const PAGE: u32 = 250;

/// Kinds that every API server has.
pub(super) const BUILT_IN: &[Kind] = &[
    Kind {
        group: "",
        versions: &["v1"],
        kind: "Service",
        plural: "services",
        page: PAGE,
        keep: &[
            "spec.type",
            "spec.externalName",
            "spec.clusterIP",
            "spec.clusterIPs",
            "spec.selector",
            "spec.ports",
            "spec.sessionAffinity",
            "spec.trafficDistribution",
            "metadata.annotations.networking.istio.io/traffic-distribution",
        ],
    },
    Kind {
        group: "discovery.k8s.io",
        versions: &["v1"],
        kind: "EndpointSlice",
        plural: "endpointslices",
        page: PAGE,
        keep: &[
            "metadata.labels.kubernetes.io/service-name",
            "addressType",
            "endpoints[].addresses",
            "endpoints[].conditions.ready",
            "endpoints[].conditions.terminating",
            "endpoints[].targetRef.kind",
            "endpoints[].targetRef.name",
            "endpoints[].nodeName",
            "endpoints[].zone",
            "ports",
        ],
    },
    Kind {
        group: "",
        versions: &["v1"],
        kind: "Pod",
        plural: "pods",
        page: PAGE,
        keep: &[
            "metadata.labels",
            "metadata.annotations.inject.istio.io/templates",
            "metadata.annotations.sidecar.istio.io/inject",
            "metadata.annotations.sidecar.istio.io/interceptionMode",
            "metadata.annotations.sidecar.istio.io/status",
            "metadata.deletionTimestamp",
            "metadata.ownerReferences[].kind",
            "metadata.ownerReferences[].name",
            "metadata.ownerReferences[].controller",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "spec.nodeName",
            "spec.containers[].ports[].name",
            "spec.containers[].ports[].containerPort",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.conditions[].type",
            "status.conditions[].status",
        ],
    },
    Kind {
        group: "",
        versions: &["v1"],
        kind: "Node",
        plural: "nodes",
        page: PAGE,
        keep: &[
            "metadata.labels.topology.kubernetes.io/region",
            "metadata.labels.topology.kubernetes.io/zone",
            "metadata.labels.topology.istio.io/subzone",
        ],
    },
    Kind {
        group: "",
        versions: &["v1"],
        kind: "Namespace",
        plural: "namespaces",
        page: PAGE,
        keep: &["metadata.labels"],
    },
];

/// Strict front ends look at every field of a specification, so all of it is kept.
const RULE: &[&str] = &["metadata.creationTimestamp", "metadata.labels", "spec"];

/// Kinds that a CustomResourceDefinition installs.
pub(super) const CUSTOM: &[Kind] = &[
    Kind {
        group: "gateway.networking.k8s.io",
        versions: &["v1", "v1beta1"],
        kind: "HTTPRoute",
        plural: "httproutes",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "gateway.networking.k8s.io",
        versions: &["v1"],
        kind: "GRPCRoute",
        plural: "grpcroutes",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "gateway.networking.k8s.io",
        versions: &["v1", "v1beta1"],
        kind: "ReferenceGrant",
        plural: "referencegrants",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kind: "VirtualService",
        plural: "virtualservices",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kind: "DestinationRule",
        plural: "destinationrules",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kind: "ServiceEntry",
        plural: "serviceentries",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kind: "WorkloadEntry",
        plural: "workloadentries",
        page: PAGE,
        keep: &[
            "metadata.creationTimestamp",
            "metadata.deletionTimestamp",
            "metadata.labels",
            "metadata.annotations.sidecar.istio.io/interceptionMode",
            "spec",
        ],
    },
    Kind {
        group: "networking.istio.io",
        versions: &["v1", "v1beta1", "v1alpha3"],
        kind: "WorkloadGroup",
        plural: "workloadgroups",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "security.istio.io",
        versions: &["v1", "v1beta1"],
        kind: "PeerAuthentication",
        plural: "peerauthentications",
        page: PAGE,
        keep: RULE,
    },
    Kind {
        group: "outrigger.dev",
        versions: &["v1alpha1"],
        kind: "TrafficPolicy",
        plural: "trafficpolicies",
        page: PAGE,
        keep: RULE,
    },
];

/// The kind of rules of this name.
pub(crate) fn rule_kind(group: &str, kind: &str) -> Option<&'static Kind> {
    CUSTOM.iter().find(|known| known.group == group && known.kind == kind)
}

/// What tells of the kinds in [`CUSTOM`]. One may have hundreds of kilobytes, most of it schemas.
pub(super) static CRD: Kind = Kind {
    group: "apiextensions.k8s.io",
    versions: &["v1"],
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    page: 10,
    keep: &[
        "spec.group",
        "spec.names.kind",
        "spec.versions[].name",
        "spec.versions[].served",
        "status.conditions[].type",
        "status.conditions[].status",
    ],
};
