//! What the targets of single xDS resources share: text or bytes → wire → compiled.

use outrigger_proxy::fuzzing::Sandbox;
use outrigger_xds_api::json::{self, Notation};
use outrigger_xds_api::wire::protobuf::Any;
use outrigger_xds_api::{ResourceType, resource};
use serde_json::Value;

/// Compiles a resource: YAML where the input is, else the wire's form.
///
/// One that is accepted is accepted again, and can be shown; one that is refused after it changes nothing.
pub(crate) fn compile(of: ResourceType, bytes: &[u8]) {
    let any = Any { type_url: of.type_url().to_owned(), value: wire(of, bytes) };
    let Ok(name) = resource::name_of(&any) else { return };
    let mut sandbox = Sandbox::default();
    sandbox.want(of, &name);
    if sandbox.apply(of, &name, &any).is_err() {
        return;
    }
    let shown = check_dump(&sandbox);
    sandbox.apply(of, &name, &any).unwrap();
    let broken = Any { value: b"\xff".to_vec(), ..any };
    sandbox.apply(of, &name, &broken).unwrap_err();
    assert_eq!(check_dump(&sandbox), shown);
}

/// The resource in the wire's form.
pub(crate) fn wire(of: ResourceType, bytes: &[u8]) -> Vec<u8> {
    let yaml = std::str::from_utf8(bytes).ok().and_then(|text| json::parse_one(text).ok());
    yaml.and_then(|node| json::encode(of.message_name(), &node, Notation::Yaml).ok())
        .unwrap_or_else(|| bytes.to_vec())
}

/// The dump, in which every resource could be printed, without its times.
pub(crate) fn check_dump(sandbox: &Sandbox) -> Value {
    let mut dump = sandbox.dump();
    remove_times(&mut dump);
    dump
}

fn remove_times(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            assert!(!(fields.contains_key("error") && fields.len() == 1), "{fields:?}");
            fields.retain(|name, _| name != "last_updated");
            fields.values_mut().for_each(remove_times);
        }
        Value::Array(elements) => elements.iter_mut().for_each(remove_times),
        _ => {}
    }
}
