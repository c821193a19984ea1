//! The Kubernetes objects that the control plane reads: written, and edited, as a user would.

use std::net::Ipv4Addr;
use std::time::Duration;

/// Port of every application.
pub(super) const APP_PORT: u16 = 9080;
/// `consecutive5xxErrors` of the demo's DestinationRule.
pub(super) const CONSECUTIVE_ERRORS: u64 = 3;

/// One workload: a pod of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) name: &'static str,
    pub(super) app: &'static str,
    pub(super) version: &'static str,
    pub(super) address: Ipv4Addr,
    /// How long its certificates live.
    pub(super) certificate_lifetime: Duration,
}

const fn pod(name: &'static str, app: &'static str, version: &'static str, last: u8) -> Pod {
    let (address, certificate_lifetime) = (Ipv4Addr::new(127, 1, 0, last), Duration::from_secs(24 * 3600));
    Pod { name, app, version, address, certificate_lifetime }
}

/// Its certificates live so short that one is renewed while the demo runs.
pub(super) const WEB: Pod =
    Pod { certificate_lifetime: Duration::from_secs(40), ..pod("web-0", "web", "v1", 1) };
pub(super) const REVIEWS_V1_A: Pod = pod("reviews-v1-a", "reviews", "v1", 2);
pub(super) const REVIEWS_V1_B: Pod = pod("reviews-v1-b", "reviews", "v1", 3);
pub(super) const REVIEWS_V2: Pod = pod("reviews-v2-a", "reviews", "v2", 4);
/// Has no sidecar, no identity and no Pod object.
pub(super) const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 5);

/// Has an Envoy as its sidecar, and joins at the end.
pub(super) const ENVOY: Pod = pod("envoy-0", "envoy", "v1", 6);

/// The pods that have a sidecar of ours.
pub(super) const PODS: [Pod; 4] = [WEB, REVIEWS_V1_A, REVIEWS_V1_B, REVIEWS_V2];

/// Services and pods.
pub(super) fn workloads() -> String {
    let service = |name: &str, selector: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  selector: {{{selector}}}\n  \
             ports:\n  - {{name: http, port: {APP_PORT}, targetPort: {APP_PORT}}}\n---\n"
        )
    };
    let pods = PODS.map(pod_object);
    [
        service("web", "app: web"),
        service("reviews", "app: reviews"),
        service("reviews-v1", "app: reviews, version: v1"),
        service("reviews-v2", "app: reviews, version: v2"),
    ]
    .into_iter()
    .chain(pods)
    .collect()
}

/// Mutual TLS for all, and the ejection of failing instances.
pub(super) fn policies() -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: default}}\nspec:\n  \
         mtls: {{mode: STRICT}}\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews-v1, \
         namespace: default}}\nspec:\n  host: reviews-v1\n  trafficPolicy:\n    outlierDetection:\n      consecutive5xxErrors: \
         {CONSECUTIVE_ERRORS}\n      interval: 1s\n      baseEjectionTime: 3s\n      maxEjectionPercent: 50\n"
    )
}

/// The route of `reviews`, split by these weights.
pub(super) fn route(v1: u32, v2: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: reviews, namespace: default}}\nspec:\n  \
         parentRefs:\n  - {{group: \"\", kind: Service, name: reviews, port: {APP_PORT}}}\n  rules:\n  - backendRefs:\n    \
         - {{name: reviews-v1, port: {APP_PORT}, weight: {v1}}}\n    - {{name: reviews-v2, port: {APP_PORT}, weight: {v2}}}\n"
    )
}

/// The same with a mistake in it.
pub(super) fn broken_route() -> String {
    route(100, 0).replace(
        "  rules:\n  -",
        "  rules:\n  - matches:\n    - path: {type: RegularExpression, value: \"/reviews/([0-9]+\"}\n   ",
    )
}

/// The Pod of a workload.
pub(super) fn pod_object(pod: Pod) -> String {
    let Pod { name, app, version, address, .. } = pod;
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: default\n  labels: {{app: {app}, version: {version}}}\n\
         spec:\n  serviceAccountName: {app}\n  containers:\n  - name: app\n    image: {app}\n    ports:\n    \
         - containerPort: {APP_PORT}\nstatus:\n  phase: Running\n  podIP: {address}\n  podIPs:\n  - ip: {address}\n  conditions:\n  \
         - {{type: Ready, status: \"True\"}}\n---\n"
    )
}
