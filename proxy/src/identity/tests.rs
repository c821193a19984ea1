#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::SocketAddr;
use std::sync::Mutex;

use outrigger_xds_api::istio_ca::{
    IstioCertificateRequest, IstioCertificateResponse, IstioCertificateService, IstioCertificateServiceServer,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

use super::*;
use crate::net::DnsOptions;

const WEB: &str = "spiffe://test/ns/default/sa/web";

/// What a test's authority does with requests.
#[derive(Debug, Clone, Copy)]
struct Behaviour {
    /// So many are refused first.
    refusals: u64,
    /// Validity, seconds from now.
    validity: (i64, i64),
    /// Certifies its own name instead of what was asked for.
    mistaken: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { refusals: 0, validity: (0, 86_400), mistaken: false }
    }
}

struct Authority {
    issuer: Arc<CertifiedIssuer<'static, KeyPair>>,
    behaviour: Behaviour,
    requests: Mutex<u64>,
}

impl IstioCertificateService for Authority {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let count = {
            let mut requests = self.requests.lock().unwrap();
            *requests += 1;
            *requests
        };
        if request.metadata().get("authorization").map(|v| v.to_str().unwrap()) != Some("Bearer the-token") {
            return Err(Status::unauthenticated("bad token"));
        }
        if count <= self.behaviour.refusals {
            return Err(Status::unavailable("not now"));
        }
        let mut csr = CertificateSigningRequestParams::from_pem(&request.into_inner().csr).unwrap();
        if self.behaviour.mistaken {
            csr.params.subject_alt_names =
                vec![rcgen::SanType::URI("spiffe://test/ns/default/sa/other".try_into().unwrap())];
        }
        let now = ::time::OffsetDateTime::now_utc();
        csr.params.not_before = now + ::time::Duration::seconds(self.behaviour.validity.0);
        csr.params.not_after = now + ::time::Duration::seconds(self.behaviour.validity.1);
        let leaf = csr.signed_by(&self.issuer).unwrap().pem();
        Ok(Response::new(IstioCertificateResponse { cert_chain: vec![leaf, self.issuer.pem()] }))
    }
}

fn begin(options: IdentityOptions) -> Result<IdentityHandle, String> {
    start(options, Stats::new())
}

fn target(at: &str) -> Arc<Target> {
    Arc::new(Target::new(at.parse().unwrap(), DnsOptions::default()))
}

/// A running authority and the files that its client needs.
struct Running {
    address: SocketAddr,
    folder: tempfile::TempDir,
    tls: bool,
}

