//! Delete: of one object, of a collection, and the eviction of a pod.

use std::sync::Arc;

use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

use crate::admission::{self, Operation};
use crate::dispatch::Call;
use crate::http::body;
use crate::http::query::Query;
use crate::http::respond::{Answer, Reply};
use crate::kinds::custom;
use crate::object;
use crate::selector::{Selector, in_namespace};
use crate::status::{Result, Status, success};

/// What a delete may be told.
#[derive(Debug, Default)]
struct Options {
    dry_run: bool,
    grace: Option<i64>,
    uid: Option<String>,
    version: Option<String>,
}

impl Options {
    fn read(query: &Query, body: &Value) -> Result<Self> {
        let grace =
            body["gracePeriodSeconds"].as_i64().or_else(|| query.get("gracePeriodSeconds").parse().ok());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Ok(Options {
            dry_run: query.dry_run("DeleteOptions")? || body["dryRun"] == json!(["All"]),
            grace,
            uid: text(&body["preconditions"]["uid"]),
            version: text(&body["preconditions"]["resourceVersion"]),
        })
    }
}

fn read_body(call: &Call) -> Result<Value> {
    if call.body.is_empty() {
        return Ok(Value::Null);
    }
    body::parse(&call.content_type, &call.body).map_err(Status::bad_request)
}

pub(crate) async fn delete(call: &Call) -> Result<Reply> {
    let options = Options::read(&call.query, &read_body(call)?)?;
    delete_one(call, &options).await
}

async fn delete_one(call: &Call, options: &Options) -> Result<Reply> {
    let collection = call.resource.collection();
    loop {
        let current = call.cluster.get(&collection, call.namespace(), call.name());
        let current = current.ok_or_else(|| call.not_found())?;
        check_preconditions(call, options, &current)?;
        let mut warnings =
            admission::mutate(call, Operation::Delete, None, Some(&current), options.dry_run).await?;
        warnings.extend(
            admission::validate(call, Operation::Delete, None, Some(&current), options.dry_run).await?,
        );
        if let Some(answer) = remove(call, options, &current) {
            return Ok(Reply { answer, warnings });
        }
    }
}

fn check_preconditions(call: &Call, options: &Options, current: &Value) -> Result<()> {
    let conflict = |what: &str, wanted: &str, is: &str| {
        let why = format!(
            "the {what} in the precondition ({wanted}) does not match the {what} in record ({is}). The object might \
             have been {}",
            if what == "UID" { "deleted and then recreated" } else { "modified" }
        );
        Err(Status::conflict("", &call.resource.kind, call.name(), &why))
    };
    match (&options.uid, &options.version) {
        (Some(uid), _) if uid != object::uid(current) => conflict("UID", uid, object::uid(current)),
        (_, Some(version)) if version != object::meta(current, "resourceVersion") => {
            conflict("ResourceVersion", version, object::meta(current, "resourceVersion"))
        }
        _ => Ok(()),
    }
}

