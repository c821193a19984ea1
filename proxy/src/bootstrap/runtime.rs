//! `layered_runtime`: there is no runtime to change while the process lives, so each key of a static layer gets a verdict.

use outrigger_xds_api::wire::bootstrap::v3 as wire;
use outrigger_xds_api::wire::protobuf::value::Kind;
use outrigger_xds_api::wire::protobuf::{Struct, Value};

use crate::config::compile::cx::CompileCx;

/// A connection limit from this number on limits nothing: no process has so many file descriptors.
const NO_LIMIT: f64 = 1e6;

/// Looks at all layers. What they say of the number of downstream connections is given back; the last one wins.
pub(super) fn check(cx: &mut CompileCx<'_>, value: &wire::LayeredRuntime) -> Option<u64> {
    let mut max_connections = None;
    use wire::runtime_layer::LayerSpecifier;
    let wire::LayeredRuntime { layers } = value;
    for (i, layer) in layers.iter().enumerate() {
        cx.item("layers", i, |cx| {
            let wire::RuntimeLayer { name: _, layer_specifier } = layer;
            match layer_specifier {
                Some(LayerSpecifier::StaticLayer(layer)) => {
                    cx.field("static_layer", |cx| check_keys(cx, "", layer, &mut max_connections));
                }
                // Nothing can be changed by the admin interface, so this layer stays empty.
                Some(LayerSpecifier::AdminLayer(_)) => cx.ignored("admin_layer"),
                Some(LayerSpecifier::DiskLayer(_)) => {
                    cx.refuse("disk_layer", "not supported");
                }
                Some(LayerSpecifier::RtdsLayer(_)) => {
                    cx.refuse("rtds_layer", "not supported");
                }
                None => {
                    cx.refuse("", "one of static_layer or admin_layer is required");
                }
            }
        });
    }
    max_connections
}

/// Keys may be written with dots or as nested objects.
fn check_keys(cx: &mut CompileCx<'_>, prefix: &str, layer: &Struct, max_connections: &mut Option<u64>) {
    let mut keys: Vec<&String> = layer.fields.keys().collect();
    keys.sort();
    for key in keys {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match &layer.fields[key].kind {
            Some(Kind::StructValue(inner)) => check_keys(cx, &path, inner, max_connections),
            _ => check_key(cx, &path, &layer.fields[key], max_connections),
        }
    }
}

fn check_key(cx: &mut CompileCx<'_>, key: &str, value: &Value, max_connections: &mut Option<u64>) {
    let field = format!("[\"{key}\"]");
    let is_about_envoy_itself = ["envoy.reloadable_features.", "envoy.restart_features.", "re2."]
        .iter()
        .any(|prefix| key.starts_with(prefix));
    if is_about_envoy_itself {
        cx.ignored(&field);
        return;
    }
    let number = match &value.kind {
        Some(Kind::NumberValue(number)) => Some(*number),
        Some(Kind::StringValue(text)) => text.parse().ok(),
        _ => None,
    };
    match (key, number) {
        ("overload.global_downstream_max_connections", Some(limit)) if limit >= 0.0 => {
            *max_connections = (limit < NO_LIMIT).then_some(limit as u64);
        }
        _ => {
            cx.refuse(&field, "this runtime key is not supported");
        }
    }
}
