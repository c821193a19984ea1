//! Where endpoints are.

use super::*;

const NODES: &str = "
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z1}}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z2}}}
---
{apiVersion: v1, kind: Node, metadata: {name: bare}}
";

const PODS: &str = "
{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: s}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web}, spec: {serviceAccountName: web}, status: {podIP: 127.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: s}}, spec: {nodeName: n2}, status: {podIP: 127.1.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: s}}, spec: {nodeName: n1}, status: {podIP: 127.1.0.3}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, labels: {app: s}}, spec: {nodeName: n2}, status: {podIP: 127.1.0.4}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: s}}, spec: {nodeName: bare}, status: {podIP: 127.1.0.5}}
";

/// `REGION/ZONE/SUB_ZONE: ADDRESS ...` of each locality; `-` where it is not told.
fn localities(texts: &[&str]) -> Vec<String> {
    let snapshot = snapshot_of(texts);
    let name = "outbound|80||s.default.svc.cluster.local";
    let assignment: ClusterLoadAssignment =
        get(&snapshot, &web(&snapshot), ResourceType::ClusterLoadAssignment, name);
    let of = |group: &outrigger_xds_api::wire::endpoint::v3::LocalityLbEndpoints| {
        let place = group.locality.as_ref().map_or("-".to_owned(), |locality| {
            format!("{}/{}/{}", locality.region, locality.zone, locality.sub_zone)
        });
        let addresses: Vec<_> = group.lb_endpoints.iter().map(dialled).collect();
        format!("{place}: {}", addresses.join(" "))
    };
    assignment.endpoints.iter().map(of).collect()
}

#[test]
fn endpoints_are_grouped_by_the_locality_of_their_node() {
    assert_eq!(
        localities(&[PODS, NODES]),
        ["-: 127.1.0.5:15006", "r/z1/: 127.1.0.3:15006", "r/z2/: 127.1.0.2:15006 127.1.0.4:15006"]
    );
    let all = "-: 127.1.0.2:15006 127.1.0.3:15006 127.1.0.4:15006 127.1.0.5:15006";
    assert_eq!(localities(&[PODS]), [all], "no Node is known");
}

#[test]
fn a_slice_may_tell_node_and_zone_itself() {
    let slice = "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: s, labels: {kubernetes.io/service-name: s}}
addressType: IPv4
endpoints:
- {addresses: [127.1.0.2], targetRef: {kind: Pod, name: a}}
- {addresses: [127.1.0.5], targetRef: {kind: Pod, name: d}, zone: z9}
- {addresses: [127.1.0.3], targetRef: {kind: Pod, name: b}, nodeName: n2, zone: other}
ports: [{name: http, port: 80}]
";
    assert_eq!(
        localities(&[PODS, NODES, slice]),
        ["/z9/: 127.1.0.5:15006", "r/z2/: 127.1.0.2:15006 127.1.0.3:15006"],
        "the Node decides; the zone in the slice stands for what no Node tells"
    );
}

/// Two zones of region `r` and one of region `q`, two Pods in each; the caller is in `r/z1`.
const ZONES: &str = "
{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: s}, ports: [{name: http, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {istio-locality: r.z1.a, version: v1}}, spec: {serviceAccountName: web, nodeName: n1}, status: {podIP: 127.1.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: far, labels: {istio-locality: q.z3}}, spec: {serviceAccountName: far}, status: {podIP: 127.1.0.9}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a, labels: {app: s, istio-locality: r.z1.a, version: v2}}, spec: {}, status: {podIP: 127.1.1.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b, labels: {app: s, istio-locality: r.z1.b, version: v1}}, spec: {nodeName: n1}, status: {podIP: 127.1.1.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c, labels: {app: s, istio-locality: r.z2, version: v1}}, spec: {nodeName: n2}, status: {podIP: 127.1.2.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d, labels: {app: s, istio-locality: q.z3}}, spec: {nodeName: n1}, status: {podIP: 127.1.3.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: e, labels: {app: s, istio-locality: p.z4}}, spec: {}, status: {podIP: 127.1.4.1}}
";

fn rule(policy: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {{name: r}}, spec: {{host: s, trafficPolicy: {policy}}}}}"
    )
}

fn setting(setting: &str) -> String {
    rule(&format!("{{loadBalancer: {{localityLbSetting: {setting}}}}}"))
}

