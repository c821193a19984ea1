//! `outrigger check`: whether a control plane serves, asked from outside. The chart's `helm test` runs it in a Pod.
//!
//! Three questions, each asked again until it is answered or the time is over: is it ready, does its xDS listener show a
//! certificate of the mesh's root for its name, and does its webhook answer an admission review.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use http_body_util::Full;
use hyper::Request;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use crate::http::exchange;

/// Between two attempts.
const RETRY: Duration = Duration::from_secs(1);
/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Of an answer's body, in bytes.
const ANSWER_LIMIT: usize = 1 << 20;

/// Flags of `outrigger check`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Address of the control plane
    #[arg(long, value_name = "HOST")]
    address: String,
    /// Name that its certificate must have
    #[arg(long, value_name = "NAME")]
    name: String,
    /// PEM file with the mesh's root certificate
    #[arg(long, value_name = "FILE")]
    root_cert: PathBuf,
    /// Port of /ready
    #[arg(long, default_value_t = 15014)]
    admin_port: u16,
    /// Port of xDS over TLS
    #[arg(long, default_value_t = 15012)]
    xds_port: u16,
    /// Port of the webhooks
    #[arg(long, default_value_t = 443)]
    webhook_port: u16,
    /// Seconds until an answer must be there
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
enum Question {
    Ready,
    Xds,
    Webhook,
}

impl Question {
    const ALL: [Self; 3] = [Self::Ready, Self::Xds, Self::Webhook];

    fn text(self) -> &'static str {
        match self {
            Self::Ready => "the control plane is ready",
            Self::Xds => "its xDS listener has a certificate of the mesh",
            Self::Webhook => "its injection webhook answers",
        }
    }
}

/// Asks all; prints a line for each. Whether all are answered well.
#[allow(clippy::print_stdout, reason = "the command's result")]
pub(crate) async fn run(options: Options) -> anyhow::Result<bool> {
    let tls = trusting(&options.root_cert)?;
    let deadline = Instant::now() + Duration::from_secs(options.timeout);
    let mut all_well = true;
    for question in Question::ALL {
        match until(deadline, question, &options, &tls).await {
            Ok(()) => println!("ok      {}", question.text()),
            Err(error) => {
                all_well = false;
                println!("failed  {}: {error:#}", question.text());
            }
        }
    }
    Ok(all_well)
}

/// Asks again until the answer is good or `deadline` has come; then the last error.
async fn until(
    deadline: Instant,
    question: Question,
    options: &Options,
    tls: &TlsConnector,
) -> anyhow::Result<()> {
    loop {
        let attempt = timeout(ATTEMPT, ask(question, options, tls)).await;
        let Err(error) = attempt.unwrap_or_else(|_| bail!("no answer within {} s", ATTEMPT.as_secs())) else {
            return Ok(());
        };
        if Instant::now() + RETRY > deadline {
            return Err(error);
        }
        sleep_until(Instant::now() + RETRY).await;
    }
}

async fn ask(question: Question, options: &Options, tls: &TlsConnector) -> anyhow::Result<()> {
    let port = match question {
        Question::Ready => options.admin_port,
        Question::Xds => options.xds_port,
        Question::Webhook => options.webhook_port,
    };
    let host = options.address.as_str();
    let socket = TcpStream::connect((host, port)).await.with_context(|| format!("{host} port {port}"))?;
    match question {
        Question::Ready => {
            let request = Request::get("/ready").header("host", &options.name).body(Full::default())?;
            exchange(socket, request, ANSWER_LIMIT).await?;
        }
        Question::Xds => {
            encrypt(socket, options, tls).await?;
        }
        Question::Webhook => {
            let uid = format!("{:032x}", fastrand::u128(..));
            let request = Request::post("/inject")
                .header("host", &options.name)
                .header("content-type", "application/json")
                .body(Full::from(review(&uid).to_string()))?;
            let answer = exchange(encrypt(socket, options, tls).await?, request, ANSWER_LIMIT).await?;
            let answer: Value = serde_json::from_slice(&answer).context("the answer is no JSON")?;
            let response = &answer["response"];
            ensure!(
                response["uid"] == uid.as_str(),
                "the answer is not for the review that was sent: {answer}"
            );
            ensure!(response["allowed"] == true, "a Pod that asks for no sidecar is refused: {answer}");
        }
    }
    Ok(())
}

async fn encrypt(
    socket: TcpStream,
    options: &Options,
    tls: &TlsConnector,
) -> anyhow::Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
    let name = ServerName::try_from(options.name.clone()).context("--name is no DNS name")?;
    tls.connect(name, socket).await.context("TLS")
}

/// TLS that trusts the certificates in this file alone.
fn trusting(file: &std::path::Path) -> anyhow::Result<TlsConnector> {
    let shown = file.display();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).with_context(|| format!("{shown}"))? {
        roots.add(certificate.with_context(|| format!("{shown}"))?).with_context(|| format!("{shown}"))?;
    }
    ensure!(!roots.is_empty(), "{shown}: has no certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// An admission review of a Pod that asks for no sidecar: any injector lets it in as it is.
fn review(uid: &str) -> Value {
    let resource = json!({"group": "", "version": "v1", "resource": "pods"});
    let kind = json!({"group": "", "version": "v1", "kind": "Pod"});
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": uid,
            "kind": kind,
            "requestKind": kind,
            "resource": resource,
            "requestResource": resource,
            "name": "check",
            "namespace": "default",
            "operation": "CREATE",
            "userInfo": {},
            "dryRun": true,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
            "oldObject": null,
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "check",
                    "namespace": "default",
                    "labels": {"sidecar.istio.io/inject": "false"},
                },
                "spec": {"containers": [{"name": "check", "image": "check"}]},
            },
        },
    })
}
