//! The two variants of the protocol, as far as a stream and its push queue have to tell them apart.

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{ClientFeatures, InvalidRequest, Outcome, Part, View, delta, sotw};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::wire::rpc;

/// The session of one type of one stream, in one of the variants.
pub(super) trait Variant: Send + 'static {
    type Request: Send + 'static;
    type Response: Send + 'static;

    /// The name on the admin page.
    const NAME: &'static str;
    /// Whether an update of listeners or clusters repeats all that is to stay, so that what leaves has to be kept until
    /// removals are sent.
    const REPEATS_STATE: bool;
    /// Whether a client can say that it needs again what it has.
    const CAN_ASK_AGAIN: bool;

    fn new(of: ResourceType, features: ClientFeatures) -> Self;
    fn on_request(&mut self, request: &Self::Request) -> Result<Outcome, InvalidRequest>;
    fn next_response(&mut self, view: &impl View, part: Part) -> Option<Self::Response>;
    fn is_waiting(&self) -> bool;
    /// Has `name` sent again; whether the client was told of it before.
    fn resend(&mut self, name: &str) -> bool;
    /// How many resources the client accepted.
    fn accepted(&self) -> usize;
    /// Name and version of those that it rejected and that were not replaced since.
    fn rejected(&self) -> impl Iterator<Item = (&str, &str)>;
    /// Whether it holds something that it should no longer.
    fn has_removals(&self, view: &impl View) -> bool;

    fn type_url(request: &mut Self::Request) -> &mut String;
    fn node(request: &Self::Request) -> Option<&Node>;
    fn error(request: &Self::Request) -> Option<&rpc::Status>;
    /// The resources in a response.
    fn contents(response: &Self::Response) -> impl Iterator<Item = &Any>;
    /// What is told of a response.
    fn summary(response: &Self::Response) -> Summary<'_>;
    /// Says which snapshot a response was made from, where it has a place for that.
    fn set_generation(response: &mut Self::Response, generation: u64);
}

/// What is told of a response.
pub(super) struct Summary<'a> {
    pub(super) nonce: &'a str,
    pub(super) updated: usize,
    pub(super) removed: usize,
}

impl Variant for delta::Server {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const NAME: &'static str = "delta";
    const REPEATS_STATE: bool = false;
    const CAN_ASK_AGAIN: bool = false;

    fn new(of: ResourceType, features: ClientFeatures) -> Self {
        Self::new(of, features)
    }

    fn on_request(&mut self, request: &DeltaDiscoveryRequest) -> Result<Outcome, InvalidRequest> {
        self.on_request(request)
    }

    fn next_response(&mut self, view: &impl View, part: Part) -> Option<DeltaDiscoveryResponse> {
        self.next_response(view, part)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting()
    }

    fn resend(&mut self, name: &str) -> bool {
        self.resend(name)
    }

    fn accepted(&self) -> usize {
        self.held().count()
    }

    fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rejected()
    }

    fn has_removals(&self, view: &impl View) -> bool {
        self.has_removals(view)
    }

    fn type_url(request: &mut DeltaDiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn error(request: &DeltaDiscoveryRequest) -> Option<&rpc::Status> {
        request.error_detail.as_ref()
    }

    fn contents(response: &DeltaDiscoveryResponse) -> impl Iterator<Item = &Any> {
        response.resources.iter().filter_map(|resource| resource.resource.as_ref())
    }

    fn summary(response: &DeltaDiscoveryResponse) -> Summary<'_> {
        Summary {
            nonce: &response.nonce,
            updated: response.resources.len(),
            removed: response.removed_resources.len(),
        }
    }

    fn set_generation(response: &mut DeltaDiscoveryResponse, generation: u64) {
        response.system_version_info = generation.to_string();
    }
}

impl Variant for sotw::Server {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const NAME: &'static str = "sotw";
    const REPEATS_STATE: bool = true;
    const CAN_ASK_AGAIN: bool = true;

    fn new(of: ResourceType, features: ClientFeatures) -> Self {
        Self::new(of, features)
    }

    fn on_request(&mut self, request: &DiscoveryRequest) -> Result<Outcome, InvalidRequest> {
        self.on_request(request)
    }

    fn next_response(&mut self, view: &impl View, part: Part) -> Option<DiscoveryResponse> {
        self.next_response(view, part)
    }

    fn is_waiting(&self) -> bool {
        self.is_waiting()
    }

    fn resend(&mut self, _: &str) -> bool {
        // The client asks for itself.
        false
    }

    fn accepted(&self) -> usize {
        self.held().count()
    }

    fn rejected(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rejected()
    }

    fn has_removals(&self, view: &impl View) -> bool {
        self.has_removals(view)
    }

    fn type_url(request: &mut DiscoveryRequest) -> &mut String {
        &mut request.type_url
    }

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn error(request: &DiscoveryRequest) -> Option<&rpc::Status> {
        request.error_detail.as_ref()
    }

    fn contents(response: &DiscoveryResponse) -> impl Iterator<Item = &Any> {
        response.resources.iter()
    }

    fn summary(response: &DiscoveryResponse) -> Summary<'_> {
        Summary { nonce: &response.nonce, updated: response.resources.len(), removed: 0 }
    }

    fn set_generation(_: &mut DiscoveryResponse, _: u64) {
        // Its version is a hash of the content, so that a restart does not change it.
    }
}
