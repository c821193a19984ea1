#![allow(clippy::unwrap_used)]

use clap::Parser;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;

fn dump() -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.admin.v3.{name}");
    let at = |port: u16| json!({"socket_address": {"address": "127.1.0.1", "port_value": port}});
    let chain = |matched: Value, config: Value| json!({"filter_chain_match": matched, "filters": [{"name": "f", "typed_config": config}]});
    let outbound =
        chain(json!({"source_type": "SAME_IP_OR_LOOPBACK"}), json!({"rds": {"route_config_name": "15001"}}));
    let mutual_tls = chain(
        json!({"transport_protocol": "tls", "server_names": ["outbound_.80_._.web"], "application_protocols": ["a", "b", "c"]}),
        json!({"route_config": {"virtual_hosts": [{"routes": [{"route": {"cluster": "inbound|80||"}}]}]}}),
    );
    let tcp = chain(
        json!({"prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 32}], "destination_port": 6379}),
        json!({"cluster": "outbound|6379||cache"}),
    );
    let route = json!({
        "match": {"path_separated_prefix": "/a", "headers": [
            {"name": ":method", "string_match": {"exact": "GET"}},
            {"name": "x", "string_match": {"safe_regex": {"regex": "y.*"}}, "invert_match": true}]},
        "route": {"weighted_clusters": {"clusters": [{"name": "v1", "weight": 90}, {"name": "v2", "weight": 10}]}},
        "metadata": {"filter_metadata": {"istio": {"config":
            "/apis/gateway.networking.k8s.io/v1/namespaces/default/http-route/reviews#spec.rules[0]"}}},
    });
    let host = |name: &str, routes: Value| json!({"name": name, "domains": [name, "x"], "routes": routes});
    let policy = "/apis/networking.istio.io/v1/namespaces/default/destination-rule/limits";
    json!({"configs": [
        {"@type": kind("ListenersConfigDump"),
         "static_listeners": [{"listener": {"name": "own", "address": {"pipe": {"path": "/run/s"}}, "filter_chains": [{}]}}],
         "dynamic_listeners": [
            {"active_state": {"listener": {"name": "out", "address": at(15001), "filter_chains": [outbound]}}},
            {"warming_state": {"listener": {"name": "in", "address": at(15006), "filter_chains": [mutual_tls, tcp]}}}]},
        {"@type": kind("RoutesConfigDump"), "dynamic_route_configs": [{"route_config": {"name": "15001", "virtual_hosts": [
            host("reviews:80", json!([route, {"match": {"prefix": "/"}, "direct_response": {"status": 500}}])),
            host("ratings:80", json!([{"match": {"path": "/r"}, "route": {"cluster": "ratings"}}]))]}}]},
        {"@type": kind("ClustersConfigDump"),
         "static_clusters": [{"cluster": {"name": "control-plane"}}],
         "dynamic_active_clusters": [
            {"cluster": {"name": "outbound|80||reviews.default.svc.cluster.local", "type": "EDS",
                "metadata": {"filter_metadata": {"istio": {"config": policy}}}}},
            {"cluster": {"name": "inbound|80||", "type": "STATIC"}}]},
        {"@type": kind("EndpointsConfigDump"), "dynamic_endpoint_configs": [{"endpoint_config": {"cluster_name": "c",
            "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": at(80)}, "health_status": "HEALTHY"},
                {"endpoint": {"address": at(81)}, "health_status": "UNHEALTHY"}]}]}}]},
    ]})
}

