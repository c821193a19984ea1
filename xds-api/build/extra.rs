//! Descriptors of the few small messages that Envoy knows and the package `envoy-types` lacks.

use prost_reflect::prost_types::field_descriptor_proto::{Label, Type};
use prost_reflect::prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

/// One file a package; none has validation rules.
pub(crate) fn files() -> Vec<FileDescriptorProto> {
    // A configuration by name of its type instead of by its own message (cncf/xds `xds/type/v3/typed_struct.proto`).
    let typed_structs = ["xds.type.v3", "udpa.type.v1"].into_iter().map(typed_struct);
    typed_structs.chain([peak_ewma()]).collect()
}

/// Envoy `contrib/envoy/extensions/load_balancing_policies/peak_ewma/v3alpha/peak_ewma.proto`; the message is in `src/peak_ewma.rs`.
fn peak_ewma() -> FileDescriptorProto {
    let message = |name, number, of| field(name, number, Type::Message, Some(of));
    let fields = vec![
        message("decay_time", 1, ".google.protobuf.Duration"),
        message("aggregation_interval", 2, ".google.protobuf.Duration"),
        message("max_samples_per_host", 3, ".google.protobuf.UInt32Value"),
        message("default_rtt", 4, ".google.protobuf.Duration"),
        message("penalty_value", 5, ".google.protobuf.DoubleValue"),
    ];
    FileDescriptorProto {
        name: Some("envoy/extensions/load_balancing_policies/peak_ewma/v3alpha/peak_ewma.proto".to_owned()),
        package: Some("envoy.extensions.load_balancing_policies.peak_ewma.v3alpha".to_owned()),
        dependency: vec![
            "google/protobuf/duration.proto".to_owned(),
            "google/protobuf/wrappers.proto".to_owned(),
        ],
        message_type: vec![DescriptorProto {
            name: Some("PeakEwma".to_owned()),
            field: fields,
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn typed_struct(package: &str) -> FileDescriptorProto {
    let fields = vec![
        field("type_url", 1, Type::String, None),
        field("value", 2, Type::Message, Some(".google.protobuf.Struct")),
    ];
    FileDescriptorProto {
        name: Some(format!("{}/typed_struct.proto", package.replace('.', "/"))),
        package: Some(package.to_owned()),
        dependency: vec!["google/protobuf/struct.proto".to_owned()],
        message_type: vec![DescriptorProto {
            name: Some("TypedStruct".to_owned()),
            field: fields,
            ..Default::default()
        }],
        syntax: Some("proto3".to_owned()),
        ..Default::default()
    }
}

fn field(name: &str, number: i32, r#type: Type, type_name: Option<&str>) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.to_owned()),
        number: Some(number),
        label: Some(Label::Optional as i32),
        r#type: Some(r#type as i32),
        type_name: type_name.map(str::to_owned),
        ..Default::default()
    }
}
