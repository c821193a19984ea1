//! `DownstreamTlsContext`: TLS towards clients, we are the server.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::sign::SingleCertAndKey;
use tokio_rustls::LazyConfigAcceptor;

use super::certificate::TlsCertificate;
use super::context::{Cache, Inputs, Sources, TlsParams, ValidationSource};
use super::error::TransportError;
use super::verify::PeerVerifier;
use super::{Certificates, TlsInfo, crypto_provider, info};
use crate::config::live::Live;
use crate::net::{RawStream, ReadAhead, Stream};
use crate::stats::SslStats;

/// What a [`DownstreamTls`] is made of.
#[derive(Debug)]
pub struct DownstreamTlsOptions {
    /// `common_tls_context.tls_params`.
    pub params: TlsParams,
    /// `common_tls_context.alpn_protocols`, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// The server's certificate.
    pub certificate: Arc<Live<TlsCertificate>>,
    /// Rules for clients' certificates; `None`: none is asked for unless one is required.
    pub validation: Option<ValidationSource>,
    /// `require_client_certificate`.
    pub require_client_certificate: bool,
    /// Not `disable_stateless_session_resumption`.
    pub session_tickets: bool,
}

/// A compiled `DownstreamTlsContext`, fed by files, inline data or SDS.
#[derive(Debug)]
pub struct DownstreamTls {
    params: TlsParams,
    alpn: Vec<Vec<u8>>,
    sources: Sources,
    require_client_certificate: bool,
    session_tickets: bool,
    cache: Cache<Configs>,
}

#[derive(Debug)]
struct Configs {
    /// For clients that offer one of our protocols, or none at all.
    with_alpn: Arc<ServerConfig>,
    /// For clients that offer only others: the handshake goes on without (as in Envoy), while rustls would refuse.
    without_alpn: Arc<ServerConfig>,
    peer: info::PeerRules,
    local_principal: Option<Arc<str>>,
    local: Option<Arc<Certificates>>,
}

impl DownstreamTls {
    /// Compiles; all that is known already is checked.
    ///
    /// # Errors
    /// The versions exclude each other, the certificate cannot be used, names are matched without a trusted CA.
    pub fn new(options: DownstreamTlsOptions) -> Result<Self, String> {
        let DownstreamTlsOptions {
            params,
            alpn,
            certificate,
            validation,
            require_client_certificate,
            session_tickets,
        } = options;
        params.versions()?;
        let tls = Self {
            params,
            alpn,
            sources: Sources { certificate: Some(certificate), validation },
            require_client_certificate,
            session_tickets,
            cache: Cache::new(),
        };
        if tls.missing_secrets().is_empty() {
            let inputs = tls.sources.load().map_err(|e| e.reason.to_string())?;
            tls.build(&inputs)?;
        }
        Ok(tls)
    }

    /// The secrets that it waits for; connections are refused until they are there.
    pub fn missing_secrets(&self) -> Vec<Arc<str>> {
        self.sources.missing_secrets()
    }

    fn build(&self, inputs: &Inputs) -> Result<Configs, String> {
        let certificate = inputs.certificate.as_ref().ok_or("no certificate")?;
        let rules = inputs.rules()?;
        let peer = info::PeerRules::of(rules.as_deref());
        let builder = ServerConfig::builder_with_provider(crypto_provider().clone())
            .with_protocol_versions(self.params.versions()?)
            .map_err(|e| e.to_string())?;
        let builder = match rules {
            None if !self.require_client_certificate => builder.with_no_client_auth(),
            rules => builder.with_client_cert_verifier(PeerVerifier::new(
                rules.unwrap_or_default(),
                self.require_client_certificate,
            )),
        };
        let key = SingleCertAndKey::from(certificate.certified_key().clone());
        let mut config = builder.with_cert_resolver(Arc::new(key));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        if self.session_tickets {
            config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(|e| e.to_string())?;
            // Sidecars keep connections; a client that reconnects needs one.
            config.send_tls13_tickets = 1;
        }
        let without_alpn = Arc::new(config.clone());
        config.alpn_protocols.clone_from(&self.alpn);
        Ok(Configs {
            with_alpn: Arc::new(config),
            without_alpn,
            peer,
            local_principal: certificate.leaf().principal().cloned(),
            local: certificate.certificates(),
        })
    }

    /// Does the handshake. Has no timeout of its own.
    ///
    /// # Errors
    /// See [`TransportError`]; it is counted in `stats`, as are successes.
    pub async fn accept(
        &self,
        raw: RawStream,
        stats: &SslStats,
    ) -> Result<(Stream, TlsInfo), TransportError> {
        // Boxed: a handshake's state is large and short-lived, the connection's task should be small.
        let outcome = Box::pin(self.handshake(raw, stats)).await;
        match &outcome {
            Ok(_) => stats.handshake.inc(),
            Err(error) => error.count(stats),
        }
        outcome
    }

    async fn handshake(&self, raw: RawStream, stats: &SslStats) -> Result<(Stream, TlsInfo), TransportError> {
        let built = self.cache.get(&self.sources, |inputs| self.build(inputs))?;
        let configs = &built.config;
        let start = LazyConfigAcceptor::new(Acceptor::default(), ReadAhead::new(raw))
            .await
            .map_err(|e| TransportError::from_io(&e))?;
        let offers_only_others = match start.client_hello().alpn() {
            Some(mut offered) => !offered.any(|o| self.alpn.iter().any(|ours| ours == o)),
            None => false,
        };
        let config = if offers_only_others { &configs.without_alpn } else { &configs.with_alpn };
        let stream = start.into_stream(config.clone()).await.map_err(|e| TransportError::from_io(&e))?;
        let connection = stream.get_ref().1;
        let info = TlsInfo {
            sni: connection.server_name().map(Arc::from),
            local_principal: configs.local_principal.clone(),
            local: configs.local.clone(),
            ..info::read(connection, configs.peer, stats)?
        };
        Ok((Stream::TlsServer(Box::new(stream)), info))
    }
}
