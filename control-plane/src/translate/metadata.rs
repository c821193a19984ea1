//! `core.v3.Metadata` in a form whose encoding is always the same.
//!
//! The generated messages hold maps as `HashMap`, whose order, and so whose bytes and content hash, differ from process to
//! process. Where a map has several keys, the message is encoded from the ordered mirror types here and appended to its
//! parent: the encoding of a message is the concatenation of those of its fields.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::protobuf;
use prost::Message;

use crate::model::{Name, Readmission, ReadmissionBy};
use crate::source::{ObjectKey, Origin};
use crate::translate::names;

/// The namespace of what is ours alone.
const OWN: &str = "outrigger.dev";
/// In it: the policies that made parts of a route.
const TRAFFIC_POLICIES: &str = "traffic_policies";
/// How long a connection of the mesh may outlive its peer's certificate: time to finish what it is at.
pub(super) const PEER_CERTIFICATE_GRACE: Duration = Duration::from_secs(60);

/// `envoy.config.core.v3.Metadata`
#[derive(Clone, PartialEq, Message)]
pub(super) struct OrderedMetadata {
    #[prost(btree_map = "string, message", tag = "1")]
    filter_metadata: BTreeMap<String, OrderedStruct>,
}

/// `google.protobuf.Struct`
#[derive(Clone, PartialEq, Message)]
struct OrderedStruct {
    #[prost(btree_map = "string, message", tag = "1")]
    fields: BTreeMap<String, OrderedValue>,
}

/// `google.protobuf.Value`, as far as it is used here.
#[derive(Clone, PartialEq, Message)]
struct OrderedValue {
    #[prost(oneof = "Kind", tags = "2, 3, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    String(String),
    #[prost(message, tag = "5")]
    Struct(OrderedStruct),
    #[prost(message, tag = "6")]
    List(OrderedList),
}

/// `google.protobuf.ListValue`
#[derive(Clone, PartialEq, Message)]
struct OrderedList {
    #[prost(message, repeated, tag = "1")]
    values: Vec<OrderedValue>,
}

impl OrderedMetadata {
    /// Istio's metadata of a cluster, which the proxies' metrics read: `istio.services`, a list of `{host, name,
    /// namespace}`.
    pub(super) fn services<'a>(services: impl IntoIterator<Item = &'a Name>, domain: &str) -> Self {
        let text = |text: &str| OrderedValue { kind: Some(Kind::String(text.to_owned())) };
        let values = services.into_iter().map(|service| {
            let fields = [
                ("host".to_owned(), text(&names::fqdn(service, domain))),
                ("name".to_owned(), text(&service.name)),
                ("namespace".to_owned(), text(&service.namespace)),
            ];
            OrderedValue { kind: Some(Kind::Struct(OrderedStruct { fields: fields.into() })) }
        });
        let list = OrderedValue { kind: Some(Kind::List(OrderedList { values: values.collect() })) };
        let istio = OrderedStruct { fields: [("services".to_owned(), list)].into() };
        Self { filter_metadata: [("istio".to_owned(), istio)].into() }
    }

    /// Adds Istio's `istio.config`: the object that shaped the resource.
    pub(super) fn with_config(mut self, origin: Option<&Origin>) -> Self {
        if let (Some(origin), Some(istio)) = (origin, self.filter_metadata.get_mut("istio")) {
            let kind = Some(Kind::String(config(&origin.object, "")));
            istio.fields.insert("config".to_owned(), OrderedValue { kind });
        }
        self
    }

    /// Adds what our own proxy alone reads and an Envoy ignores: which side a listener reports its mesh metrics as, that a
    /// connection ends so long after the expiry of its peer's certificate, and how a host comes back that was ejected.
    pub(super) fn with_own(
        mut self,
        reporter: Option<&str>,
        grace: Option<Duration>,
        readmission: Option<Readmission>,
    ) -> Self {
        let reporter = reporter.map(|side| ("reporter", Kind::String(side.to_owned())));
        let grace = grace.map(|grace| ("peer_certificate_grace_seconds", Kind::Number(grace.as_secs_f64())));
        let by = readmission.and_then(|readmission| match readmission.by {
            ReadmissionBy::Time => None,
            ReadmissionBy::Probe => Some("probe"),
            ReadmissionBy::Check => Some("check"),
        });
        let by = by.map(|by| ("readmission", Kind::String(by.to_owned())));
        let ramp = readmission.and_then(|readmission| readmission.ramp);
        let ramp = ramp.map(|ramp| ("readmission_ramp_seconds", Kind::Number(ramp.as_secs_f64())));
        let fields: BTreeMap<_, _> = [reporter, grace, by, ramp]
            .into_iter()
            .flatten()
            .map(|(key, kind)| (key.to_owned(), OrderedValue { kind: Some(kind) }))
            .collect();
        if !fields.is_empty() {
            self.filter_metadata.insert(OWN.to_owned(), OrderedStruct { fields });
        }
        self
    }

    /// Appends this as field `tag` of the message that `encoded` holds.
    pub(super) fn append_to(&self, tag: u32, encoded: &mut Vec<u8>) {
        prost::encoding::message::encode(tag, self, encoded);
    }
}

