#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::config::live::Live;
use crate::stats::Stats;
use crate::transport_socket::DownstreamTransport;

fn chain(name: &str) -> Arc<FilterChain> {
    let proxy = crate::tcp::tests::proxy_to(&Stats::new(), Live::empty("none"));
    crate::tcp::tests::chain(name, DownstreamTransport::Plaintext, proxy)
}

/// A connection with all of its parts owned.
#[derive(Debug)]
struct Connection {
    local: Address,
    peer: Address,
    server_name: String,
    transport_protocol: &'static str,
    application_protocols: Vec<Box<str>>,
}

impl Connection {
    fn facts(&self) -> ConnectionFacts<'_> {
        ConnectionFacts {
            local: &self.local,
            direct_peer: &self.peer,
            peer: &self.peer,
            server_name: &self.server_name,
            transport_protocol: self.transport_protocol,
            application_protocols: &self.application_protocols,
        }
    }
}

fn connection(local: &str, server_name: &str) -> Connection {
    Connection {
        local: Address::Ip(local.parse().unwrap()),
        peer: Address::Ip("192.0.2.7:4000".parse().unwrap()),
        server_name: server_name.to_owned(),
        transport_protocol: "tls",
        application_protocols: vec!["h2".into(), "http/1.1".into()],
    }
}

fn found(chains: &FilterChains, connection: &Connection) -> Option<String> {
    chains.find(&connection.facts()).map(|chain| chain.name.to_string())
}

fn names(names: &[&str]) -> Vec<Box<str>> {
    names.iter().map(|n| Box::from(*n)).collect()
}

#[test]
fn exact_name_then_longest_suffix_then_any() {
    let by_name = |n: &str| (FilterChainMatch { server_names: names(&[n]), ..Default::default() }, chain(n));
    let chains = FilterChains::build(
        vec![
            by_name("www.Example.com"),
            by_name("*.example.com"),
            by_name("*.com"),
            (FilterChainMatch::default(), chain("any")),
        ],
        None,
    )
    .unwrap();
    for (sni, name) in [
        ("www.example.com", "www.Example.com"),
        ("a.b.example.com", "*.example.com"),
        ("example.com", "*.com"),
        ("com", "any"),
        ("", "any"),
        ("example.org", "any"),
    ] {
        assert_eq!(found(&chains, &connection("10.0.0.1:443", sni)).as_deref(), Some(name), "{sni}");
    }
}

#[test]
fn the_search_does_not_go_back() {
    let chains = FilterChains::build(
        vec![
            (
                FilterChainMatch {
                    destination_port: Some(443),
                    server_names: names(&["a.test"]),
                    ..Default::default()
                },
                chain("port and name"),
            ),
            (FilterChainMatch::default(), chain("any")),
        ],
        Some(chain("default")),
    )
    .unwrap();
    assert_eq!(found(&chains, &connection("10.0.0.1:443", "a.test")).as_deref(), Some("port and name"));
    assert_eq!(found(&chains, &connection("10.0.0.1:443", "b.test")).as_deref(), Some("default"));
    assert_eq!(found(&chains, &connection("10.0.0.1:80", "b.test")).as_deref(), Some("any"));
}

#[test]
fn offered_protocols_count_in_the_clients_order() {
    let by_alpn =
        |p: &str| (FilterChainMatch { application_protocols: names(&[p]), ..Default::default() }, chain(p));
    let chains = FilterChains::build(vec![by_alpn("http/1.1"), by_alpn("h2")], None).unwrap();
    assert_eq!(found(&chains, &connection("10.0.0.1:443", "")).as_deref(), Some("h2"));
    let mut other = connection("10.0.0.1:443", "");
    other.application_protocols = names(&["istio"]);
    assert_eq!(found(&chains, &other), None);
}

#[test]
fn source_types() {
    let by_type = |t, n: &str| (FilterChainMatch { source_type: t, ..Default::default() }, chain(n));
    let chains = FilterChains::build(
        vec![by_type(SourceType::SameIpOrLoopback, "local"), by_type(SourceType::Any, "any")],
        None,
    )
    .unwrap();
    let mut connection = connection("10.0.0.1:443", "");
    assert_eq!(found(&chains, &connection).as_deref(), Some("any"));
    connection.peer = Address::Ip("10.0.0.1:999".parse().unwrap());
    assert_eq!(found(&chains, &connection).as_deref(), Some("local"));
    connection.peer = Address::Ip("127.1.2.3:999".parse().unwrap());
    assert_eq!(found(&chains, &connection).as_deref(), Some("local"));
    connection.peer = Address::Pipe(Arc::default());
    assert_eq!(found(&chains, &connection).as_deref(), Some("local"));
}

#[test]
fn chains_that_would_take_the_same_connections_are_refused() {
    let ports = |ports: &[u16]| FilterChainMatch { source_ports: ports.to_vec(), ..Default::default() };
    let error = FilterChains::build(vec![(ports(&[1]), chain("a")), (ports(&[1]), chain("b"))], None);
    assert_eq!(error.unwrap_err(), "filter chain 'b' has the same matching rules defined as 'a'");
    let error = FilterChains::build(vec![(ports(&[1, 2]), chain("a")), (ports(&[2, 3]), chain("b"))], None);
    assert_eq!(
        error.unwrap_err(),
        "multiple filter chains with overlapping matching rules are defined: 'a' and 'b'"
    );
    let wildcard = FilterChainMatch { server_names: names(&["a*.test"]), ..Default::default() };
    let error = FilterChains::build(vec![(wildcard, chain("a"))], None).unwrap_err();
    assert!(error.contains("partial wildcards"), "{error}");
}

