//! Authentication of proxies: what a peer proved, and whether that is what its node id says.
//!
//! Two proofs exist: a workload certificate that our CA signed (the TLS handshake checked the chain and the
//! possession of the key), and a bearer token. A peer may bring both, then both must agree. Nothing is given to a
//! peer without a proof, not even on loopback or on a Unix socket: who may connect there is a user, not a pod.
//!
//! Invariant: a credential never reaches an error, a log line or a metric. Runs on the main runtime.

mod identity;
mod node;
mod peer;
mod token_review;
mod tokens;

use std::sync::Arc;

use tonic::metadata::MetadataMap;

pub use identity::{Identity, InvalidIdentity};
pub use node::{InvalidNodeId, NodeId};
pub use peer::{Peer, PeerAddress};
pub use token_review::{ReviewFailure, TokenReviews};
pub use tokens::{FileTokens, PodIdentity, TokenError};

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
    /// A token that belongs to no pod.
    #[error("the bearer token is not valid for any pod that the control plane knows")]
    InvalidToken,
    /// A token whose time is over.
    #[error("the bearer token has expired")]
    ExpiredToken,
    /// A token that was made for somebody else to check.
    #[error("the bearer token is not for the audience {expected}")]
    OtherAudience {
        /// Our audience.
        expected: String,
    },
    /// A good token, but of a user or of a service account without a Pod.
    #[error("the bearer token is not a service account's that is bound to a Pod")]
    NotAPod,
    /// Too many wrong tokens came from one address.
    #[error("too many wrong tokens from this address; try again in a minute")]
    TooManyRefusals,
    /// It cannot be found out now whether the token is good.
    #[error("the bearer token cannot be checked now: {0}")]
    Unavailable(ReviewFailure),
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
            Self::ExpiredToken => "expired_token",
            Self::OtherAudience { .. } => "other_audience",
            Self::NotAPod => "not_a_pod",
            Self::TooManyRefusals => "too_many_refusals",
            Self::Unavailable(_) => "unavailable",
            Self::TokenRequired => "token_required",
            Self::NodeMismatch { .. } => "node_mismatch",
        }
    }
}

impl From<Refusal> for tonic::Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NodeMismatch { .. } => Self::permission_denied(refusal.to_string()),
            Refusal::TooManyRefusals => Self::resource_exhausted(refusal.to_string()),
            Refusal::Unavailable(_) => Self::unavailable(refusal.to_string()),
            _ => Self::unauthenticated(refusal.to_string()),
        }
    }
}

/// Who knows whether a bearer token is good.
pub enum Tokens {
    /// We do: we made them for the pods of a directory.
    Files(FileTokens),
    /// The API server does: they are its service accounts'.
    Reviews(TokenReviews),
}

/// Checks credentials.
pub struct Authenticator {
    tokens: Tokens,
}

impl Authenticator {
    /// An authenticator over the tokens of the source.
    pub fn new(tokens: Tokens) -> Self {
        Self { tokens }
    }

    /// Makes `pods` the whole set of pods that may have a token; returns why some get none. Nothing to do where the API
    /// server issues them.
    pub fn replace_pods(&self, pods: impl IntoIterator<Item = PodIdentity>) -> Vec<TokenError> {
        match &self.tokens {
            Tokens::Files(files) => files.replace(pods),
            Tokens::Reviews(_) => Vec::new(),
        }
    }

    /// What the caller proves with its certificate and the `authorization` metadata.
    ///
    /// A token that is present but wrong refuses the call, even beside a good certificate.
    pub async fn authenticate(&self, peer: &Peer, metadata: &MetadataMap) -> Result<Proof, Refusal> {
        let token = match (bearer(metadata)?, &self.tokens) {
            (None, _) => None,
            (Some(token), Tokens::Files(files)) => Some(files.verify(token).ok_or(Refusal::InvalidToken)?),
            (Some(token), Tokens::Reviews(reviews)) => Some(reviews.verify(token, peer.address.ip()).await?),
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
    use futures_util::FutureExt as _;

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
        Fixture { authenticator: Authenticator::new(Tokens::Files(tokens)), web, _dir: dir }
    }

    fn identity(service_account: &str) -> Identity {
        Identity::new("cluster.local", "shop", service_account).unwrap()
    }

    fn peer(certificate: Option<&str>) -> Peer {
        Peer { address: PeerAddress::Ip(([127, 0, 0, 1], 1).into()), certificate: certificate.map(identity) }
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

    impl Fixture {
        fn authenticate(&self, certificate: Option<&str>, metadata: &MetadataMap) -> Result<Proof, Refusal> {
            // Tokens of files are checked without waiting.
            self.authenticator.authenticate(&peer(certificate), metadata).now_or_never().unwrap()
        }
    }

    #[test]
    fn credentials_table() {
        let f = fixture();
        let good = format!("Bearer {}", f.web);
        let lower = format!("bearer {}", f.web);
        let refused =
            |certificate, authorization: &[&str]| f.authenticate(certificate, &metadata(authorization)).err();
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
        let by_token = f.authenticate(None, &token).unwrap();
        let by_certificate = f.authenticate(Some("web"), &MetadataMap::new()).unwrap();
        let disagreeing = f.authenticate(Some("reviews"), &token).unwrap();

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
        let by_certificate = f.authenticate(Some("web"), &MetadataMap::new()).unwrap();
        assert_eq!(by_certificate.pod(), Err(Refusal::TokenRequired));
        let token = metadata(&[&format!("Bearer {}", f.web)]);
        let by_token = f.authenticate(None, &token).unwrap();
        assert_eq!(by_token.pod().unwrap().service_account, "web");
    }
}