async fn run(behaviour: Behaviour, tls: bool) -> Running {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "the-token\n").unwrap();
    std::fs::write(folder.path().join("root.pem"), issuer.pem()).unwrap();
    let mut server = Server::builder();
    if tls {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();
        let identity = Identity::from_pem(certificate, key.serialize_pem());
        server = server.tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let authority = Authority { issuer, behaviour, requests: Mutex::new(0) };
    let service = IstioCertificateServiceServer::new(authority);
    tokio::spawn(server.add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    Running { address, folder, tls }
}

impl Running {
    fn options(&self) -> IdentityOptions {
        IdentityOptions {
            ca: target(&self.address.to_string()),
            ca_root_cert: self.tls.then(|| self.folder.path().join("root.pem")),
            token_file: self.folder.path().join("token"),
            principal: WEB.to_owned(),
            lifetime: Duration::from_secs(86_400),
            state_dir: None,
            minimum_life: None,
        }
    }
}

#[tokio::test]
async fn a_certificate_is_issued_over_plaintext_loopback_and_tls() {
    for tls in [false, true] {
        let running = run(Behaviour::default(), tls).await;
        let identity = begin(running.options()).unwrap();
        identity.ready().await;
        let certificate = identity.certificate.get().unwrap();
        assert_eq!(certificate.leaf().principal().map(|p| &**p), Some(WEB));
        assert_eq!(identity.certificate.name().as_ref(), "default");
        assert_eq!(identity.roots.get().unwrap().roots().count(), 1);
        let issued = identity.issued().borrow().clone().unwrap();
        assert_eq!(issued.count, 1);
        assert!(
            issued.certificate_chain.contains("BEGIN CERTIFICATE")
                && issued.roots.contains("BEGIN CERTIFICATE")
        );
        assert!(
            issued.private_key.pem().contains("PRIVATE KEY")
                && !format!("{issued:?}").contains("PRIVATE KEY")
        );
    }
}

#[tokio::test]
async fn a_refusal_is_not_the_end() {
    let running = run(Behaviour { refusals: 2, ..Behaviour::default() }, false).await;
    let identity = begin(running.options()).unwrap();
    assert!(identity.certificate.get().is_none());
    identity.ready().await;
    assert!(identity.certificate.get().is_some());
}

#[tokio::test]
async fn a_certificate_past_its_half_is_renewed_with_a_new_key() {
    let running = run(Behaviour { validity: (-10, 5), ..Behaviour::default() }, false).await;
    let identity = begin(running.options()).unwrap();
    identity.ready().await;
    let first = identity.certificate.get().unwrap();
    let is_second = |issued: &Option<Arc<Issued>>| issued.as_ref().is_some_and(|issued| issued.count >= 2);
    identity.issued().wait_for(is_second).await.unwrap();
    let second = identity.certificate.get().unwrap();
    assert_ne!(first.leaf().serial, second.leaf().serial);
}

#[tokio::test]
async fn an_identity_outlives_its_process_and_not_its_certificate() {
    use std::os::unix::fs::PermissionsExt;

    let running = run(Behaviour { validity: (-1, 86_400), ..Behaviour::default() }, false).await;
    let state = running.folder.path().join("state");
    let options = IdentityOptions { state_dir: Some(state.clone()), ..running.options() };
    let first = begin(options.clone()).unwrap();
    first.ready().await;
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&state), mode(&state.join("identity"))), (0o700, 0o600));

    // The service is away from here on.
    let away = IdentityOptions { ca: target("127.0.0.1:1"), ..options.clone() };
    let second = begin(away.clone()).unwrap();
    second.ready().await;
    let serial = |identity: &IdentityHandle| identity.certificate.get().unwrap().leaf().serial.clone();
    assert_eq!(serial(&second), serial(&first));
    assert_eq!(second.roots.get().unwrap().roots().count(), 1);

    let other = "spiffe://test/ns/default/sa/other";
    assert!(saved::load(&state, other).is_none(), "somebody else's");
    std::fs::remove_file(state.join("identity")).unwrap();
    let short = run(Behaviour { validity: (-10, 1), ..Behaviour::default() }, false).await;
    let third = begin(IdentityOptions { state_dir: Some(state.clone()), ..short.options() }).unwrap();
    third.ready().await;
    let expiry = third.certificate.get().unwrap().leaf().not_after;
    drop(third);
    assert!(state.join("identity").exists());
    wait_until(expiry).await;
    assert!(saved::load(&state, WEB).is_none(), "expired");
    std::fs::write(state.join("identity"), "damaged").unwrap();
    assert!(saved::load(&state, WEB).is_none());
}