/// Kinds of rules and how Istio spells them in a path.
const KINDS: [(&str, &str); 6] = [
    ("DestinationRule", "destination-rule"),
    ("HTTPRoute", "http-route"),
    ("GRPCRoute", "grpc-route"),
    ("VirtualService", "virtual-service"),
    ("ServiceEntry", "service-entry"),
    ("TrafficPolicy", "traffic-policy"),
];

/// Istio's path of an object, `/apis/GROUP/v1/namespaces/NAMESPACE/KIND/NAME`, with the field that is meant as its fragment.
fn config(object: &ObjectKey, field: &str) -> String {
    let ObjectKey { group, kind, namespace, name } = object;
    let kind = KINDS.iter().find(|(known, _)| known == kind).map_or(kind.as_str(), |(_, spelled)| spelled);
    let fragment = if field.is_empty() { "" } else { "#" };
    format!("/apis/{group}/v1/namespaces/{namespace}/{kind}/{name}{fragment}{field}")
}

/// The object and the field in [`config`].
fn parse_config(path: &str) -> Option<(ObjectKey, String)> {
    let (path, field) = path.split_once('#').unwrap_or((path, ""));
    let parts: Vec<&str> = path.split('/').collect();
    let ["", "apis", group, _, "namespaces", namespace, kind, name] = parts.as_slice() else { return None };
    let kind = KINDS.iter().find(|(_, spelled)| spelled == kind).map_or(*kind, |(known, _)| known);
    let [group, kind, namespace, name] = [*group, kind, *namespace, *name].map(str::to_owned);
    Some((ObjectKey { group, kind, namespace, name }, field.to_owned()))
}

/// The metadata of what a rule at `field` of an object made: `istio.config`.
pub(super) fn made_by(origin: &Origin, field: &str) -> core::Metadata {
    one("istio", "config", &config(&origin.object, field))
}

/// Adds the fields of traffic policies that made parts of a route.
pub(super) fn add_policies(metadata: &mut Option<core::Metadata>, policies: &[(&Origin, &str)]) {
    if policies.is_empty() {
        return;
    }
    let text = |(origin, field): &(&Origin, &str)| protobuf::Value {
        kind: Some(protobuf::value::Kind::StringValue(config(&origin.object, field))),
    };
    let list = protobuf::ListValue { values: policies.iter().map(text).collect() };
    let list = protobuf::Value { kind: Some(protobuf::value::Kind::ListValue(list)) };
    let fields = protobuf::Struct { fields: HashMap::from([(TRAFFIC_POLICIES.to_owned(), list)]) };
    metadata.get_or_insert_default().filter_metadata.insert(OWN.to_owned(), fields);
}

/// Takes away what [`add_policies`] added.
pub(super) fn remove_policies(metadata: &mut Option<core::Metadata>) {
    if let Some(metadata) = metadata {
        metadata.filter_metadata.remove(OWN);
    }
}

/// What [`add_policies`] added.
pub(super) fn policies(metadata: Option<&core::Metadata>) -> Vec<(ObjectKey, String)> {
    use protobuf::value::Kind::{ListValue, StringValue};
    let own = metadata.and_then(|metadata| metadata.filter_metadata.get(OWN));
    let Some(ListValue(list)) =
        own.and_then(|own| own.fields.get(TRAFFIC_POLICIES)).and_then(|list| list.kind.as_ref())
    else {
        return Vec::new();
    };
    let policy = |value: &protobuf::Value| match value.kind.as_ref()? {
        StringValue(path) => parse_config(path),
        _ => None,
    };
    list.values.iter().filter_map(policy).collect()
}

/// The object, and the field of it, that made what has this metadata.
pub(super) fn maker(metadata: Option<&core::Metadata>) -> Option<(ObjectKey, String)> {
    match istio(metadata?, "config")? {
        protobuf::value::Kind::StringValue(path) => parse_config(path),
        _ => None,
    }
}

