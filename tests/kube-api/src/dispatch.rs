//! The way of one request: switches, authentication, authorization, the verb, the form of the answer.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, USER_AGENT};
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;

use crate::access::{User, rbac, reviews, tokens};
use crate::cluster::Cluster;
use crate::discovery;
use crate::http::accept::{Accept, aggregated_discovery, negotiate};
use crate::http::path::{Path, Target, Verb};
use crate::http::query::Query;
use crate::http::respond::{Answer, Body, Reply, failure, no_such_page, respond};
use crate::kinds::Resource;
use crate::status::{Result, Status};
use crate::switches::Seen;
use crate::verbs;

/// The size that a real server allows: etcd's limit and some room.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// A request for an object or a collection, on its way.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) user: User,
    pub(crate) resource: Arc<Resource>,
    pub(crate) target: Target,
    pub(crate) verb: Verb,
    pub(crate) query: Query,
    pub(crate) accept: Accept,
    pub(crate) content_type: String,
    pub(crate) user_agent: String,
    pub(crate) body: Bytes,
}

impl Call {
    /// The namespace of the path; empty for objects of the cluster.
    pub(crate) fn namespace(&self) -> &str {
        self.target.namespace.as_deref().unwrap_or_default()
    }

    /// The name in the path; empty for a collection.
    pub(crate) fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }

    pub(crate) fn not_found(&self) -> Status {
        Status::not_found(&self.resource.group, &self.resource.plural, self.name())
    }

    pub(crate) fn object(&self, code: u16, object: serde_json::Value) -> Answer {
        Answer::Object { code, resource: self.resource.clone(), object }
    }
}

/// Answers a request, whatever it is.
pub(crate) async fn handle(cluster: Arc<Cluster>, request: Request<Incoming>) -> Response<Body> {
    let mut response = match answer(cluster, request).await {
        Ok((reply, accept)) => respond(reply, accept),
        Err(status) => failure(&status),
    };
    if let Ok(id) = http::HeaderValue::from_str(&crate::object::random_uid()) {
        response.headers_mut().insert("audit-id", id);
    }
    response
}

async fn answer(cluster: Arc<Cluster>, mut request: Request<Incoming>) -> Result<(Reply, Accept)> {
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let header = |name: HeaderName| {
        parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let user = tokens::authenticate(&cluster, &header(AUTHORIZATION));
    cluster.switches.note(Seen {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        user: user.as_ref().map(|user| user.name.clone()).unwrap_or_default(),
        user_agent: header(USER_AGENT),
    });
    cluster.switches.wait_while_paused().await;
    if let Some(status) = cluster.switches.scripted_failure(parts.method.as_str(), parts.uri.path()) {
        return Err(status);
    }
    let user = user?;
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let accept = header(ACCEPT);
    let plain = Accept { form: crate::http::accept::Form::Plain, yaml: false };
    let target = match Path::parse(parts.uri.path()) {
        Path::Other(segments) => {
            rbac::check_path(&cluster, &user, parts.method.as_str(), parts.uri.path())?;
            let answer = discovery::answer(&cluster, &segments, aggregated_discovery(&accept));
            return Ok((answer.into(), plain));
        }
        Path::Resource(target) => target,
    };
    let verb = target.verb(&parts.method, &query);
    if let Some(verb) = verb {
        rbac::check(&cluster, &user, verb, &target)?;
    }
    let resource = cluster.kinds(|kinds| kinds.find(&target.group, &target.version, &target.plural));
    if resource.is_none() && cluster.kinds(|kinds| kinds.is_pending(&target.group, &target.plural)) {
        return Err(Status::storage_initializing());
    }
    let Some(resource) = resource else { return Ok((no_such_page().into(), plain)) };
    if resource.is("", "pods")
        && let Some(start) = verbs::upgrade(target.subresource.as_deref())
    {
        let answer = start(&cluster, &user, &target, &query, &parts.headers, upgrade)?;
        return Ok((answer.into(), plain));
    }
    let verb = verb.ok_or_else(Status::method_not_allowed)?;
    let accept = negotiate(&accept)?;
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {MAX_BODY}"))
    })?;
    let call = Call {
        cluster,
        user,
        resource,
        target,
        verb,
        query,
        accept,
        content_type: header(CONTENT_TYPE),
        user_agent: header(USER_AGENT),
        body: body.to_bytes(),
    };
    let reply = run(call).await?;
    Ok((reply, accept))
}

async fn run(mut call: Call) -> Result<Reply> {
    if call.resource.review {
        return match call.verb {
            Verb::Create => reviews::answer(&call),
            _ => Err(Status::method_not_allowed()),
        };
    }
    // An object that lives in a namespace is not found outside of one, and the other way round.
    let single = call.target.name.is_some() || call.verb == Verb::Create;
    if single && call.resource.namespaced != call.target.namespace.is_some() {
        return Ok(no_such_page().into());
    }
    if let Some(subresource) = call.target.subresource.clone() {
        let known = call.resource.subresources().iter().any(|one| one.name == subresource);
        let finalize = subresource == "finalize" && call.resource.is("", "namespaces");
        if !known && !finalize {
            return Ok(no_such_page().into());
        }
        match (subresource.as_str(), call.verb) {
            ("token", Verb::Create) => return tokens::request(&call),
            ("eviction", Verb::Create) => return verbs::delete::evict(&mut call).await,
            ("token" | "eviction", _) => return Err(Status::method_not_allowed()),
            (_, Verb::Get | Verb::Update | Verb::Patch) => {}
            _ => return Err(Status::method_not_allowed()),
        }
    }
    match call.verb {
        Verb::Get => verbs::read::get(&call),
        Verb::List => verbs::read::list(&call).await,
        Verb::Watch => verbs::watch::start(&call),
        Verb::Create if call.target.name.is_some() => Err(Status::method_not_allowed()),
        Verb::Create => verbs::create::create(&call).await,
        Verb::Update => verbs::update::put(&call).await,
        Verb::Patch => verbs::patch::patch(&call).await,
        Verb::Delete => verbs::delete::delete(&call).await,
        Verb::DeleteCollection => verbs::delete::delete_collection(&call).await,
    }
}
