//! `spec.queryParameters`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::api::Refusal;
use crate::model::QueryParameters;

/// The most parameters in each list (as headers in the Gateway API's modifiers).
const MOST: usize = 16;

/// What can stand in a query as it is (RFC 3986, section 3.4) and means nothing to a proxy.
const NAME: &str = "^[A-Za-z0-9._~:@/,;!*()$'-]+$";

/// Its longest.
const LONGEST_NAME: usize = 256;

/// Likewise; a value may be empty.
const VALUE: &str = "^[A-Za-z0-9._~:@/,;!*()$'=-]*$";

const LONGEST_VALUE: usize = 1024;

/// Changes of the query, by the sidecar of the caller. A parameter is in one of the lists only.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.set) || has(self.add) || has(self.remove)",
    "message": "must say set, add or remove",
}]))]
pub(super) struct Spec {
    /// They get this value, whatever they had.
    #[serde(default)]
    #[schemars(length(max = MOST), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    set: Vec<Parameter>,
    /// They get this value too, beside those that they have.
    #[serde(default)]
    #[schemars(length(max = MOST), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    add: Vec<Parameter>,
    /// They are taken away, with all their values.
    #[serde(default)]
    #[schemars(length(max = MOST), inner(length(max = LONGEST_NAME), regex(pattern = NAME)), extend("x-kubernetes-list-type" = "set"))]
    remove: Vec<String>,
}

/// A parameter of the query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Parameter {
    /// Its name, as it stands in the query.
    #[schemars(length(max = LONGEST_NAME), regex(pattern = NAME))]
    name: String,
    /// Its value, as it is to stand in the query.
    #[schemars(length(max = LONGEST_VALUE), regex(pattern = VALUE))]
    value: String,
}

pub(super) fn read(spec: Spec) -> Result<QueryParameters, Refusal> {
    let mut seen = Vec::new();
    let read = QueryParameters {
        set: parameters(spec.set, "set", &mut seen)?,
        add: parameters(spec.add, "add", &mut seen)?,
        remove: names(spec.remove, &mut seen)?,
    };
    if read == QueryParameters::default() {
        return Err(Refusal::new("spec.queryParameters", "must say set, add or remove"));
    }
    Ok(read)
}

fn parameters(
    specs: Vec<Parameter>,
    list: &str,
    seen: &mut Vec<String>,
) -> Result<Vec<(String, String)>, Refusal> {
    let field = format!("spec.queryParameters.{list}");
    few(&field, specs.len())?;
    let read = |(index, Parameter { name, value }): (usize, Parameter)| {
        let name = parameter_name(name, format!("{field}[{index}].name"), seen)?;
        let value = text(value, VALUE, LONGEST_VALUE, format!("{field}[{index}].value"))?;
        Ok((name, value))
    };
    specs.into_iter().enumerate().map(read).collect()
}

fn names(specs: Vec<String>, seen: &mut Vec<String>) -> Result<Vec<String>, Refusal> {
    let field = "spec.queryParameters.remove";
    few(field, specs.len())?;
    let read = |(index, name)| parameter_name(name, format!("{field}[{index}]"), seen);
    specs.into_iter().enumerate().map(read).collect()
}

fn few(field: &str, count: usize) -> Result<(), Refusal> {
    match count {
        0..=MOST => Ok(()),
        _ => Err(Refusal::new(field, format!("must hold at most {MOST} parameters, not {count}"))),
    }
}

/// A name that was not seen before.
fn parameter_name(name: String, field: String, seen: &mut Vec<String>) -> Result<String, Refusal> {
    let name = text(name, NAME, LONGEST_NAME, field.clone())?;
    if seen.contains(&name) {
        return Err(Refusal::new(field, format!("{name} is there twice")));
    }
    seen.push(name.clone());
    Ok(name)
}

fn text(text: String, form: &str, longest: usize, field: String) -> Result<String, Refusal> {
    if text.len() > longest {
        return Err(Refusal::new(field, format!("has {} characters, more than {longest}", text.len())));
    }
    if !regex::Regex::new(form).is_ok_and(|form| form.is_match(&text)) {
        let reason = format!("{text:?} cannot stand in a query as it is: it must match {form}");
        return Err(Refusal::new(field, reason));
    }
    Ok(text)
}
