//! Workloads that are no Pods.

use super::*;
use crate::model::Finding;

/// A ServiceEntry that selects, and a Service of Kubernetes.
const SERVICES: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: details}
spec:
  hosts: [details.example]
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  resolution: STATIC
  workloadSelector: {labels: {app: details}}
---
{apiVersion: v1, kind: Service, metadata: {name: details}, spec: {selector: {app: details}, ports: [{name: web, port: 9080, targetPort: main}]}}
";
const HOST: &str = "outbound|80||details.example";
const SERVICE: &str = "outbound|9080||details.default.svc.cluster.local";

fn entry(name: &str, spec: &str) -> String {
    format!(
        "---\n{{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {{name: {name}, labels: {{app: details}}}}, spec: \
         {{{spec}}}}}\n"
    )
}

fn entries(list: &[(&str, &str)]) -> String {
    SERVICES.to_owned() + &list.iter().map(|(name, spec)| entry(name, spec)).collect::<String>()
}

fn problems(snapshot: &Snapshot) -> Vec<(String, &str, &str)> {
    let shown = |found: &Finding| found.object.as_ref().unwrap().name.clone();
    snapshot
        .problems()
        .iter()
        .map(|found| (shown(found), found.field.as_str(), found.reason.as_str()))
        .collect()
}

/// The server name and the identities that a cluster's TLS asks for.
fn asked(snapshot: &Snapshot, name: &str) -> (String, Vec<String>) {
    let tls: UpstreamTlsContext = socket(&cluster(snapshot, name).transport_socket);
    (tls.sni.clone(), identities(&tls))
}

fn identities(tls: &UpstreamTlsContext) -> Vec<String> {
    let common = tls.common_tls_context.as_ref().unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) = &common.validation_context_type
    else {
        panic!()
    };
    let names = &combined.default_validation_context.as_ref().unwrap().match_typed_subject_alt_names;
    let pattern = |name: &MatchPattern| match name {
        MatchPattern::Exact(uri) => uri.clone(),
        _ => panic!(),
    };
    names.iter().map(|name| pattern(name.matcher.as_ref().unwrap().match_pattern.as_ref().unwrap())).collect()
}

#[test]
fn it_is_an_endpoint_of_whoever_selects_it() {
    let text = entries(&[
        ("a", "address: 10.9.0.1, ports: {http: 81, main: 82}, weight: 3, locality: r/z"),
        ("b", "address: 10.9.0.2, labels: {app: other}, ports: {web: 83}"),
        (
            "c",
            "address: 10.9.0.3, ports: {main: 84}, labels: {security.istio.io/tlsMode: disabled}, serviceAccount: x",
        ),
    ]);
    let snapshot = snapshot_of(&[MESH, &text]);
    assert_valid(&snapshot);
    // Ports by the name of the Service's port, else by targetPort; labels of the object come before those of its spec.
    assert_eq!(endpoints(&snapshot, HOST), ["10.9.0.2:8080", "10.9.0.3:8080", "10.9.0.1:81"]);
    assert_eq!(endpoints(&snapshot, SERVICE), ["10.9.0.2:83", "10.9.0.3:84", "10.9.0.1:82"]);
    for name in [HOST, SERVICE] {
        assert!(cluster(&snapshot, name).transport_socket.is_none(), "no sidecar");
        let assignment: ClusterLoadAssignment =
            get(&snapshot, &web(&snapshot), ResourceType::ClusterLoadAssignment, name);
        let last = assignment.endpoints.last().unwrap();
        assert_eq!(last.locality.as_ref().unwrap().zone, "z");
        assert_eq!(last.lb_endpoints[0].load_balancing_weight.as_ref().unwrap().value, 3);
    }
    assert_eq!(problems(&snapshot), []);
}

#[test]
fn a_slice_tells_of_pods_and_not_of_it() {
    let slice = "---\n{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: d-1, labels: {kubernetes.io/service-name: \
                 details}}, addressType: IPv4, endpoints: [{addresses: [10.9.0.9]}], ports: [{name: web, port: 7}]}\n";
    let text = entries(&[("a", "address: 10.9.0.1, ports: {main: 82}")]) + slice;
    assert_eq!(endpoints(&snapshot_of(&[MESH, &text]), SERVICE), ["10.9.0.1:82", "10.9.0.9:7"]);
}

