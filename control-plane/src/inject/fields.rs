//! Reading and writing JSON objects by path: the little that injection needs to know of a Pod.

use serde_json::{Map, Value};

use crate::api::Refusal;

/// The value at a path of member names, `a.b.c`. Null is absent.
pub(super) fn at<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let mut names = path.split('.');
    let mut value = object.get(names.next()?)?;
    for name in names {
        value = value.get(name)?;
    }
    Some(value).filter(|value| !value.is_null())
}

/// The text at a path.
pub(super) fn text<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a str> {
    at(object, path)?.as_str()
}

/// The whole number at a path.
pub(super) fn number(object: &Map<String, Value>, path: &str) -> Option<i64> {
    at(object, path)?.as_i64()
}

/// The elements at a path; none when there is no list.
pub(super) fn list<'a>(object: &'a Map<String, Value>, path: &str) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A label or annotation: `metadata.MAP[NAME]`.
pub(super) fn metadata<'a>(pod: &'a Map<String, Value>, map: &str, name: &str) -> Option<&'a str> {
    pod.get("metadata")?.get(map)?.get(name)?.as_str()
}

/// Takes the object that is a member of another one, to be changed and put back; empty when it is not there.
pub(super) fn take_object(object: &mut Map<String, Value>, name: &str) -> Map<String, Value> {
    match object.get_mut(name).map(Value::take) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Takes the list that is a member of an object, to be changed and put back; empty when it is not there.
pub(super) fn take_list(object: &mut Map<String, Value>, name: &str) -> Vec<Value> {
    match object.get_mut(name).map(Value::take) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    }
}

/// The Pod's containers that serve for its whole life, with the path of each: all of `containers`, and those of
/// `initContainers` that are sidecars (`restartPolicy: Always`).
pub(super) fn containers(
    pod: &Map<String, Value>,
) -> impl Iterator<Item = (&Map<String, Value>, String)> + '_ {
    ["containers", "initContainers"].into_iter().flat_map(move |name| {
        let elements = list(pod, &format!("spec.{name}")).iter().enumerate();
        elements.filter_map(move |(index, container)| {
            let container = container.as_object()?;
            let serves = name == "containers" || text(container, "restartPolicy") == Some("Always");
            serves.then(|| (container, format!("spec.{name}[{index}]")))
        })
    })
}

/// Every name that a container or volume of the Pod has: the list that it is in, the name, the path of the name.
pub(super) fn names(pod: &Map<String, Value>) -> impl Iterator<Item = (&'static str, &str, String)> + '_ {
    ["containers", "initContainers", "volumes"].into_iter().flat_map(move |list_name| {
        let elements = list(pod, &format!("spec.{list_name}")).iter().enumerate();
        elements.filter_map(move |(index, element)| {
            let name = element.get("name")?.as_str()?;
            Some((list_name, name, format!("spec.{list_name}[{index}].name")))
        })
    })
}

/// Checks that the parts which injection reads or extends have the shape that Kubernetes gives them.
///
/// # Errors
/// The first field that has not.
pub(super) fn check(pod: &Map<String, Value>) -> Result<(), Refusal> {
    for path in ["metadata", "spec", "metadata.labels", "metadata.annotations"] {
        if at(pod, path).is_some_and(|value| !value.is_object()) {
            return Err(Refusal::new(path, "must be a map"));
        }
    }
    for map in ["labels", "annotations"] {
        let entries = at(pod, &format!("metadata.{map}")).and_then(Value::as_object).into_iter().flatten();
        for (name, value) in entries {
            if !value.is_string() {
                return Err(Refusal::new(format!("metadata.{map}[{name:?}]"), "must be a text"));
            }
        }
    }
    if at(pod, "spec").is_none() {
        return Err(Refusal::new("spec", "is missing"));
    }
    for name in ["containers", "initContainers", "volumes"] {
        let path = format!("spec.{name}");
        match at(pod, &path) {
            None => {}
            Some(Value::Array(elements)) => {
                if let Some(index) = elements.iter().position(|element| !element.is_object()) {
                    return Err(Refusal::new(format!("{path}[{index}]"), "must be a map"));
                }
            }
            Some(_) => return Err(Refusal::new(path, "must be a list")),
        }
    }
    Ok(())
}