/// The Services in the metadata of a cluster.
pub(super) fn services(metadata: Option<&core::Metadata>) -> Vec<Name> {
    use protobuf::value::Kind::{ListValue, StringValue, StructValue};
    let Some(ListValue(list)) = metadata.and_then(|metadata| istio(metadata, "services")) else {
        return Vec::new();
    };
    let service = |value: &protobuf::Value| {
        let StructValue(fields) = value.kind.as_ref()? else { return None };
        let text = |key: &str| match fields.fields.get(key)?.kind.as_ref()? {
            StringValue(text) => Some(text.clone()),
            _ => None,
        };
        Some(Name::new(text("namespace")?, text("name")?))
    };
    list.values.iter().filter_map(service).collect()
}

fn istio<'a>(metadata: &'a core::Metadata, key: &str) -> Option<&'a protobuf::value::Kind> {
    metadata.filter_metadata.get("istio")?.fields.get(key)?.kind.as_ref()
}

/// Metadata with one string: `filter_metadata[namespace] = {key: value}`. One key in each map, so its bytes are always the
/// same.
pub(super) fn one(namespace: &str, key: &str, value: &str) -> core::Metadata {
    let value = protobuf::Value { kind: Some(protobuf::value::Kind::StringValue(value.to_owned())) };
    let fields = protobuf::Struct { fields: HashMap::from([(key.to_owned(), value)]) };
    core::Metadata {
        filter_metadata: HashMap::from([(namespace.to_owned(), fields)]),
        ..core::Metadata::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::test_objects;

    #[test]
    fn mirror_types_encode_what_the_real_ones_read() {
        let services = [Name::new("default", "reviews"), Name::new("default", "reviews-v1")];
        let ordered = OrderedMetadata::services(&services, "cluster.local");
        let real = core::Metadata::decode(ordered.encode_to_vec().as_slice()).unwrap();
        let Some(protobuf::value::Kind::ListValue(list)) =
            &real.filter_metadata["istio"].fields["services"].kind
        else {
            panic!("not a list");
        };
        let Some(protobuf::value::Kind::StructValue(second)) = &list.values[1].kind else {
            panic!("not a struct")
        };
        let host = protobuf::value::Kind::StringValue("reviews-v1.default.svc.cluster.local".to_owned());
        assert_eq!(second.fields["host"].kind, Some(host));
        assert_eq!(super::services(Some(&real)), services);
    }

    #[test]
    fn our_own_stands_beside_istios_only_when_there_is_some() {
        let services = OrderedMetadata::services([&Name::new("n", "s")], "cluster.local");
        let plain = services.clone().with_own(None, None, None).encode_to_vec();
        let real = core::Metadata::decode(plain.as_slice()).unwrap();
        assert_eq!(real.filter_metadata.keys().collect::<Vec<_>>(), ["istio"]);
        let own = services.with_own(Some("source"), Some(PEER_CERTIFICATE_GRACE), None).encode_to_vec();
        let real = core::Metadata::decode(own.as_slice()).unwrap();
        let fields = &real.filter_metadata[OWN].fields;
        let source = protobuf::value::Kind::StringValue("source".to_owned());
        assert_eq!(fields["reporter"].kind, Some(source));
        let grace = protobuf::value::Kind::NumberValue(60.0);
        assert_eq!(fields["peer_certificate_grace_seconds"].kind, Some(grace));
        assert!(real.filter_metadata.contains_key("istio"));
    }

    #[test]
    fn what_made_a_resource_is_found_again() {
        let origin = test_objects(
            "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a.b, namespace: shop}}",
        );
        let origin = &origin[0].origin;
        let metadata = made_by(origin, "spec.rules[1]");
        assert_eq!(maker(Some(&metadata)), Some((origin.object.clone(), "spec.rules[1]".to_owned())));
        assert_eq!(
            config(&origin.object, "spec.rules[1]"),
            "/apis/gateway.networking.k8s.io/v1/namespaces/shop/http-route/a.b#spec.rules[1]"
        );
        let ordered = OrderedMetadata::services([&Name::new("n", "s")], "cluster.local");
        let encoded = ordered.with_config(Some(origin)).encode_to_vec();
        let real = core::Metadata::decode(encoded.as_slice()).unwrap();
        assert_eq!(maker(Some(&real)), Some((origin.object.clone(), String::new())));
        assert_eq!(maker(Some(&one("istio", "config", "/apis/x"))), None);
    }
}
