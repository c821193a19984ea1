//! Bodies in Kubernetes' protobuf: Go's typed clients send them without asking. Read for the few kinds that such
//! clients write here (Helm keeps its releases in secrets); answers are always JSON, which those clients take.
//!
//! Field numbers: `generated.proto` of `k8s.io/api/core/v1` and `k8s.io/apimachinery`.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::object;

/// The media type.
pub(super) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// `runtime.Unknown`: what every message is wrapped in.
#[derive(Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "vec", tag = "2")]
    raw: Vec<u8>,
}

#[derive(Message)]
struct TypeMeta {
    #[prost(string, tag = "1")]
    api_version: String,
    #[prost(string, tag = "2")]
    kind: String,
}

#[derive(Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
}

#[derive(Message)]
struct ObjectMeta {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    generate_name: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(string, tag = "5")]
    uid: String,
    #[prost(string, tag = "6")]
    resource_version: String,
    #[prost(message, optional, tag = "8")]
    creation_timestamp: Option<Time>,
    #[prost(btree_map = "string, string", tag = "11")]
    labels: BTreeMap<String, String>,
    #[prost(btree_map = "string, string", tag = "12")]
    annotations: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "13")]
    owner_references: Vec<OwnerReference>,
    #[prost(string, repeated, tag = "14")]
    finalizers: Vec<String>,
}

#[derive(Message)]
struct OwnerReference {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    uid: String,
    #[prost(string, tag = "5")]
    api_version: String,
    #[prost(bool, optional, tag = "6")]
    controller: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    block_owner_deletion: Option<bool>,
}

#[derive(Message)]
struct Secret {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    data: BTreeMap<String, Vec<u8>>,
    #[prost(string, tag = "3")]
    kind: String,
    #[prost(btree_map = "string, string", tag = "4")]
    string_data: BTreeMap<String, String>,
    #[prost(bool, optional, tag = "5")]
    immutable: Option<bool>,
}

#[derive(Message)]
struct ConfigMap {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    binary_data: BTreeMap<String, Vec<u8>>,
    #[prost(bool, optional, tag = "4")]
    immutable: Option<bool>,
}

/// Kinds of which only the metadata is written.
#[derive(Message)]
struct Named {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

#[derive(Message)]
struct DeleteOptions {
    #[prost(int64, optional, tag = "1")]
    grace_period_seconds: Option<i64>,
    #[prost(message, optional, tag = "2")]
    preconditions: Option<Preconditions>,
    #[prost(string, optional, tag = "4")]
    propagation_policy: Option<String>,
    #[prost(string, repeated, tag = "5")]
    dry_run: Vec<String>,
}

#[derive(Message)]
struct Preconditions {
    #[prost(string, optional, tag = "1")]
    uid: Option<String>,
    #[prost(string, optional, tag = "2")]
    resource_version: Option<String>,
}

/// Reads a body; the error says why not.
pub(super) fn parse(body: &[u8]) -> Result<Value, String> {
    let message = body.strip_prefix(b"k8s\0").ok_or("the body does not begin with the bytes k8s\\0")?;
    let unknown = Unknown::decode(message).map_err(|error| error.to_string())?;
    let kind = unknown.type_meta.unwrap_or_default();
    let raw = unknown.raw.as_slice();
    let broken = |error: prost::DecodeError| error.to_string();
    let mut object = match (kind.api_version.as_str(), kind.kind.as_str()) {
        ("v1", "Secret") => secret(Secret::decode(raw).map_err(broken)?),
        ("v1", "ConfigMap") => config_map(ConfigMap::decode(raw).map_err(broken)?),
        ("v1", "Namespace" | "ServiceAccount") => {
            json!({"metadata": metadata(Named::decode(raw).map_err(broken)?.metadata)})
        }
        (_, "DeleteOptions") => delete_options(DeleteOptions::decode(raw).map_err(broken)?),
        (version, kind) => return Err(format!("no protobuf is read for {version} {kind} here")),
    };
    object::drop_nulls(&mut object);
    object["apiVersion"] = kind.api_version.into();
    object["kind"] = kind.kind.into();
    Ok(object)
}

fn some<T: Into<Value> + Default + PartialEq>(value: T) -> Value {
    if value == T::default() { Value::Null } else { value.into() }
}

fn map<T>(map: BTreeMap<String, T>, value: impl Fn(T) -> Value) -> Value {
    match map.is_empty() {
        true => Value::Null,
        false => map.into_iter().map(|(key, one)| (key, value(one))).collect(),
    }
}

fn base64(bytes: Vec<u8>) -> Value {
    STANDARD.encode(bytes).into()
}

fn metadata(metadata: Option<ObjectMeta>) -> Value {
    let metadata = metadata.unwrap_or_default();
    let owners: Vec<Value> = metadata
        .owner_references
        .into_iter()
        .map(|owner| {
            json!({"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid,
                   "controller": owner.controller, "blockOwnerDeletion": owner.block_owner_deletion})
        })
        .collect();
    let created = metadata.creation_timestamp.filter(|time| time.seconds > 0);
    let created = created.and_then(|time| OffsetDateTime::from_unix_timestamp(time.seconds).ok());
    json!({
        "name": some(metadata.name),
        "generateName": some(metadata.generate_name),
        "namespace": some(metadata.namespace),
        "uid": some(metadata.uid),
        "resourceVersion": some(metadata.resource_version),
        "creationTimestamp": created.map(object::timestamp),
        "labels": map(metadata.labels, Value::from),
        "annotations": map(metadata.annotations, Value::from),
        "ownerReferences": if owners.is_empty() { Value::Null } else { owners.into() },
        "finalizers": if metadata.finalizers.is_empty() { Value::Null } else { metadata.finalizers.into() },
    })
}

fn secret(secret: Secret) -> Value {
    json!({"metadata": metadata(secret.metadata), "data": map(secret.data, base64), "type": some(secret.kind),
           "stringData": map(secret.string_data, Value::from), "immutable": secret.immutable})
}

fn config_map(config_map: ConfigMap) -> Value {
    json!({"metadata": metadata(config_map.metadata), "data": map(config_map.data, Value::from),
           "binaryData": map(config_map.binary_data, base64), "immutable": config_map.immutable})
}

fn delete_options(options: DeleteOptions) -> Value {
    let preconditions = options.preconditions.unwrap_or_default();
    let dry_run = if options.dry_run.is_empty() { Value::Null } else { options.dry_run.into() };
    json!({"gracePeriodSeconds": options.grace_period_seconds, "propagationPolicy": options.propagation_policy,
           "preconditions": {"uid": preconditions.uid, "resourceVersion": preconditions.resource_version},
           "dryRun": dry_run})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read() {
        let secret = Secret {
            metadata: Some(ObjectMeta {
                name: "release".into(),
                labels: BTreeMap::from([("owner".to_owned(), "helm".to_owned())]),
                ..ObjectMeta::default()
            }),
            data: BTreeMap::from([("release".to_owned(), b"hello".to_vec())]),
            kind: "helm.sh/release.v1".into(),
            ..Secret::default()
        };
        let type_meta = Some(TypeMeta { api_version: "v1".into(), kind: "Secret".into() });
        let unknown = Unknown { type_meta, raw: secret.encode_to_vec() };
        let body = [b"k8s\0".as_slice(), &unknown.encode_to_vec()].concat();
        assert_eq!(
            parse(&body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "release", "labels": {"owner": "helm"}},
                   "data": {"release": "aGVsbG8="}, "type": "helm.sh/release.v1"})
        );
        assert!(parse(b"{}").is_err());
    }
}
