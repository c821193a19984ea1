//! What became of an object stands in its own status, written by the one control plane that leads.

use outrigger_control_plane::ControlPlane;
use outrigger_kube_api::{ApiServer, Collection};
use serde_json::{Value, json};

use crate::world::{control_plane, put, server, until};

const OBJECTS: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: outrigger-system}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop, generation: 1}
spec:
  parentRefs: [{name: gw}, {group: '', kind: Service, name: reviews}, {group: '', kind: Service, name: reviews, port: 81}]
  rules: [{backendRefs: [{name: gone, port: 80}]}]
status:
  parents: [{parentRef: {name: gw}, controllerName: example.com/other, conditions: []}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: shop, generation: 1}
spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}
status: {conditions: [{type: Reconciled, status: 'True'}]}
";

/// A control plane that follows an API server as its administrator.
struct World {
    server: ApiServer,
    _folder: tempfile::TempDir,
    _control_plane: ControlPlane,
}

impl World {
    async fn start(server: ApiServer) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, server.kubeconfig()).unwrap();
        let started = control_plane(&kubeconfig, &folder.path().join("data"), &[]).await;
        Self { server, _folder: folder, _control_plane: started }
    }

    fn route(&self) -> Value {
        let routes = Collection::new("gateway.networking.k8s.io", "httproutes");
        self.server.get(&routes, "shop", "r").unwrap()
    }

    fn virtual_service(&self) -> Value {
        let services = Collection::new("networking.istio.io", "virtualservices");
        self.server.get(&services, "shop", "v").unwrap()
    }
}

/// `TYPE STATUS REASON` of each condition.
fn shown(conditions: &Value) -> Vec<String> {
    let word = |found: &Value, of: &str| found[of].as_str().unwrap_or("-").to_owned();
    let all = conditions.as_array().into_iter().flatten();
    all.map(|found| ["type", "status", "reason"].map(|of| word(found, of)).join(" ")).collect()
}

/// The conditions of ours for the parent with this number in the specification.
fn of_parent(route: &Value, index: usize) -> Value {
    let wanted = &route["spec"]["parentRefs"][index];
    let mut parents = route["status"]["parents"].as_array().into_iter().flatten();
    let ours =
        |parent: &&Value| parent["parentRef"] == *wanted && parent["controllerName"] == "outrigger.dev/mesh";
    parents.find(ours).map_or(Value::Null, |parent| parent["conditions"].clone())
}

#[tokio::test]
async fn conditions_of_each_parent_and_object() {
    let server = server();
    put(&server, OBJECTS);
    let world = World::start(server).await;
    until("the status of the route", || !of_parent(&world.route(), 2).is_null()).await;
    let route = world.route();
    assert_eq!(
        shown(&of_parent(&route, 1)),
        ["Accepted True Accepted", "ResolvedRefs False BackendNotFound"]
    );
    assert_eq!(
        shown(&of_parent(&route, 2)),
        ["Accepted False NoMatchingParent", "ResolvedRefs False BackendNotFound"]
    );
    let parents = route["status"]["parents"].as_array().unwrap();
    assert_eq!(parents.len(), 3, "{parents:?}");
    assert_eq!(parents[0]["controllerName"], "example.com/other", "others' are left alone");
    let accepted = &of_parent(&route, 1)[0];
    assert_eq!(accepted["observedGeneration"], route["metadata"]["generation"]);
    // The precedence of the two APIs is told in both.
    assert!(
        accepted["message"].as_str().unwrap().contains("comes before VirtualService shop/v"),
        "{accepted}"
    );
    until("the status of the VirtualService", || {
        shown(&world.virtual_service()["status"]["conditions"]).len() == 3
    })
    .await;
    let conditions = &world.virtual_service()["status"]["conditions"];
    assert_eq!(
        shown(conditions),
        ["Reconciled True -", "Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]
    );
    assert!(conditions[1]["message"].as_str().unwrap().contains("follow HTTPRoute shop/r"), "{conditions}");

    // A change that is refused leaves the last good version, and the time at which it was accepted.
    let mut refused = route.clone();
    refused["spec"]["rules"][0]["backendRefs"][0]["weight"] = json!(-1);
    world.server.put(refused).unwrap();
    until("the refusal", || shown(&of_parent(&world.route(), 1)).len() == 3).await;
    let conditions = of_parent(&world.route(), 1);
    assert_eq!(shown(&conditions)[2], "PartiallyInvalid True UnsupportedValue");
    assert!(
        conditions[2]["message"].as_str().unwrap().starts_with("Fall Back: spec.rules[0]"),
        "{conditions}"
    );
    assert_eq!(conditions[0]["lastTransitionTime"], accepted["lastTransitionTime"]);

    // A backend of another kind is no reason to refuse the route.
    let mut other = route.clone();
    other["spec"]["rules"][0]["backendRefs"][0] =
        json!({"group": "example.com", "kind": "Bucket", "name": "gone"});
    world.server.put(other).unwrap();
    until("the other kind", || {
        shown(&of_parent(&world.route(), 1)) == ["Accepted True Accepted", "ResolvedRefs False InvalidKind"]
    })
    .await;
}

#[tokio::test]
async fn what_is_put_right_is_no_longer_told() {
    let server = server();
    put(&server, OBJECTS);
    let world = World::start(server).await;
    let conditions = || shown(&world.virtual_service()["status"]["conditions"]);
    until("the first status", || conditions().len() == 3).await;
    let good = world.virtual_service();
    let mut refused = good.clone();
    refused["spec"]["http"][0]["timeout"] = json!("soon");
    world.server.put(refused).unwrap();
    until("the refusal", || conditions().contains(&"PartiallyInvalid True UnsupportedValue".to_owned()))
        .await;
    let mut again = world.virtual_service();
    again["spec"] = good["spec"].clone();
    world.server.put(again).unwrap();
    until("the repair", || conditions().len() == 3).await;
    assert_eq!(
        conditions(),
        ["Reconciled True -", "Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]
    );
}

#[tokio::test]
async fn only_the_leader_writes() {
    let server = server();
    put(&server, OBJECTS);
    let lease = |holder: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "outrigger-control-plane", "namespace": "outrigger-system"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1, "leaseTransitions": 4}})
    };
    server.put(lease("another")).unwrap();
    let world = World::start(server).await;
    let leases = Collection::new("coordination.k8s.io", "leases");
    let spec =
        || world.server.get(&leases, "outrigger-system", "outrigger-control-plane").unwrap()["spec"].clone();
    // It is another's until it has not been renewed for as long as it counts.
    until("the lease passes over", || {
        let is_written = !of_parent(&world.route(), 1).is_null();
        let holder = spec()["holderIdentity"].clone();
        assert!(!is_written || holder != "another", "written by one that does not lead");
        holder != "another"
    })
    .await;
    assert_eq!(spec()["leaseTransitions"], 5);
    until("the status of the route", || !of_parent(&world.route(), 1).is_null()).await;
}

