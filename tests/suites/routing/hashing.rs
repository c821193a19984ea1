//! Choice of an endpoint by a hash.

use std::collections::BTreeSet;

use outrigger_tests::wait;

use crate::world::World;

/// One endpoint for each caller, with a ring and with a Maglev table; told by a header, or by a cookie that the sidecar gives out.
#[test]
fn a_caller_stays_at_its_endpoint() {
    let world = World::start();
    let rule = |hash: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews, namespace: default}}\n\
             spec:\n  host: reviews\n  trafficPolicy: {{loadBalancer: {{consistentHash: {{{hash}}}}}}}\n"
        )
    };
    let in_force = |hash: &str, signs: [&str; 2]| {
        world.apply(&rule(hash));
        let sidecar = world.0.workload("web-0").sidecar();
        wait::until(hash, || {
            let dump = sidecar.admin("/config_dump").text();
            signs.iter().all(|sign| dump.contains(sign))
        });
    };
    let endpoint = |header: &str| world.ask("/", header).text();
    for (hash, table) in
        [("httpHeaderName: X-User", "RING_HASH"), ("httpHeaderName: X-User, maglev: {}", "MAGLEV")]
    {
        in_force(hash, [table, "\"header_name\": \"x-user\""]);
        let mut endpoints = BTreeSet::new();
        for user in 0..24 {
            let header = format!("x-user: user-{user}\r\n");
            let first = endpoint(&header);
            assert!((0..5).all(|_| endpoint(&header) == first), "{table}: user-{user} leaves {first}");
            endpoints.insert(first);
        }
        assert_eq!(endpoints.len(), 2, "{table}: the callers are spread");
        assert_eq!((0..24).map(|_| endpoint("")).collect::<BTreeSet<_>>().len(), 2, "others go anywhere");
    }
    in_force("httpCookie: {name: place, path: /, ttl: 60s}", ["RING_HASH", "\"name\": \"place\""]);
    for _ in 0..8 {
        let response = world.ask("/", "");
        let cookie = response.headers.get("set-cookie").unwrap();
        assert!(cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"), "{cookie}");
        let (cookie, _) = cookie.split_once(';').unwrap();
        let again = world.ask("/", &format!("cookie: {cookie}\r\n"));
        assert_eq!((again.text(), again.headers.get("set-cookie")), (response.text(), None));
    }
}
