//! How requests are spread over the hosts of a cluster, beside Envoy: localities, health, priorities, zones.
//!
//! What is random cannot be equal. Each case says which part of the requests it expects for which hosts; both proxies must be near it.

mod degraded;
mod drained;
mod localities;
mod peak_ewma;
mod policies;
mod priorities;
mod slow_start;
mod subsets;
mod zones;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use outrigger_tests::RawClient;
use outrigger_tests::addr::free_addr;
use outrigger_tests::bootstrap::{
    Bootstrap, any_host, cluster, http_connection_manager, listener, overlay, socket_address,
};
use outrigger_tests::differential::{View, compare};
use outrigger_tests::proxy::{Launch, Proxy};
use serde_json::{Value, json};

use crate::hashed_hosts::host;

/// Requests for each case.
const REQUESTS: u32 = 1_000;
/// How far from what is expected a part may be, percent; more than five standard deviations.
const NEAR: u32 = 8;

/// One cluster and what is expected of it.
struct Balance {
    name: &'static str,
    /// `load_assignment.endpoints`.
    localities: Vec<Value>,
    /// Laid over the cluster.
    more: Value,
    /// How many percent of the requests the hosts of these numbers get together; what is not listed gets none.
    expected: Vec<(RangeInclusive<u8>, u32)>,
    /// Statistics of the cluster, or whether they are more than 0 where they depend on chance.
    statistics: &'static [&'static str],
}

impl Balance {
    fn of(name: &'static str, localities: Vec<Value>, expected: &[(RangeInclusive<u8>, u32)]) -> Self {
        Balance { name, localities, more: json!({}), expected: expected.to_vec(), statistics: &[] }
    }

    fn with(mut self, more: Value) -> Self {
        overlay(&mut self.more, more);
        self
    }

    fn statistics(mut self, names: &'static [&'static str]) -> Self {
        self.statistics = names;
        self
    }

    fn cluster(&self) -> Value {
        let assignment = json!({"cluster_name": self.name, "endpoints": self.localities});
        let mut cluster = cluster(self.name, &[], json!({"load_assignment": assignment}));
        overlay(&mut cluster, self.more.clone());
        cluster
    }

    /// What became of the requests: hosts of which numbers got about as much as expected, and what else there was.
    fn look(&self, proxy: &Proxy, client: &mut RawClient, requests: u32) -> String {
        let mut counts: BTreeMap<Option<u8>, u32> = BTreeMap::new();
        for _ in 0..requests {
            let response = client.get("h", &format!("/{}", self.name)).unwrap();
            let host =
                response.headers.get("x-host").and_then(|host| host.parse::<std::net::SocketAddrV4>().ok());
            assert!(host.is_some() || response.status == 503, "{response:?}");
            *counts.entry(host.map(|host| host.ip().octets()[3])).or_insert(0) += 1;
        }
        let mut text = String::new();
        for (numbers, percent) in &self.expected {
            let mut got = 0;
            counts.retain(|number, count| {
                let is_one = number.is_some_and(|number| numbers.contains(&number));
                got += if is_one { *count } else { 0 };
                !is_one
            });
            let got = got * 100 / requests;
            let (first, last) = (numbers.start(), numbers.end());
            let _ = match (got, percent) {
                (0, 0) | (100, 100) => writeln!(text, "hosts {first} to {last}: {got} %"),
                _ if got.abs_diff(*percent) <= NEAR && got > 0 => {
                    writeln!(text, "hosts {first} to {last}: about {percent} %")
                }
                _ => writeln!(text, "hosts {first} to {last}: {got} %, not {percent} %"),
            };
        }
        let none = counts.remove(&None).unwrap_or_default();
        let expected_none = 100 - self.expected.iter().map(|(_, percent)| percent).sum::<u32>();
        let none = none * 100 / requests;
        let _ = match none > 0 && none < 100 && none.abs_diff(expected_none) <= NEAR {
            true => writeln!(text, "without a host: about {expected_none} %"),
            false => writeln!(text, "without a host: {none} %"),
        };
        let _ = writeln!(text, "others: {counts:?}");
        for name in self.statistics {
            let value = proxy.stat(&format!("cluster.{}.{name}", self.name)).unwrap_or_default();
            let exact = name.starts_with("membership") || value == 0;
            let _ = writeln!(text, "{name}: {}", if exact { value.to_string() } else { "some".into() });
        }
        text
    }
}

