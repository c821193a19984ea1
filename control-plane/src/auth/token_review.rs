//! Bearer tokens of Kubernetes: projected service account tokens, checked by the API server (TokenReview).
//!
//! Invariants: only an answer of the API server makes a token good, and only for our audience; a good answer is believed
//! for [`CACHE_TTL`] at most and never longer than the token says; tokens themselves are never kept, only their digests.
//! What a token says about itself is read before it is reviewed, to refuse plainly what cannot be good. An API server
//! that is away refuses nobody for ever: callers are told to come again. Runs on the main runtime.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Deserialize;
use time::OffsetDateTime;
use tokio::sync::Semaphore;

use super::{PodIdentity, Refusal};

/// How long a good answer is believed. A Pod that starts makes several calls at once; that of a deleted Pod is refused
/// this much later at most.
const CACHE_TTL: time::Duration = time::Duration::seconds(10);
/// Good answers that are remembered.
const CACHE_MAX: usize = 4096;
/// Wrong tokens that one address may have reviewed in [`REFUSALS_WINDOW`].
const REFUSALS_MAX: u32 = 10;
const REFUSALS_WINDOW: time::Duration = time::Duration::minutes(1);
/// Addresses whose refusals are counted.
const ADDRESSES_MAX: usize = 4096;
/// Reviews under way at once: when the control plane restarts, all proxies come together.
const CONCURRENT_MAX: usize = 32;
/// How long the API server may take.
const REVIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// A larger token is none of ours, in bytes.
const TOKEN_MAX_BYTES: usize = 16 * 1024;
/// The Pod that a token is bound to (Kubernetes: `UserInfo.extra`).
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";

/// Why a review gave no answer. The text is safe to log and to send.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReviewFailure {
    /// The API server refuses to review.
    #[error("the API server refuses the TokenReview: {0}")]
    Refused(String),
    /// It does not answer, or not in time.
    #[error("the API server does not answer")]
    Away,
}

/// Checks tokens with the API server.
pub struct TokenReviews {
    api: Api<TokenReview>,
    audience: String,
    permits: Semaphore,
    remembered: Mutex<Remembered>,
}

type Digest = [u8; digest::SHA256_OUTPUT_LEN];

#[derive(Default)]
struct Remembered {
    good: HashMap<Digest, Good>,
    /// By address; `None` is the Unix socket.
    refusals: HashMap<Option<IpAddr>, Refusals>,
}

struct Good {
    pod: Arc<PodIdentity>,
    until: OffsetDateTime,
}

/// Wrong tokens of one address in the window that began at `since`.
struct Refusals {
    since: OffsetDateTime,
    count: u32,
}

