//! Istio's certificate service: a workload sends a CSR with its token and gets a certificate chain back.
//!
//! The proto (package `istio.v1.auth`, Istio `security/v1alpha1/ca.proto`) is small and not part of `envoy-types`,
//! so its messages and the gRPC client and server are written here.

use tonic::codegen::{Body, BoxFuture, Bytes, Context, Poll, Service, StdError, http};
use tonic_prost::ProstCodec;

use crate::wire::protobuf::Struct;

/// The full name of the gRPC service.
pub const SERVICE_NAME: &str = "istio.v1.auth.IstioCertificateService";
/// The HTTP path of its only method.
pub const CREATE_CERTIFICATE_PATH: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

/// A certificate request. The identity of the caller is proved by its call credentials, not by this message.
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateRequest {
    /// The PEM-encoded certificate signing request.
    #[prost(string, tag = "1")]
    pub csr: String,
    /// How long the certificate should be valid, in seconds. The server may issue a shorter one.
    #[prost(int64, tag = "3")]
    pub validity_duration: i64,
    /// Further attributes for the signer, for instance `CertSigner`.
    #[prost(message, optional, tag = "4")]
    pub metadata: Option<Struct>,
}

/// The answer to an [`IstioCertificateRequest`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct IstioCertificateResponse {
    /// PEM-encoded certificates: the leaf first, then intermediates, the root last.
    #[prost(string, repeated, tag = "1")]
    pub cert_chain: Vec<String>,
}

/// A client of the certificate service over any gRPC channel.
#[derive(Clone, Debug)]
pub struct IstioCertificateServiceClient<T> {
    inner: tonic::client::Grpc<T>,
}

impl<T> IstioCertificateServiceClient<T>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    /// A client that calls over `channel`.
    pub fn new(channel: T) -> Self {
        Self { inner: tonic::client::Grpc::new(channel) }
    }

    /// Sends a CSR and waits for the certificate chain. The caller puts its token into the request's `authorization`
    /// metadata. Fails with the server's status, or `Unknown` when the channel is not ready.
    pub async fn create_certificate(
        &mut self,
        request: impl tonic::IntoRequest<IstioCertificateRequest>,
    ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
        self.inner.ready().await.map_err(|error| {
            let error: StdError = error.into();
            tonic::Status::unknown(format!("service was not ready: {error}"))
        })?;
        let mut request = request.into_request();
        request.extensions_mut().insert(tonic::GrpcMethod::new(SERVICE_NAME, "CreateCertificate"));
        let path = http::uri::PathAndQuery::from_static(CREATE_CERTIFICATE_PATH);
        self.inner.unary(request, path, ProstCodec::default()).await
    }
}

/// What a certificate authority implements to serve [`IstioCertificateServiceServer`].
pub trait IstioCertificateService: Send + Sync + 'static {
    /// Authenticates the caller and signs its CSR.
    fn create_certificate(
        &self,
        request: tonic::Request<IstioCertificateRequest>,
    ) -> impl Future<Output = Result<tonic::Response<IstioCertificateResponse>, tonic::Status>> + Send;
}

/// The gRPC server around an [`IstioCertificateService`]; add it to a `tonic` router.
#[derive(Debug)]
pub struct IstioCertificateServiceServer<S> {
    service: std::sync::Arc<S>,
}

impl<S> IstioCertificateServiceServer<S> {
    /// Serves `service`.
    pub fn new(service: S) -> Self {
        Self::from_arc(std::sync::Arc::new(service))
    }

    /// Serves a shared `service`.
    pub fn from_arc(service: std::sync::Arc<S>) -> Self {
        Self { service }
    }
}

impl<S> Clone for IstioCertificateServiceServer<S> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone() }
    }
}

impl<S> tonic::server::NamedService for IstioCertificateServiceServer<S> {
    const NAME: &'static str = SERVICE_NAME;
}

/// The unary method as `tonic` wants it.
struct CreateCertificate<S>(std::sync::Arc<S>);

impl<S: IstioCertificateService> tonic::server::UnaryService<IstioCertificateRequest>
    for CreateCertificate<S>
{
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<tonic::Response<IstioCertificateResponse>, tonic::Status>;

    fn call(&mut self, request: tonic::Request<IstioCertificateRequest>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.create_certificate(request).await })
    }
}

impl<S, B> Service<http::Request<B>> for IstioCertificateServiceServer<S>
where
    S: IstioCertificateService,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.service.clone();
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE_PATH {
                return Ok(tonic::Status::unimplemented("no such method").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
            Ok(grpc.unary(CreateCertificate(service), request).await)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use prost::Message;

    /// Answers with the CSR and the token that it was given.
    struct Echo;

    impl IstioCertificateService for Echo {
        async fn create_certificate(
            &self,
            request: tonic::Request<IstioCertificateRequest>,
        ) -> Result<tonic::Response<IstioCertificateResponse>, tonic::Status> {
            let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            let Some(token) = token.map(str::to_owned) else {
                return Err(tonic::Status::unauthenticated("no token"));
            };
            let cert_chain = vec![request.into_inner().csr, token];
            Ok(tonic::Response::new(IstioCertificateResponse { cert_chain }))
        }
    }

    #[tokio::test]
    async fn client_and_server_agree() {
        let mut client = IstioCertificateServiceClient::new(IstioCertificateServiceServer::new(Echo));
        let request =
            IstioCertificateRequest { csr: "a csr".to_owned(), validity_duration: 60, metadata: None };
        let refused = client.create_certificate(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);

        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("authorization", "Bearer t".parse().unwrap());
        let response = client.create_certificate(request).await.unwrap().into_inner();
        assert_eq!(response.cert_chain, ["a csr", "Bearer t"]);
    }

    #[tokio::test]
    async fn other_methods_are_unimplemented() {
        let mut server = IstioCertificateServiceServer::new(Echo);
        let request = http::Request::builder().uri("/istio.v1.auth.IstioCertificateService/Other");
        let response = server.call(request.body(tonic::body::Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
    }

    #[test]
    fn field_numbers_are_istios() {
        let request = IstioCertificateRequest {
            csr: "c".to_owned(),
            validity_duration: 2,
            metadata: Some(Struct::default()),
        };
        assert_eq!(request.encode_to_vec(), [0x0a, 1, b'c', 0x18, 2, 0x22, 0]);
        let response = IstioCertificateResponse { cert_chain: vec!["x".to_owned()] };
        assert_eq!(response.encode_to_vec(), [0x0a, 1, b'x']);
    }
}