#[tokio::test]
async fn a_certificate_that_nears_its_end_is_told_and_so_is_that_it_cannot_be_renewed() {
    let running = run(Behaviour { validity: (-60, 40), ..Behaviour::default() }, false).await;
    let stats = Stats::new();
    let identity =
        |minimum_life| start(IdentityOptions { minimum_life, ..running.options() }, stats.clone()).unwrap();
    // A twentieth of 100 s is less than what is left.
    let good = identity(None);
    good.ready().await;
    assert_eq!(good.nears_its_end(), None);
    let bad = identity(Some(Duration::from_secs(41)));
    assert_eq!(bad.nears_its_end(), None, "there is none yet");
    bad.ready().await;
    let reason = bad.nears_its_end().unwrap();
    assert!(reason.starts_with("the certificate of the workload expires in 3"), "{reason}");
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let expiry = stats.server().identity_expiry_timestamp_seconds.get();
    assert!((30..=40).contains(&(expiry - now)), "{expiry} {now}");
    assert_eq!(stats.server().identity_renewals_total.get(), 2);
    let away = IdentityOptions { ca: target("127.0.0.1:1"), ..running.options() };
    let _away = start(away, stats.clone()).unwrap();
    while stats.server().identity_renewal_failures_total.get() == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn bad_answers_and_files_are_told_without_secrets() {
    let running = run(Behaviour { mistaken: true, ..Behaviour::default() }, false).await;
    let error = request::certificate(&running.options()).await.unwrap_err();
    assert_eq!(error, "the CA certified 'spiffe://test/ns/default/sa/other' instead");

    std::fs::write(running.folder.path().join("token"), "stolen\u{7f}").unwrap();
    let error = request::certificate(&running.options()).await.unwrap_err();
    assert!(error.contains("does not have a token") && !error.contains("stolen"), "{error}");

    std::fs::write(running.folder.path().join("token"), "another").unwrap();
    let error = request::certificate(&running.options()).await.unwrap_err();
    assert!(error.ends_with("Unauthenticated: bad token"), "{error}");

    std::fs::remove_file(running.folder.path().join("token")).unwrap();
    let error = request::certificate(&running.options()).await.unwrap_err();
    assert!(error.starts_with("cannot read the token file"), "{error}");
}

#[tokio::test]
async fn a_service_with_a_foreign_certificate_gets_no_token() {
    let (running, other) = (run(Behaviour::default(), true).await, run(Behaviour::default(), true).await);
    let options =
        IdentityOptions { ca_root_cert: Some(other.folder.path().join("root.pem")), ..running.options() };
    let error = request::certificate(&options).await.unwrap_err();
    assert!(error.starts_with("cannot connect to the CA") && error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_service_must_have_the_name_that_it_is_called_by() {
    let running = run(Behaviour::default(), true).await;
    // A name that no server is asked for, and that the certificate does not have.
    let resolv_conf = running.folder.path().join("resolv.conf");
    std::fs::write(&resolv_conf, "nameserver 127.0.0.1").unwrap();
    let at = format!("localhost:{}", running.address.port()).parse().unwrap();
    let ca = Arc::new(Target::new(at, DnsOptions { resolv_conf, port: 53 }));
    let options = IdentityOptions { ca, ..running.options() };
    let error = request::certificate(&options).await.unwrap_err();
    assert!(error.contains("not valid for name \"localhost\""), "{error}");
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let good = IdentityOptions {
        ca: target("127.0.0.1:15012"),
        ca_root_cert: None,
        token_file: "token".into(),
        principal: WEB.to_owned(),
        lifetime: Duration::from_secs(60),
        state_dir: None,
        minimum_life: None,
    };
    for address in ["192.0.2.1:15012", "ca.example:15012"] {
        let error = begin(IdentityOptions { ca: target(address), ..good.clone() }).unwrap_err();
        assert!(error.contains("plaintext"), "{error}");
    }
    let error = begin(IdentityOptions { principal: "web".to_owned(), ..good.clone() }).unwrap_err();
    assert!(error.contains("SPIFFE"), "{error}");
    for address in ["localhost:1", "[::1]:1", "127.1.0.9:1"] {
        request::check(&IdentityOptions { ca: target(address), ..good.clone() }).unwrap();
    }
}

#[test]
fn renewal_is_around_the_half_of_what_is_left() {
    let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    let leaf = CertificateDetails {
        description: None,
        serial: String::new(),
        sans: Vec::new(),
        not_before: begin - Duration::from_secs(120),
        not_after: begin + Duration::from_secs(1000),
    };
    let after = |random| renewal_time(&leaf, begin, random).duration_since(begin).unwrap().as_secs();
    assert_eq!((after(0.0), after(0.5), after(0.999_999)), (490, 500, 509));
}
