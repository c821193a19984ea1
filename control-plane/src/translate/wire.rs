//! Small pieces of wire messages that many resources have.

use std::net::IpAddr;

use outrigger_xds_api::wire::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, ConfigSource, Pipe, SocketAddress, address, config_source,
    socket_address,
};
use outrigger_xds_api::wire::protobuf::{Any, Duration, UInt32Value};
use prost::{Message, Name};

use crate::model::EndpointAddress;

pub(super) fn any<M: Message + Name>(message: &M) -> Any {
    outrigger_xds_api::resource::pack(message)
}

pub(super) fn address(ip: IpAddr, port: u16) -> Address {
    named_address(ip.to_string(), port)
}

fn named_address(address: String, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address,
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..SocketAddress::default()
        })),
    }
}

/// The address of an endpoint. A Unix socket has no port.
pub(super) fn endpoint_address(of: &EndpointAddress, port: u16) -> Address {
    match of {
        EndpointAddress::Ip(ip) => address(*ip, port),
        EndpointAddress::Name(name) => named_address(name.clone(), port),
        EndpointAddress::Pipe(path) => {
            Address { address: Some(address::Address::Pipe(Pipe { path: path.clone(), mode: 0 })) }
        }
    }
}

pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(
            AggregatedConfigSource::default(),
        )),
        ..ConfigSource::default()
    }
}

/// A duration of up to 2^63 seconds, which no configured one comes near.
pub(super) fn duration(value: std::time::Duration) -> Option<Duration> {
    let seconds = i64::try_from(value.as_secs()).unwrap_or(i64::MAX);
    Some(Duration { seconds, nanos: value.subsec_nanos() as i32 })
}

pub(super) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}
