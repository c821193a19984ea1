//! Authentication of proxies: what a peer proved, and whether that is what its node id says.
//!
//! Two proofs exist: a workload certificate that our CA signed (the TLS handshake checked the chain and the
//! possession of the key), and a bearer token. A peer may bring both, then both must agree. Nothing is given to a
//! peer without a proof, not even on loopback.
//!
//! Invariant: a credential never reaches an error, a log line or a metric. Runs on the main runtime.

mod identity;
mod node;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;

use tonic::metadata::MetadataMap;

pub use identity::{Identity, InvalidIdentity};
pub use node::{InvalidNodeId, NodeId};
pub use tokens::{FileTokens, PodIdentity, TokenError};

/// The other end of an accepted connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The identity in the client certificate, checked against our CA in the handshake; `None` on a plaintext
    /// connection and for a client without a certificate.
    pub certificate: Option<Identity>,
}

impl Peer {
    /// The peer of a call. Every connection that the server accepts carries one, so an error is a mistake in the
    /// server's wiring; the call is refused then.
    pub fn of(extensions: &tonic::Extensions) -> Result<&Self, tonic::Status> {
        extensions.get().ok_or_else(|| tonic::Status::internal("the connection's peer is not known"))
    }
}

/// What a peer has proved. At least one of the two is there.
#[derive(Clone, Debug)]
pub struct Proof {
    token: Option<Arc<PodIdentity>>,
    certificate: Option<Identity>,
}

/// Why a peer was refused. The text is safe to log and to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Neither a certificate nor a token.
    #[error("no credentials: present a workload certificate or `authorization: Bearer TOKEN`")]
    NoCredentials,
    /// The `authorization` metadata is not a bearer token.
    #[error("the authorization metadata is not of the form `Bearer TOKEN`")]
    MalformedToken,
    /// A token that belongs to no pod of the source.
    #[error("the bearer token is not valid for any pod that the control plane knows")]
    InvalidToken,
    /// A call that takes a token only, made with a certificate only.
    #[error("this call needs a bearer token; a certificate is not enough")]
    TokenRequired,
    /// The node id says one workload, the proof another.
    #[error("node id says {claimed}, but the {proof} proves {proven}")]
    NodeMismatch {
        /// What the node id says.
        claimed: String,
        /// `token` or `certificate`.
        proof: &'static str,
        /// Whom the proof belongs to.
        proven: String,
    },
}

impl Refusal {
    /// The reason in one word, the value of the metric's label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoCredentials => "no_credentials",
            Self::MalformedToken => "malformed_token",
            Self::InvalidToken => "invalid_token",
            Self::TokenRequired => "token_required",
            Self::NodeMismatch { .. } => "node_mismatch",
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NodeMismatch { .. } => Self::permission_denied(refusal.to_string()),
            _ => Self::unauthenticated(refusal.to_string()),
        }
    }
}

/// Checks credentials.
pub struct Authenticator {
    tokens: FileTokens,
}

impl Authenticator {
    /// An authenticator over the file source's tokens.
    pub fn new(tokens: FileTokens) -> Self {
        Self { tokens }
    }

    /// The tokens, to be kept equal to the pods of the source.
    pub fn tokens(&self) -> &FileTokens {
        &self.tokens
    }

    /// What the caller proves with its certificate and the `authorization` metadata.
    ///
    /// A token that is present but wrong refuses the call, even beside a good certificate.
    pub fn authenticate(&self, peer: &Peer, metadata: &MetadataMap) -> Result<Proof, Refusal> {
        let token = match bearer(metadata)? {
            Some(token) => Some(self.tokens.verify(token).ok_or(Refusal::InvalidToken)?),
            None => None,
        };
        if token.is_none() && peer.certificate.is_none() {
            return Err(Refusal::NoCredentials);
        }
        Ok(Proof { token, certificate: peer.certificate.clone() })
    }
}

impl Proof {
    /// The pod that the token proves; an error when only a certificate was presented.
    pub fn pod(&self) -> Result<&PodIdentity, Refusal> {
        self.token.as_deref().ok_or(Refusal::TokenRequired)
    }

    /// Checks that `node` is what was proved and returns the proven identity: pod and namespace must be those of the
    /// token, the namespace that of the certificate. Whether the pod runs as that service account is the source's
    /// to say ([`Snapshot::scope_of`](crate::snapshot::Snapshot::scope_of)).
    pub fn check(&self, node: &NodeId, trust_domain: &str) -> Result<Identity, Refusal> {
        let mismatch = |proof, proven| Refusal::NodeMismatch {
            claimed: format!("pod {}/{}", node.namespace, node.pod),
            proof,
            proven,
        };
        let by_token = match &self.token {
            Some(token) => {
                let proven = || format!("pod {}/{}", token.namespace, token.pod);
                if token.pod != node.pod || token.namespace != node.namespace {
                    return Err(mismatch("token", proven()));
                }
                let identity = Identity::new(trust_domain, &token.namespace, &token.service_account)
                    .map_err(|_| mismatch("token", proven()))?;
                Some(identity)
            }
            None => None,
        };
        let Some(certificate) = &self.certificate else {
            return by_token.ok_or(Refusal::NoCredentials);
        };
        let fits = certificate.trust_domain() == trust_domain
            && certificate.namespace() == node.namespace
            && by_token.is_none_or(|token| token == *certificate);
        if fits { Ok(certificate.clone()) } else { Err(mismatch("certificate", certificate.to_string())) }
    }