/// What a caller gets: `PRIORITY[*WEIGHT] LAST_BYTES` of each group; `!` marks an endpoint that is told as unhealthy.
fn seen_by(pod: &str, texts: &[&str]) -> Vec<String> {
    let snapshot = snapshot_of(texts);
    assert_eq!(snapshot.rejections(), []);
    assert_valid(&snapshot);
    let scope = scope(&snapshot, "default", pod, pod);
    let name = "outbound|80||s.default.svc.cluster.local";
    let assignment: ClusterLoadAssignment = get(&snapshot, &scope, ResourceType::ClusterLoadAssignment, name);
    let of = |group: &outrigger_xds_api::wire::endpoint::v3::LocalityLbEndpoints| {
        let weight =
            group.load_balancing_weight.map(|weight| format!("*{}", weight.value)).unwrap_or_default();
        let addresses = group.lb_endpoints.iter().map(|endpoint| {
            let ready =
                endpoint.health_status == outrigger_xds_api::wire::core::v3::HealthStatus::Healthy as i32;
            let address = dialled(endpoint).replace("127.1.", "").replace(":15006", "");
            format!("{}{address}", if ready { "" } else { "!" })
        });
        let addresses: Vec<String> = addresses.collect();
        format!("{}{weight} {}", group.priority, addresses.join(" "))
    };
    assignment.endpoints.iter().map(of).collect()
}

#[test]
fn nearer_endpoints_come_first() {
    let nearest = setting("{enabled: true}");
    let by_ejection = rule("{outlierDetection: {}}");
    for nearest in [nearest, by_ejection] {
        let web = seen_by("web", &[ZONES, &nearest]);
        assert_eq!(
            web,
            ["0 1.1", "1 1.2", "2 2.1", "3 4.1", "3 3.1"],
            "sub-zone, zone, region, the rest: {nearest}"
        );
        assert_eq!(seen_by("far", &[ZONES, &nearest]), ["0 3.1", "1 4.1", "1 1.1", "1 1.2", "1 2.1"]);
    }
    for (said, expected) in [
        ("{failover: [{from: r, to: p}]}", ["0 1.1", "1 1.2", "2 2.1", "3 4.1", "4 3.1"]),
        (
            "{failoverPriority: [topology.kubernetes.io/region, topology.kubernetes.io/zone]}",
            ["0 1.1", "0 1.2", "1 2.1", "2 4.1", "2 3.1"],
        ),
        ("{failoverPriority: [version]}", ["0 1.2", "0 2.1", "1 4.1", "1 3.1", "1 1.1"]),
        ("{failoverPriority: [version=v2]}", ["0 1.1", "1 4.1", "1 3.1", "1 1.2", "1 2.1"]),
        (
            "{failoverPriority: [kubernetes.io/hostname, version]}",
            ["0 1.2", "1 3.1", "2 4.1", "2 1.1", "2 2.1"],
        ),
        (
            "{failoverPriority: [version], failover: [{from: r, to: p}]}",
            ["0 1.2", "1 2.1", "2 1.1", "3 4.1", "4 3.1"],
        ),
        ("{enabled: false}", ["0 4.1", "0 3.1", "0 1.1", "0 1.2", "0 2.1"]),
    ] {
        assert_eq!(seen_by("web", &[ZONES, &setting(said)]), expected, "{said}");
    }
}

#[test]
fn a_service_may_prefer_what_is_close() {
    let close = |value: &str| {
        ZONES.replace("spec: {selector", &format!("spec: {{trafficDistribution: {value}, selector"))
    };
    assert_eq!(seen_by("web", &[&close("PreferClose")]), ["0 1.1", "0 1.2", "1 2.1", "2 4.1", "2 3.1"]);
    assert_eq!(seen_by("web", &[&close("PreferSameNode")]), ["0 1.1", "1 1.2", "2 2.1", "3 4.1", "3 3.1"]);
    let off = setting("{enabled: false}");
    assert_eq!(seen_by("web", &[&close("PreferClose"), &off]).len(), 5, "the policy's word comes first");
    let snapshot = snapshot_of(&[&close("Nearby")]);
    let [refused] = snapshot.rejections() else { panic!("{:?}", snapshot.rejections()) };
    assert!(
        refused.to_string().contains("spec.trafficDistribution: \"Nearby\" is none of PreferClose"),
        "{refused}"
    );
}

#[test]
fn shares_for_places() {
    let all = setting(
        "{distribute: [{from: r/z1/*, to: {'r/z1/*': 60, r/z2: 30, q: 10}}, {from: q, to: {q: 100}}]}",
    );
    assert_eq!(seen_by("web", &[ZONES, &all]), ["0*10 3.1", "0*30 1.1", "0*30 1.2", "0*30 2.1"]);
    assert_eq!(seen_by("far", &[ZONES, &all]), ["0*100 3.1"]);
    let elsewhere = setting("{distribute: [{from: x, to: {q: 100}}]}");
    assert_eq!(seen_by("web", &[ZONES, &elsewhere]), ["0*1 4.1", "0*1 3.1", "0*1 1.1", "0*1 1.2", "0*1 2.1"]);
    let snapshot = snapshot_of(&[ZONES, &all]);
    let common = cluster(&snapshot, "outbound|80||s.default.svc.cluster.local").common_lb_config.unwrap();
    assert!(common.locality_config_specifier.is_some());
    assert_eq!(common.healthy_panic_threshold.unwrap().value, 0.0);
}

