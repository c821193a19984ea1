//! Questions that are answered and not stored: whose token is this, may this user do that, who am I?

use serde_json::{Value, json};

use super::rbac::{Attributes, allowed};
use super::{User, tokens};
use crate::dispatch::Call;
use crate::http::body;
use crate::http::respond::{Answer, Reply};
use crate::status::{Result, Status};

pub(crate) fn answer(call: &Call) -> Result<Reply> {
    let mut review = body::object(&call.resource, &call.content_type, &call.body)?;
    crate::object::metadata(&mut review);
    let spec = review["spec"].clone();
    review["status"] = match call.resource.kind.as_str() {
        "TokenReview" => token_review(call, &spec)?,
        "SelfSubjectReview" => json!({"userInfo": call.user.to_json()}),
        "SelfSubjectAccessReview" => access_review(call, &call.user, &spec),
        _ => {
            let groups: Vec<&str> =
                spec["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let user = User::new(spec["user"].as_str().unwrap_or_default(), &groups);
            access_review(call, &user, &spec)
        }
    };
    Ok(Answer::Json { code: 201, value: review }.into())
}

fn token_review(call: &Call, spec: &Value) -> Result<Value> {
    let token = spec["token"].as_str().unwrap_or_default();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|audience| audience.as_str().map(str::to_owned))
        .collect();
    if audiences.is_empty() {
        audiences.push(tokens::ISSUER.to_owned());
    }
    Ok(match tokens::review(&call.cluster, token, &audiences) {
        Ok((user, audiences)) => {
            json!({"authenticated": true, "user": user.to_json(), "audiences": audiences})
        }
        Err(error) => json!({"user": {}, "error": error}),
    })
}

fn access_review(call: &Call, user: &User, spec: &Value) -> Value {
    let asked = &spec["resourceAttributes"];
    let text = |key: &str| asked[key].as_str().unwrap_or_default();
    let is_allowed = if asked.is_object() {
        let attributes = Attributes {
            verb: text("verb"),
            group: text("group"),
            resource: text("resource"),
            subresource: text("subresource"),
            namespace: text("namespace"),
            name: text("name"),
        };
        allowed(&call.cluster, user, attributes)
    } else {
        let path = &spec["nonResourceAttributes"];
        let (verb, path) =
            (path["verb"].as_str().unwrap_or_default(), path["path"].as_str().unwrap_or_default());
        super::rbac::check_path(&call.cluster, user, verb, path).is_ok()
    };
    json!({"allowed": is_allowed})
}
