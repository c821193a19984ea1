//! The comparer itself: two runs of one proxy are equal, and a change in the file is seen.

use outrigger_tests::Engine;
use outrigger_tests::differential::{Case, World};
use serde_json::json;

fn cases(body: &str) -> [Case; 2] {
    [
        Case::plain("routed").paths(&["/ok", "/404", "/reset"]),
        Case::routes(
            "direct",
            json!([{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": body}}}]),
        )
        .paths(&["/"]),
    ]
}

#[test]
fn two_runs_of_envoy_are_equal_and_a_mutation_is_not() {
    let (same, changed) = (cases("same"), cases("changed"));
    let world = World::new(&same);
    let Some(first) = world.observe(Engine::Envoy, &same) else { return };
    let second = world.observe(Engine::Envoy, &same).unwrap();
    assert_eq!(first.differences(&second), []);
    // Four exchanges, each with the client's view, the upstream's and a line in both logs.
    assert_eq!(first.len(), 4 * 4);

    let third = World::new(&changed).observe(Engine::Envoy, &changed).unwrap();
    let differences = first.differences(&third);
    let of = |block: &str| differences.iter().find(|difference| difference.block == block);
    assert!(of("direct: GET /: client").unwrap().lines.contains("+   \"changed\""), "{differences:?}");
    assert!(of("routed: GET /ok: client").is_none(), "{differences:?}");
}
