//! `FilterChain`: how its connections are opened, which makes the chain, and what serves them, which may change below it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use outrigger_xds_api::wire::listener::v3 as wire;
use prost::Message;

use super::cx::{CompileCx, Compiled, References, informational};
use super::http_connection_manager::compile_http_connection_manager;
use super::listener::{CompiledListener, ListenerCx};
use super::tcp_proxy::compile_tcp_proxy;
use super::tls::compile_downstream_transport;
use super::values;
use crate::http::{ConnectionOptions, HttpConnectionManager, LiveConnectionManager};
use crate::listener::{FilterChain, NetworkFilter};
use crate::tcp::TcpProxy;

/// A filter chain as one version of its listener has it.
#[derive(Debug, Clone)]
pub struct CompiledChain {
    /// The chain itself, which other versions may share.
    pub chain: Arc<FilterChain>,
    serves: Serves,
    references: References,
    /// Of everything: an equal chain is not compiled again.
    hash: u64,
    /// Of what its connections are opened with.
    opened: u64,
}

/// What serves the chain's connections when this version is the active one.
#[derive(Debug, Clone)]
enum Serves {
    Http(Arc<LiveConnectionManager>, Arc<HttpConnectionManager>),
    Tcp(Arc<ArcSwap<TcpProxy>>, Arc<TcpProxy>),
}

impl CompiledChain {
    /// This version is the active one: the next request, and the next TCP connection, follows it.
    pub fn publish(&self) {
        match &self.serves {
            Serves::Http(live, manager) => live.publish(manager.clone()),
            Serves::Tcp(live, proxy) => live.store(proxy.clone()),
        }
    }
}

/// The chain's last network filter, compiled.
enum CompiledFilter {
    Http(Arc<HttpConnectionManager>, ConnectionOptions),
    Tcp(Arc<TcpProxy>),
}

/// Compiles one chain, or takes it of the listener's previous version: whole when nothing has changed, else with its connections when
/// these are opened in the same way.
pub(super) fn compile_filter_chain(
    cx: &mut CompileCx<'_>,
    value: &wire::FilterChain,
    is_default: bool,
    listener: &ListenerCx,
    previous: Option<&CompiledListener>,
) -> Compiled<CompiledChain> {
    let wire::FilterChain {
        filter_chain_match: _,
        filters,
        use_proxy_proto,
        metadata,
        transport_socket,
        transport_socket_connect_timeout,
        name,
    } = value;
    let opened = opened_hash(value, is_default, listener);
    let hash = values::content_hash(&[
        &opened.to_be_bytes(),
        &wire::FilterChain { metadata: None, ..value.clone() }.encode_to_vec(),
        format!("{listener:?}").as_bytes(),
    ]);
    let previous = previous.map_or(&[][..], |previous| &previous.chains);
    if let Some(same) = previous.iter().find(|chain| chain.hash == hash) {
        cx.references.extend(&same.references);
        return Ok(same.clone());
    }
    values::unsupported_if_true(cx, "use_proxy_proto", use_proxy_proto);
    informational!(metadata);
    // What this chain alone refers to is kept apart, for when it is reused.
    let before = std::mem::take(&mut cx.references);
    let transport = cx.field("transport_socket", |cx| compile_downstream_transport(cx, transport_socket));
    let handshake_timeout =
        values::timeout(cx, "transport_socket_connect_timeout", transport_socket_connect_timeout, None);
    let filter = match filters.as_slice() {
        [filter] => cx.item("filters", 0, |cx| compile_network_filter(cx, filter, listener)),
        [] => Err(cx
            .refuse("filters", "no network filter: one of http_connection_manager or tcp_proxy is required")),
        _ => Err(cx
            .refuse("filters", "only one network filter is supported: http_connection_manager or tcp_proxy")),
    };
    let references = std::mem::replace(&mut cx.references, before);
    cx.references.extend(&references);
    let (transport, filter) = (transport?, filter?);
    let kept = previous.iter().find(|chain| chain.opened == opened && chain.serves.opens_like(&filter));
    let serves = filter.serve(kept.map(|chain| &chain.serves));
    let chain = match kept {
        Some(kept) => kept.chain.clone(),
        None => Arc::new(FilterChain {
            id: FilterChain::next_id(),
            name: name.as_str().into(),
            transport,
            handshake_timeout,
            peer_certificate_grace: listener.peer_certificate_grace,
            filter: match &serves {
                Serves::Http(live, _) => NetworkFilter::Http(live.clone()),
                Serves::Tcp(live, _) => NetworkFilter::Tcp(live.clone()),
            },
        }),
    };
    Ok(CompiledChain { chain, serves, references, hash, opened })
}

