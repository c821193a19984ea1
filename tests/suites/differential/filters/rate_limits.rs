//! Descriptors of the local rate limit: what requests are counted by, and where that is said.

use outrigger_tests::RawClient;
use outrigger_tests::differential::{Case, Target, View, compare_cases};
use serde_json::{Value, json};

use super::limits::limit;
use super::{chain, filter, says, typed};

/// The filter with these descriptors, each with so many tokens and no more while the test lasts; the default bucket is large.
fn filter_of(descriptors: &[(Value, u32)], more: Value) -> Value {
    let descriptors: Vec<Value> = descriptors
        .iter()
        .map(|(entries, tokens)| {
            json!({"entries": entries,
            "token_bucket": {"max_tokens": tokens, "fill_interval": "3600s"}})
        })
        .collect();
    let mut config = limit(json!({"descriptors": descriptors,
        "token_bucket": {"max_tokens": 1000, "fill_interval": "3600s"}}));
    outrigger_tests::bootstrap::overlay(&mut config, more);
    config
}

fn entry(key: &str, value: &str) -> Value {
    json!({"key": key, "value": value})
}

fn one(key: &str, value: &str) -> Value {
    json!([entry(key, value)])
}

/// `rate_limits` with one descriptor of one action.
fn by(action: Value) -> Value {
    json!([{"actions": [action]}])
}

/// A case with these rate limits at the route.
fn case(name: &'static str, rate_limits: Value, config: Value) -> Case {
    let route = json!({"cluster": "up", "rate_limits": rate_limits});
    Case::routes(name, json!([{"match": {"prefix": "/"}, "route": route}])).hcm(chain(&[filter(
        "local_ratelimit",
        "local_ratelimit.v3.LocalRateLimit",
        config,
    )]))
}

/// Two requests with each of these, so that a bucket of one token shows.
fn twice(mut case: Case, requests: &[&str]) -> Case {
    for request in requests {
        for _ in 0..2 {
            let (path, lines) = request.split_once(' ').unwrap_or((request, ""));
            case = case.send(request, &format!("GET {path} HTTP/1.1\r\nhost: h\r\n{lines}\r\n"));
        }
    }
    case
}

const TEXTS: [&str; 6] = ["/", "/ x-a: 1\r\n", "/ x-a: 2\r\n", "/p?q=1", "/p?q=2&q=1", "/p?b&q=%31"];

