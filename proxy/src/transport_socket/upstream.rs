//! `UpstreamTlsContext`: TLS towards hosts, we are the client.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::SingleCertAndKey;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::certificate::TlsCertificate;
use super::context::{Cache, Inputs, Sources, TlsParams, ValidationSource};
use super::error::TransportError;
use super::verify::PeerVerifier;
use super::{Certificates, TlsInfo, crypto_provider, info};
use crate::config::live::Live;
use crate::net::{RawStream, ReadAhead, Stream};
use crate::stats::SslStats;

/// What an [`UpstreamTls`] is made of.
#[derive(Debug)]
pub struct UpstreamTlsOptions {
    /// `common_tls_context.tls_params`.
    pub params: TlsParams,
    /// `common_tls_context.alpn_protocols`, most wanted first.
    pub alpn: Vec<Vec<u8>>,
    /// `sni`; `None` sends none.
    pub sni: Option<String>,
    /// The client's certificate, if it has one.
    pub certificate: Option<Arc<Live<TlsCertificate>>>,
    /// Rules for the server's certificate; `None` accepts any, as Envoy does.
    pub validation: Option<ValidationSource>,
    /// `max_session_keys`, default 1; 0 switches resumption off.
    pub max_session_keys: u32,
}

/// A compiled `UpstreamTlsContext`, fed by files, inline data or SDS.
#[derive(Debug)]
pub struct UpstreamTls {
    params: TlsParams,
    alpn: Vec<Vec<u8>>,
    sni: Option<(Arc<str>, ServerName<'static>)>,
    sources: Sources,
    max_session_keys: u32,
    cache: Cache<Config>,
}

#[derive(Debug)]
struct Config {
    client: Arc<ClientConfig>,
    peer: info::PeerRules,
    local_principal: Option<Arc<str>>,
    local: Option<Arc<Certificates>>,
}

impl UpstreamTls {
    /// Compiles; all that is known already is checked.
    ///
    /// # Errors
    /// The versions exclude each other, `sni` is no host name, names are matched without a trusted CA.
    pub fn new(options: UpstreamTlsOptions) -> Result<Self, String> {
        let UpstreamTlsOptions { params, alpn, sni, certificate, validation, max_session_keys } = options;
        params.versions()?;
        let sni = sni.map(|text| match ServerName::try_from(text.as_str()) {
            Ok(name) => Ok((Arc::from(text.as_str()), name.to_owned())),
            Err(_) => Err(format!("invalid SNI '{text}'")),
        });
        let tls = Self {
            params,
            alpn,
            sni: sni.transpose()?,
            sources: Sources { certificate, validation },
            max_session_keys,
            cache: Cache::new(),
        };
        if tls.missing_secrets().is_empty() {
            let inputs = tls.sources.load().map_err(|e| e.reason.to_string())?;
            tls.build(&inputs)?;
        }
        Ok(tls)
    }

    /// The secrets that it waits for; connections fail until they are there.
    pub fn missing_secrets(&self) -> Vec<Arc<str>> {
        self.sources.missing_secrets()
    }

    fn build(&self, inputs: &Inputs) -> Result<Config, String> {
        let rules = inputs.rules()?;
        let peer = info::PeerRules::of(rules.as_deref());
        let builder = ClientConfig::builder_with_provider(crypto_provider().clone())
            .with_protocol_versions(self.params.versions()?)
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(PeerVerifier::new(rules.unwrap_or_default(), false));
        let mut client = match &inputs.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let key = SingleCertAndKey::from(certificate.certified_key().clone());
                let resolver: Arc<dyn ResolvesClientCert> = Arc::new(key);
                builder.with_client_cert_resolver(resolver)
            }
        };
        client.alpn_protocols.clone_from(&self.alpn);
        client.enable_sni = self.sni.is_some();
        client.resumption = match self.max_session_keys {
            0 => Resumption::disabled(),
            n => Resumption::in_memory_sessions(usize::try_from(n).unwrap_or(usize::MAX).min(1 << 16)),
        };
        Ok(Config {
            client: Arc::new(client),
            peer,
            local_principal: inputs.certificate.as_ref().and_then(|c| c.leaf().principal().cloned()),
            local: inputs.certificate.as_ref().and_then(|c| c.certificates()),
        })
    }

    /// Does the handshake. Has no timeout of its own.
    ///
    /// # Errors
    /// See [`TransportError`]; it is counted in `stats`, as are successes.
    pub async fn connect(
        &self,
        raw: RawStream,
        stats: &SslStats,
    ) -> Result<(Stream, Arc<TlsInfo>), TransportError> {
        self.connect_offering(raw, stats, None).await
    }

    /// The same, with these protocols offered instead of `alpn_protocols`.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn connect_offering(
        &self,
        raw: RawStream,
        stats: &SslStats,
        alpn: Option<&[Vec<u8>]>,
    ) -> Result<(Stream, Arc<TlsInfo>), TransportError> {
        // Boxed: a handshake's state is large and short-lived, the connection's task should be small.
        let outcome = Box::pin(self.handshake(raw, stats, alpn)).await;
        match &outcome {
            Ok(_) => stats.handshake.inc(),
            Err(error) => error.count(stats),
        }
        outcome
    }

    async fn handshake(
        &self,
        raw: RawStream,
        stats: &SslStats,
        alpn: Option<&[Vec<u8>]>,
    ) -> Result<(Stream, Arc<TlsInfo>), TransportError> {
        let built = self.cache.get(&self.sources, |inputs| self.build(inputs))?;
        let config = &built.config;
        let name = match &self.sni {
            Some((_, name)) => name.clone(),
            None => {
                // Only the key of kept sessions: an address is never sent and never compared.
                let ip =
                    raw.peer_address().ok().and_then(|a| a.ip()).unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
                ServerName::IpAddress(ip.into())
            }
        };
        let (connector, raw) = (TlsConnector::from(config.client.clone()), ReadAhead::new(raw));
        let stream = match alpn {
            None => connector.connect(name, raw).await,
            Some(alpn) => connector.with_alpn(alpn.to_vec()).connect(name, raw).await,
        }
        .map_err(|e| TransportError::from_io(&e))?;
        let info = TlsInfo {
            sni: self.sni.as_ref().map(|(text, _)| text.clone()),
            local_principal: config.local_principal.clone(),
            local: config.local.clone(),
            ..info::read(stream.get_ref().1, config.peer, stats)?
        };
        Ok((Stream::TlsClient(Box::new(stream)), Arc::new(info)))
    }
}