#[test]
fn one_with_a_sidecar_is_called_there_and_has_a_configuration() {
    for spec in [
        "address: 10.9.0.1, serviceAccount: legacy, ports: {main: 82}",
        "address: 10.9.0.1, serviceAccount: legacy, ports: {main: 82}, labels: {security.istio.io/tlsMode: istio}",
    ] {
        let snapshot = snapshot_of(&[MESH, &entries(&[("machine", spec)])]);
        assert_valid(&snapshot);
        for (name, sni) in [
            (HOST, "outbound_.80_._.details.example"),
            (SERVICE, "outbound_.9080_._.details.default.svc.cluster.local"),
        ] {
            assert_eq!(endpoints(&snapshot, name), ["10.9.0.1:15006"], "{spec}");
            let expected = vec!["spiffe://cluster.local/ns/default/sa/legacy".to_owned()];
            assert_eq!(asked(&snapshot, name), (sni.to_owned(), expected));
        }
        let machine = scope(&snapshot, "default", "machine", "legacy");
        let inbound: Listener = get(&snapshot, &machine, ResourceType::Listener, "virtualInbound");
        let names = inbound
            .filter_chains
            .iter()
            .flat_map(|chain| &chain.filter_chain_match)
            .flat_map(|found| &found.server_names);
        assert!(names.clone().any(|name| name == "outbound_.80_._.details.example"));
        for port in [8080, 82] {
            let _: Cluster = get(&snapshot, &machine, ResourceType::Cluster, &format!("inbound|{port}||"));
        }
    }
}

#[test]
fn the_label_of_an_entry_without_a_service_account_is_enough() {
    let spec = "address: 10.9.0.1, labels: {security.istio.io/tlsMode: istio}, ports: {main: 82}";
    let snapshot = snapshot_of(&[MESH, &entries(&[("machine", spec)])]);
    assert_eq!(asked(&snapshot, HOST).1, ["spiffe://cluster.local/ns/default/sa/default"]);
}

#[test]
fn those_that_have_names_are_looked_up() {
    let text = entries(&[
        ("a", "address: vm1.corp.example, ports: {main: 82}, serviceAccount: legacy"),
        ("b", "address: 10.9.0.2, ports: {main: 82}, serviceAccount: legacy"),
    ]);
    let by_name = text.replace("STATIC", "DNS");
    let snapshot = snapshot_of(&[MESH, &by_name]);
    assert_valid(&snapshot);
    let wire = cluster(&snapshot, HOST);
    let dialled: Vec<_> = wire
        .load_assignment
        .as_ref()
        .unwrap()
        .endpoints
        .iter()
        .flat_map(|one| &one.lb_endpoints)
        .map(dialled)
        .collect();
    assert_eq!(dialled, ["10.9.0.2:15006", "vm1.corp.example:15006"]);
    assert_eq!(asked(&snapshot, HOST).1, ["spiffe://cluster.local/ns/default/sa/legacy"]);
    // A Service of Kubernetes has addresses only.
    assert_eq!(endpoints(&snapshot, SERVICE), ["10.9.0.2:15006"]);
    let snapshot = snapshot_of(&[MESH, &text]);
    assert_eq!(endpoints(&snapshot, HOST), ["10.9.0.2:15006"]);
    let reason = "has no effect: a name is an endpoint of ServiceEntries with resolution DNS only";
    assert!(
        problems(&snapshot).contains(&("a".to_owned(), "spec.address", reason)),
        "{:?}",
        problems(&snapshot)
    );
}

#[test]
fn a_unix_socket_is_one_of_the_callers_own_machine() {
    let text = entries(&[("a", "address: unix:///run/app.sock")]);
    let snapshot = snapshot_of(&[MESH, &text]);
    assert_valid(&snapshot);
    let assignment: ClusterLoadAssignment =
        get(&snapshot, &web(&snapshot), ResourceType::ClusterLoadAssignment, HOST);
    let Some(HostIdentifier::Endpoint(endpoint)) = &assignment.endpoints[0].lb_endpoints[0].host_identifier
    else {
        panic!()
    };
    let Some(address::Address::Pipe(pipe)) = &endpoint.address.as_ref().unwrap().address else { panic!() };
    assert_eq!(pipe.path, "/run/app.sock");
    assert_eq!(endpoints(&snapshot, SERVICE), [""; 0]);
}