#[test]
fn actions() {
    let mut cases = Vec::new();
    let mut add = |name: &'static str, action: Value, entries: Value| {
        cases.push(twice(case(name, by(action), filter_of(&[(entries, 1)], json!({}))), &TEXTS));
    };
    add("source cluster", json!({"source_cluster": {}}), one("source_cluster", "service"));
    add("destination cluster", json!({"destination_cluster": {}}), one("destination_cluster", "up"));
    let header = json!({"request_headers": {"header_name": "x-a", "descriptor_key": "a"}});
    add("header", header, one("a", "1"));
    add(
        "path",
        json!({"request_headers": {"header_name": ":path", "descriptor_key": "p"}}),
        one("p", "/p?q=1"),
    );
    add(
        "query",
        json!({"query_parameters": {"query_parameter_name": "q", "descriptor_key": "q"}}),
        one("q", "1"),
    );
    add("generic key", json!({"generic_key": {"descriptor_value": "all"}}), one("generic_key", "all"));
    add(
        "named key",
        json!({"generic_key": {"descriptor_value": "all", "descriptor_key": "k"}}),
        one("k", "all"),
    );
    let matches = |more: Value| {
        let mut action =
            json!({"descriptor_value": "yes", "headers": [{"name": "x-a", "string_match": {"exact": "1"}}]});
        outrigger_tests::bootstrap::overlay(&mut action, more);
        json!({ "header_value_match": action })
    };
    add("header match", matches(json!({})), one("header_match", "yes"));
    add("no header match", matches(json!({"expect_match": false, "descriptor_key": "no"})), one("no", "yes"));
    let matches = |expected: bool| {
        json!({"query_parameter_value_match": {"descriptor_value": "yes", "expect_match": expected,
            "query_parameters": [{"name": "q", "string_match": {"exact": "1"}}]}})
    };
    add("query match", matches(true), one("query_match", "yes"));
    add("no query match", matches(false), one("query_match", "yes"));
    add("remote address", json!({"remote_address": {}}), one("remote_address", "127.0.0.1"));
    add(
        "masked address",
        json!({"masked_remote_address": {"v4_prefix_mask_len": 8}}),
        one("masked_remote_address", "127.0.0.0/8"),
    );
    add(
        "address match",
        json!({"remote_address_match": {"descriptor_value": "near",
            "address_matcher": {"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}]}}}),
        one("remote_address_match", "near"),
    );
    add(
        "no address match",
        json!({"remote_address_match": {"descriptor_value": "near",
            "address_matcher": {"ranges": [{"address_prefix": "127.0.0.0", "prefix_len": 8}], "invert_match": true}}}),
        one("remote_address_match", "near"),
    );
    compare_cases(&cases);
}

/// Who stands behind a proxy in front is told by what that one says.
#[test]
fn addresses_behind_a_proxy() {
    let of = |name, hcm: Value, action: Value, entries: Value| {
        let limit = filter_of(&[(entries, 1)], json!({}));
        let mut with_chain =
            chain(&[filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", limit.clone())]);
        outrigger_tests::bootstrap::overlay(&mut with_chain, hcm);
        // A log would ask for the address too.
        let case = case(name, by(action), limit).hcm(with_chain).without_logs();
        twice(case, &["/", "/ x-forwarded-for: 10.1.2.3\r\n", "/ x-forwarded-for: 10.1.2.3, 10.9.9.9\r\n"])
    };
    let address = || json!({"remote_address": {}});
    let masked = json!({"masked_remote_address": {"v4_prefix_mask_len": 16}});
    let near = json!({"remote_address_match": {"descriptor_value": "near",
        "address_matcher": {"ranges": [{"address_prefix": "10.1.0.0", "prefix_len": 16}]}}});
    compare_cases(&[
        of("the last", json!({}), address(), one("remote_address", "10.9.9.9")),
        of("the only one", json!({}), address(), one("remote_address", "10.1.2.3")),
        of("masked", json!({}), masked, one("masked_remote_address", "10.1.0.0/16")),
        of("matched", json!({}), near, one("remote_address_match", "near")),
        of(
            "behind one",
            json!({"use_remote_address": true, "xff_num_trusted_hops": 1}),
            address(),
            one("remote_address", "10.9.9.9"),
        ),
    ]);
}

#[test]
fn descriptors() {
    let a = json!({"request_headers": {"header_name": "x-a", "descriptor_key": "a"}});
    let b = json!({"request_headers": {"header_name": "x-b", "descriptor_key": "b"}});
    let b_or_not =
        json!({"request_headers": {"header_name": "x-b", "descriptor_key": "b", "skip_if_absent": true}});
    let lines = ["/", "/ x-a: 1\r\n", "/ x-b: 1\r\n", "/ x-a: 1\r\nx-b: 1\r\n", "/ x-a: 1\r\nx-b: 2\r\n"];
    let both = || json!([{"actions": [a, b]}]);
    let each = || json!([{"actions": [a]}, {"actions": [b]}]);
    let ab = || json!([entry("a", "1"), entry("b", "1")]);
    let own = |tokens: u32, more: Value| {
        let mut all = json!({"token_bucket": {"max_tokens": tokens, "fill_interval": "3600s"}});
        outrigger_tests::bootstrap::overlay(&mut all, more);
        all
    };
    // Both have a token for the first request; what the second one takes before it is refused tells the order.
    let slowest_first = {
        let mut config = filter_of(&[(one("b", "1"), 1), (one("a", "1"), 2)], json!({}));
        config["descriptors"][0]["token_bucket"]["fill_interval"] = json!("1800s");
        twice(case("the slowest first", each(), config), &["/ x-a: 1\r\nx-b: 1\r\n", "/ x-a: 1\r\n"])
    };
    compare_cases(&[
        slowest_first,
        twice(case("of two", both(), filter_of(&[(ab(), 1)], json!({}))), &lines),
        twice(
            case(
                "in another order",
                both(),
                filter_of(&[(json!([entry("b", "1"), entry("a", "1")]), 1)], json!({})),
            ),
            &lines,
        ),
        twice(
            case(
                "of two, one may be absent",
                json!([{"actions": [a, b_or_not]}]),
                filter_of(&[(one("a", "1"), 1), (ab(), 1)], json!({})),
            ),
            &lines,
        ),
        twice(
            case("two descriptors", each(), filter_of(&[(one("a", "1"), 3), (one("b", "1"), 1)], json!({}))),
            &lines,
        ),
        twice(
            case("the default bucket as well", each(), filter_of(&[(one("a", "1"), 100)], own(3, json!({})))),
            &lines,
        ),
        twice(
            case(
                "the default bucket for others",
                each(),
                filter_of(
                    &[(one("a", "1"), 100)],
                    own(3, json!({"always_consume_default_token_bucket": false})),
                ),
            ),
            &lines,
        ),
        twice(
            case("any value", json!([{"actions": [a]}]), filter_of(&[(json!([{"key": "a"}]), 1)], json!({}))),
            &["/ x-a: 1\r\n", "/ x-a: 2\r\n", "/ x-a: 1\r\n", "/"],
        ),
        twice(
            case(
                "any value, but for one",
                json!([{"actions": [a]}]),
                filter_of(&[(json!([{"key": "a"}]), 1), (one("a", "2"), 100)], json!({})),
            ),
            &["/ x-a: 1\r\n", "/ x-a: 2\r\n", "/ x-a: 1\r\n"],
        ),
        twice(
            case(
                "few values",
                json!([{"actions": [a]}]),
                filter_of(&[(json!([{"key": "a"}]), 1)], json!({"max_dynamic_descriptors": 2})),
            ),
            &["/ x-a: 1\r\n", "/ x-a: 2\r\n", "/ x-a: 1\r\n", "/ x-a: 3\r\n", "/ x-a: 1\r\n", "/ x-a: 2\r\n"],
        ),
        twice(
            case(
                "one value of two",
                both(),
                filter_of(&[(json!([entry("a", "1"), {"key": "b"}]), 1)], json!({})),
            ),
            &lines,
        ),
        twice(
            case(
                "the filter's own rate limits",
                json!([{"actions": [b]}]),
                filter_of(
                    &[(one("a", "1"), 1), (one("b", "1"), 1)],
                    json!({"rate_limits": [{"actions": [a]}]}),
                ),
            ),
            &lines,
        ),
        twice(case("no descriptors", each(), limit(json!({}))), &lines),
    ]);
}

#[test]
fn places() {
    let key = |value: &str| json!({"generic_key": {"descriptor_value": value}});
    let limits = |value: &str, more: Value| {
        let mut limit = json!({"actions": [key(value)]});
        outrigger_tests::bootstrap::overlay(&mut limit, more);
        json!([limit])
    };
    let case = |name: &'static str, of_host: Value, of_route: Value, route: Value, config: Value| {
        let mut action = json!({"cluster": "up", "rate_limits": of_route});
        outrigger_tests::bootstrap::overlay(&mut action, route);
        let hosts = json!([{"name": "v", "domains": ["*"], "rate_limits": of_host,
            "routes": [{"match": {"prefix": "/"}, "route": action}]}]);
        let config = filter_of(&[(one("generic_key", "host"), 1), (one("generic_key", "route"), 2)], config);
        let case = Case::hosts(name, hosts).hcm(chain(&[filter(
            "local_ratelimit",
            "local_ratelimit.v3.LocalRateLimit",
            config,
        )]));
        twice(case, &["/", "/1"])
    };
    let (host, route) = (|| limits("host", json!({})), || limits("route", json!({})));
    let none = || json!([]);
    let staged = |stage: u32| limits("host", json!({ "stage": stage }));
    compare_cases(&[
        case("route", none(), route(), json!({}), json!({})),
        case("host", host(), none(), json!({}), json!({})),
        case("both", host(), route(), json!({}), json!({})),
        case("both, included by the route", host(), route(), json!({"include_vh_rate_limits": true}), json!({})),
        case("both, included by the filter", host(), route(), json!({}), json!({"vh_rate_limits": "INCLUDE"})),
        case("ignored", host(), none(), json!({}), json!({"vh_rate_limits": "IGNORE"})),
        case("ignored, but included", host(), none(), json!({"include_vh_rate_limits": true}), json!({"vh_rate_limits": "IGNORE"})),
        case("another stage", none(), staged(1), json!({}), json!({})),
        case("its stage", none(), staged(1), json!({}), json!({"stage": 1})),
        case("disable key", none(), limits("route", json!({"disable_key": "x"})), json!({}), json!({})),
        Case::routes(
            "the route's own filter",
            json!([
                {"match": {"prefix": "/own"}, "route": {"cluster": "up", "rate_limits": limits("route", json!({}))},
                    "typed_per_filter_config": says("local_ratelimit", typed("local_ratelimit.v3.LocalRateLimit",
                        filter_of(&[(one("generic_key", "route"), 1)], json!({}))))},
                {"match": {"prefix": "/direct"}, "direct_response": {"status": 200}},
                {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
            ]),
        )
        .hcm(chain(&[filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit",
            filter_of(&[(one("generic_key", "route"), 100)], json!({})))]))
        .paths(&["/own", "/own", "/direct", "/", "/own"]),
    ]);
}

#[test]
fn told() {
    let header = |more: Value| {
        let mut all = json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"});
        outrigger_tests::bootstrap::overlay(&mut all, more);
        all
    };
    let a = || json!({"request_headers": {"header_name": "x-a", "descriptor_key": "a"}});
    let lines = ["/", "/ x-a: 1\r\n", "/503"];
    let rates = |option: &str| json!([{"actions": [a()], "x_ratelimit_option": option}]);
    let tokens = |max: u32| json!({"max_tokens": max, "fill_interval": "0.9s"});
    compare_cases(&[
        twice(
            case("limits", json!([{"actions": [a()]}]), filter_of(&[(one("a", "1"), 5)], header(json!({})))),
            &lines,
        ),
        twice(
            case("never said", json!([{"actions": [a()]}]), filter_of(&[(one("a", "1"), 5)], json!({}))),
            &lines,
        ),
        twice(
            case(
                "said by the rate limit",
                rates("DRAFT_VERSION_03"),
                filter_of(&[(one("a", "1"), 5)], json!({})),
            ),
            &lines,
        ),
        twice(
            case(
                "not said by the rate limit",
                rates("OFF"),
                filter_of(&[(one("a", "1"), 5)], header(json!({}))),
            ),
            &lines,
        ),
        twice(
            case("used up", json!([]), {
                let mut config = limit(header(json!({"enable_x_ratelimit_headers": "DRAFT_VERSION_03"})));
                config["token_bucket"] = tokens(1);
                config
            }),
            &["/"],
        ),
        twice(
            case("when to come again", json!([]), {
                let mut config = limit(json!({"enable_retry_after_header": true}));
                config["token_bucket"] = tokens(1);
                config
            }),
            &["/"],
        ),
        twice(
            case("whoever adds it himself, and another status", json!([]), {
                let own = json!([{"header": {"key": "retry-after", "value": "7"}}]);
                let mut config =
                    limit(json!({"enable_retry_after_header": true, "response_headers_to_add": own}));
                config["token_bucket"] = tokens(1);
                config
            }),
            &["/"],
        ),
        twice(
            case("with another status not", json!([]), {
                let mut config = limit(json!({"enable_retry_after_header": true, "status": {"code": 503}}));
                config["token_bucket"] = tokens(1);
                config
            }),
            &["/"],
        ),
        twice(
            case(
                "statistics",
                json!([{"actions": [a()]}]),
                filter_of(&[(one("a", "1"), 1)], json!({"stat_prefix": "mine"})),
            ),
            &lines,
        )
        .statistics("^mine"),
        twice(
            case(
                "not enforced",
                json!([{"actions": [a()]}]),
                filter_of(
                    &[(one("a", "1"), 1)],
                    json!({"stat_prefix": "loose", "filter_enforced": {"default_value": {"numerator": 0}}}),
                ),
            ),
            &lines,
        )
        .statistics("^loose"),
        twice(
            case("shadow", json!([{"actions": [a()]}]), {
                let mut config = filter_of(&[(one("a", "1"), 1)], json!({"stat_prefix": "shadow"}));
                config["descriptors"][0]["shadow_mode"] = json!(true);
                config
            }),
            &lines,
        )
        .statistics("^shadow"),
    ]);
}

#[test]
fn connections() {
    let per_connection = |more: Value| {
        let mut config = limit(json!({"local_rate_limit_per_downstream_connection": true}));
        outrigger_tests::bootstrap::overlay(&mut config, more);
        config
    };
    let drive = |target: &Target<'_>, view: &mut View| {
        for connection in ["first", "second"] {
            let mut client = RawClient::connect(target.addr).unwrap();
            for _ in 0..3 {
                view.add_answer(format!("{connection}: client"), &client.get("h", "/"));
            }
        }
    };
    let all = json!([{"actions": [{"generic_key": {"descriptor_value": "all"}}]}]);
    compare_cases(&[
        case("each", json!([]), per_connection(json!({}))).drive(drive),
        case("shared", json!([]), limit(json!({}))).drive(drive),
        case(
            "descriptors of each",
            all,
            per_connection(filter_of(&[(one("generic_key", "all"), 1)], json!({}))),
        )
        .drive(drive),
    ]);
}
