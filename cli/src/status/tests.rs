#![allow(clippy::unwrap_used)]

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

fn proxy(states: Value) -> Value {
    json!({
        "name": "web-0.default", "agent": "outrigger-proxy/0.1.0", "since": "2026-11-21T05:00:00Z", "types": states,
        "control_plane": {"name": "cp-1.outrigger-system"},
    })
}

fn refused() -> Value {
    json!({"lds": {
        "state": "nacked", "rejected": ["l"], "last_nack": {"age_ms": 61_000},
        "refusals": [{
            "resource": "l", "field": "address", "reason": "in\nuse",
            "objects": [{
                "object": {"kind": "Service", "namespace": "data", "name": "cache"},
                "field": "spec.ports", "file": "mesh/a.yaml", "line": 3,
            }, {"object": {"kind": "Pod", "namespace": "data", "name": "p"}, "field": "", "file": null, "line": null}],
        }],
    }})
}

#[test]
fn a_row_for_each_proxy() {
    let now = OffsetDateTime::parse("2026-11-21T05:10:00Z", &Rfc3339).unwrap();
    let mut states = refused();
    states["cds"] = json!({"state": "synced", "last_ack_age_ms": 12_000});
    states["eds"] = json!({"state": "stale", "last_sent_age_ms": 45_000});
    let proxies = [proxy(states)];
    let expected = "\
NAME            PROXY                   CDS            EDS           LDS               RDS        SDS        CONNECTED
web-0.default   outrigger-proxy/0.1.0   SYNCED (12s)   STALE (45s)   REFUSED 1 (61s)   NOT SENT   NOT SENT   10m
";
    assert_eq!(table::rows(&proxies, false, now).text(), expected);
    let both = table::rows(&proxies, true, now).text();
    assert!(both.contains("10m         cp-1.outrigger-system"), "{both}");
    let expected = "\nRefused:\n  web-0.default LDS l: address: in use\n    from Service data/cache: spec.ports (mesh/a.yaml:3)\n    \
                    from Pod data/p\n";
    assert_eq!(table::refusals(&proxies), expected);
}

#[test]
fn what_is_well() {
    let stale = |age: Value| proxy(json!({"cds": {"state": "stale", "last_sent_age_ms": age}}));
    assert!(is_well(&proxy(json!({"cds": {"state": "synced"}, "sds": {"state": "never_sent"}})), 0));
    assert!(is_well(&stale(json!(30_000)), 30_000) && !is_well(&stale(json!(30_001)), 30_000));
    assert!(is_well(&stale(json!(null)), 0), "nothing was sent yet");
    assert!(!is_well(&proxy(refused()), u64::MAX));
    let mut and_stale = refused();
    and_stale["lds"]["state"] = json!("stale");
    assert!(!is_well(&proxy(and_stale), u64::MAX));
}

#[test]
fn streams_of_single_types_are_one_proxy() {
    let stream = |id: &str, service: &str, types: Value| {
        let mut stream = proxy(types);
        stream["id"] = id.into();
        stream["service"] = service.into();
        stream
    };
    let never = || json!({"state": "never_sent"});
    let streams = vec![
        stream("a", "cds", json!({"cds": {"state": "synced"}, "lds": never()})),
        stream("a", "lds", json!({"cds": never(), "lds": {"state": "stale"}})),
        stream("b", "ads", json!({"cds": {"state": "synced"}})),
        stream("b", "ads", json!({"cds": {"state": "stale"}})),
    ];
    let proxies = joined(streams);
    assert_eq!(proxies.len(), 3);
    let states: Vec<State> = types(&proxies[0]).map(|(_, status)| State::of(status)).collect();
    assert_eq!(states, [State::Synced, State::Stale]);
}

#[test]
fn what_proxies_have_taken_out() {
    let address = |ip: &str| json!({"socket_address": {"address": ip, "port_value": 8080}});
    let page = json!({"cluster_statuses": [{"name": "c", "host_statuses": [
        {"address": address("10.0.0.1"), "health_status": {"eds_health_status": "HEALTHY"}},
        {"address": address("10.0.0.2"), "health_status": {"failed_outlier_check": true},
         "ejection": {"type": "CONSECUTIVE_5XX", "reason": "5 errors\nin a row", "at": "t0", "until": "t1"}},
        {"address": address("fd00::2"), "health_status": {"failed_outlier_check": true}},
    ]}]});
    let found = ejections::of_page("web-0.default", &page);
    assert_eq!(found[0]["type"], "CONSECUTIVE_5XX");
    let all = Ejections { found, silent: vec!["web-1.default: refused".into()] };
    let expected = "\nEjected:\n  web-0.default 10.0.0.2:8080 c: 5 errors in a row, until t1\n  \
                    web-0.default [fd00::2]:8080 c: it does not say why\n  not asked: web-1.default: refused\n";
    assert_eq!(all.text(), expected);
    assert_eq!(Ejections::default().text(), "\nEjected: none\n");
}