    /// Whom this proof belongs to, for a log line.
    pub fn describe(&self) -> String {
        match (&self.token, &self.certificate) {
            (Some(pod), _) => format!("pod {}/{} (token)", pod.namespace, pod.pod),
            (None, Some(identity)) => format!("{identity} (certificate)"),
            (None, None) => "nobody".to_owned(),
        }
    }
}

fn bearer(metadata: &MetadataMap) -> Result<Option<&str>, Refusal> {
    let mut values = metadata.get_all("authorization").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Two tokens would leave it to us to choose whom to believe.
    if values.next().is_some() {
        return Err(Refusal::MalformedToken);
    }
    let text = value.to_str().map_err(|_| Refusal::MalformedToken)?;
    // The scheme's name is case-insensitive (RFC 9110 section 11.1).
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(Refusal::MalformedToken),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    struct Fixture {
        authenticator: Authenticator,
        web: String,
        _dir: tempfile::TempDir,
    }

    fn fixture() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let tokens = FileTokens::open(dir.path()).unwrap();
        let pod = |name: &str| PodIdentity {
            namespace: "shop".into(),
            pod: format!("{name}-0"),
            service_account: name.into(),
        };
        assert!(tokens.replace([pod("web"), pod("reviews")]).is_empty());
        let web = std::fs::read_to_string(dir.path().join("tokens/shop/web-0")).unwrap();
        Fixture { authenticator: Authenticator::new(tokens), web, _dir: dir }
    }

    fn identity(service_account: &str) -> Identity {
        Identity::new("cluster.local", "shop", service_account).unwrap()
    }

    fn peer(certificate: Option<&str>) -> Peer {
        Peer { address: ([127, 0, 0, 1], 1).into(), certificate: certificate.map(identity) }
    }

    fn metadata(authorization: &[&str]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for value in authorization {
            map.append("authorization", value.parse().unwrap());
        }
        map
    }

    fn node(pod: &str) -> NodeId {
        NodeId::parse(&format!("sidecar~127.1.0.1~{pod}.shop~shop.svc.cluster.local")).unwrap()
    }

    #[test]
    fn credentials_table() {
        let f = fixture();
        let good = format!("Bearer {}", f.web);
        let lower = format!("bearer {}", f.web);
        let refused = |certificate, authorization: &[&str]| {
            f.authenticator.authenticate(&peer(certificate), &metadata(authorization)).err()
        };
        assert_eq!(refused(None, &[&good]), None);
        assert_eq!(refused(None, &[&lower]), None);
        assert_eq!(refused(Some("web"), &[]), None);
        assert_eq!(refused(None, &[]), Some(Refusal::NoCredentials));
        assert_eq!(refused(None, &[&f.web]), Some(Refusal::MalformedToken));
        assert_eq!(refused(None, &["Bearer "]), Some(Refusal::MalformedToken));
        assert_eq!(refused(None, &["Basic d2ViOndlYg=="]), Some(Refusal::MalformedToken));
        assert_eq!(refused(None, &[&good, &good]), Some(Refusal::MalformedToken));
        assert_eq!(refused(None, &["Bearer abc"]), Some(Refusal::InvalidToken));
        assert_eq!(refused(Some("web"), &["Bearer abc"]), Some(Refusal::InvalidToken));
    }

    #[test]
    fn node_and_proof_must_agree() {
        let f = fixture();
        let token = metadata(&[&format!("Bearer {}", f.web)]);
        let by_token = f.authenticator.authenticate(&peer(None), &token).unwrap();
        let by_certificate = f.authenticator.authenticate(&peer(Some("web")), &MetadataMap::new()).unwrap();
        let disagreeing = f.authenticator.authenticate(&peer(Some("reviews")), &token).unwrap();

        let domain = "cluster.local";
        assert_eq!(by_token.check(&node("web-0"), domain), Ok(identity("web")));
        // A certificate proves a service account; which pods run as it is the source's to say.
        assert_eq!(by_certificate.check(&node("web-0"), domain), Ok(identity("web")));
        let elsewhere = NodeId::parse("sidecar~127.1.0.1~web-0.bank~bank.svc.cluster.local").unwrap();
        for (proof, node, domain) in [
            (&by_token, node("reviews-0"), domain),
            (&by_token, elsewhere.clone(), domain),
            (&by_certificate, elsewhere, domain),
            (&by_certificate, node("web-0"), "other.domain"),
            (&disagreeing, node("web-0"), domain),
            (&disagreeing, node("reviews-0"), domain),
        ] {
            let refusal = proof.check(&node, domain).unwrap_err();
            assert_eq!(refusal.reason(), "node_mismatch");
            let status = tonic::Status::from(refusal);
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
            assert!(!status.message().contains(&f.web), "a token leaked");
        }
    }

    #[test]
    fn only_a_token_names_a_pod() {
        let f = fixture();
        let by_certificate = f.authenticator.authenticate(&peer(Some("web")), &MetadataMap::new()).unwrap();
        assert_eq!(by_certificate.pod(), Err(Refusal::TokenRequired));
        let token = metadata(&[&format!("Bearer {}", f.web)]);
        let by_token = f.authenticator.authenticate(&peer(None), &token).unwrap();
        assert_eq!(by_token.pod().unwrap().service_account, "web");
    }
}
