//! Kubernetes' own schemas: what fields its kinds have, and of which type.
//!
//! They come from the files of the Python package `kubernetes-validate`, which `scripts/install-tools.sh` installs.
//! Without it nothing of this is checked, and the server says so on standard error, once.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{env, fs, io};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::micro_time;
use crate::kinds::Resource;
use crate::status::Cause;

/// Of this version the schemas are.
const VERSION: &str = "v1.36.0-local";

/// The schemas, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schemas(Option<&'static Definitions>);

#[derive(Debug)]
struct Definitions {
    /// By their long names, for instance `io.k8s.api.core.v1.Service`.
    all: Value,
    /// Group, version and kind to the long name.
    kinds: HashMap<(String, String, String), String>,
}

impl Schemas {
    /// Looks for the schemas where `scripts/install-tools.sh` puts them; reads them once in a process.
    pub(crate) fn load() -> Self {
        static LOADED: OnceLock<Option<Definitions>> = OnceLock::new();
        let loaded = LOADED.get_or_init(|| {
            let definitions = find().and_then(|file| Definitions::read(&file));
            if definitions.is_none() {
                let why = "kube-api: Kubernetes' schemas are not installed (scripts/install-tools.sh): the fields of its \
                           own kinds are not checked";
                // Nobody reads it: then nobody needs it.
                let _ = writeln!(io::stderr(), "{why}");
            }
            definitions
        });
        Schemas(loaded.as_ref())
    }

    pub(crate) fn is_loaded(self) -> bool {
        self.0.is_some()
    }

    fn of(self, resource: &Resource) -> Option<(&'static Definitions, &'static str, &'static Value)> {
        let definitions = self.0?;
        let kind = (resource.group.clone(), resource.version.clone(), resource.kind.clone());
        let name = definitions.kinds.get(&kind)?;
        Some((definitions, name, definitions.all.get(name)?))
    }

    /// Reads the object as Go reads it into the kind's type: takes out what the type does not have and says where it
    /// was; the error is Go's when something has a wrong type.
    pub(crate) fn decode(self, resource: &Resource, object: &mut Value) -> Result<Vec<String>, String> {
        if resource.is("coordination.k8s.io", "leases") {
            for field in ["acquireTime", "renewTime"] {
                if let Some(error) = object["spec"][field].as_str().and_then(micro_time::error) {
                    return Err(error);
                }
            }
        }
        let mut unknown = Vec::new();
        let Some((definitions, name, schema)) = self.of(resource) else { return Ok(unknown) };
        let place = Place { parent: short(name), go_path: String::new(), path: String::new() };
        definitions.decode(schema, object, &place, &mut unknown)?;
        Ok(unknown)
    }

    /// The fields that must be there and are not. Lists may be absent, and a status may say as little as it likes.
    pub(crate) fn missing(self, resource: &Resource, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        if let Some((definitions, _, schema)) = self.of(resource) {
            for (name, value) in
                object.as_object().into_iter().flatten().filter(|(name, _)| *name != "status")
            {
                if let Some(property) = schema["properties"].get(name) {
                    definitions.missing(property, value, name, &mut causes);
                }
            }
        }
        causes
    }
}

/// Where the walk is, in Go's notation and in that of messages.
struct Place<'a> {
    /// The Go type that the field is in.
    parent: &'a str,
    /// `spec.containers`
    go_path: String,
    /// `spec.containers[0]`
    path: String,
}

impl Definitions {
    fn read(file: &Path) -> Option<Self> {
        let mut document: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let all = document.get_mut("$defs")?.take();
        let mut kinds = HashMap::new();
        for (name, definition) in all.as_object()? {
            for kind in definition["x-kubernetes-group-version-kind"].as_array().into_iter().flatten() {
                let text = |key: &str| kind[key].as_str().unwrap_or_default().to_owned();
                kinds.insert((text("group"), text("version"), text("kind")), name.clone());
            }
        }
        Some(Definitions { all, kinds })
    }

