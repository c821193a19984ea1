//! The state of one stream in either variant of the protocol, and the types of its messages.

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{ClientFeatures, InvalidRequest, Outcome, Part, View, delta, sotw};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};

/// The server's end of a session about secrets.
pub(super) trait Session: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    fn new() -> Self;
    fn on_request(&mut self, request: &Self::Request) -> Result<Outcome, InvalidRequest>;
    fn next_response(&mut self, view: &impl View) -> Option<Self::Response>;
    /// The names that it asks for one by one.
    fn names(&self) -> impl Iterator<Item = &str>;
    fn node(request: &Self::Request) -> Option<&Node>;
    fn type_url(request: &mut Self::Request) -> &mut String;
}

/// The same for both: they differ in their messages only.
macro_rules! session {
    ($server:ty, $request:ty, $response:ty) => {
        impl Session for $server {
            type Request = $request;
            type Response = $response;

            fn new() -> Self {
                // Secrets have no TTL, so what the client can do does not matter.
                Self::new(ResourceType::Secret, ClientFeatures::default())
            }

            fn on_request(&mut self, request: &Self::Request) -> Result<Outcome, InvalidRequest> {
                self.on_request(request)
            }

            fn next_response(&mut self, view: &impl View) -> Option<Self::Response> {
                self.next_response(view, Part::All)
            }

            fn names(&self) -> impl Iterator<Item = &str> {
                self.subscribed_names()
            }

            fn node(request: &Self::Request) -> Option<&Node> {
                request.node.as_ref()
            }

            fn type_url(request: &mut Self::Request) -> &mut String {
                &mut request.type_url
            }
        }
    };
}

session!(delta::Server, DeltaDiscoveryRequest, DeltaDiscoveryResponse);
session!(sotw::Server, DiscoveryRequest, DiscoveryResponse);
