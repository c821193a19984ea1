//! `loadBalancer.consistentHash` of a DestinationRule.

use serde::Deserialize;

use crate::api::Refusal;
use crate::api::values::{go_duration, header_name, number};
use crate::model::{ConsistentHash, HashOf, HashTable};

/// Istio's smallest ring.
const RING_SIZE: u32 = 1024;

/// Envoy's largest ring.
const RING_SIZE_MAX: u32 = 8 * 1024 * 1024;

/// Envoy's size of a Maglev table.
const MAGLEV_SIZE: u32 = 65_537;

/// Envoy's largest one.
const MAGLEV_SIZE_MAX: u32 = 5_000_011;

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Spec {
    http_header_name: Option<String>,
    http_cookie: Option<CookieSpec>,
    use_source_ip: Option<bool>,
    http_query_parameter_name: Option<String>,
    ring_hash: Option<RingSpec>,
    maglev: Option<MaglevSpec>,
    minimum_ring_size: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CookieSpec {
    name: String,
    #[serde(default)]
    path: String,
    ttl: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RingSpec {
    minimum_ring_size: Option<i64>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct MaglevSpec {
    table_size: Option<i64>,
}

/// Reads it.
pub(super) fn consistent_hash(spec: Spec, field: &str) -> Result<ConsistentHash, Refusal> {
    let by_address = spec.use_source_ip.unwrap_or(false);
    let of = match (spec.http_header_name, spec.http_cookie, by_address, spec.http_query_parameter_name) {
        (Some(name), None, false, None) => {
            HashOf::Header(header_name(&name, &format!("{field}.httpHeaderName"))?)
        }
        (None, Some(cookie), false, None) => {
            let field = format!("{field}.httpCookie");
            if cookie.name.is_empty() || [&cookie.name, &cookie.path].into_iter().any(|text| !is_plain(text))
            {
                let reason = "name and path must be made of visible characters, without ; and =";
                return Err(Refusal::new(field, reason));
            }
            let ttl = go_duration(cookie.ttl, format!("{field}.ttl"))?;
            HashOf::Cookie { name: cookie.name, path: cookie.path, ttl }
        }
        (None, None, true, None) => HashOf::SourceIp,
        (None, None, false, Some(name)) if !name.is_empty() => HashOf::QueryParameter(name),
        _ => {
            let reason =
                "must have one of httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName";
            return Err(Refusal::new(field, reason));
        }
    };
    let ring = |size: Option<i64>, field: String| match size {
        Some(size) => number(size, 1, RING_SIZE_MAX, field),
        None => Ok(RING_SIZE),
    };
    let table = match (spec.ring_hash, spec.maglev, spec.minimum_ring_size) {
        (None, None, size) => HashTable::Ring(ring(size, format!("{field}.minimumRingSize"))?),
        (Some(spec), None, None) => {
            HashTable::Ring(ring(spec.minimum_ring_size, format!("{field}.ringHash.minimumRingSize"))?)
        }
        (None, Some(spec), None) => {
            let field = format!("{field}.maglev.tableSize");
            let size = spec.table_size.unwrap_or(MAGLEV_SIZE.into());
            let size = number(size, 2, MAGLEV_SIZE_MAX, field.clone())?;
            if !is_prime(size) {
                return Err(Refusal::new(field, format!("{size} is not a prime number")));
            }
            HashTable::Maglev(size)
        }
        _ => {
            let reason = "only one of ringHash, maglev and minimumRingSize can apply";
            return Err(Refusal::new(field, reason));
        }
    };
    Ok(ConsistentHash { of, table })
}

/// Whether a text can stand in a cookie.
fn is_plain(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_graphic() && c != ';' && c != '=')
}

fn is_prime(number: u32) -> bool {
    number > 1
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

#[cfg(test)]
mod tests {
    use super::is_prime;

    #[test]
    fn primes() {
        assert!([2, 3, 5, 65_537, 5_000_011].into_iter().all(is_prime));
        assert!(![0, 1, 4, 9, 65_536, 5_000_010].into_iter().any(is_prime));
    }
}
