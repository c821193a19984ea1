//! What routes of the Gateway API name: callers' own routes, Services of other namespaces, and what is not there.

use crate::world::{World, backend, http_route};

const BACKEND: &str = "spec.rules[0].backendRefs[0]";

/// A route of callers in the namespace `client` for what they call in `default`.
fn consumer_route(backend: &str) -> String {
    let route = http_route(&format!("  - backendRefs: [{backend}]\n"));
    let route = route.replace("name: reviews, namespace: default", "name: reviews, namespace: client");
    route.replace("kind: Service, name: reviews", "kind: Service, name: reviews, namespace: default")
        + "---\n"
}

fn of_default(version: &str) -> String {
    backend(version).replace('{', "{namespace: default, ")
}

fn grant(from: &str, to: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\nmetadata: {{name: routes, namespace: default}}\nspec:\n  \
         from: [{{group: gateway.networking.k8s.io, {from}}}]\n  to: [{{group: '', kind: Service{to}}}]\n---\n"
    )
}

const FROM_CLIENT: &str = "kind: HTTPRoute, namespace: client";
const GUEST: &str = "guest-0> //reviews.default:9080/";

/// It is for the callers of its own namespace alone, and stands in the place of the Service's own routes, for one Service.
#[test]
fn a_consumer_route() {
    let world = World::with_callers();
    let producer = http_route(&format!("  - backendRefs: [{}]\n", backend("v1"))) + "---\n";
    let consumer = consumer_route(&of_default("v2")) + &grant(FROM_CLIENT, "");
    world.table(&producer, &[("/", "200 reviews-0"), (GUEST, "200 reviews-0")]);
    world.table(
        &(consumer.clone() + &producer),
        &[
            (GUEST, "200 reviews-1"),
            ("guest-0> //reviews-v1.default:9080/", "200 reviews-0"),
            ("/", "200 reviews-0"),
            ("web-1> /", "200 reviews-0"),
        ],
    );
    // Without rules of the Service's own the others are balanced as ever.
    world.apply(&consumer);
    assert_eq!(world.answers("/", 60).len(), 2);
    assert_eq!(world.answers(GUEST, 20).len(), 1);
}

#[test]
fn a_grant_is_needed_as_long_as_it_leads_elsewhere() {
    let world = World::with_callers();
    let route = consumer_route(&of_default("v2"));
    let refused = format!(
        "{BACKEND}: Service default/reviews-v2 is in another namespace, which has no ReferenceGrant for HTTPRoutes of namespace client: \
         its share of requests fails"
    );
    let object = "HTTPRoute client/reviews";
    for (grants, is_granted) in [
        (String::new(), false),
        (grant(FROM_CLIENT, ""), true),
        (String::new(), false),
        (grant(FROM_CLIENT, ", name: reviews-v2"), true),
        (grant(FROM_CLIENT, ", name: reviews-v1"), false),
        (grant("kind: GRPCRoute, namespace: client", ""), false),
        (grant("kind: HTTPRoute, namespace: other", ""), false),
    ] {
        let (answer, findings) = match is_granted {
            true => ("200 reviews-1", vec![]),
            false => ("500", vec![refused.clone()]),
        };
        world.table(&(route.clone() + &grants), &[(GUEST, answer)]);
        assert_eq!(world.findings(object), findings, "{grants}");
    }
    // What its clients call anyway needs none.
    world.apply(&consumer_route(&of_default("v1").replace("reviews-v1", "reviews")));
    assert_eq!(world.answers(GUEST, 60).keys().collect::<Vec<_>>(), ["200 reviews-0", "200 reviews-1"]);
    assert!(world.findings(object).is_empty());
}

/// The share of what cannot be led to gets 500, by a call of gRPC `UNAVAILABLE`; the others get their own.
#[test]
fn backends_that_are_not_there() {
    let world = World::start();
    let missing = "Service default/gone does not exist: its share of requests fails";
    let port = "Service default/reviews-v1 has no port 1: its share of requests fails";
    let kind =
        "Bucket gone of example.com is no Service, which alone can be led to: its share of requests fails";
    for (bad, reason) in [
        ("{name: gone, port: 9080}", missing),
        ("{name: reviews-v1, port: 1}", port),
        ("{group: example.com, kind: Bucket, name: gone}", kind),
    ] {
        let finding = format!("{BACKEND}: {reason}");
        let alone = http_route(&format!("  - backendRefs: [{bad}]\n"));
        let half = http_route(&format!("  - backendRefs: [{bad}, {}]\n", backend("v1")));
        world.table(&alone, &[("/", "500")]);
        assert_eq!(world.findings("HTTPRoute default/reviews"), [finding.as_str()]);
        world.apply(&half);
        let answers = world.answers("/", 100);
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["200 reviews-0", "500"], "{bad}");
        assert!(answers.values().all(|count| (25..75).contains(count)), "{answers:?}");
        let page = world.0.control_plane.page("/rejections").text();
        assert!(page.contains(reason), "{page}");

        let call = "POST /a.B/C content-type:application/grpc";
        let grpc = |rules: &str| rules.replace("kind: HTTPRoute", "kind: GRPCRoute");
        world.table(&grpc(&alone), &[(call, "200  grpc-status=14")]);
        world.apply(&grpc(&half));
        let answers = world.answers(call, 60);
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["200  grpc-status=14", "200 reviews-0"], "{bad}");
        // A copy that nobody can get keeps no request from its answer.
        let mirror = format!(
            "  - filters: [{{type: RequestMirror, requestMirror: {{backendRef: {bad}}}}}]\n    backendRefs: [{}]\n",
            backend("v1")
        );
        world.table(&http_route(&mirror), &[("/", "200 reviews-0")]);
    }
}
