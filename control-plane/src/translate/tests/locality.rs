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