#[test]
fn what_is_not_ready_makes_room_for_others() {
    let unready = ZONES.replace(
        "status: {podIP: 127.1.1.1}",
        "status: {podIP: 127.1.1.1, conditions: [{type: Ready, status: 'False'}]}",
    );
    let nearest = setting("{enabled: true}");
    assert_eq!(seen_by("web", &[&unready, &nearest])[0], "0 !1.1");
    let ending = unready
        .replace("metadata: {name: a,", "metadata: {name: a, deletionTimestamp: 2026-11-21T05:00:00Z,");
    assert_eq!(seen_by("web", &[&ending, &nearest])[0], "0 1.2", "it will not come back");
    let panics = rule("{outlierDetection: {minHealthPercent: 50}}");
    assert_eq!(seen_by("web", &[&unready, &panics])[0], "0 1.2", "else it would be used");
    assert_eq!(seen_by("web", &[&unready]), ["0 4.1", "0 3.1", "0 1.2", "0 2.1"], "places do not count");
}

#[test]
fn names_in_dns_have_places_too() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: [out.example], resolution: DNS, \
                 ports: [{number: 80, name: http}], endpoints: [{address: a.example, locality: q/z3}, {address: b.example, locality: r/z1/a}]}}";
    let rule = setting("{enabled: true}").replace("host: s,", "host: out.example,");
    let snapshot = snapshot_of(&[ZONES, entry, &rule]);
    assert_valid(&snapshot);
    for (pod, first) in [("web", "b.example"), ("far", "a.example")] {
        let scope = scope(&snapshot, "default", pod, pod);
        let cluster: Cluster = get(&snapshot, &scope, ResourceType::Cluster, "outbound|80||out.example");
        let groups = cluster.load_assignment.unwrap().endpoints;
        assert_eq!((groups[0].priority, groups[1].priority), (0, 1));
        assert_eq!(dialled(&groups[0].lb_endpoints[0]), format!("{first}:80"));
    }
}

#[test]
fn a_move_of_a_node_moves_its_callers() {
    let own = ZONES.replace("labels: {istio-locality: r.z1.a, version: v1}", "labels: {version: v1}");
    let mut engine = Engine::new(MeshSettings::default());
    let node = |zone: &str| {
        format!(
            "{{apiVersion: v1, kind: Node, metadata: {{name: n1, labels: {{topology.kubernetes.io/region: r, topology.kubernetes.io/zone: {zone}}}}}}}"
        )
    };
    let mut first = |texts: &[&str]| {
        engine.apply(texts.iter().flat_map(|text| test_objects(text)).map(Event::Upsert));
        let snapshot = engine.publish().unwrap();
        let name = "outbound|80||s.default.svc.cluster.local";
        let assignment: ClusterLoadAssignment =
            get(&snapshot, &web(&snapshot), ResourceType::ClusterLoadAssignment, name);
        dialled(&assignment.endpoints[0].lb_endpoints[0])
    };
    assert_eq!(first(&[&own, &setting("{enabled: true}"), &node("z2")]), "127.1.2.1:15006");
    assert_eq!(first(&[&node("z1")]), "127.1.1.1:15006");
}

#[test]
fn what_is_said_of_places_and_cannot_be() {
    for (said, reason) in [
        ("{distribute: [{from: a, to: {b: 99}}]}", "distribute[0].to: sums up to 99, not to 100"),
        ("{distribute: [{from: a, to: {b: 50, b/c: 50}}]}", "distribute[0].to[b/c]: overlaps"),
        (
            "{distribute: [{from: a, to: {b: 100}}, {from: a/b, to: {b: 100}}]}",
            "distribute[1].from: a/b is also meant",
        ),
        ("{distribute: [{from: a/*/b, to: {b: 100}}]}", "distribute[0].from: \"a/*/b\" is not REGION"),
        (
            "{distribute: [{from: a, to: {b: 100}}], failover: [{from: a, to: b}]}",
            "distribute: distribute says where all",
        ),
        ("{failover: [{from: a, to: a}]}", "failover[0].to: is the region that it is from"),
        ("{failover: [{from: a/b, to: c}]}", "failover[0].from: \"a/b\" must be the name of a region"),
        ("{failoverPriority: [a, a=b]}", "failoverPriority[1]: a is there twice"),
    ] {
        let snapshot = snapshot_of(&[&setting(said)]);
        let [refused] = snapshot.rejections() else { panic!("{said}: {:?}", snapshot.rejections()) };
        let refused = refused.to_string();
        assert!(
            refused.contains(&format!("spec.trafficPolicy.loadBalancer.localityLbSetting.{reason}")),
            "{refused}"
        );
    }
}
