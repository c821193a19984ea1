//! `core.v3.Metadata` in a form whose encoding is always the same.
//!
//! The generated messages hold maps as `HashMap`, whose order, and so whose bytes and content hash, differ from process to
//! process. Where a map has several keys, the message is encoded from the ordered mirror types here and appended to its
//! parent: the encoding of a message is the concatenation of those of its fields.

use std::collections::{BTreeMap, HashMap};

use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::protobuf;
use prost::Message;

use crate::model::Name;
use crate::translate::names;

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
    #[prost(oneof = "Kind", tags = "3, 5, 6")]
    kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Kind {
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

    /// Appends this as field `tag` of the message that `encoded` holds.
    pub(super) fn append_to(&self, tag: u32, encoded: &mut Vec<u8>) {
        prost::encoding::message::encode(tag, self, encoded);
    }
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
    }
}