/// Chains whose connections are opened alike have equal hashes. The match is part of it, as in Envoy: it tells chains apart that serve
/// the same, and who came by a match that is gone has to come again.
fn opened_hash(value: &wire::FilterChain, is_default: bool, listener: &ListenerCx) -> u64 {
    let kind = |filter: &wire::Filter| match &filter.config_type {
        Some(wire::filter::ConfigType::TypedConfig(any)) => values::type_name(any).to_owned(),
        _ => String::new(),
    };
    let content = wire::FilterChain { metadata: None, filters: Vec::new(), ..value.clone() };
    values::content_hash(&[
        &content.encode_to_vec(),
        value.filters.iter().map(kind).collect::<String>().as_bytes(),
        format!("{is_default} {:?}", listener.peer_certificate_grace).as_bytes(),
    ])
}

impl Serves {
    /// Whether `filter` could serve these connections: HTTP with the same options, or TCP, which has none.
    fn opens_like(&self, filter: &CompiledFilter) -> bool {
        match (self, filter) {
            (Self::Http(live, _), CompiledFilter::Http(_, connection)) => live.connection == *connection,
            (Self::Tcp(..), CompiledFilter::Tcp(_)) => true,
            _ => false,
        }
    }
}

impl CompiledFilter {
    /// In the place of what serves the connections of a chain that is kept; else for a new one.
    fn serve(self, kept: Option<&Serves>) -> Serves {
        match self {
            Self::Http(manager, connection) => {
                let live = match kept {
                    Some(Serves::Http(live, _)) => live.clone(),
                    _ => Arc::new(LiveConnectionManager::new(connection, manager.clone())),
                };
                Serves::Http(live, manager)
            }
            Self::Tcp(proxy) => {
                let live = match kept {
                    Some(Serves::Tcp(live, _)) => live.clone(),
                    _ => Arc::new(ArcSwap::new(proxy.clone())),
                };
                Serves::Tcp(live, proxy)
            }
        }
    }
}

fn compile_network_filter(
    cx: &mut CompileCx<'_>,
    value: &wire::Filter,
    listener: &ListenerCx,
) -> Compiled<CompiledFilter> {
    let wire::Filter { name, config_type } = value;
    let any = match config_type {
        Some(wire::filter::ConfigType::TypedConfig(any)) => any,
        Some(wire::filter::ConfigType::ConfigDiscovery(_)) => {
            return Err(cx.refuse("config_discovery", "not supported"));
        }
        None => return Err(cx.refuse("typed_config", format!("network filter '{name}' has no typed_config"))),
    };
    cx.field("typed_config", |cx| match values::type_name(any) {
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager" => {
            let manager = values::unpack(cx, any)?;
            let (manager, connection) = compile_http_connection_manager(cx, &manager, listener)?;
            Ok(CompiledFilter::Http(Arc::new(manager), connection))
        }
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy" => {
            let proxy = values::unpack(cx, any)?;
            compile_tcp_proxy(cx, &proxy, listener).map(|proxy| CompiledFilter::Tcp(Arc::new(proxy)))
        }
        other => Err(cx.refuse("@type", format!("network filter '{other}' is not supported"))),
    })
}