#[test]
fn what_has_no_effect_is_told() {
    let lonely = "---\n{apiVersion: networking.istio.io/v1, kind: WorkloadEntry, metadata: {name: lonely}, spec: {address: 10.9.0.1, \
                  network: other}}\n";
    let pod =
        "---\n{apiVersion: v1, kind: Pod, metadata: {name: twin}, spec: {}, status: {podIP: 127.1.0.9}}\n";
    let text = entries(&[
        ("port", "address: 10.9.0.1, ports: {main: 1, more: 2}"),
        ("twin", "address: 10.9.0.3, ports: {main: 1}"),
    ]);
    let snapshot = snapshot_of(&[MESH, &text, lonely, pod]);
    let found = problems(&snapshot);
    for (name, field, begin) in [
        ("lonely", "", "has no effect: no Service or ServiceEntry of namespace default selects it"),
        ("lonely", "spec.network", "has no effect: the mesh has one network"),
        ("port", "spec.ports.more", "has no effect: no Service"),
        ("twin", "metadata.name", "has no effect: Pod default/twin has the same name"),
    ] {
        let is_meant =
            |(of, at, reason): &(String, &str, &str)| of == name && *at == field && reason.starts_with(begin);
        assert!(found.iter().any(is_meant), "{name} {field}: {found:?}");
    }
    assert_eq!(endpoints(&snapshot, HOST), ["10.9.0.1:8080"]);
}

#[test]
fn what_is_wrong_is_refused_where_it_is_written() {
    for (spec, field) in [
        ("labels: {a: b}", "spec.address"),
        ("network: net", "spec.address"),
        ("address: 'a b'", "spec.address"),
        ("address: 'unix://x'", "spec.address"),
        ("address: 'unix:///x', ports: {a: 1}", "spec.ports"),
        ("address: 10.0.0.1, ports: {a: 0}", "spec.ports.a"),
        ("address: 10.0.0.1, ports: {A: 1}", "spec.ports.A"),
        ("address: 10.0.0.1, weight: -1", "spec.weight"),
        ("address: 10.0.0.1, serviceAccount: a/b", "spec.serviceAccount"),
        (
            "address: 10.0.0.1, labels: {security.istio.io/tlsMode: own}",
            "spec.labels.security.istio.io/tlsMode",
        ),
        ("address: 10.0.0.1, port: 1", "spec.port"),
    ] {
        let refused = snapshot_of(&[&entry("a", spec)]);
        assert_eq!(refused.rejections()[0].field, field, "{spec}");
    }
    // An endpoint that is written down has nobody who knows what it is called.
    let written = SERVICES.replace(
        "workloadSelector: {labels: {app: details}}",
        "endpoints: [{address: 10.0.0.1, serviceAccount: a}]",
    );
    assert_eq!(snapshot_of(&[&written]).rejections()[0].field, "spec.endpoints[0].serviceAccount");
}

#[test]
fn a_group_is_checked_and_says_that_it_makes_nothing() {
    let group = |spec: &str| {
        format!(
            "{{apiVersion: networking.istio.io/v1, kind: WorkloadGroup, metadata: {{name: g}}, spec: {{{spec}}}}}"
        )
    };
    let good = "metadata: {labels: {app: a}}, template: {ports: {http: 80}, serviceAccount: a, locality: r/z, weight: 2}, probe: \
                {periodSeconds: 5, httpGet: {path: /ready, port: 80, scheme: HTTP, httpHeaders: [{name: a, value: b}]}}";
    let snapshot = snapshot_of(&[&group(good)]);
    assert_valid(&snapshot);
    let fields: Vec<_> = snapshot.problems().iter().map(|found| found.field.as_str()).collect();
    assert_eq!(fields, ["spec.template", "spec.probe"]);
    for (spec, field) in [
        ("metadata: {labels: {app: a}}", "spec"),
        ("template: {address: 10.0.0.1}", "spec.template.address"),
        ("template: {ports: {a: 0}}", "spec.template.ports.a"),
        ("template: {}, probe: {}", "spec.probe"),
        ("template: {}, probe: {exec: {}}", "spec.probe.exec.command"),
        ("template: {}, probe: {httpGet: {port: 80, scheme: FTP}}", "spec.probe.httpGet.scheme"),
        ("template: {}, probe: {periodSeconds: -1, tcpSocket: {port: 80}}", "spec.probe.periodSeconds"),
        ("metadata: {labels: {app: 'a b'}}, template: {}", "spec.metadata.labels.app"),
    ] {
        let refused = snapshot_of(&[&group(spec)]);
        assert_eq!(refused.rejections()[0].field, field, "{spec}");
    }
}
