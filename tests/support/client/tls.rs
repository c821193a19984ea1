//! What a TLS client offers and expects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::certs::{Authority, Leaf, read_certificates};

/// Settings of a TLS client.
#[derive(Clone, Debug)]
pub struct Tls {
    roots: PathBuf,
    identity: Option<Leaf>,
    alpn: Vec<Vec<u8>>,
    sni: String,
}

impl Tls {
    /// Trusts `authority` and expects the server to be called `sni`.
    pub fn trusting(authority: &Authority, sni: &str) -> Self {
        Self::trusting_file(&authority.root, sni)
    }

    /// Trusts the roots of a PEM file and expects the server to be called `sni`.
    pub fn trusting_file(roots: &Path, sni: &str) -> Self {
        Tls { roots: roots.to_owned(), identity: None, alpn: Vec::new(), sni: sni.into() }
    }

    /// Shows this certificate when asked.
    #[must_use]
    pub fn identity(mut self, leaf: &Leaf) -> Self {
        self.identity = Some(leaf.clone());
        self
    }

    /// Offers these protocols, best first.
    #[must_use]
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    pub(super) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from(self.sni.clone()).expect("a server name")
    }

    pub(super) fn config(&self) -> Arc<ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        for root in read_certificates(&self.roots) {
            roots.add(root).expect("a root certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_root_certificates(roots);
        let mut config = match &self.identity {
            Some(leaf) => {
                builder.with_client_auth_cert(leaf.chain_der(), leaf.key_der()).expect("a client certificate")
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        Arc::new(config)
    }
}
