//! What an update of a load assignment leaves as it is: endpoints whose bytes are those of the version before are not decoded, checked and
//! compiled again. An update of a cluster of ten thousand endpoints costs what is new in it, and a look at the rest.
//!
//! Nothing is judged here. What does not look as expected is left to the whole way, which says what is wrong and where.

use std::ops::Range;

use outrigger_xds_api::wire::endpoint::v3 as wire;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::Assignment;
use crate::cluster::HostSpec;

/// `ClusterLoadAssignment.endpoints`.
const ENDPOINTS: u32 = 2;
/// `LocalityLbEndpoints.lb_endpoints`.
const LB_ENDPOINTS: u32 = 2;

/// A load assignment in which only the endpoints stand that are new, and where those that stay were before.
#[derive(Debug)]
pub(crate) struct ChangedEndpoints {
    /// The rest of the assignment.
    pub(crate) changed: wire::ClusterLoadAssignment,
    /// Each endpoint of the new version: where it was, or that it is the next one of `changed`.
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Before(usize),
    Changed,
}

/// The parts of an encoded load assignment, as positions in it.
#[derive(Debug, Default)]
struct Parts {
    /// All fields but the endpoints.
    head: Vec<u8>,
    localities: Vec<LocalityParts>,
}

#[derive(Debug, Default)]
struct LocalityParts {
    /// All fields but the endpoints.
    head: Vec<u8>,
    endpoints: Vec<Range<usize>>,
}

impl ChangedEndpoints {
    /// With fewer endpoints the whole way is as short.
    pub(crate) const WORTH_IT: usize = 16;

    /// Compares an encoded load assignment with the version before, which has `hosts` endpoints; `None`: they have little in common, or
    /// cannot be compared.
    pub(crate) fn find(before: &[u8], now: &[u8], hosts: usize) -> Option<Self> {
        let (old, new) = (Parts::of(before)?, Parts::of(now)?);
        let in_old: usize = old.localities.iter().map(|locality| locality.endpoints.len()).sum();
        // Localities are told apart by what is said of them; in another order it is another assignment.
        if in_old != hosts || old.head != new.head || old.localities.len() != new.localities.len() {
            return None;
        }
        let mut changed = wire::ClusterLoadAssignment::decode(new.head.as_slice()).ok()?;
        let mut places = Vec::with_capacity(hosts + 1);
        let mut first = 0;
        for (old, new) in old.localities.iter().zip(&new.localities) {
            if old.head != new.head {
                return None;
            }
            let mut locality = wire::LocalityLbEndpoints::decode(new.head.as_slice()).ok()?;
            let was = |at: usize| old.endpoints.get(at).map(|range| &before[range.clone()]);
            let is = |at: usize| new.endpoints.get(at).map(|range| &now[range.clone()]);
            let mut at_old = 0;
            for at in 0..new.endpoints.len() {
                // One that is gone before it.
                if was(at_old) != is(at) && was(at_old + 1) == is(at) {
                    at_old += 1;
                }
                if was(at_old) == is(at) {
                    places.push(Place::Before(first + at_old));
                    at_old += 1;
                    continue;
                }
                places.push(Place::Changed);
                locality.lb_endpoints.push(wire::LbEndpoint::decode(is(at)?).ok()?);
                // One that is new before those that stay, or instead of one.
                if was(at_old) != is(at + 1) {
                    at_old += 1;
                }
            }
            first += old.endpoints.len();
            changed.endpoints.push(locality);
        }
        Some(Self { changed, places })
    }

    /// The assignment as a whole, of that before and of what was made of `changed`.
    pub(crate) fn complete(&self, before: &Assignment, changed: Assignment) -> Assignment {
        let mut new = changed.hosts.into_iter();
        let host = |place: &Place| -> Option<HostSpec> {
            match place {
                Place::Before(at) => before.hosts.get(*at).cloned(),
                Place::Changed => new.next(),
            }
        };
        Assignment { hosts: self.places.iter().filter_map(host).collect(), ..changed }
    }
}

impl Parts {
    fn of(encoded: &[u8]) -> Option<Self> {
        let mut parts = Self::default();
        let endpoints = fields(encoded, 0..encoded.len(), ENDPOINTS, &mut parts.head)?;
        for locality in endpoints {
            let mut of_locality = LocalityParts::default();
            of_locality.endpoints = fields(encoded, locality, LB_ENDPOINTS, &mut of_locality.head)?;
            parts.localities.push(of_locality);
        }
        Some(parts)
    }
}

