//! More connections than file descriptors.

use outrigger_tests::bootstrap::{cluster, to};
use outrigger_tests::proxy::Launch;
use outrigger_tests::{Engine, RawClient, Upstream, wait};
use serde_json::json;

use super::Fixture;

const LIMIT: u32 = 128;

#[test]
fn without_descriptors_what_is_connected_is_served_and_the_rest_waits_or_is_refused() {
    let upstream = Upstream::start();
    let clusters = [cluster("up", &[upstream.addr()], json!({}))];
    let mut fixture = Fixture::prepare(to("up"), &clusters, json!({}), |bootstrap| {
        Launch::new(Engine::Outrigger).max_open_files(LIMIT).start(bootstrap).unwrap()
    });
    let mut first = RawClient::connect(fixture.addr).unwrap();
    assert_eq!(first.get("h", "/").unwrap().status, 200);

    let idle: Vec<RawClient> = (0..2 * LIMIT).filter_map(|_| RawClient::connect(fixture.addr).ok()).collect();
    wait::until("the descriptors are used up", || fixture.proxy.open_files() + 4 >= LIMIT as usize);
    // The first connection has its upstream connection already and goes on.
    for _ in 0..20 {
        assert_eq!(first.get("h", "/").unwrap().status, 200);
    }
    assert!(fixture.proxy.is_running());

    drop(idle);
    wait::until("new connections are served again", || {
        RawClient::connect(fixture.addr)
            .and_then(|mut client| client.get("h", "/"))
            .is_ok_and(|response| response.status == 200)
    });
    wait::until("the descriptors are given back", || fixture.proxy.open_files() < LIMIT as usize / 2);
    assert_eq!(fixture.proxy.admin("/ready").status, 200);
}
