//! The node id that a sidecar sends with its first xDS request, in Istio's form.

use std::net::IpAddr;

/// `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.CLUSTER_DOMAIN`: what a proxy says that it is. Nothing in it is
/// believed before [`super::Proof::check`] has compared it with what the proxy proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeId {
    /// The address that the proxy listens on.
    pub address: IpAddr,
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
}

/// Why a node id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNodeId {
    /// Not four parts, or a part is malformed.
    #[error(
        "node.id `{id}`: {reason}; expected sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.CLUSTER_DOMAIN, for example \
         sidecar~10.0.0.7~web-0.shop~shop.svc.cluster.local"
    )]
    Malformed {
        /// The text that was sent.
        id: String,
        /// Which part is wrong and how.
        reason: String,
    },
    /// A proxy kind that this control plane does not configure.
    #[error("node.id: proxy type `{0}` is not supported, only `sidecar` is")]
    UnsupportedType(String),
}

impl NodeId {
    /// Reads a node id (`Node.id` of the first discovery request).
    pub fn parse(id: &str) -> Result<Self, InvalidNodeId> {
        let malformed =
            |reason: &str| InvalidNodeId::Malformed { id: id.to_owned(), reason: reason.to_owned() };
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, address, workload, domain] = parts.as_slice() else {
            return Err(malformed("it does not have four parts separated by `~`"));
        };
        if *kind != "sidecar" {
            return Err(InvalidNodeId::UnsupportedType((*kind).to_owned()));
        }
        let address = address.parse().map_err(|_| malformed("the second part is not an IP address"))?;
        // A pod's name may hold dots (it is a DNS subdomain), a namespace may not.
        let (pod, namespace) =
            workload.rsplit_once('.').ok_or_else(|| malformed("the third part is not POD.NAMESPACE"))?;
        if pod.is_empty() || namespace.is_empty() {
            return Err(malformed("the third part is not POD.NAMESPACE"));
        }
        let in_domain = domain.strip_prefix(namespace).is_some_and(|rest| rest.starts_with(".svc."));
        if !in_domain {
            return Err(malformed("the fourth part does not begin with the namespace of the third"));
        }
        Ok(Self { address, pod: pod.to_owned(), namespace: namespace.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn istio_form_is_read() {
        let node = NodeId::parse("sidecar~127.1.0.2~reviews.v1.shop~shop.svc.cluster.local").unwrap();
        assert_eq!(node.address, "127.1.0.2".parse::<IpAddr>().unwrap());
        assert_eq!((node.pod.as_str(), node.namespace.as_str()), ("reviews.v1", "shop"));
        assert!(NodeId::parse("sidecar~::1~web.shop~shop.svc.example.org").is_ok());
    }

    #[test]
    fn malformed_ids_are_refused_with_the_part() {
        for (id, part) in [
            ("", "four parts"),
            ("sidecar~1.2.3.4~web.shop", "four parts"),
            ("sidecar~1.2.3~web.shop~shop.svc.cluster.local", "second part"),
            ("sidecar~1.2.3.4~web~shop.svc.cluster.local", "third part"),
            ("sidecar~1.2.3.4~.shop~shop.svc.cluster.local", "third part"),
            ("sidecar~1.2.3.4~web.shop~other.svc.cluster.local", "fourth part"),
            ("sidecar~1.2.3.4~web.shop~shopping.svc.cluster.local", "fourth part"),
        ] {
            let error = NodeId::parse(id).unwrap_err().to_string();
            assert!(error.contains(part), "{id}: {error}");
        }
        let router = NodeId::parse("router~1.2.3.4~gw.shop~shop.svc.cluster.local").unwrap_err();
        assert_eq!(router, InvalidNodeId::UnsupportedType("router".into()));
    }
}
