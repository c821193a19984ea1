//! Statistics: scopes of resolved handles. A request touches handles only; names and labels are resolved when configuration is
//! compiled (or, for mesh labels, once per connection).

/// Which side of a hop reports mesh metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reporter {
    /// The caller's sidecar.
    Source,
    /// The callee's sidecar.
    Destination,
}
