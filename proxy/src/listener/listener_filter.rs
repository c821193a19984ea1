//! Listener filters: what is found out about a connection before a filter chain takes it. They run in their order, on the worker,
//! within one deadline, and leave every byte in the socket.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use super::http_inspector::HttpVersion;
use super::inspect::InspectError;
use super::tls_fingerprint::Fingerprinting;
use super::tls_inspector::{self, ClientHello};
use super::{ConnectionFacts, http_inspector};
use crate::net::{Address, RawStream};
use crate::stats::ServerStats;
use crate::stream_info::TlsFingerprints;

/// One entry of `listener_filters`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerFilter {
    /// What it does.
    pub kind: ListenerFilterKind,
    /// `filter_disabled`: connections that it leaves alone.
    pub disabled: Option<ConnectionPredicate>,
}

/// The listener filters that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListenerFilterKind {
    /// `envoy.filters.listener.original_dst`: restores the address that the peer had asked for.
    OriginalDst,
    /// `envoy.filters.listener.tls_inspector`: SNI and ALPN of a ClientHello, and its fingerprints.
    TlsInspector(Fingerprinting),
    /// `envoy.filters.listener.http_inspector`: HTTP in plain text, and its version.
    HttpInspector,
}

/// `ListenerFilterChainMatchPredicate`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionPredicate {
    /// `any_match`.
    Any,
    /// `destination_port_range`: the port of our end, restored or not, is in it. A Unix socket has none.
    DestinationPort(Range<i32>),
    /// `not_match`.
    Not(Box<ConnectionPredicate>),
    /// `and_match`.
    And(Vec<ConnectionPredicate>),
    /// `or_match`.
    Or(Vec<ConnectionPredicate>),
}

impl ConnectionPredicate {
    fn matches(&self, local: &Address) -> bool {
        match self {
            Self::Any => true,
            Self::DestinationPort(range) => local.port().is_some_and(|port| range.contains(&port.into())),
            Self::Not(one) => !one.matches(local),
            Self::And(all) => all.iter().all(|one| one.matches(local)),
            Self::Or(any) => any.iter().any(|one| one.matches(local)),
        }
    }
}

/// What listener filters have found out so far. A connection that is handed to another listener keeps it.
#[derive(Debug)]
pub(super) struct Inspected {
    /// Our end of the connection, or the address that the peer had asked for.
    pub(super) local: Address,
    /// Our end of the connection.
    pub(super) direct_local: Address,
    /// Set when `local` was restored from the kernel's connection tracking, even to the same address.
    pub(super) original_destination: Option<SocketAddr>,
    /// It begins with a ClientHello.
    pub(super) is_tls: bool,
    /// SNI, lower case.
    pub(super) server_name: Option<Arc<str>>,
    /// ALPN as the client offers it, or the version of plain HTTP.
    pub(super) application_protocols: Vec<Box<str>>,
    /// Of the ClientHello, where they are asked for.
    pub(super) fingerprints: Option<Box<TlsFingerprints>>,
}

impl Inspected {
    /// Nothing but our end is known.
    pub(super) fn new(local: Address) -> Self {
        Self {
            direct_local: local.clone(),
            local,
            original_destination: None,
            is_tls: false,
            server_name: None,
            application_protocols: Vec::new(),
            fingerprints: None,
        }
    }

    /// Runs the filters. Given up, what was found until then is in here, and the socket must be rearmed.
    pub(super) async fn run(
        &mut self,
        filters: &[ListenerFilter],
        raw: &RawStream,
        stats: &ServerStats,
    ) -> Result<(), InspectError> {
        for filter in filters {
            if filter.disabled.as_ref().is_some_and(|predicate| predicate.matches(&self.local)) {
                continue;
            }
            match filter.kind {
                ListenerFilterKind::OriginalDst => self.restore_destination(raw),
                ListenerFilterKind::TlsInspector(wanted) => self.inspect_tls(raw, wanted, stats).await?,
                // Encrypted HTTP says what it is by ALPN.
                ListenerFilterKind::HttpInspector if self.is_tls => {}
                ListenerFilterKind::HttpInspector => self.inspect_http(raw, stats).await?,
            }
        }
        Ok(())
    }

    fn restore_destination(&mut self, raw: &RawStream) {
        if let Some(original) = raw.original_destination(&self.local) {
            self.local = original.into();
            self.original_destination = Some(original);
        }
    }

