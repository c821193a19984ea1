//! Random objects of the kinds that route: over few names, so that they meet often. All are valid.

fn pick<'a>(random: &mut fastrand::Rng, options: &[&'a str]) -> &'a str {
    options[random.usize(..options.len())]
}

/// A VirtualService, a GRPCRoute, a ReferenceGrant, a ServiceEntry, a TrafficPolicy, a WorkloadEntry or a DestinationRule with subsets, with
/// the given metadata.
pub(super) fn random(random: &mut fastrand::Rng, metadata: &str) -> String {
    match random.u8(..12) {
        0..=2 => virtual_service(random, metadata),
        3 => {
            let parent = pick(random, &["p", "q"]);
            let namespace = pick(random, &["a", "b"]);
            let service = pick(random, &["method: {service: s}", "headers: [{name: h, value: v}]"]);
            format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n{metadata}\nspec: {{parentRefs: [{{group: '', \
                 kind: Service, name: {parent}, namespace: {namespace}, sectionName: http}}], rules: [{{matches: \
                 [{{{service}}}], backendRefs: [{{name: p, namespace: a, port: 80}}]}}]}}"
            )
        }
        4 => {
            let kind = pick(random, &["HTTPRoute", "GRPCRoute"]);
            let to = pick(random, &["", ", name: p"]);
            format!(
                "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n{metadata}\nspec: {{from: [{{group: \
                 gateway.networking.k8s.io, kind: {kind}, namespace: b}}], to: [{{group: '', kind: Service{to}}}]}}"
            )
        }
        5 | 6 => {
            let host = pick(random, &["s.example", "t.example", "'*.example'"]);
            let export = pick(random, &["'*'", "."]);
            let address = pick(
                random,
                &["", "addresses: [10.0.0.9], ", "addresses: [10.0.0.1], ", "addresses: [10.2.0.0/16], "],
            );
            let endpoints = pick(
                random,
                &[
                    "resolution: STATIC, endpoints: [{address: 10.1.0.1, labels: {version: v1}}]",
                    "location: MESH_INTERNAL, workloadSelector: {labels: {app: p}}",
                    "resolution: NONE",
                ],
            );
            let protocol = pick(random, &["HTTP", "TLS", "TCP"]);
            format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n{metadata}\nspec: {{hosts: [{host}], {address}\
                 exportTo: [{export}], ports: [{{number: 80, name: x, protocol: {protocol}}}], {endpoints}}}"
            )
        }
        7 | 8 => {
            let target = pick(
                random,
                &[
                    "group: '', kind: Service",
                    "group: '', kind: Service, sectionName: http",
                    "group: networking.istio.io, kind: VirtualService",
                    "group: gateway.networking.k8s.io, kind: GRPCRoute",
                ],
            );
            let budget = if target.contains("''") { ", retryBudget: {}" } else { "" };
            let target = format!("{target}, name: {}", pick(random, &["p", "q"]));
            let per = pick(random, &["Instance", "Caller"]);
            format!(
                "apiVersion: outrigger.dev/v1alpha1\nkind: TrafficPolicy\n{metadata}\nspec: {{targetRefs: [{{{target}}}], \
                 rateLimit: {{requests: 5, per: {per}}}, queryParameters: {{remove: [a]}}{budget}}}"
            )
        }
        9 | 10 => {
            let mode =
                pick(random, &["", ", serviceAccount: one", ", labels: {security.istio.io/tlsMode: istio}"]);
            let annotations = pick(random, &["NONE", "REDIRECT"]);
            let app = pick(random, &["p", "q"]);
            let metadata = metadata.strip_suffix('}').unwrap_or(metadata);
            format!(
                "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n{metadata}, labels: {{app: {app}}}, annotations: \
                 {{sidecar.istio.io/interceptionMode: {annotations}}}}}\nspec: {{address: 127.1.0.{}, ports: {{web: 8081}}{mode}}}",
                random.u8(1..6)
            )
        }
        _ => {
            let host = pick(random, &["p", "s.example", "'*.example'"]);
            let version = pick(random, &["v1", "v2"]);
            format!(
                "apiVersion: networking.istio.io/v1\nkind: DestinationRule\n{metadata}\nspec: {{host: {host}, subsets: \
                 [{{name: {version}, labels: {{version: {version}}}}}]}}"
            )
        }
    }
}

fn virtual_service(random: &mut fastrand::Rng, metadata: &str) -> String {
    let host = pick(random, &["p", "q", "s.example", "'*.a.svc.cluster.local'", "other.example"]);
    let hosts = if random.u8(..4) == 0 { String::new() } else { format!("hosts: [{host}], ") };
    let export = pick(random, &["'*'", ".", "a", "a, b"]);
    let condition = pick(
        random,
        &[
            "",
            "match: [{sourceLabels: {app: p}}], ",
            "match: [{sourceNamespace: a, uri: {prefix: /x}}, {port: 81}], ",
        ],
    );
    let destination = pick(random, &["p", "q", "s.example", "p.a.svc.cluster.local", "q, subset: v1"]);
    let action = match random.u8(..4) {
        0 if !hosts.is_empty() => {
            format!("delegate: {{name: {}, namespace: a}}", pick(random, &["p", "q", "r"]))
        }
        1 => "redirect: {uri: /y}".to_owned(),
        _ => format!(
            "route: [{{destination: {{host: {destination}}}}}], fault: {{abort: {{httpStatus: 503, percentage: {{value: 5}}}}}}, \
             corsPolicy: {{allowOrigins: [{{exact: x}}]}}"
        ),
    };
    let source = pick(random, &["", "sourceLabels: {version: v1}, ", "sourceNamespace: b, "]);
    let connections = match (random.u8(..3), host, hosts.as_str()) {
        (_, _, "") | (0, ..) => String::new(),
        (1, "s.example", _) => {
            format!(
                ", tls: [{{match: [{{{source}sniHosts: [s.example]}}], route: [{{destination: {{host: {destination}}}}}]}}]"
            )
        }
        _ => format!(
            ", tcp: [{{match: [{{{source}port: 80}}], route: [{{destination: {{host: {destination}}}}}]}}]"
        ),
    };
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\n{metadata}\nspec: {{{hosts}exportTo: [{export}], http: \
         [{{{condition}{action}}}]{connections}}}"
    )
}
