#![allow(clippy::unwrap_used)]

use super::*;
use crate::source::test_objects;

fn events(text: &str) -> Vec<Event> {
    test_objects(text).into_iter().map(Event::Upsert).collect()
}

fn shown(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let analysis = Analysis::of(MeshSettings::default(), &events(text));
    assert_eq!(shown(&analysis.errors), [""; 0]);
    shown(&analysis.warnings)
}

const DEPLOYMENT: &str = "
{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {template: {metadata: {labels: {app: web}},
  spec: {containers: [{ports: [{name: http, containerPort: 80}]}]}}}}
---
";

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: s}}\nspec: {{{spec}}}\n---\n")
}

#[test]
fn selectors_are_held_against_workloads_and_their_templates() {
    for (spec, expected) in [
        ("selector: {app: web}, ports: [{port: 80, targetPort: http}]", None),
        (
            "selector: {app: wbe}, ports: [{port: 80}]",
            Some("spec.selector: has no endpoints: selects no workload of namespace default"),
        ),
        ("ports: [{port: 80}]", Some("spec: has no endpoints: neither a selector nor an EndpointSlice")),
        (
            "selector: {app: web}, ports: [{port: 80, targetPort: web}]",
            Some("spec.ports: port 80: Deployment default/web has no container port \"web\""),
        ),
        ("type: ExternalName, externalName: example.com", None),
        ("type: ExternalName, externalName: example.com, ports: [{port: 80}]", None),
    ] {
        let found = warnings(&(service(spec) + DEPLOYMENT));
        match expected {
            None => assert_eq!(found, [""; 0], "{spec}"),
            Some(expected) => {
                assert_eq!(found.len(), 1, "{found:?}");
                assert!(found[0].ends_with(expected), "{found:?}");
            }
        }
        // Without any workload nothing is known about them.
        assert_eq!(warnings(&service(spec)), [""; 0], "{spec}");
    }
    let slice = "{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: s-1, labels: \
                 {kubernetes.io/service-name: s}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.1]}], ports: [{port: 80}]}";
    assert_eq!(warnings(&(service("ports: [{port: 80}]") + DEPLOYMENT + slice)), [""; 0]);
    let policy = "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p}, spec: {selector: \
                  {matchLabels: {app: APP}}}}";
    assert_eq!(warnings(&(DEPLOYMENT.to_owned() + &policy.replace("APP", "web"))), [""; 0]);
    let found = warnings(&(DEPLOYMENT.to_owned() + &policy.replace("APP", "wbe")));
    assert!(found[0].ends_with("spec.selector: selects no workload of namespace default"), "{found:?}");
    let machine = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: m}\nspec: {address: 10.0.0.1, labels: {app: \
                   APP}, ports: {http: 80}}\n---\n";
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: e}\nspec: {hosts: [a.example], resolution: STATIC, \
                 workloadSelector: {labels: {app: m}}, ports: [{number: 80, name: http, protocol: HTTP}]}\n---\n";
    let by_name = service("selector: {app: m}, ports: [{port: 80, targetPort: http}]");
    assert_eq!(warnings(&(by_name + entry + &machine.replace("APP", "m"))), [""; 0]);
    let found = warnings(&(entry.to_owned() + &machine.replace("APP", "other")));
    let expected = [
        "ServiceEntry default/e: spec.workloadSelector: selects no workload of namespace default",
        "WorkloadEntry default/m: has no effect: no Service or ServiceEntry of namespace default selects it",
    ];
    assert!(
        found.len() == 2 && found.iter().zip(expected).all(|(found, end)| found.ends_with(end)),
        "{found:?}"
    );
    let cron = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: c}, spec: {jobTemplate: {spec: {template: {metadata: \
                {labels: {app: APP}}}}}}}\n---\n";
    assert_eq!(warnings(&(cron.to_owned() + policy)), [""; 0]);
}

#[test]
fn files_are_held_against_the_cluster() {
    let route = |name: &str, created: &str, backend: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}{created}}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: s}}]\n  rules: [{{backendRefs: [{{name: {backend}, port: \
             80}}]}}]\n---\n"
        )
    };
    let in_cluster = |text: &str| -> Vec<Event> {
        let objects = test_objects(text).into_iter().map(|object| {
            let origin = crate::source::Origin::in_cluster(object.key().clone());
            Event::Upsert(Object { origin: Arc::new(origin), ..object })
        });
        objects.collect()
    };
    let old = ", creationTimestamp: '2026-01-01T00:00:00Z'";
    let cluster = in_cluster(&(service("ports: [{port: 80}]") + &route("z", old, "gone")));
    let analyze = |events: &[Event]| Analysis::of(MeshSettings::default(), events);
    let before = analyze(&cluster);
    assert_eq!(before.warnings.len(), 1, "{before:?}");

    // A route that is new is younger than all that exist, whatever its name.
    let files = events(&route("a", "", "s"));
    let after = analyze(&applied(&cluster, files)).since(&before);
    let expected = "test.yaml:6:11: HTTPRoute default/a: spec.rules[0].matches[0]: has no effect: spec.rules[0] of HTTPRoute \
                    default/z has the same match";
    assert_eq!(shown(&after.warnings), [expected]);
    assert_eq!(after.objects, 3);

    // One that replaces another is as old as that, and mends what was wrong with it.
    let files = events(&(route("a", "", "s") + &route("z", "", "s")));
    let after = analyze(&applied(&cluster, files)).since(&before);
    assert_eq!(shown(&after.warnings), [expected]);
}

#[test]
fn traffic_policies_are_told_where_they_are_written() {
    let policy = "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\nmetadata: {name: p}\nspec:\n  \
                  targetRefs:\n  - {group: '', kind: Service, name: gone}\n  rateLimit: {requests: REQUESTS}\n";
    assert_eq!(
        warnings(&policy.replace("REQUESTS", "1")),
        ["test.yaml:6:5: TrafficPolicy default/p: spec.targetRefs[0]: Service default/gone does not exist"]
    );
    let analysis = Analysis::of(MeshSettings::default(), &events(&policy.replace("REQUESTS", "0")));
    assert_eq!(
        shown(&analysis.errors),
        [
            "test.yaml:7:15: TrafficPolicy default/p: spec.rateLimit.requests: 0 is not between 1 and 100000000"
        ]
    );
}
