//! `rate_limits`: what a request is counted by. Each rate limit makes a descriptor of the request, a list of keys and values, or none;
//! rate limit filters have limits for descriptors.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use smallvec::SmallVec;

use super::query_match::first_value;
use super::{HeaderMatcher, MatchedHeader, QueryMatcher, RequestView};
use crate::formatter::{Clock, Format, Values};

/// `envoy.config.route.v3.RateLimit`, compiled.
#[derive(Debug)]
pub struct RateLimit {
    /// `stage`: for filters of the same stage.
    pub stage: u32,
    /// `actions`: each gives an entry; one that cannot takes the whole descriptor away.
    pub actions: Box<[RateLimitAction]>,
    /// `x_ratelimit_option`; `None`: the filter's own word.
    pub tells_limits: Option<bool>,
}

/// The `rate_limits` of a route that forwards.
#[derive(Debug, Default)]
pub struct RateLimits {
    /// Its own.
    pub of_route: Box<[RateLimit]>,
    /// Its virtual host's.
    pub of_virtual_host: std::sync::Arc<[RateLimit]>,
    /// `include_vh_rate_limits`.
    pub include_virtual_host: bool,
}

/// `RateLimit.Action`.
#[derive(Debug)]
pub enum RateLimitAction {
    /// `source_cluster`: the node's own.
    SourceCluster,
    /// `destination_cluster`: the route's.
    DestinationCluster,
    /// `request_headers`.
    RequestHeader {
        /// `descriptor_key`.
        key: Box<str>,
        /// `header_name`.
        header: MatchedHeader,
        /// `skip_if_absent`: without it, only this entry is missing.
        skip_if_absent: bool,
    },
    /// `query_parameters`.
    QueryParameter {
        /// `descriptor_key`.
        key: Box<str>,
        /// `query_parameter_name`.
        name: Box<str>,
        /// `skip_if_absent`: without it, only this entry is missing.
        skip_if_absent: bool,
    },
    /// `remote_address`.
    RemoteAddress,
    /// `masked_remote_address`: the network that the address is in.
    MaskedRemoteAddress {
        /// `v4_prefix_mask_len`, default 32.
        v4_bits: u8,
        /// `v6_prefix_mask_len`, default 128.
        v6_bits: u8,
    },
    /// Always, or when a condition holds.
    Fixed {
        /// `descriptor_key`.
        key: Box<str>,
        /// `descriptor_value`.
        value: DescriptorValue,
        /// When.
        when: RateLimitCondition,
    },
}

/// `descriptor_value`.
#[derive(Debug)]
pub enum DescriptorValue {
    /// The same for each request.
    Text(Box<str>),
    /// What its commands print; `default_value` where that is nothing, and without one the descriptor is not made.
    Format(Format, Option<Box<str>>),
}

impl DescriptorValue {
    fn of<'r>(&'r self, values: Values<'r>) -> Option<Cow<'r, str>> {
        match self {
            Self::Text(text) => Some((&**text).into()),
            Self::Format(format, default) => {
                let mut printed = Vec::new();
                format.append(values, &mut Clock::default(), &mut printed);
                match printed.is_empty() {
                    true => default.as_deref().map(Cow::from),
                    false => Some(String::from_utf8_lossy(&printed).into_owned().into()),
                }
            }
        }
    }
}

/// When a fixed entry is made.
#[derive(Debug)]
pub enum RateLimitCondition {
    /// `generic_key`: always.
    Always,
    /// `header_value_match`: whether all match is as `expect_match` says.
    Headers(Vec<HeaderMatcher>, bool),
    /// `query_parameter_value_match`, likewise.
    Query(Vec<QueryMatcher>, bool),
    /// `remote_address_match`: the address is in one of the networks; inverted, in none.
    Address(Vec<IpNet>, bool),
}

/// An entry of a descriptor: key and value.
pub type DescriptorEntry<'r> = (&'r str, Cow<'r, str>);

/// What a request is counted by.
pub type Descriptor<'r> = SmallVec<[DescriptorEntry<'r>; 4]>;

/// What descriptors are made of.
#[derive(Clone, Copy)]
pub struct Described<'r> {
    /// The request.
    pub request: &'r RequestView<'r>,
    /// The node's `cluster`.
    pub source_cluster: &'r str,
    /// The cluster that the request is for.
    pub destination_cluster: &'r str,
    /// The client; `None`: it has no IP address.
    pub remote: Option<IpAddr>,
    /// What commands print.
    pub values: Values<'r>,
}

impl RateLimit {
    /// The request's descriptor; `None`: it is not counted by this.
    pub fn descriptor<'r>(&'r self, of: Described<'r>) -> Option<Descriptor<'r>> {
        let mut descriptor = Descriptor::new();
        for action in &self.actions {
            descriptor.extend(action.entry(of)?);
        }
        Some(descriptor)
    }
}

impl RateLimitAction {
    /// `None`: no descriptor; `Some(None)`: a descriptor without this entry.
    fn entry<'r>(&'r self, of: Described<'r>) -> Option<Option<DescriptorEntry<'r>>> {
        let found = |key: &'r str, value: Option<Cow<'r, str>>, skip: bool| match value {
            Some(value) => Some(Some((key, value))),
            None => skip.then_some(None),
        };
        match self {
            Self::SourceCluster => Some(Some(("source_cluster", of.source_cluster.into()))),
            Self::DestinationCluster => Some(Some(("destination_cluster", of.destination_cluster.into()))),
            Self::RequestHeader { key, header, skip_if_absent } => {
                found(key, header.values(of.request).next(), *skip_if_absent)
            }
            Self::QueryParameter { key, name, skip_if_absent } => {
                let query = of.request.path.split_once('?').map_or("", |(_, query)| query);
                found(key, first_value(query, name), *skip_if_absent)
            }
            Self::RemoteAddress => Some(Some(("remote_address", of.remote?.to_string().into()))),
            Self::MaskedRemoteAddress { v4_bits, v6_bits } => {
                let remote = of.remote?;
                let bits = if remote.is_ipv4() { *v4_bits } else { *v6_bits };
                let network = IpNet::new(remote, bits).ok()?.trunc();
                Some(Some(("masked_remote_address", network.to_string().into())))
            }
            Self::Fixed { key, value, when } => {
                when.holds(of).then(|| value.of(of.values)).flatten().map(|value| Some((&**key, value)))
            }
        }
    }
}

impl RateLimitCondition {
    fn holds(&self, of: Described<'_>) -> bool {
        match self {
            Self::Always => true,
            Self::Headers(headers, expected) => headers.iter().all(|h| h.matches(of.request)) == *expected,
            Self::Query(parameters, expected) => {
                let query = of.request.path.split_once('?').map_or("", |(_, query)| query);
                parameters.iter().all(|p| p.matches_decoded(query)) == *expected
            }
            Self::Address(networks, inverted) => of
                .remote
                .is_some_and(|remote| networks.iter().any(|network| network.contains(&remote)) != *inverted),
        }
    }
}
