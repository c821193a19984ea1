#![allow(clippy::unwrap_used, clippy::expect_used)]

mod rules;

use std::collections::BTreeMap;

use super::*;
use crate::source::{Object, ObjectKey, test_objects};

/// Everything that a snapshot says, without what depends on history.
fn content(snapshot: &Snapshot) -> Vec<(String, String, String, String)> {
    let mut content = Vec::new();
    for scope in snapshot.scopes() {
        for of in ResourceType::ALL {
            for resource in snapshot.resources(scope, of).iter() {
                let version = resource.version.to_string();
                content.push((scope.to_string(), of.to_string(), resource.name.to_string(), version));
            }
        }
    }
    for (problems, finding) in snapshot.problems().iter().enumerate() {
        content.push(("problem".into(), problems.to_string(), finding.to_string(), String::new()));
    }
    content
}

/// Documents over few names, so that they meet often. The second part tells whether it is valid.
fn random_document(random: &mut fastrand::Rng) -> (String, bool) {
    let namespace = ["a", "b", "istio-system"][random.usize(..3)];
    let name = ["p", "q", "r"][random.usize(..3)];
    let app = ["p", "q"][random.usize(..2)];
    let pick =
        |random: &mut fastrand::Rng, options: &[&str]| options[random.usize(..options.len())].to_owned();
    let metadata = format!("metadata: {{name: {name}, namespace: {namespace}}}");
    match random.u8(..13) {
        0 => {
            let selector = pick(random, &["{app: p}", "{app: q}", "{version: v1}", "{}"]);
            let ports = pick(
                random,
                &[
                    "[{name: http, port: 80, targetPort: 8080}]",
                    "[{name: http, port: 80, targetPort: web}, {name: db, port: 6379}]",
                    "[{name: grpc, port: 80, targetPort: 8080}]",
                    "[{name: tcp, port: 80}]",
                    "[{name: any, port: 80, targetPort: 8080}]",
                    "[]",
                ],
            );
            let address = pick(random, &["None", "10.0.0.1", "10.0.0.2", "'fd00::1'"]);
            let of_type = pick(random, &["ClusterIP", "ClusterIP", "ClusterIP", "ExternalName"]);
            let nearby = pick(
                random,
                &["", "", "trafficDistribution: PreferClose, ", "trafficDistribution: PreferSameNode, "],
            );
            (
                format!(
                    "apiVersion: v1\nkind: Service\n{metadata}\nspec: {{{nearby}type: {of_type}, externalName: out.example, clusterIP: \
                     {address}, selector: {selector}, ports: {ports}}}"
                ),
                true,
            )
        }
        1 | 2 => {
            let inject = pick(random, &["'true'", "'true'", "'false'"]);
            let version = pick(random, &["v1", "v2"]);
            let ready = pick(random, &["'True'", "'False'"]);
            let ip = random.u8(1..5);
            let status = pick(
                random,
                &[
                    &format!("{{podIP: 127.1.0.{ip}, conditions: [{{type: Ready, status: {ready}}}]}}"),
                    &format!("{{podIP: 127.1.0.{ip}}}"),
                    &format!("{{podIP: 127.1.0.{ip}, podIPs: [{{ip: 127.1.0.{ip}}}, {{ip: 'fd00::{ip}'}}]}}"),
                    "{phase: Pending}",
                ],
            );
            let account = pick(random, &["one", "two"]);
            let interception = pick(random, &["NONE", "REDIRECT"]);
            let templates = pick(random, &["sidecar", "sidecar", "grpc-agent"]);
            let node = pick(random, &["", "nodeName: p, ", "nodeName: q, "]);
            let place = pick(random, &["", "", ", istio-locality: r.z1"]);
            (
                format!(
                    "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}, \
                     version: {version}, sidecar.istio.io/inject: {inject}{place}}}, annotations: {{sidecar.istio.io/interceptionMode: \
                     {interception}, inject.istio.io/templates: {templates}}}}}\nspec: {{serviceAccountName: {account}, {node}\
                     containers: [{{ports: [{{name: web, containerPort: 8080}}]}}]}}\nstatus: {status}"
                ),
                true,
            )
        }
        3 => {
            let pod =
                pick(random, &["", ", targetRef: {kind: Pod, name: p}", ", targetRef: {kind: Pod, name: q}"]);
            let ip = random.u8(1..5);
            let ready = random.bool();
            let place = pick(random, &["", "", ", nodeName: p", ", zone: z3"]);
            (
                format!(
                    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: \
                     {namespace}, labels: {{kubernetes.io/service-name: {app}}}}}\naddressType: IPv4\nendpoints: \
                     [{{addresses: [127.1.0.{ip}], conditions: {{ready: {ready}}}{place}{pod}}}]\nports: [{{name: http, port: \
                     8080}}, {{name: db, port: 6379}}]"
                ),
                true,
            )
        }
        4 => {
            let parent = ["a", "b"][random.usize(..2)];
            let weight = pick(random, &["1", "50", "0", "-1"]);
            let port = pick(random, &["80", "81"]);
            (
                format!(
                    "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n{metadata}\nspec: {{parentRefs: [{{group: \
                     '', kind: Service, name: {app}, namespace: {parent}}}], rules: [{{backendRefs: [{{name: p, port: \
                     {port}, weight: {weight}}}, {{name: q, port: 80}}]}}]}}"
                ),
                weight != "-1",
            )
        }
        5 => {
            let host = pick(random, &["p", "q", "p.a.svc.cluster.local"]);
            let errors = random.u8(..4);
            let more = pick(
                random,
                &[
                    "",
                    "tls: {mode: DISABLE}",
                    "connectionPool: {tcp: {idleTimeout: 1s}, http: {h2UpgradePolicy: DO_NOT_UPGRADE}}",
                    "portLevelSettings: [{port: {number: 80}, tls: {mode: ISTIO_MUTUAL}}]",
                    "loadBalancer: {localityLbSetting: {enabled: false}}",
                    "loadBalancer: {localityLbSetting: {failoverPriority: [version, kubernetes.io/hostname]}}",
                    "loadBalancer: {localityLbSetting: {distribute: [{from: '*', to: {'r/z1': 40, q: 60}}]}}",
                ],
            );
            let whom = pick(
                random,
                &[
                    "",
                    "",
                    "exportTo: [.], ",
                    "exportTo: [a], ",
                    "workloadSelector: {matchLabels: {version: v1}}, ",
                ],
            );
            (
                format!(
                    "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n{metadata}\nspec: {{{whom}host: {host}, \
                     trafficPolicy: {{outlierDetection: {{consecutive5xxErrors: {errors}}}, {more}}}}}"
                ),
                true,
            )
        }
        6 => {
            let zone =
                pick(random, &["", "topology.kubernetes.io/zone: z1", "topology.kubernetes.io/zone: z2"]);
            (format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{{zone}}}}}"), true)
        }
        7..12 => (rules::random(random, &metadata), true),
        _ => {
            let mode = pick(random, &["STRICT", "PERMISSIVE", "DISABLE", "UNSET", "WRONG"]);
            let selector = pick(
                random,
                &[
                    "",
                    "selector: {matchLabels: {app: p}}, ",
                    "selector: {matchLabels: {app: p}}, portLevelMtls: {8080: {mode: DISABLE}}, ",
                ],
            );
            (
                format!(
                    "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n{metadata}\nspec: {{{selector}mtls: \
                     {{mode: {mode}}}}}"
                ),
                mode != "WRONG",
            )
        }
    }
}

