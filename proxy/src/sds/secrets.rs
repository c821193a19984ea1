//! The two secrets of a workload, encoded: what a discovery session serves.

use outrigger_xds_api::resource::pack;
use outrigger_xds_api::session::{Resource, View};
use outrigger_xds_api::wire::core::v3::{DataSource, data_source};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::tls::v3::{CertificateValidationContext, Secret, TlsCertificate, secret};

use crate::identity::{CERTIFICATE_SECRET, Issued, ROOTS_SECRET};

/// The secrets made of one certificate. Not printed: a private key is in it.
pub(super) struct Secrets([Encoded; 2]);

struct Encoded {
    name: &'static str,
    version: String,
    content: Any,
}

impl Secrets {
    pub(super) fn new(issued: &Issued) -> Self {
        let certificate = secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: inline(&issued.certificate_chain),
            private_key: inline(issued.private_key.pem()),
            ..TlsCertificate::default()
        });
        let roots = secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: inline(&issued.roots),
            ..CertificateValidationContext::default()
        });
        // A certificate is of one key only, so the versions need nothing that is secret.
        Self([
            encode(CERTIFICATE_SECRET, certificate, &issued.certificate_chain),
            encode(ROOTS_SECRET, roots, &issued.roots),
        ])
    }
}

impl View for Secrets {
    fn get(&self, name: &str) -> Option<Resource<'_>> {
        let Encoded { version, content, .. } = self.0.iter().find(|encoded| encoded.name == name)?;
        Some(Resource { version, content, ttl: None })
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|encoded| encoded.name)
    }
}

fn encode(name: &'static str, of: secret::Type, public: &str) -> Encoded {
    let content = pack(&Secret { name: name.to_owned(), r#type: Some(of) });
    Encoded { name, version: super::version_of(public), content }
}

fn inline(pem: &str) -> Option<DataSource> {
    let specifier = Some(data_source::Specifier::InlineBytes(pem.as_bytes().to_vec()));
    Some(DataSource { specifier, ..DataSource::default() })
}