/// The specification written down naively: step by step, keep the chains whose criterion fits best.
fn naive<'a>(
    chains: &'a [(FilterChainMatch, Arc<FilterChain>)],
    facts: &ConnectionFacts<'_>,
) -> Option<&'a Arc<FilterChain>> {
    type Score<'s> = Box<dyn Fn(&FilterChainMatch) -> Option<usize> + 's>;
    fn prefix(ranges: &[IpNet], ip: IpAddr) -> Option<usize> {
        if ranges.is_empty() {
            return Some(0);
        }
        ranges.iter().filter(|r| r.contains(&ip)).map(|r| usize::from(r.prefix_len())).max()
    }
    fn port(port: Option<u16>, wanted: &[u16]) -> Option<usize> {
        if wanted.is_empty() {
            return Some(0);
        }
        wanted.iter().any(|w| Some(*w) == port).then_some(1)
    }
    let steps: Vec<Score<'_>> = vec![
        Box::new(|m| port(facts.local.port(), m.destination_port.as_slice())),
        Box::new(|m| prefix(&m.prefix_ranges, facts.local.ip().unwrap_or(NO_IP))),
        Box::new(|m| {
            if m.server_names.is_empty() {
                return Some(0);
            }
            let fits = |n: &str| match n.strip_prefix('*') {
                Some(suffix) => (facts.server_name.len() > suffix.len()
                    && facts.server_name.ends_with(suffix))
                .then_some(suffix.len()),
                None => (n == facts.server_name).then_some(1000),
            };
            m.server_names.iter().filter_map(|n| fits(n)).max()
        }),
        Box::new(|m| match &*m.transport_protocol {
            "" => Some(0),
            wanted => (wanted == facts.transport_protocol).then_some(1),
        }),
        Box::new(|m| {
            if m.application_protocols.is_empty() {
                return Some(0);
            }
            let offered = facts.application_protocols;
            offered.iter().position(|p| m.application_protocols.contains(p)).map(|i| 100 - i)
        }),
        Box::new(|m| prefix(&m.direct_source_prefix_ranges, facts.direct_peer.ip().unwrap_or(NO_IP))),
        Box::new(|m| match m.source_type {
            SourceType::Any => Some(0),
            SourceType::SameIpOrLoopback => facts.is_local().then_some(1),
            SourceType::External => (!facts.is_local()).then_some(1),
        }),
        Box::new(|m| prefix(&m.source_prefix_ranges, facts.peer.ip().unwrap_or(NO_IP))),
        Box::new(|m| port(facts.peer.port(), &m.source_ports)),
    ];
    let mut left: Vec<_> = chains.iter().collect();
    for step in steps {
        let best = left.iter().filter_map(|(m, _)| step(m)).max()?;
        left.retain(|(m, _)| step(m) == Some(best));
    }
    left.first().map(|(_, chain)| chain)
}

#[test]
fn the_tree_is_the_specification() {
    let mut random = fastrand::Rng::with_seed(20);
    fn some<T: Clone>(random: &mut fastrand::Rng, from: &[T]) -> Vec<T> {
        if random.bool() {
            return Vec::new();
        }
        random.choose_multiple(from, 1 + random.clone().usize(..2)).into_iter().cloned().collect()
    }
    let nets: Vec<IpNet> = ["10.0.0.0/8", "10.1.0.0/16", "10.1.1.1/32", "127.0.0.0/8", "2001:db8::/32"]
        .map(|n| n.parse().unwrap())
        .into();
    let addresses = ["10.1.1.1:443", "10.1.2.2:80", "10.9.9.9:443", "127.0.0.1:80", "[2001:db8::1]:443"];
    let server_names = names(&["a.test", "b.a.test", "*.test", "*.a.test"]);
    let protocols = names(&["h2", "http/1.1", "istio"]);
    let (mut compared, mut matched) = (0, 0);
    for _ in 0..2000 {
        let chains: Vec<_> = (0..random.usize(1..8))
            .map(|i| {
                let criteria = FilterChainMatch {
                    destination_port: random.bool().then(|| *random.choice([443, 80].iter()).unwrap()),
                    prefix_ranges: some(&mut random, &nets),
                    server_names: some(&mut random, &server_names),
                    transport_protocol: (*random.choice(["", "tls", "raw_buffer"].iter()).unwrap()).into(),
                    application_protocols: some(&mut random, &protocols),
                    direct_source_prefix_ranges: some(&mut random, &nets),
                    source_type: *random
                        .choice([SourceType::Any, SourceType::SameIpOrLoopback, SourceType::External].iter())
                        .unwrap(),
                    source_prefix_ranges: some(&mut random, &nets),
                    source_ports: some(&mut random, &[443, 80]),
                };
                (criteria, chain(&i.to_string()))
            })
            .collect();
        let Ok(tree) = FilterChains::build(chains.clone(), None) else { continue };
        for _ in 0..20 {
            let connection = Connection {
                local: Address::Ip(random.choice(addresses.iter()).unwrap().parse().unwrap()),
                peer: Address::Ip(random.choice(addresses.iter()).unwrap().parse().unwrap()),
                server_name: (*random
                    .choice(["", "a.test", "b.a.test", "c.a.test", "x.test"].iter())
                    .unwrap())
                .to_owned(),
                transport_protocol: random.choice(["tls", "raw_buffer"].iter()).unwrap(),
                application_protocols: some(&mut random, &protocols),
            };
            let expected = naive(&chains, &connection.facts()).map(|c| c.name.clone());
            let got = tree.find(&connection.facts()).map(|c| c.name.clone());
            assert_eq!(
                got,
                expected,
                "{connection:?} in {:?}",
                chains.iter().map(|c| &c.0).collect::<Vec<_>>()
            );
            compared += 1;
            matched += usize::from(got.is_some());
        }
    }
    assert!(compared > 10_000 && matched > 500, "{compared} compared, {matched} matched");
}
