//! Reading and writing the metadata of objects that are plain JSON.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::macros::format_description;

/// `metadata.KEY` as text; empty when it is absent.
pub(crate) fn meta<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

pub(crate) fn name(object: &Value) -> &str {
    meta(object, "name")
}

pub(crate) fn namespace(object: &Value) -> &str {
    meta(object, "namespace")
}

pub(crate) fn uid(object: &Value) -> &str {
    meta(object, "uid")
}

/// `metadata.resourceVersion`; 0 when it is absent.
pub(crate) fn version(object: &Value) -> u64 {
    meta(object, "resourceVersion").parse().unwrap_or(0)
}

pub(crate) fn set_version(object: &mut Value, version: u64) {
    set_meta(object, "resourceVersion", version.to_string().into());
}

pub(crate) fn set_meta(object: &mut Value, key: &str, value: Value) {
    metadata(object).insert(key.into(), value);
}

pub(crate) fn remove_meta(object: &mut Value, key: &str) {
    metadata(object).shift_remove(key);
}

/// `metadata`, made when it is absent.
pub(crate) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    child(root(object), "metadata")
}

/// The object itself as a map. Anything else becomes an empty one.
pub(crate) fn root(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = json!({});
    }
    match object {
        Value::Object(map) => map,
        _ => unreachable!("it was just made an object"),
    }
}

/// The map at `key`, made when it is absent or null.
pub(crate) fn child<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    root(map.entry(key).or_insert_with(|| json!({})))
}

/// Sets `key` when it is absent or null.
pub(crate) fn default(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    if map.get(key).is_none_or(Value::is_null) {
        map.insert(key.into(), value.into());
    }
}

/// The maps in the list at `key`.
pub(crate) fn items<'a>(
    map: &'a mut Map<String, Value>,
    key: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    map.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Takes every null out of the objects inside: Kubernetes' types know no difference between null and absent.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The time as `metav1.Time` has it: RFC 3339, whole seconds, UTC.
pub(crate) fn timestamp(time: OffsetDateTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    time.format(format).unwrap_or_default()
}

pub(crate) fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}

/// A random UUID, version 4.
pub(crate) fn random_uid() -> String {
    let bits = (fastrand::u128(..) & !(0xf000 << 64 | 0xc << 60)) | (0x4000 << 64 | 0x8 << 60);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// What is put after a `generateName`: five characters that never spell a word.
pub(crate) fn random_suffix() -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| ALPHABET[fastrand::usize(..ALPHABET.len())] as char).collect()
}

/// `true` while the object waits for its finalizers.
pub(crate) fn terminating(object: &Value) -> bool {
    !meta(object, "deletionTimestamp").is_empty()
}

pub(crate) fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|list| !list.is_empty())
}
