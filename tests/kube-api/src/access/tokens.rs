//! Bearer tokens: the administrator's, and those of service accounts, which are JWTs as the kubelet gets them.
//!
//! They are signed with a key that only this server has (HS256; a real server uses RS256, which nobody but it verifies
//! either). A token lives as long as its service account and the pod that it is bound to.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::User;
use crate::cluster::Cluster;
use crate::dispatch::Call;
use crate::http::body;
use crate::http::respond::{Answer, Reply};
use crate::kinds::Collection;
use crate::object;
use crate::status::{Cause, Result, Status};

/// The server's own audience and issuer.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc";

/// The keys of a server.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) administrator: String,
    key: hmac::Key,
}

/// A token that a test asks for. The service account must exist; the pod too, if it is bound to one.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// Namespace of the service account.
    pub namespace: String,
    /// Name of the service account.
    pub service_account: String,
    /// Whom the token is for; empty: for the API server.
    pub audiences: Vec<String>,
    /// Seconds until it expires; negative: it has expired already.
    pub expires_in: i64,
    /// The pod that it is bound to.
    pub pod: Option<String>,
}

impl Tokens {
    pub(crate) fn new() -> Self {
        let secret: Vec<u8> = (0..32).map(|_| fastrand::u8(..)).collect();
        let administrator = (0..32).map(|_| fastrand::alphanumeric()).collect();
        Tokens { administrator, key: hmac::Key::new(hmac::HMAC_SHA256, &secret) }
    }

    fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&json!({"alg": "HS256", "kid": "tests"})), encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes()));
        format!("{text}.{signature}")
    }

    /// The claims of a token; the error is what a real server says of it.
    fn verify(&self, token: &str) -> std::result::Result<Value, String> {
        let garbage = || "invalid bearer token".to_owned();
        let (text, signature) = token.rsplit_once('.').ok_or_else(garbage)?;
        let (_, claims) = text.split_once('.').ok_or_else(garbage)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| garbage())?;
        let claims: Value = serde_json::from_slice(&claims).map_err(|_| garbage())?;
        if claims["iss"] != ISSUER {
            return Err(garbage());
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
        hmac::verify(&self.key, text.as_bytes(), &signature).map_err(|_| {
            "[invalid bearer token, go-jose/go-jose: error in cryptographic primitive]".to_owned()
        })?;
        Ok(claims)
    }
}

fn service_accounts() -> Collection {
    Collection::new("", "serviceaccounts")
}

/// Who sends this `Authorization` header?
pub(crate) fn authenticate(cluster: &Cluster, header: &str) -> Result<User> {
    if header.is_empty() {
        return Ok(User::new("system:anonymous", &["system:unauthenticated"]));
    }
    let token = header.strip_prefix("Bearer ").ok_or_else(Status::unauthorized)?.trim();
    if token == cluster.tokens.administrator {
        return Ok(User::new("admin", &["system:masters", "system:authenticated"]));
    }
    review(cluster, token, &[ISSUER.to_owned()]).map(|(user, _)| user).map_err(|_| Status::unauthorized())
}