    async fn inspect_tls(
        &mut self,
        raw: &RawStream,
        wanted: Fingerprinting,
        stats: &ServerStats,
    ) -> Result<(), InspectError> {
        let Some(ClientHello { sni, alpn, fingerprints }) = tls_inspector::inspect(raw, wanted).await? else {
            stats.tls_inspector_tls_not_found.inc();
            return Ok(());
        };
        stats.tls_inspector_tls_found.inc();
        match sni {
            Some(_) => stats.tls_inspector_sni_found.inc(),
            None => stats.tls_inspector_sni_not_found.inc(),
        }
        match alpn.is_empty() {
            false => stats.tls_inspector_alpn_found.inc(),
            true => stats.tls_inspector_alpn_not_found.inc(),
        }
        self.is_tls = true;
        self.server_name = sni;
        self.application_protocols = alpn;
        self.fingerprints = fingerprints;
        Ok(())
    }

    async fn inspect_http(&mut self, raw: &RawStream, stats: &ServerStats) -> Result<(), InspectError> {
        let Some(version) = http_inspector::inspect(raw).await? else {
            stats.http_inspector_http_not_found.inc();
            return Ok(());
        };
        match version {
            HttpVersion::Http10 => stats.http_inspector_http10_found.inc(),
            HttpVersion::Http11 => stats.http_inspector_http11_found.inc(),
            HttpVersion::Http2 => stats.http_inspector_http2_found.inc(),
        }
        self.application_protocols = vec![version.application_protocol().into()];
        Ok(())
    }

    /// What the filter chain is chosen by.
    pub(super) fn facts<'a>(&'a self, peer: &'a Address) -> ConnectionFacts<'a> {
        ConnectionFacts {
            local: &self.local,
            direct_peer: peer,
            peer,
            server_name: self.server_name.as_deref().unwrap_or(""),
            transport_protocol: if self.is_tls { "tls" } else { "raw_buffer" },
            application_protocols: &self.application_protocols,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::ConnectionPredicate::{And, Any, DestinationPort, Not, Or};
    use super::*;

    #[test]
    fn predicates() {
        let local = Address::Ip("10.0.0.1:3306".parse().unwrap());
        let unix = Address::Pipe(Arc::new("/run/x".into()));
        let (mysql, smtp) = (DestinationPort(3306..3307), DestinationPort(25..26));
        let not = |predicate: &ConnectionPredicate| Not(Box::new(predicate.clone()));
        for (predicate, on_tcp, on_unix) in [
            (Any, true, true),
            (mysql.clone(), true, false),
            (DestinationPort(0..3306), false, false),
            (not(&mysql), false, true),
            (Or(vec![smtp.clone(), mysql.clone()]), true, false),
            (Or(vec![smtp.clone(), not(&Any)]), false, false),
            (And(vec![mysql.clone(), not(&smtp)]), true, false),
            (And(vec![mysql, smtp]), false, false),
        ] {
            assert_eq!(
                (predicate.matches(&local), predicate.matches(&unix)),
                (on_tcp, on_unix),
                "{predicate:?}"
            );
        }
    }

    async fn inspected(
        bytes: &[u8],
        filters: &[ListenerFilterKind],
        disabled: Option<ConnectionPredicate>,
    ) -> Inspected {
        let (near, mut far) = UnixStream::pair().unwrap();
        far.write_all(bytes).await.unwrap();
        let filters: Vec<_> =
            filters.iter().map(|kind| ListenerFilter { kind: *kind, disabled: disabled.clone() }).collect();
        let mut inspected = Inspected::new(Address::Ip("10.0.0.1:80".parse().unwrap()));
        let stats = crate::stats::Stats::new();
        inspected.run(&filters, &RawStream::Unix(near), stats.server()).await.unwrap();
        inspected
    }

    #[tokio::test]
    async fn filters_run_one_after_the_other_on_the_same_bytes() {
        use ListenerFilterKind::{HttpInspector, OriginalDst, TlsInspector};
        let all = [OriginalDst, TlsInspector(Fingerprinting::default()), HttpInspector];
        let found = inspected(b"GET / HTTP/1.1\r\n\r\n", &all, None).await;
        assert_eq!((found.is_tls, found.application_protocols), (false, vec!["http/1.1".into()]));
        assert_eq!(found.original_destination, None);
        let found = inspected(b"EHLO me\r\n", &all, None).await;
        assert_eq!((found.is_tls, found.application_protocols), (false, vec![]));
    }

    #[tokio::test]
    async fn a_disabled_filter_does_not_wait() {
        let inspector = ListenerFilterKind::TlsInspector(Fingerprinting::default());
        let all = [inspector, ListenerFilterKind::HttpInspector];
        let found = inspected(b"", &all, Some(DestinationPort(80..81))).await;
        assert!(!found.is_tls && found.application_protocols.is_empty());
    }
}
