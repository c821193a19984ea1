//! The Secret Discovery Service: streams in both variants, each answered from what was issued last.
//!
//! Nothing is answered before the first certificate is there: an Envoy that heard that a secret does not exist would go on without.

use std::sync::Arc;

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{Verdict, delta, sotw};
use outrigger_xds_api::wire::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest, DiscoveryResponse};
use outrigger_xds_api::wire::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use super::secrets::Secrets;
use super::session::Session;
use crate::identity::{CERTIFICATE_SECRET, Issued, ROOTS_SECRET};

/// What was issued last.
type Source = watch::Receiver<Option<Arc<Issued>>>;

/// One response that waits for its answer, and the status that ends the stream.
const RESPONSES_MAX: usize = 2;

type Responses<S> = ReceiverStream<Result<<S as Session>::Response, Status>>;

/// Serves on `listener`; does not end by itself.
///
/// # Errors
/// What the gRPC server says.
pub(super) async fn serve(listener: UnixListener, source: Source) -> Result<(), tonic::transport::Error> {
    let service = SecretDiscoveryServiceServer::new(Discovery { source });
    let incoming = UnixListenerStream::new(listener);
    Server::builder().add_service(service).serve_with_incoming(incoming).await
}

struct Discovery {
    source: Source,
}

impl Discovery {
    fn open<S: Session>(&self, request: Request<Streaming<S::Request>>) -> Response<Responses<S>> {
        let peer = request.extensions().get::<UdsConnectInfo>().and_then(|info| info.peer_cred);
        let client = peer.map_or_else(String::new, |peer| match peer.pid() {
            Some(process) => format!("process {process} of user {}", peer.uid()),
            None => format!("a process of user {}", peer.uid()),
        });
        let (responses, receiver) = mpsc::channel(RESPONSES_MAX);
        let stream = Stream { session: S::new(), client, source: self.source.clone(), responses };
        tokio::spawn(stream.run(request.into_inner()));
        Response::new(ReceiverStream::new(receiver))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Discovery {
    type StreamSecretsStream = Responses<sotw::Server>;
    type DeltaSecretsStream = Responses<delta::Server>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.open::<sotw::Server>(request))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.open::<delta::Server>(request))
    }

    async fn fetch_secrets(
        &self,
        _: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are served on streams"))
    }
}

/// One stream of one client.
struct Stream<S: Session> {
    session: S,
    /// Who it is, for the log.
    client: String,
    source: Source,
    responses: mpsc::Sender<Result<S::Response, Status>>,
}

impl<S: Session> Stream<S> {
    async fn run(mut self, mut requests: Streaming<S::Request>) {
        let mut secrets = self.latest();
        let mut is_first = true;
        let end = loop {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(mut request)) => {
                        if std::mem::take(&mut is_first) {
                            let node = S::node(&request).map_or("", |node| node.id.as_str());
                            tracing::info!(target: "secret", "'{node}' ({}) asks for secrets", self.client);
                        }
                        if let Err(status) = self.on_request(&mut request) {
                            break status;
                        }
                    }
                    Ok(None) | Err(_) => return,
                },
                changed = self.source.changed() => match changed {
                    Ok(()) => secrets = self.latest(),
                    Err(_) => break Status::unavailable("shutting down"),
                },
            }
            if let Some(response) = secrets.as_ref().and_then(|secrets| self.session.next_response(secrets))
                && self.responses.try_send(Ok(response)).is_err()
            {
                return;
            }
        };
        // The client may be gone already.
        let _ = self.responses.try_send(Err(end));
    }

    fn latest(&mut self) -> Option<Secrets> {
        self.source.borrow_and_update().as_deref().map(Secrets::new)
    }

    fn on_request(&mut self, request: &mut S::Request) -> Result<(), Status> {
        // The service has one type, so a request may leave it out.
        let type_url = S::type_url(request);
        if type_url.is_empty() {
            ResourceType::Secret.type_url().clone_into(type_url);
        }
        let outcome =
            self.session.on_request(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Verdict::Nack { message, .. } = outcome.verdict {
            tracing::warn!(target: "secret", "{} refuses a secret: {message}", self.client);
        }
        if outcome.subscription_changed {
            let is_known = |name: &&str| matches!(*name, CERTIFICATE_SECRET | ROOTS_SECRET);
            for name in self.session.names().filter(|name| !is_known(name)) {
                tracing::warn!(
                    target: "secret",
                    "{} asks for the secret '{name}', which is not there; '{CERTIFICATE_SECRET}' and '{ROOTS_SECRET}' are",
                    self.client
                );
            }
        }
        Ok(())
    }
}
