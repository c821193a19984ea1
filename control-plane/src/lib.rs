//! The control plane: Kubernetes objects in, xDS out, and the mesh's certificate authority.

pub mod auth;
pub mod ca;
pub mod scope;
pub mod snapshot;