/// One bootstrap with all clusters; `more` is laid over it. Then the requests, one case after the other.
#[track_caller]
fn compare_balance(cases: &[Balance], more: Value) {
    let bootstrap = Bootstrap::new();
    let addr = free_addr();
    let routes: Vec<Value> = cases.iter().map(|case| route(case.name)).collect();
    let filter = http_connection_manager(any_host(json!(routes)), json!({}));
    let clusters: Vec<Value> = cases.iter().map(Balance::cluster).collect();
    let mut file =
        json!({"static_resources": {"listeners": [listener("in", addr, filter)], "clusters": clusters}});
    if let Some(extra) = more.get("clusters").and_then(Value::as_array) {
        file["static_resources"]["clusters"].as_array_mut().unwrap().extend(extra.clone());
    }
    if let Some(bootstrap) = more.get("bootstrap") {
        overlay(&mut file, bootstrap.clone());
    }
    bootstrap.write_value(&file);
    compare(|engine| {
        let proxy = Launch::new(engine).arg("-l").arg("error").start(&bootstrap)?;
        let mut client = RawClient::connect(addr).unwrap();
        let mut view = View::default();
        for case in cases {
            view.add(case.name, case.look(&proxy, &mut client, REQUESTS));
            view.add(format!("{}: hosts", case.name), shown(&proxy, case.name));
        }
        proxy.stop();
        Some(view)
    });
}

/// A route to the cluster of this name, which says which host it was.
fn route(name: &str) -> Value {
    json!({
        "match": {"path": format!("/{name}")},
        "route": {"cluster": name},
        "response_headers_to_add": [{"header": {"key": "x-host", "value": "%UPSTREAM_HOST%"}}],
    })
}

/// What `/clusters` says of health and place of each host.
fn shown(proxy: &Proxy, cluster: &str) -> String {
    let text = proxy.admin("/clusters").text();
    let of_host = |line: &&str| {
        let name = line.split("::").nth(2).unwrap_or_default();
        line.starts_with(&format!("{cluster}::127."))
            && ["health_flags", "weight", "region", "zone", "sub_zone", "canary", "priority"].contains(&name)
    };
    let mut lines: Vec<&str> = text.lines().filter(of_host).collect();
    lines.sort_unstable();
    lines.iter().map(|line| format!("{line}\n")).collect::<String>() + &shown_as_json(proxy, cluster)
}

fn shown_as_json(proxy: &Proxy, cluster: &str) -> String {
    let all: Value = serde_json::from_str(&proxy.admin("/clusters?format=json").text()).unwrap();
    let clusters = all["cluster_statuses"].as_array().unwrap();
    let hosts =
        clusters.iter().find(|one| one["name"] == cluster).and_then(|one| one["host_statuses"].as_array());
    let mut lines: Vec<String> = hosts
        .into_iter()
        .flatten()
        .map(|host| {
            format!(
                "{} {} {} {}\n",
                host["address"]["socket_address"]["address"],
                host["locality"],
                host["health_status"],
                host["weight"]
            )
        })
        .collect();
    lines.sort_unstable();
    lines.concat()
}

/// A `LocalityLbEndpoints` in the zone of this name, of healthy hosts.
fn zone(name: &str, hosts: RangeInclusive<u8>, more: Value) -> Value {
    mixed(name, &hosts.map(|number| (number, "HEALTHY")).collect::<Vec<_>>(), more)
}

/// A `LocalityLbEndpoints` in the zone of this name, of hosts with their health; `more` is laid over it.
fn mixed(name: &str, hosts: &[(u8, &str)], more: Value) -> Value {
    let endpoints: Vec<Value> = hosts
        .iter()
        .map(|(number, health)| {
            json!({"endpoint": {"address": socket_address(host(*number))}, "health_status": health})
        })
        .collect();
    let mut locality =
        json!({"locality": {"region": "r", "zone": name, "sub_zone": "s"}, "lb_endpoints": endpoints});
    overlay(&mut locality, more);
    locality
}

/// `load_balancing_weight`.
fn weight(weight: u32) -> Value {
    json!({"load_balancing_weight": weight})
}

fn priority(priority: u32) -> Value {
    json!({"priority": priority})
}