fn table(headings: &[&str], kind: Kind, add: impl Fn(&Entry<'_>, &mut Table)) -> String {
    let dump = dump();
    let mut table = Table::new(headings);
    entries(&dump, kind).iter().for_each(|entry| add(entry, &mut table));
    table.text()
}

#[test]
fn listeners() {
    let expected = "\
N     A           P       M                                                D                            S
own   /run/s      0       all                                              none                         static
out   127.1.0.1   15001   from this workload                               routes 15001
in    127.1.0.1   15006   tls; SNI outbound_.80_._.web; ALPN a, b + 1 more   own routes to inbound|80||   warming
in    127.1.0.1   15006   to 10.0.0.1/32; port 6379                        cluster outbound|6379||cache   warming
";
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = table(&["N", "A", "P", "M", "D", "S"], Kind::Listeners, listeners::rows);
    assert_eq!(squeezed(&shown), squeezed(expected));
}

#[test]
fn routes() {
    let all = |_: &Value| true;
    let shown = table(&["N", "V", "D", "M", "T", "B", "S"], Kind::Routes, |entry, table| {
        routes::rows(entry, &all, table);
    });
    let expected = "\
N       V            D                     M                       T                B                           S
15001   reviews:80   reviews:80 + 1 more   /a/* GET not x~y.*      90: v1, 10: v2   HTTPRoute default/reviews
15001   reviews:80   reviews:80 + 1 more   /*                      answer 500
15001   ratings:80   ratings:80 + 1 more   =/r                     ratings
";
    assert_eq!(shown.replace(' ', ""), expected.replace(' ', ""));
    let ratings = |host: &Value| crate::output::text(host, "/name") == "ratings:80";
    let shown = table(&["N", "V", "D", "M", "T", "B", "S"], Kind::Routes, |entry, table| {
        routes::rows(entry, &ratings, table);
    });
    assert_eq!(shown.lines().count(), 2, "{shown}");
}

#[test]
fn clusters() {
    let expected = "\
S                                   P    U   D          T        O                                S
control-plane                                           STATIC                                    static
reviews.default.svc.cluster.local   80       outbound   EDS      DestinationRule default/limits
                                    80       inbound    STATIC
";
    assert_eq!(table(&["S", "P", "U", "D", "T", "O", "S"], Kind::Clusters, clusters::rows), expected);
}

#[test]
fn endpoints_of_a_dump_and_of_a_proxy() {
    let dump = dump();
    let expected = "\
ENDPOINT       STATUS      OUTLIER CHECK   REQUESTS   ERRORS   CLUSTER
127.1.0.1:80   HEALTHY     OK              -          -        c
127.1.0.1:81   UNHEALTHY   OK              -          -        c
";
    assert_eq!(endpoints::table(&endpoints::of_dump(&dump)).text(), expected);
    let page = json!({"cluster_statuses": [{"name": "c", "host_statuses": [
        {"address": {"socket_address": {"address": "fd00::1", "port_value": 80}},
         "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true},
         "stats": [{"name": "rq_total", "value": "7"}, {"name": "rq_error"}]},
        {"address": {"pipe": {"path": "/run/s"}}, "health_status": {}},
    ]}]});
    let expected = "\
ENDPOINT       STATUS      OUTLIER CHECK   REQUESTS   ERRORS   CLUSTER
[fd00::1]:80   UNHEALTHY   EJECTED         7          0        c
/run/s         HEALTHY     OK              0          0        c
";
    assert_eq!(endpoints::table(&endpoints::of_clusters(&page)).text(), expected);
}

#[test]
fn certificates() {
    let certificate = |path: &str, until: &str| {
        json!({"path": path, "serial_number": "1a", "valid_from": "2026-11-20T00:00:00Z", "expiration_time": until,
               "subject_alt_names": [{"uri": "spiffe://a"}, {"dns": "b"}]})
    };
    let entries = [json!({
        "cert_chain": [certificate("default", "2026-11-22T00:00:00Z")],
        "ca_cert": [certificate("ROOTCA", "2026-11-20T12:00:00Z")],
    })];
    let now = OffsetDateTime::parse("2026-11-21T00:00:00Z", &Rfc3339).unwrap();
    let shown = secrets::table(&entries, &None, now).text();
    let lines: Vec<Vec<&str>> = shown.lines().map(|line| line.split("   ").collect()).collect();
    let expected = [
        "default",
        "certificate",
        "yes",
        "2026-11-22T00:00:00Z",
        "2026-11-20T00:00:00Z",
        "1a",
        "spiffe://a + 1 more",
    ];
    let cells = |line: &[&str]| -> Vec<String> {
        line.iter().map(|cell| cell.trim().to_owned()).filter(|cell| !cell.is_empty()).collect()
    };
    assert_eq!(cells(&lines[1]), expected);
    assert_eq!(cells(&lines[2])[..3], ["ROOTCA", "CA", "expired"]);
    let only_root = secrets::table(&entries, &Some("ROOT".to_owned()), now).text();
    assert_eq!(only_root.lines().count(), 2, "{only_root}");
}

#[test]
fn a_file_is_instead_of_a_proxy() {
    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }
    let parse = |arguments: &[&str]| Command::try_parse_from(["config"].iter().chain(arguments)).map(drop);
    assert!(parse(&["listeners", "--file", "x"]).is_ok());
    assert!(parse(&["listener", "web.shop", "--port", "80", "-o", "yaml"]).is_ok());
    for wrong in [
        &["listeners", "--file", "x", "web"][..],
        &["listeners", "--file", "x", "--proxy-admin", "a"],
        &["clusters", "--direction", "up"],
    ] {
        assert!(parse(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn whoever_made_a_resource_is_named_as_in_his_file() {
    let made =
        |config: &str| made_by(&json!({"metadata": {"filter_metadata": {"istio": {"config": config}}}}));
    for (kind, name) in [
        ("destination-rule", "DestinationRule"),
        ("grpc-route", "GRPCRoute"),
        ("http-route", "HTTPRoute"),
        ("service-entry", "ServiceEntry"),
        ("traffic-policy", "TrafficPolicy"),
        ("virtual-service", "VirtualService"),
    ] {
        assert_eq!(
            made(&format!("/apis/group/v1/namespaces/n/{kind}/x#spec.rules[0]")),
            format!("{name} n/x")
        );
    }
    assert_eq!(made("/elsewhere"), "");
}
