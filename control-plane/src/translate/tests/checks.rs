//! Objects that others leave without effect.

use super::*;

fn problems(texts: &[&str]) -> Vec<String> {
    snapshot_of(texts).problems().iter().map(ToString::to_string).collect()
}

fn to(service: &str) -> String {
    format!("backendRefs: [{{name: {service}, port: 9080}}]")
}

#[test]
fn the_same_match_twice() {
    let (v1, v2) = (to("reviews-v1"), to("reviews-v2"));
    let rules = format!(
        "
  - matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}, method: GET}}]
    {v1}
  - matches: [{{path: {{value: /c}}}}, {{path: {{value: /b}}, method: GET}}]
    {v2}
  - matches: [{{path: {{value: /b}}}}]
    {v2}"
    );
    let first = http_route("first", &rules);
    assert_eq!(
        problems(&[MESH, &first]),
        [
            "test.yaml:10:36: HTTPRoute default/first: spec.rules[1].matches[1]: has no effect: spec.rules[0] has the same \
          match"
        ]
    );

    // The first by age, then by name, wins; a rule without a match takes everything, as `/` does.
    let everything = http_route("everything", &format!("\n  - {v1}\n"));
    let root = http_route("root", &format!("\n  - matches: [{{path: {{value: /}}}}]\n    {v2}\n"));
    let expected = [
        "test.yaml:8:15: HTTPRoute default/root: spec.rules[0].matches[0]: has no effect: spec.rules[0] of \
                     HTTPRoute default/everything has the same match",
    ];
    assert_eq!(problems(&[MESH, &everything, &root]), expected);
    let older = root.replace("name: root", "name: root, creationTimestamp: '2026-01-01T00:00:00Z'");
    let younger =
        everything.replace("name: everything", "name: everything, creationTimestamp: '2026-02-01T00:00:00Z'");
    assert!(problems(&[MESH, &older, &younger])[0].contains("HTTPRoute default/everything: spec.rules[0]"));

    // One port of the Service only, and another one; all ports, and one of them.
    let port =
        |text: &str, port: u16| text.replace("name: reviews}", &format!("name: reviews, port: {port}}}"));
    assert_eq!(
        problems(&[MESH, &port(&everything, 9080), &root]),
        [""; 0],
        "`root` still has the other ports"
    );
    assert_eq!(problems(&[MESH, &everything, &port(&root, 9080)]), expected);
    // Routes of the clients' namespace and those of the Service's are never tried together.
    let elsewhere = root.replace("name: root", "name: root, namespace: data");
    let elsewhere = elsewhere
        .replace("name: reviews}]", "namespace: default, name: reviews}]")
        .replace("reviews-v2, port: 9080", "cache, port: 6379");
    assert_eq!(problems(&[MESH, &everything, &elsewhere]), [""; 0]);
}

#[test]
fn two_peer_authentications_for_the_same_workloads() {
    let policy = |name: &str, spec: &str| peer_authn(spec).replace("name: p", &format!("name: {name}"));
    let (first, second) = (policy("a", "{mtls: {mode: STRICT}}"), policy("b", "{mtls: {mode: DISABLE}}"));
    let expected = [
        "test.yaml:4:1: PeerAuthentication default/b: spec: has no effect: PeerAuthentication default/a is \
                     for the same workloads",
    ];
    assert_eq!(problems(&[MESH, &first, &second]), expected);
    let selected = policy("c", "{selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}}");
    assert_eq!(problems(&[MESH, &first, &selected]), [""; 0]);
}
