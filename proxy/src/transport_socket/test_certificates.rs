//! Certificates for tests, made when a test runs.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

use super::{
    DownstreamTls, DownstreamTlsOptions, SanMatcher, TlsCertificate, TlsParams, UpstreamTls,
    UpstreamTlsOptions, ValidationContext, ValidationOptions, ValidationSource,
};
use crate::config::live::Live;
use crate::route::StringMatcher;

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, PEM.
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
}

impl Issued {
    pub(crate) fn load(&self) -> Arc<TlsCertificate> {
        Arc::new(TlsCertificate::from_pem(self.chain.as_bytes(), self.key.as_bytes()).unwrap())
    }
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A workload certificate for this URI, valid from yesterday until `ends_in` from now.
    pub(crate) fn issue_until(&self, uri: &str, ends_in: Duration) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::URI(uri.to_owned().try_into().unwrap()));
        params.not_before = OffsetDateTime::now_utc() - Duration::days(2);
        params.not_after = OffsetDateTime::now_utc() + ends_in;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let chain = params.signed_by(&key, &self.0).unwrap().pem();
        Issued { chain, key: key.serialize_pem() }
    }

    pub(crate) fn issue(&self, uri: &str) -> Issued {
        self.issue_until(uri, Duration::days(1))
    }

    /// Trusts this authority, and only certificates with one of these URIs (none: any).
    pub(crate) fn trust(&self, uris: &[&str]) -> Arc<ValidationContext> {
        let match_sans = uris
            .iter()
            .map(|uri| SanMatcher {
                san_type: super::SanType::Uri,
                matcher: StringMatcher::Exact((*uri).into()),
            })
            .collect();
        let options = ValidationOptions {
            trusted_ca: Some(self.pem().into_bytes()),
            match_sans,
            ..ValidationOptions::default()
        };
        Arc::new(ValidationContext::new(options).unwrap())
    }
}

/// A cell that never changes.
pub(crate) fn fixed<T>(value: Arc<T>) -> Arc<Live<T>> {
    Live::with("fixed", value)
}

/// A server context with the usual settings.
pub(crate) fn server(certificate: Arc<TlsCertificate>) -> DownstreamTlsOptions {
    DownstreamTlsOptions {
        params: TlsParams::default(),
        alpn: Vec::new(),
        certificate: fixed(certificate),
        validation: None,
        require_client_certificate: false,
        session_tickets: true,
    }
}

/// A client context with the usual settings.
pub(crate) fn client(validation: Arc<ValidationContext>) -> UpstreamTlsOptions {
    UpstreamTlsOptions {
        params: TlsParams::default(),
        alpn: Vec::new(),
        sni: Some("outbound_.8080_._.reviews.default.svc.cluster.local".to_owned()),
        certificate: None,
        validation: Some(ValidationSource::Whole(fixed(validation))),
        max_session_keys: 1,
    }
}

/// Both ends of mutual TLS between two workloads of one authority.
pub(crate) fn mutual() -> (DownstreamTls, UpstreamTls) {
    let authority = Authority::new("mutual");
    let (web, reviews) = ("spiffe://test/ns/default/sa/web", "spiffe://test/ns/default/sa/reviews");
    let server = DownstreamTlsOptions {
        validation: Some(ValidationSource::Whole(fixed(authority.trust(&[web])))),
        require_client_certificate: true,
        ..server(authority.issue(reviews).load())
    };
    let client = UpstreamTlsOptions {
        certificate: Some(fixed(authority.issue(web).load())),
        ..client(authority.trust(&[reviews]))
    };
    (DownstreamTls::new(server).unwrap(), UpstreamTls::new(client).unwrap())
}