/// The contents of each field `wanted` of the message in `range`; all others are appended to `rest`.
fn fields(encoded: &[u8], range: Range<usize>, wanted: u32, rest: &mut Vec<u8>) -> Option<Vec<Range<usize>>> {
    let message = encoded.get(range.clone())?;
    let mut left = message;
    let mut found = Vec::new();
    while !left.is_empty() {
        let begin = message.len() - left.len();
        let (tag, wire_type) = decode_key(&mut left).ok()?;
        if tag == wanted && wire_type == WireType::LengthDelimited {
            let length = usize::try_from(decode_varint(&mut left).ok()?).ok()?;
            let at = range.start + message.len() - left.len();
            left = left.get(length..)?;
            found.push(at..at + length);
        } else {
            skip_field(wire_type, tag, &mut left, DecodeContext::default()).ok()?;
            rest.extend_from_slice(&message[begin..message.len() - left.len()]);
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use outrigger_xds_api::wire::core::v3 as core;
    use outrigger_xds_api::wire::protobuf::UInt32Value;

    use super::*;
    use crate::cluster::HostSpec;
    use crate::net::Address;

    /// Localities of endpoints; an endpoint is its port.
    fn encoded(localities: &[(&str, &[u16])]) -> Vec<u8> {
        let endpoint = |port: &u16| wire::LbEndpoint {
            load_balancing_weight: Some(UInt32Value { value: (*port).into() }),
            ..Default::default()
        };
        let locality = |(zone, ports): &(&str, &[u16])| wire::LocalityLbEndpoints {
            locality: Some(core::Locality { zone: (*zone).to_owned(), ..Default::default() }),
            lb_endpoints: ports.iter().map(endpoint).collect(),
            ..Default::default()
        };
        let endpoints = localities.iter().map(locality).collect();
        wire::ClusterLoadAssignment { cluster_name: "c".to_owned(), endpoints, ..Default::default() }
            .encode_to_vec()
    }

    fn assignment(ports: impl IntoIterator<Item = u16>) -> Assignment {
        let host = |port: u16| HostSpec::at(Address::Ip(([127, 0, 0, 1], port).into()));
        Assignment {
            name: "c".into(),
            hosts: ports.into_iter().map(host).collect(),
            overprovisioning_percent: 140,
        }
    }

    /// What is compiled of the new version, and what the whole comes to.
    fn updated(before: &[(&str, &[u16])], now: &[(&str, &[u16])]) -> Option<(Vec<u16>, Vec<u16>)> {
        let ports = |localities: &[(&str, &[u16])]| -> Vec<u16> {
            localities.iter().flat_map(|(_, ports)| ports.iter().copied()).collect()
        };
        let old = ports(before);
        let found = ChangedEndpoints::find(&encoded(before), &encoded(now), old.len())?;
        let compiled = found.changed.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
        let compiled: Vec<u16> =
            compiled.map(|endpoint| endpoint.load_balancing_weight.unwrap().value as u16).collect();
        let whole = found.complete(&assignment(old), assignment(compiled.clone()));
        assert_eq!(whole, assignment(ports(now)), "it is what the whole way comes to");
        let whole = whole.hosts.iter().map(|host| host.address.port().unwrap()).collect();
        Some((compiled, whole))
    }

    #[test]
    fn only_what_is_new_is_compiled() {
        let many: Vec<u16> = (1..=1_000).collect();
        let without =
            |port: u16| -> Vec<u16> { many.iter().copied().filter(|other| *other != port).collect() };
        let with = |at: usize, port: u16| -> Vec<u16> {
            let mut ports = many.clone();
            ports.insert(at, port);
            ports
        };
        let instead: Vec<u16> = many.iter().map(|port| if *port == 500 { 5_000 } else { *port }).collect();
        for (now, compiled) in [
            (many.clone(), vec![]),
            (without(1), vec![]),
            (without(500), vec![]),
            (without(1_000), vec![]),
            (with(0, 5_000), vec![5_000]),
            (with(500, 5_000), vec![5_000]),
            (with(1_000, 5_000), vec![5_000]),
            (instead, vec![5_000]),
            (Vec::new(), vec![]),
        ] {
            assert_eq!(updated(&[("a", &many)], &[("a", &now)]).unwrap().0, compiled);
        }
        // Each locality by itself.
        let (compiled, _) =
            updated(&[("a", &[1, 2]), ("b", &[3, 4])], &[("a", &[2]), ("b", &[3, 9, 4])]).unwrap();
        assert_eq!(compiled, [9]);
    }

    #[test]
    fn any_change_comes_to_the_same_as_the_whole_way() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut ports: Vec<u16> = (1..=20).collect();
        for _ in 0..2_000 {
            let before = ports.clone();
            for _ in 0..random.usize(0..4) {
                match random.u8(0..4) {
                    0 => ports.insert(random.usize(0..=ports.len()), random.u16(1..60)),
                    1 if !ports.is_empty() => drop(ports.remove(random.usize(0..ports.len()))),
                    2 if !ports.is_empty() => {
                        let at = random.usize(0..ports.len());
                        ports[at] = random.u16(1..60);
                    }
                    _ => random.shuffle(&mut ports),
                }
            }
            updated(&[("a", &before)], &[("a", &ports)]).unwrap();
        }
    }

    #[test]
    fn what_has_little_in_common_is_left_to_the_whole_way() {
        let one: &[(&str, &[u16])] = &[("a", &[1, 2])];
        assert!(updated(one, &[("b", &[1, 2])]).is_none());
        assert!(updated(one, &[("a", &[1, 2]), ("b", &[3])]).is_none());
        assert!(ChangedEndpoints::find(&encoded(one), &encoded(one), 3).is_none(), "another assignment");
        let whole = encoded(one);
        for cut in 0..whole.len() {
            let found = ChangedEndpoints::find(&whole, &whole[..cut], 2);
            assert!(found.is_none() || wire::ClusterLoadAssignment::decode(&whole[..cut]).is_ok(), "{cut}");
        }
    }
}