/// Removes the object, or marks it when it still has something to wait for; `None`: it has changed meanwhile.
fn remove(call: &Call, options: &Options, current: &Arc<Value>) -> Option<Answer> {
    let resource = &call.resource;
    let done = || {
        let value = success(&resource.group, &resource.plural, call.name(), object::uid(current));
        Answer::Json { code: 200, value }
    };
    let from = object::version(current);
    let grace = grace_period(call, options, current);
    if object::has_finalizers(current) || grace > 0 {
        let remaining = current["metadata"]["deletionGracePeriodSeconds"].as_i64();
        // A second delete may only shorten the time.
        if object::terminating(current) && remaining.is_none_or(|remaining| remaining <= grace) {
            return Some(call.object(200, (**current).clone()));
        }
        let mut marked = (**current).clone();
        let when = OffsetDateTime::now_utc() + Duration::seconds(grace);
        object::set_meta(&mut marked, "deletionTimestamp", object::timestamp(when).into());
        object::set_meta(&mut marked, "deletionGracePeriodSeconds", grace.into());
        if resource.counts_generations()
            && let Some(generation) = current["metadata"]["generation"].as_u64()
        {
            object::set_meta(&mut marked, "generation", (generation + 1).into());
        }
        if options.dry_run {
            return Some(call.object(200, marked));
        }
        return call
            .cluster
            .replace(resource, from, marked)
            .map(|stored| call.object(200, (*stored).clone()));
    }
    if options.dry_run {
        return Some(if answers_object(call) { call.object(200, (**current).clone()) } else { done() });
    }
    let mut last = (**current).clone();
    if resource.is("apiextensions.k8s.io", "customresourcedefinitions") {
        custom::terminate(&mut last);
        let marked = call.cluster.replace(resource, from, last)?;
        last = (*marked).clone();
    } else if resource.is("", "namespaces") {
        object::set_meta(&mut last, "deletionTimestamp", object::now().into());
        last["status"]["phase"] = "Terminating".into();
        let marked = call.cluster.replace(resource, from, last)?;
        last = (*marked).clone();
    }
    let name = (call.namespace().to_owned(), call.name().to_owned());
    let removed = call.cluster.remove(&resource.collection(), &name)?;
    Some(match (resource.plural.as_str(), answers_object(call)) {
        ("customresourcedefinitions" | "namespaces", _) => call.object(200, last),
        (_, true) => call.object(200, removed),
        (_, false) => done(),
    })
}

/// The kinds whose delete answers with the object instead of a `Status`.
fn answers_object(call: &Call) -> bool {
    let resource = &call.resource;
    resource.group.is_empty()
        && matches!(
            resource.plural.as_str(),
            "pods" | "services" | "serviceaccounts" | "persistentvolumeclaims" | "resourcequotas"
        )
}

/// How long the object has before it is gone: only pods that run somewhere have time, until their kubelet deletes them
/// with a grace period of zero.
fn grace_period(call: &Call, options: &Options, current: &Value) -> i64 {
    if !call.resource.is("", "pods") {
        return 0;
    }
    let is_over = matches!(current["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    if is_over || current["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        return 0;
    }
    let own = current["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace.unwrap_or(own).max(0)
}

pub(crate) async fn delete_collection(call: &Call) -> Result<Reply> {
    if call.resource.is("", "namespaces") {
        return Err(Status::method_not_allowed());
    }
    let query = &call.query;
    let options = Options::read(query, &read_body(call)?)?;
    let selector = Selector::parse(&call.resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let (version, objects) =
        call.cluster.read(|store| (store.version(), store.list(&call.resource.collection())));
    let namespace = call.target.namespace.as_deref();
    let mut items = Vec::new();
    for ((namespace, name), object) in
        objects.into_iter().filter(|(_, one)| in_namespace(one, namespace) && selector.matches(one))
    {
        let mut target = call.target.clone();
        target.namespace = call.resource.namespaced.then_some(namespace);
        target.name = Some(name);
        let one = Call {
            cluster: call.cluster.clone(),
            user: call.user.clone(),
            resource: call.resource.clone(),
            target,
            verb: call.verb,
            query: call.query.clone(),
            accept: call.accept,
            content_type: call.content_type.clone(),
            user_agent: call.user_agent.clone(),
            body: call.body.clone(),
        };
        match delete_one(&one, &options).await {
            Ok(_) => items.push(object),
            // Somebody else was quicker.
            Err(status) if status.code == 404 => {}
            Err(status) => return Err(status),
        }
    }
    let metadata = json!({"resourceVersion": version.to_string()});
    Ok(Answer::List { resource: call.resource.clone(), metadata, items }.into())
}

/// `pods/eviction`: a delete that asks the disruption budgets first. Budgets are not counted here.
pub(crate) async fn evict(call: &mut Call) -> Result<Reply> {
    let eviction = read_body(call)?;
    let options = Options::read(&call.query, &eviction["deleteOptions"])?;
    call.target.subresource = None;
    delete_one(call, &options).await?;
    let value =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
    Ok(Answer::Json { code: 201, value }.into())
}