/// From scratch everything is computed without optimization, which is all the time that this takes: so it is done after about every
/// fourth step, and for two seeds at a time. What an earlier step left wrong is mostly still wrong then.
#[test]
fn incremental_equals_from_scratch() {
    std::thread::scope(|scope| {
        for half in [0..20, 20..40] {
            scope.spawn(move || half.for_each(equals_from_scratch));
        }
    });
}

fn equals_from_scratch(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut incremental = Engine::new(MeshSettings::default());
    // The last good version of every object.
    let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
    let mut latest = Arc::new(Snapshot::default());
    for step in 0..60 {
        let mut events = Vec::new();
        for _ in 0..random.usize(1..4) {
            if random.u8(..4) == 0 && !objects.is_empty() {
                let index = random.usize(..objects.len());
                let key = objects.keys().nth(index).unwrap().clone();
                objects.remove(&key);
                events.push(Event::Delete(key));
            } else {
                let (text, valid) = random_document(&mut random);
                let object = test_objects(&text).remove(0);
                if valid {
                    objects.insert(object.key().clone(), object.clone());
                }
                events.push(Event::Upsert(object));
            }
        }
        incremental.apply(events);
        if let Some(snapshot) = incremental.publish() {
            latest = snapshot;
        }
        if random.u8(..4) > 0 && step < 59 {
            continue;
        }
        let mut scratch = Engine::new(MeshSettings::default());
        scratch.apply(objects.values().cloned().map(Event::Upsert));
        let scratch = scratch.publish().unwrap();
        assert_eq!(content(&latest), content(&scratch), "seed {seed}, up to step {step}");
    }
    // Nothing is left of what is deleted.
    incremental.apply(objects.keys().cloned().map(Event::Delete));
    incremental.publish();
    assert!(incremental.nodes.is_empty() && incremental.readers.is_empty(), "seed {seed}");
    assert_eq!(incremental.snapshot.clusters.all.len(), 1, "only the black hole is left");
}