const POLICIES: &str = "
{apiVersion: v1, kind: Namespace, metadata: {name: outrigger-system}}
---
{apiVersion: v1, kind: Service, metadata: {name: reviews, namespace: shop}, spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}}
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: a, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
spec:
  targetRefs: [{group: '', kind: Service, name: reviews}, {group: '', kind: Service, name: reviews, sectionName: grpc}]
  retryBudget: {}
---
apiVersion: outrigger.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: b, namespace: shop, creationTimestamp: '2026-02-01T00:00:00Z'}
spec:
  targetRefs: [{group: '', kind: Service, name: reviews}]
  rateLimit: {requests: 5}
";

#[tokio::test]
async fn a_policy_has_conditions_for_each_target() {
    let server = server();
    put(&server, POLICIES);
    let world = World::start(server).await;
    let policy = |name: &str| {
        let policies = Collection::new("outrigger.dev", "trafficpolicies");
        world.server.get(&policies, "shop", name).unwrap()
    };
    let reasons = |name: &str| -> Vec<Vec<String>> {
        let found = policy(name);
        let ancestors = found["status"]["ancestors"].as_array().cloned().unwrap_or_default();
        ancestors.iter().map(|ancestor| shown(&ancestor["conditions"])).collect()
    };
    until("the status of the policies", || !reasons("a").is_empty() && !reasons("b").is_empty()).await;
    assert_eq!(reasons("a"), [["Accepted True Accepted"], ["Accepted False TargetNotFound"]]);
    assert_eq!(reasons("b"), [["Accepted False Conflicted"]]);
    let written = policy("a");
    let ancestor = &written["status"]["ancestors"][1];
    assert_eq!(ancestor["controllerName"], "outrigger.dev/mesh");
    let reference = json!({"group": "", "kind": "Service", "namespace": "shop", "name": "reviews", "sectionName": "grpc"});
    assert_eq!(ancestor["ancestorRef"], reference);
    assert_eq!(ancestor["conditions"][0]["observedGeneration"], written["metadata"]["generation"]);

    let mut first = written;
    first["spec"]["targetRefs"] = json!([{"group": "", "kind": "Service", "name": "other"}]);
    world.server.put(first).unwrap();
    until("the second policy's turn", || reasons("b") == [["Accepted True Accepted"]]).await;
    assert_eq!(reasons("a"), [["Accepted False TargetNotFound"]]);
    // The schema does not look at pairs of lists, so the code does.
    let mut broken = policy("b");
    broken["spec"]["queryParameters"] = json!({"remove": ["a"], "set": [{"name": "a", "value": "b"}]});
    world.server.put(broken).unwrap();
    until("a refusal", || reasons("b") == [["Accepted True Accepted", "PartiallyInvalid True Invalid"]])
        .await;
}

#[tokio::test]
async fn machines_are_told_what_becomes_of_them() {
    let server = server();
    put(&server, OBJECTS);
    let world = World::start(server).await;
    let object = |plural: &str, name: &str| {
        let found = world.server.get(&Collection::new("networking.istio.io", plural), "shop", name);
        found.unwrap()["status"]["conditions"].clone()
    };
    let message =
        |plural: &str, name: &str| object(plural, name)[0]["message"].as_str().unwrap_or_default().to_owned();
    put(
        &world.server,
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: m, namespace: shop, generation: 1}\nspec: {address: \
         10.0.0.1, labels: {app: other}}\n---\napiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: g, namespace: shop, \
         generation: 1}\nspec: {template: {serviceAccount: a}}\n",
    );
    until("the status of the entry", || message("workloadentries", "m").contains("selects it")).await;
    until("the status of the group", || message("workloadgroups", "g").contains("makes no WorkloadEntry"))
        .await;
    assert_eq!(
        shown(&object("workloadgroups", "g")),
        ["Accepted True Accepted", "ResolvedRefs True ResolvedRefs"]
    );
    // Selected, it has nothing to say.
    put(
        &world.server,
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: m, namespace: shop, generation: 2}\nspec: {address: \
         10.0.0.1, labels: {app: reviews}}\n",
    );
    until("a status without a word", || !message("workloadentries", "m").contains("selects it")).await;
}
