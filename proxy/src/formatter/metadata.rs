//! `%METADATA(TYPE:NAMESPACE:KEY*):Z%`, `%CLUSTER_METADATA(...)%` and their like.

use serde_json::Value;

use super::append::{Appended, clip, text};
use super::{CapturePlan, Values};

/// Whose metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// A stream's own; no filter here sets any.
    Dynamic,
    Cluster,
    Route,
    VirtualHost,
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MetadataValue {
    owner: Owner,
    namespace: Box<str>,
    path: Box<[Box<str>]>,
    length: usize,
}

impl MetadataValue {
    /// Compiles `NAMESPACE:KEY*`.
    pub(super) fn compile(
        owner: Owner,
        parameters: &str,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        match owner {
            Owner::Route => plan.want_details("METADATA(ROUTE)")?,
            Owner::VirtualHost => plan.want_details("METADATA(VIRTUAL_HOST)")?,
            Owner::Dynamic | Owner::Cluster | Owner::Host => {}
        }
        let mut parts = parameters.split(':');
        let namespace = parts.next().unwrap_or_default().into();
        let path = parts.map(Box::from).collect();
        Ok(Self { owner, namespace, path, length: length.unwrap_or(usize::MAX) })
    }

    /// Compiles `TYPE:NAMESPACE:KEY*`.
    ///
    /// # Errors
    /// A type that is not known, or whose metadata is not kept here.
    pub(super) fn compile_typed(
        parameters: &str,
        length: Option<usize>,
        plan: &mut CapturePlan,
    ) -> Result<Self, String> {
        let (kind, rest) = parameters.split_once(':').unwrap_or((parameters, ""));
        let owner = match kind {
            "DYNAMIC" => Owner::Dynamic,
            "CLUSTER" => Owner::Cluster,
            "ROUTE" => Owner::Route,
            "UPSTREAM_HOST" => Owner::Host,
            "VIRTUAL_HOST" => Owner::VirtualHost,
            "LISTENER" | "LISTENER_FILTER_CHAIN" => {
                return Err(format!("METADATA({kind}) is not supported"));
            }
            other => return Err(format!("{other} is not supported type of metadata")),
        };
        Self::compile(owner, rest, length, plan)
    }

    pub(super) fn append(&self, values: Values<'_>, out: &mut Vec<u8>) -> Appended {
        let info = values.info;
        let details = info.log_details.as_deref();
        let host;
        let metadata = match self.owner {
            Owner::Dynamic => None,
            Owner::Cluster => info.upstream_cluster.as_ref().and_then(|cluster| cluster.metadata.as_deref()),
            Owner::Route => details.and_then(|details| details.route_metadata.as_deref()),
            Owner::VirtualHost => details.and_then(|details| details.virtual_host_metadata.as_deref()),
            Owner::Host => {
                host = info.upstream_host.as_ref().and_then(|host| host.metadata.load_full());
                host.as_deref()
            }
        };
        let value = metadata.and_then(|metadata| metadata.find(&self.namespace, &self.path));
        let start = out.len();
        let appended = match value {
            None | Some(Value::Null) => return Appended::Empty,
            Some(Value::String(value)) => text(Some(value), out),
            Some(value) => {
                // Writing to a vector cannot fail.
                let _ = serde_json::to_writer(&mut *out, value);
                Appended::Raw
            }
        };
        match appended {
            // JSON keeps what is structured whole.
            Appended::Raw if values.json => appended,
            appended => clip(appended, start, self.length, out),
        }
    }
}
