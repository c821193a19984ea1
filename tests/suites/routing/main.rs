//! Routing rules as users write them, through two sidecars: from the file to what client and upstream see. What Gateway API's routes
//! and Istio's VirtualService both can say is the same by either.
//!
//! Most tests are tables: rules, and under them requests in one line with their answers (see [`world`]).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod both_apis;
mod connections;
mod destination_rule;
mod gateway_api;
mod hashing;
mod machines;
mod places;
mod references;
mod samples;
mod subsets;
mod virtual_service;
mod world;

use outrigger_tests::mesh::{EVERY_RULE, Mesh};
use outrigger_tests::wait;

/// What the control plane takes of an object, the proxy takes of the control plane.
#[test]
fn every_rule_is_accepted() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: shop}\nspec: {selector: {app: reviews}, ports: \
                   [{name: http, port: 9080}]}\n";
    let mesh = Mesh::start(&[("web-0", "web", "v1")], &format!("{service}---\n{EVERY_RULE}"));
    let sidecar = mesh.workload("web-0").sidecar();
    let names = ["shop.reviews.conditions", "shop.calls.0", "*.shop.example", "query_parameter_mutations"];
    let routes = || sidecar.admin("/config_dump?resource=dynamic_route_configs").text();
    wait::until("all routes", || names.iter().all(|name| routes().contains(name)));
    wait::until("a synced sidecar", || {
        let page = mesh.control_plane.page("/proxies").text();
        assert!(!page.contains("\"nacked\"") && !mesh.control_plane.log().contains("NACK"), "{page}");
        page.contains("\"synced\"")
    });
}