/// What a token says about itself (RFC 7519), as far as it matters before a review.
#[derive(Deserialize)]
struct Claims {
    aud: Audience,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl TokenReviews {
    /// Reviews for tokens with this audience.
    pub fn new(client: Client, audience: &str) -> Self {
        Self {
            api: Api::all(client),
            audience: audience.to_owned(),
            permits: Semaphore::new(CONCURRENT_MAX),
            remembered: Mutex::default(),
        }
    }

    /// The Pod that `token`, presented from `address` or by the Unix socket, belongs to.
    ///
    /// # Errors
    /// The token is not good, or that cannot be found out.
    pub async fn verify(&self, token: &str, address: Option<IpAddr>) -> Result<Arc<PodIdentity>, Refusal> {
        let now = OffsetDateTime::now_utc();
        let expires = self.check_claims(token, now)?;
        let digest = hash(token);
        if let Some(pod) = self.remembered(&digest, address, now)? {
            return Ok(pod);
        }
        match self.review(token).await.and_then(|status| self.pod_of(status)) {
            Ok(pod) => {
                let pod = Arc::new(pod);
                self.remember(
                    digest,
                    Good { pod: Arc::clone(&pod), until: expires.min(now + CACHE_TTL) },
                    now,
                );
                Ok(pod)
            }
            Err(refusal) => {
                if !matches!(refusal, Refusal::Unavailable(_)) {
                    self.count_refusal(address, now);
                }
                Err(refusal)
            }
        }
    }

    /// Refuses what cannot be good; returns when the token expires.
    fn check_claims(&self, token: &str, now: OffsetDateTime) -> Result<OffsetDateTime, Refusal> {
        let claims = claims(token).ok_or(Refusal::InvalidToken)?;
        let expires = OffsetDateTime::from_unix_timestamp(claims.exp).map_err(|_| Refusal::InvalidToken)?;
        if expires <= now {
            return Err(Refusal::ExpiredToken);
        }
        let is_ours = match &claims.aud {
            Audience::One(audience) => *audience == self.audience,
            Audience::Several(audiences) => audiences.contains(&self.audience),
        };
        if is_ours { Ok(expires) } else { Err(self.other_audience()) }
    }

    fn other_audience(&self) -> Refusal {
        Refusal::OtherAudience { expected: self.audience.clone() }
    }

    /// The good answer of a moment ago; an error when this address has asked too much.
    fn remembered(
        &self,
        digest: &Digest,
        address: Option<IpAddr>,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<PodIdentity>>, Refusal> {
        let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(good) = remembered.good.get(digest).filter(|good| now < good.until) {
            return Ok(Some(Arc::clone(&good.pod)));
        }
        match remembered.refusals.get(&address) {
            Some(refusals) if refusals.count >= REFUSALS_MAX && refusals.is_current(now) => {
                Err(Refusal::TooManyRefusals)
            }
            _ => Ok(None),
        }
    }

    fn remember(&self, digest: Digest, good: Good, now: OffsetDateTime) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.good.len() >= CACHE_MAX {
            remembered.good.retain(|_, good| now < good.until);
        }
        // Without room the next call is reviewed again: it costs time, no more.
        if remembered.good.len() < CACHE_MAX {
            remembered.good.insert(digest, good);
        }
    }

    fn count_refusal(&self, address: Option<IpAddr>, now: OffsetDateTime) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.refusals.len() >= ADDRESSES_MAX {
            remembered.refusals.retain(|_, refusals| refusals.is_current(now));
        }
        if remembered.refusals.len() >= ADDRESSES_MAX {
            // So many addresses at once: what is left is the limit of reviews under way.
            return;
        }
        let refusals = remembered.refusals.entry(address).or_insert(Refusals { since: now, count: 0 });
        if !refusals.is_current(now) {
            *refusals = Refusals { since: now, count: 0 };
        }
        refusals.count += 1;
    }

    async fn review(&self, token: &str) -> Result<TokenReviewStatus, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.to_owned()),
                audiences: Some(vec![self.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, async {
            // Never closed.
            let _permit = self.permits.acquire().await;
            self.api.create(&PostParams::default(), &review).await
        });
        // Errors of the client may hold what the server said, and with it the token: only the API's own messages are safe.
        let failure = match answer.await {
            Ok(Ok(review)) => return Ok(review.status.unwrap_or_default()),
            Ok(Err(kube::Error::Api(status))) => {
                ReviewFailure::Refused(format!("{} ({})", status.reason, status.code))
            }
            Ok(Err(_)) | Err(_) => ReviewFailure::Away,
        };
        Err(Refusal::Unavailable(failure))
    }

    /// The Pod that the API server's answer names.
    fn pod_of(&self, status: TokenReviewStatus) -> Result<PodIdentity, Refusal> {
        if status.authenticated != Some(true) {
            // The texts are no contract; a wrong guess gives another reason to the same refusal.
            let error = status.error.unwrap_or_default();
            return Err(match () {
                () if error.contains("expired") => Refusal::ExpiredToken,
                () if error.contains("audience") => self.other_audience(),
                () => Refusal::InvalidToken,
            });
        }
        // An API server that knows no audiences says none, and its answer is worth nothing here.
        if !status.audiences.unwrap_or_default().contains(&self.audience) {
            return Err(self.other_audience());
        }
        let user = status.user.unwrap_or_default();
        let username = user.username.unwrap_or_default();
        let account = username.strip_prefix("system:serviceaccount:").and_then(|name| name.split_once(':'));
        let pod = user
            .extra
            .and_then(|mut extra| extra.remove(POD_NAME))
            .and_then(|names| names.into_iter().next());
        match (account, pod) {
            (Some((namespace, service_account)), Some(pod)) => Ok(PodIdentity {
                namespace: namespace.to_owned(),
                pod,
                service_account: service_account.to_owned(),
            }),
            _ => Err(Refusal::NotAPod),
        }
    }
}

