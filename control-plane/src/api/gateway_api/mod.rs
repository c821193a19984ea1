//! The Gateway API, as it applies to a mesh (GAMMA): routes whose parents are Services.

mod filters;
mod grpc_route;
mod http_route;
mod matches;
mod reference_grant;
mod references;
mod wire;

pub(super) use grpc_route::grpc_route;
pub(super) use http_route::http_route;
pub(super) use reference_grant::reference_grant;
