//! The control plane: Kubernetes objects in, xDS out, and the mesh's certificate authority.

pub mod api;
pub mod model;
pub mod scope;
pub mod snapshot;
pub mod source;
pub mod translate;
