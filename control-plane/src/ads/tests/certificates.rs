//! The certificate service beside xDS.

use outrigger_xds_api::istio_ca::{IstioCertificateRequest, IstioCertificateServiceClient};

use super::client::with_token;
use super::*;

#[tokio::test]
async fn the_certificate_service_signs_for_the_tokens_pod_only() {
    let mesh = Mesh::start(snapshot(1, FIRST)).await;
    mesh.control_plane.ready().await;
    let mut client = IstioCertificateServiceClient::new(mesh.channel().await);
    let csr = |account: &str| key_and_csr(account).1;
    let token = mesh.token("web-0");
    let chain =
        client.create_certificate(with_token(csr("web"), &token)).await.unwrap().into_inner().cert_chain;
    let root = std::fs::read_to_string(mesh.dir.path().join("root-cert.pem")).unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].replace('\r', ""), root.replace('\r', ""));

    let mut negative = csr("web");
    negative.validity_duration = -1;
    let mut garbage = csr("web");
    garbage.csr = "garbage".into();
    for (request, token, code) in [
        (csr("reviews"), token.as_str(), Code::PermissionDenied),
        (csr("web"), "wrong", Code::Unauthenticated),
        (negative, &token, Code::InvalidArgument),
        (garbage, &token, Code::InvalidArgument),
    ] {
        let status = client.create_certificate(with_token(request, token)).await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
    }
    assert_eq!(client.create_certificate(csr("web")).await.unwrap_err().code(), Code::Unauthenticated);
    let metrics = mesh.page("/metrics").await.1;
    assert!(metrics.contains("outrigger_ca_certificates_signed_total 1"));
    for reason in ["other_identity", "invalid_token", "invalid_argument", "csr", "no_credentials"] {
        assert!(metrics.contains(&format!("refused_total{{reason=\"{reason}\"}} 1")), "{reason}: {metrics}");
    }
}

/// A key, and a request for it in the name of `account`.
pub(super) fn key_and_csr(account: &str) -> (rcgen::KeyPair, IstioCertificateRequest) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    let name = format!("spiffe://cluster.local/ns/shop/sa/{account}");
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    (key, IstioCertificateRequest { csr, validity_duration: 0, metadata: None })
}