    /// Follows a reference; gives back the long name too, empty for a schema without one.
    fn resolve<'a>(&'a self, schema: &'a Value) -> (&'a str, &'a Value) {
        match schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next()) {
            Some(name) => (name, &self.all[name]),
            None => ("", schema),
        }
    }

    fn decode(
        &self,
        schema: &Value,
        value: &mut Value,
        place: &Place<'_>,
        unknown: &mut Vec<String>,
    ) -> Result<(), String> {
        let (name, resolved) = self.resolve(schema);
        if value.is_null() {
            return Ok(());
        }
        let fits = allowed_types(resolved).is_none_or(|types| {
            types.iter().any(|one| match *one {
                "integer" => value.is_i64() || value.is_u64(),
                "number" => value.is_number(),
                "string" => value.is_string(),
                "boolean" => value.is_boolean(),
                "array" => value.is_array(),
                "object" => value.is_object(),
                _ => false,
            })
        });
        if !fits {
            let (found, wanted) = (json_type(value), self.go_type(schema));
            let field = match place.go_path.as_str() {
                "" => place.parent.to_owned(),
                path => format!("{}.{path}", place.parent),
            };
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field {field} of type {wanted}"
            ));
        }
        check_text(name, resolved, value)?;
        match value {
            Value::Object(map) => {
                let additional = &resolved["additionalProperties"];
                let is_free = resolved["properties"].is_null() && !additional.is_object();
                let mut failure = None;
                map.retain(|field, value| {
                    if failure.is_some() || is_free {
                        return true;
                    }
                    let path = join(&place.path, field);
                    let result = if let Some(property) = resolved["properties"].get(field) {
                        let parent = if name.is_empty() { place.parent } else { short(name) };
                        let below = Place { parent, go_path: join(&place.go_path, field), path };
                        self.decode(property, value, &below, unknown)
                    } else if additional.is_object() {
                        let below = Place { parent: place.parent, go_path: place.go_path.clone(), path };
                        self.decode(additional, value, &below, unknown)
                    } else {
                        unknown.push(path);
                        return false;
                    };
                    failure = result.err();
                    true
                });
                failure.map_or(Ok(()), Err)
            }
            Value::Array(items) => items.iter_mut().enumerate().try_for_each(|(index, item)| {
                let path = format!("{}[{index}]", place.path);
                let below = Place { parent: place.parent, go_path: place.go_path.clone(), path };
                self.decode(&resolved["items"], item, &below, unknown)
            }),
            _ => Ok(()),
        }
    }

    fn missing(&self, schema: &Value, value: &Value, path: &str, causes: &mut Vec<Cause>) {
        let (_, schema) = self.resolve(schema);
        match value {
            Value::Object(map) => {
                for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    let (_, wanted) = self.resolve(&schema["properties"][name]);
                    let is_list = allowed_types(wanted).is_some_and(|types| types.contains(&"array"));
                    if !is_list && map.get(name).is_none_or(Value::is_null) {
                        causes.push(Cause::required(join(path, name), ""));
                    }
                }
                for (name, value) in map {
                    let schema = schema["properties"].get(name).unwrap_or(&schema["additionalProperties"]);
                    self.missing(schema, value, &join(path, name), causes);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.missing(&schema["items"], item, &format!("{path}[{index}]"), causes);
                }
            }
            _ => {}
        }
    }

    /// The type as Go writes it: `string`, `[]v1.Container`, `map[string]string`.
    fn go_type(&self, schema: &Value) -> String {
        let (name, _) = self.resolve(schema);
        if !name.is_empty() {
            let mut parts = name.rsplit('.');
            let (kind, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            return format!("{package}.{kind}");
        }
        let format = schema["format"].as_str();
        match allowed_types(schema).and_then(|types| types.first().copied()) {
            Some("integer") => format.unwrap_or("int64").to_owned(),
            Some("number") => "float64".to_owned(),
            Some("boolean") => "bool".to_owned(),
            Some("string") if format == Some("byte") => "[]uint8".to_owned(),
            Some("array") => format!("[]{}", self.go_type(&schema["items"])),
            Some("object") => format!("map[string]{}", self.go_type(&schema["additionalProperties"])),
            Some(other) => other.to_owned(),
            None => "interface {}".to_owned(),
        }
    }
}

/// Texts that are more than texts: times and bytes.
fn check_text(name: &str, schema: &Value, value: &Value) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Ok(()) };
    match (short(name), schema["format"].as_str()) {
        ("MicroTime", _) => micro_time::error(text).map_or(Ok(()), Err),
        ("Time", _) if OffsetDateTime::parse(text, &Rfc3339).is_err() => {
            let layout = "2006-01-02T15:04:05Z07:00";
            Err(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
        }
        (_, Some("byte")) => match STANDARD.decode(text) {
            Ok(_) => Ok(()),
            Err(base64::DecodeError::InvalidByte(at, _)) => {
                Err(format!("illegal base64 data at input byte {at}"))
            }
            Err(_) => Err(format!("illegal base64 data at input byte {}", text.len())),
        },
        _ => Ok(()),
    }
}

/// The JSON types that a schema takes; `None`: any.
fn allowed_types(schema: &Value) -> Option<Vec<&str>> {
    let own = match &schema["type"] {
        Value::String(one) => Some(vec![one.as_str()]),
        Value::Array(several) => Some(several.iter().filter_map(Value::as_str).collect()),
        _ => None,
    };
    own.or_else(|| {
        let either = schema["oneOf"].as_array()?;
        Some(either.iter().filter_map(allowed_types).flatten().collect())
    })
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// The last part of a long name.
fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The file with all definitions.
fn find() -> Option<PathBuf> {
    let tools = env::var_os("OUTRIGGER_TOOLS")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools"), PathBuf::from);
    let environments = fs::read_dir(tools).ok()?.filter_map(Result::ok);
    let libraries = environments
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("kubernetes-validate-"))
        .filter_map(|entry| fs::read_dir(entry.path().join("lib")).ok())
        .flatten();
    libraries
        .filter_map(Result::ok)
        .map(|python| {
            let package = python.path().join("site-packages/kubernetes_validate/kubernetes-json-schema");
            package.join(VERSION).join("_definitions.json")
        })
        .find(|file| file.is_file())
}
