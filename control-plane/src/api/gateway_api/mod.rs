//! The Gateway API, as it applies to a mesh (GAMMA): routes whose parents are Services.

mod http_route;
mod wire;

pub(super) use http_route::http_route;
