//! Subsets of a DestinationRule: which endpoints belong to one, and what becomes of requests for one that has none.

use crate::world::{World, virtual_service};

/// A DestinationRule of `reviews` with these subsets.
fn subsets(subsets: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
         spec:\n  host: reviews\n  subsets:\n{subsets}---\n"
    )
}

/// Requests for `/NAME` go to the subset of that name.
fn by_path(names: &[&str]) -> String {
    let rule = |name: &&str| {
        format!(
            "  - match: [{{uri: {{exact: /{name}}}}}]\n    route: [{{destination: {{host: reviews, subset: {name}}}}}]\n"
        )
    };
    virtual_service(&names.iter().map(rule).collect::<String>())
}

#[test]
fn endpoints_by_labels() {
    let world = World::start();
    let rules = subsets(
        "  - {name: one, labels: {version: v1}}\n  - {name: two, labels: {app: reviews, version: v2}}\n  \
         - {name: nobody, labels: {version: v3}}\n  - {name: half, labels: {version: v1, app: web}}\n  - {name: all}\n",
    );
    let rules = rules + &by_path(&["one", "two", "nobody", "half", "all", "unknown"]);
    world.table(
        &rules,
        &[
            ("/one", "200 reviews-0"),
            ("/two", "200 reviews-1"),
            // All labels must be there.
            ("/half", "503 no healthy upstream"),
            ("/nobody", "503 no healthy upstream"),
            ("/unknown", "503 no healthy upstream"),
        ],
    );
    // Without labels it is the whole service.
    assert_eq!(world.answers("/all", 20).len(), 2);

    // The labels of a subset change under its name.
    let swapped = subsets("  - {name: one, labels: {version: v2}}\n  - {name: two, labels: {version: v1}}\n");
    world.table(
        &(swapped + &by_path(&["one", "two"])),
        &[("/one", "200 reviews-1"), ("/two", "200 reviews-0")],
    );
}