const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: p}, spec: {selector: {app: p}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: q}, spec: {selector: {app: q}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: p, labels: {app: p}}, spec: {}, status: {podIP: 127.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: q, labels: {app: q}}, spec: {}, status: {podIP: 127.1.0.2}}
";

fn upserts(text: &str) -> Vec<Event> {
    test_objects(text).into_iter().map(Event::Upsert).collect()
}

fn scope(pod: &str) -> ScopeKey {
    ScopeKey { namespace: "default".into(), pod: pod.into() }
}

#[test]
fn readiness_changes_one_load_assignment() {
    let mut engine = Engine::new(MeshSettings::default());
    engine.apply(upserts(MESH));
    let before = engine.publish().unwrap();
    let pod = "{apiVersion: v1, kind: Pod, metadata: {name: q, labels: {app: q}}, spec: {}, \
               status: {podIP: 127.1.0.2, conditions: [{type: Ready, status: 'False'}]}}";
    engine.apply(upserts(pod));
    let after = engine.publish().unwrap();
    for of in [ResourceType::Cluster, ResourceType::Listener, ResourceType::RouteConfiguration] {
        for pod in ["p", "q"] {
            let same = before.resources(&scope(pod), of).same_as(&after.resources(&scope(pod), of));
            assert!(same, "{of} of {pod} was rebuilt");
        }
    }
    let of = ResourceType::ClusterLoadAssignment;
    let (old, new) = (before.resources(&scope("p"), of), after.resources(&scope("p"), of));
    assert!(!old.same_as(&new));
    let changed: Vec<_> = new
        .iter()
        .filter(|resource| !Arc::ptr_eq(resource, old.get(&resource.name).unwrap()))
        .map(|resource| resource.name.to_string())
        .collect();
    assert_eq!(changed, ["outbound|80||q.default.svc.cluster.local"]);
}

#[test]
fn what_changes_nothing_publishes_nothing() {
    let mut engine = Engine::new(MeshSettings::default());
    engine.apply(upserts(MESH));
    assert_eq!(engine.publish().unwrap().generation(), 1);
    engine.apply(upserts(MESH));
    assert!(engine.publish().is_none());
    engine.apply(upserts("{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}"));
    assert!(engine.publish().is_none());
}

#[test]
fn proxies_of_a_namespace_share() {
    let mut engine = Engine::new(MeshSettings::default());
    engine.apply(upserts(MESH));
    let snapshot = engine.publish().unwrap();
    let routes = |pod: &str| snapshot.resources(&scope(pod), ResourceType::RouteConfiguration);
    assert!(routes("p").same_as(&routes("q")));
}

#[test]
fn a_refused_object_leaves_its_last_good_version() {
    let route = |weight: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs:\n  - \
             {{group: '', kind: Service, name: p}}\n  rules:\n  - backendRefs:\n    - name: q\n      port: 80\n      \
             weight: {weight}\n"
        )
    };
    let mut engine = Engine::new(MeshSettings::default());
    engine.apply(upserts(MESH));
    engine.apply(upserts(&route("1")));
    let good = engine.publish().unwrap();
    engine.apply(upserts(&route("-1")));
    let refused = engine.publish().unwrap();
    let of = ResourceType::RouteConfiguration;
    assert!(good.resources(&scope("p"), of).same_as(&refused.resources(&scope("p"), of)));
    let [rejection] = refused.rejections() else { panic!() };
    assert_eq!(
        rejection.to_string(),
        "test.yaml:11:7: HTTPRoute default/r: spec.rules[0].backendRefs[0].weight: -1 is not between 0 and 1000000"
    );
    // Mending it clears the rejection, and so does removing it.
    engine.apply(upserts(&route("1")));
    assert!(engine.publish().unwrap().rejections().is_empty());
    engine.apply(upserts(&route("-1")));
    engine.publish().unwrap();
    engine.apply([Event::Delete(test_objects(&route("1"))[0].key().clone())]);
    let removed = engine.publish().unwrap();
    assert!(removed.rejections().is_empty());
    assert!(!removed.resources(&scope("p"), of).same_as(&good.resources(&scope("p"), of)));
}
