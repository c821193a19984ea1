//! The session of one resource type on a stream, in either variant of the protocol, and the messages that it sends and takes.

use outrigger_xds_api::ResourceType;
use outrigger_xds_api::session::{MalformedResponse, Received, delta, sotw};
use outrigger_xds_api::wire::core::v3::Node;
use outrigger_xds_api::wire::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use outrigger_xds_api::wire::protobuf::Any;

use crate::config::sources::Variant;

/// A request in either variant.
#[derive(Debug)]
pub(super) enum Request {
    Delta(DeltaDiscoveryRequest),
    Sotw(DiscoveryRequest),
}

/// A response in either variant.
#[derive(Debug)]
pub(super) enum Response {
    Delta(DeltaDiscoveryResponse),
    Sotw(DiscoveryResponse),
}

impl Response {
    pub(super) fn type_url(&self) -> &str {
        match self {
            Response::Delta(response) => &response.type_url,
            Response::Sotw(response) => &response.type_url,
        }
    }

    pub(super) fn nonce(&self) -> &str {
        match self {
            Response::Delta(response) => &response.nonce,
            Response::Sotw(response) => &response.nonce,
        }
    }
}

/// A session. It outlives its streams.
#[derive(Debug)]
pub(super) enum Session {
    Delta(delta::Client),
    Sotw(sotw::Client),
}

/// Calls the same method of either variant.
macro_rules! either {
    ($session:expr, $inner:ident => $call:expr) => {
        match $session {
            Session::Delta($inner) => $call,
            Session::Sotw($inner) => $call,
        }
    };
}

impl Session {
    pub(super) fn new(variant: Variant, resource_type: ResourceType) -> Self {
        match variant {
            Variant::Delta => Session::Delta(delta::Client::new(resource_type)),
            Variant::StateOfTheWorld => Session::Sotw(sotw::Client::new(resource_type)),
        }
    }

    pub(super) fn resource_type(&self) -> ResourceType {
        either!(self, client => client.resource_type())
    }

    pub(super) fn wants_something(&self) -> bool {
        either!(self, client => client.wants_something())
    }

    pub(super) fn subscribe(&mut self, name: &str) {
        either!(self, client => drop(client.subscribe(name)));
    }

    /// Whoever does not want it any more has dropped it already.
    pub(super) fn unsubscribe(&mut self, name: &str) {
        either!(self, client => drop(client.unsubscribe(name)));
    }

    /// It is held already, from before the start. The state of the world cannot say so of single resources.
    pub(super) fn restore(&mut self, name: String, version: String) {
        if let Session::Delta(client) = self {
            client.restore(name, version);
        }
    }

    pub(super) fn next_request(&mut self, node: &Node) -> Option<Request> {
        match self {
            Session::Delta(client) => client.next_request(node).map(Request::Delta),
            Session::Sotw(client) => client.next_request(node).map(Request::Sotw),
        }
    }

    pub(super) fn on_response(&mut self, response: Response) -> Result<Received, MalformedResponse> {
        match (self, response) {
            (Session::Delta(client), Response::Delta(response)) => client.on_response(response),
            (Session::Sotw(client), Response::Sotw(response)) => client.on_response(response),
            // A stream is opened in the variant of its sessions.
            _ => Ok(Received::default()),
        }
    }

    pub(super) fn ack(&mut self, nonce: &str) -> Option<Request> {
        match self {
            Session::Delta(client) => client.ack(nonce).map(Request::Delta),
            Session::Sotw(client) => client.ack(nonce).map(Request::Sotw),
        }
    }

    /// `details` say the same as the message, for machines.
    pub(super) fn nack(
        &mut self,
        nonce: &str,
        rejected: &[&str],
        message: &str,
        details: Vec<Any>,
    ) -> Option<Request> {
        let mut request = match self {
            Session::Delta(client) => client.nack(nonce, rejected, message).map(Request::Delta),
            Session::Sotw(client) => client.nack(nonce, rejected, message).map(Request::Sotw),
        }?;
        let error = match &mut request {
            Request::Delta(request) => &mut request.error_detail,
            Request::Sotw(request) => &mut request.error_detail,
        };
        if let Some(status) = error {
            status.details = details;
        }
        Some(request)
    }

    pub(super) fn nack_all(&mut self, nonce: &str, message: &str) -> Option<Request> {
        match self {
            Session::Delta(client) => client.nack_all(nonce, message).map(Request::Delta),
            Session::Sotw(client) => client.nack_all(nonce, message).map(Request::Sotw),
        }
    }

    /// Its time to live is over; whether it was held.
    pub(super) fn expire(&mut self, name: &str) -> bool {
        either!(self, client => client.expire(name))
    }

    pub(super) fn on_stream_closed(&mut self) {
        either!(self, client => client.on_stream_closed());
    }
}