/// Judges a token for audiences: the user and those audiences that the token is for.
pub(crate) fn review(
    cluster: &Cluster,
    token: &str,
    audiences: &[String],
) -> std::result::Result<(User, Vec<String>), String> {
    let claims = cluster.tokens.verify(token)?;
    let own: Vec<String> = claims["aud"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    let common: Vec<String> = audiences.iter().filter(|one| own.contains(one)).cloned().collect();
    if common.is_empty() {
        return Err(format!(
            "[invalid bearer token, token audiences {} is invalid for the target audiences {}]",
            quoted(&own),
            quoted(audiences)
        ));
    }
    if claims["exp"].as_i64().unwrap_or(0) <= OffsetDateTime::now_utc().unix_timestamp() {
        return Err("[invalid bearer token, service account token has expired]".to_owned());
    }
    let bound = &claims["kubernetes.io"];
    let namespace = text(&bound["namespace"]);
    let is_there = |collection: &str, claim: &Value| {
        let stored = cluster.get(&Collection::new("", collection), namespace, text(&claim["name"]));
        stored.is_some_and(|stored| object::uid(&stored) == text(&claim["uid"]))
    };
    let account = &bound["serviceaccount"];
    if !is_there("serviceaccounts", account) || (bound["pod"].is_object() && !is_there("pods", &bound["pod"]))
    {
        return Err("[invalid bearer token, service account token has been invalidated]".to_owned());
    }
    let mut extra = serde_json::Map::new();
    let mut note = |key: &str, value: &str| {
        extra.insert(format!("authentication.kubernetes.io/{key}"), json!([value]));
    };
    note("credential-id", &format!("JTI={}", text(&claims["jti"])));
    for of in ["node", "pod"] {
        if bound[of].is_object() {
            note(&format!("{of}-name"), text(&bound[of]["name"]));
            note(&format!("{of}-uid"), text(&bound[of]["uid"]));
        }
    }
    let user = User {
        name: text(&claims["sub"]).to_owned(),
        uid: text(&account["uid"]).to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra,
    };
    Ok((user, common))
}

/// A list as Go's `%q` prints it.
fn quoted(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Signs a token for a service account that exists.
pub(crate) fn issue(cluster: &Cluster, spec: &TokenSpec) -> Result<(String, OffsetDateTime)> {
    let account = cluster
        .get(&service_accounts(), &spec.namespace, &spec.service_account)
        .ok_or_else(|| Status::not_found("", "serviceaccounts", &spec.service_account))?;
    let now = OffsetDateTime::now_utc();
    let expires = now + time::Duration::seconds(spec.expires_in);
    let audiences = if spec.audiences.is_empty() { vec![ISSUER.to_owned()] } else { spec.audiences.clone() };
    let mut bound = json!({"namespace": spec.namespace});
    if let Some(name) = &spec.pod {
        let pod = cluster
            .get(&Collection::new("", "pods"), &spec.namespace, name)
            .ok_or_else(|| Status::not_found("", "pods", name))?;
        if pod["spec"]["serviceAccountName"] != spec.service_account.as_str() {
            return Err(Status::bad_request(format!(
                "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                spec.service_account
            )));
        }
        if let Some(node) = pod["spec"]["nodeName"].as_str() {
            let stored = cluster.get(&Collection::new("", "nodes"), "", node);
            let uid = stored.map(|node| object::uid(&node).to_owned()).unwrap_or_default();
            bound["node"] = json!({"name": node, "uid": uid});
        }
        bound["pod"] = json!({"name": name, "uid": object::uid(&pod)});
    }
    bound["serviceaccount"] = json!({"name": spec.service_account, "uid": object::uid(&account)});
    let issued = now.unix_timestamp().min(expires.unix_timestamp());
    let claims = json!({
        "aud": audiences, "exp": expires.unix_timestamp(), "iat": issued, "iss": ISSUER,
        "jti": object::random_uid(), "kubernetes.io": bound, "nbf": issued,
        "sub": format!("system:serviceaccount:{}:{}", spec.namespace, spec.service_account),
    });
    Ok((cluster.tokens.sign(&claims), expires))
}

/// `serviceaccounts/NAME/token`.
pub(crate) fn request(call: &Call) -> Result<Reply> {
    let request = body::parse(&call.content_type, &call.body).map_err(Status::bad_request)?;
    let spec = &request["spec"];
    let account = call.cluster.get(&service_accounts(), call.namespace(), call.name());
    let account = account.ok_or_else(|| call.not_found())?;
    let seconds = spec["expirationSeconds"].as_i64().unwrap_or(3600);
    if seconds < 600 {
        let why = "may not specify a duration less than 10 minutes";
        let cause = Cause::invalid("spec.expirationSeconds", &seconds.into(), why);
        return Err(Status::invalid("authentication.k8s.io", "TokenRequest", "", &[cause]));
    }
    let bound = &spec["boundObjectRef"];
    let pod = bound["name"].as_str().filter(|_| bound["kind"] == "Pod");
    let audiences: Vec<String> =
        spec["audiences"].as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect();
    let wanted = TokenSpec {
        namespace: call.namespace().to_owned(),
        service_account: call.name().to_owned(),
        audiences: audiences.clone(),
        expires_in: seconds,
        pod: pod.map(str::to_owned),
    };
    let (token, expires) = issue(&call.cluster, &wanted)?;
    let audiences = if audiences.is_empty() { vec![ISSUER.to_owned()] } else { audiences };
    let value = json!({
        "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": call.name(), "namespace": call.namespace(), "uid": object::uid(&account),
                     "creationTimestamp": object::now()},
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
        "status": {"token": token, "expirationTimestamp": object::timestamp(expires)},
    });
    Ok(Answer::Json { code: 201, value }.into())
}