impl Refusals {
    fn is_current(&self, now: OffsetDateTime) -> bool {
        now - self.since < REFUSALS_WINDOW
    }
}

/// What the middle part of a JWT says. Its signature is not checked.
fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    if token.len() > TOKEN_MAX_BYTES {
        return None;
    }
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

fn hash(token: &str) -> Digest {
    let mut out = [0; digest::SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    const ADDRESS: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 0, 7)));

    /// Reviews by an API server that gives the same `answer` to all, and how often it was asked.
    fn reviews(status: u16, answer: Value) -> (TokenReviews, Arc<AtomicUsize>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let server = tower::service_fn(move |request: Request<Body>| {
            assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
            count.fetch_add(1, Ordering::Relaxed);
            let body = Body::from(answer.to_string().into_bytes());
            let response = Response::builder().status(status).body(body).unwrap();
            async move { Ok::<_, Infallible>(response) }
        });
        (TokenReviews::new(Client::new(server, "default"), "mesh"), asked)
    }

    fn review(status: Value) -> Value {
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
            "spec": {"token": "x"}, "status": status})
    }

    fn good(audiences: &[&str]) -> Value {
        review(json!({"authenticated": true, "audiences": audiences, "user": {
            "username": "system:serviceaccount:shop:web", "extra": {POD_NAME: ["web-0"]}}}))
    }

    /// A token with these claims; only the API server could tell that nobody signed it.
    fn token(claims: &Value) -> String {
        let encode = |text: String| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(json!({"alg": "RS256"}).to_string()), encode(claims.to_string()))
    }

    fn seconds_from_now(seconds: i64) -> i64 {
        OffsetDateTime::now_utc().unix_timestamp() + seconds
    }

    fn fresh() -> String {
        token(&json!({"aud": ["mesh"], "exp": seconds_from_now(600)}))
    }

    async fn refusal(reviews: &TokenReviews, token: &str) -> Refusal {
        reviews.verify(token, ADDRESS).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_good_answer_is_believed_for_a_while() {
        let (reviews, asked) = reviews(201, good(&["mesh"]));
        let expected =
            PodIdentity { namespace: "shop".into(), pod: "web-0".into(), service_account: "web".into() };
        let token = fresh();
        for _ in 0..3 {
            assert_eq!(*reviews.verify(&token, ADDRESS).await.unwrap(), expected);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        let another = self::token(&json!({"aud": "mesh", "exp": seconds_from_now(601)}));
        assert_eq!(*reviews.verify(&another, ADDRESS).await.unwrap(), expected);
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_good_answer_is_never_believed_longer_than_the_token() {
        let (reviews, _) = reviews(201, good(&["mesh"]));
        let exp = seconds_from_now(3);
        reviews.verify(&token(&json!({"aud": "mesh", "exp": exp})), ADDRESS).await.unwrap();
        let short = reviews.remembered.lock().unwrap().good.values().next().unwrap().until;
        assert_eq!(short.unix_timestamp(), exp);
        reviews.verify(&fresh(), ADDRESS).await.unwrap();
        let longest = reviews.remembered.lock().unwrap().good.values().map(|good| good.until).max().unwrap();
        assert!(longest <= OffsetDateTime::now_utc() + CACHE_TTL);
    }

    #[tokio::test]
    async fn what_cannot_be_good_is_refused_without_asking() {
        let (reviews, asked) = reviews(201, good(&["mesh"]));
        let other = Refusal::OtherAudience { expected: "mesh".into() };
        for (token, expected) in [
            (token(&json!({"aud": ["mesh"], "exp": seconds_from_now(-1)})), Refusal::ExpiredToken),
            (token(&json!({"aud": ["else"], "exp": seconds_from_now(600)})), other.clone()),
            (token(&json!({"aud": "else", "exp": seconds_from_now(600)})), other),
            (token(&json!({"exp": seconds_from_now(600)})), Refusal::InvalidToken),
            (token(&json!({"aud": "mesh"})), Refusal::InvalidToken),
            (token(&json!({"aud": "mesh", "exp": i64::MAX})), Refusal::InvalidToken),
            ("abc".to_owned(), Refusal::InvalidToken),
            (format!("{}.x", fresh()), Refusal::InvalidToken),
            (format!("{}{}", fresh(), "A".repeat(TOKEN_MAX_BYTES)), Refusal::InvalidToken),
        ] {
            assert_eq!(refusal(&reviews, &token).await, expected, "{token}");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bad_answers_refuse_with_a_reason() {
        let refused = |error: &str| review(json!({"user": {}, "error": error}));
        let user = |user: Value| review(json!({"authenticated": true, "audiences": ["mesh"], "user": user}));
        let other = Refusal::OtherAudience { expected: "mesh".into() };
        for (answer, expected) in [
            (refused("invalid bearer token"), Refusal::InvalidToken),
            (refused("[invalid bearer token, token has expired]"), Refusal::ExpiredToken),
            (refused("[invalid bearer token, token audiences [\"a\"] is invalid]"), other.clone()),
            (good(&[]), other.clone()),
            (good(&["else"]), other),
            (user(json!({"username": "admin", "extra": {POD_NAME: ["web-0"]}})), Refusal::NotAPod),
            (user(json!({"username": "system:serviceaccount:shop:web"})), Refusal::NotAPod),
            (
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {},
                "spec": {"token": "x"}}),
                Refusal::InvalidToken,
            ),
        ] {
            let (reviews, _) = reviews(201, answer.clone());
            assert_eq!(refusal(&reviews, &fresh()).await, expected, "{answer}");
        }
    }

    #[tokio::test]
    async fn an_api_server_that_gives_no_answer_is_not_the_callers_fault() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "the token is SECRET", "reason": "Forbidden", "code": 403});
        for (code, answer) in [(403, status), (201, json!("SECRET")), (201, json!({"spec": "SECRET"}))] {
            let (reviews, asked) = reviews(code, answer.clone());
            for _ in 0..=REFUSALS_MAX {
                let refusal = refusal(&reviews, &fresh()).await;
                assert!(matches!(refusal, Refusal::Unavailable(_)), "{answer}: {refusal}");
                assert!(!refusal.to_string().contains("SECRET"), "{refusal}");
                assert_eq!(tonic::Status::from(refusal).code(), tonic::Code::Unavailable);
            }
            assert_eq!(asked.load(Ordering::Relaxed), REFUSALS_MAX as usize + 1, "no limit for failures");
        }
    }

    #[tokio::test]
    async fn wrong_tokens_of_one_address_are_limited() {
        let (reviews, asked) = reviews(201, review(json!({"user": {}, "error": "invalid bearer token"})));
        let wrong = fresh();
        for _ in 0..REFUSALS_MAX {
            assert_eq!(refusal(&reviews, &wrong).await, Refusal::InvalidToken);
        }
        assert_eq!(refusal(&reviews, &wrong).await, Refusal::TooManyRefusals);
        assert_eq!(asked.load(Ordering::Relaxed), REFUSALS_MAX as usize);
        // Those of another address, and of the Unix socket, are counted apart.
        for another in [Some(IpAddr::from([10, 1, 0, 8])), None] {
            assert_eq!(reviews.verify(&wrong, another).await.unwrap_err(), Refusal::InvalidToken);
        }
        // The window passes.
        reviews.remembered.lock().unwrap().refusals.get_mut(&ADDRESS).unwrap().since -= REFUSALS_WINDOW;
        assert_eq!(refusal(&reviews, &wrong).await, Refusal::InvalidToken);
        assert_eq!(asked.load(Ordering::Relaxed), REFUSALS_MAX as usize + 3);
    }
}
