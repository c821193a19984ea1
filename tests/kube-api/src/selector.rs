//! Label and field selectors, in the query's notation and as `LabelSelector` objects.

use serde_json::Value;

use crate::kinds::Resource;
use crate::object;
use crate::status::{Result, Status};

/// What a list, a watch or a delete of a collection picks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Clone, Debug, PartialEq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Clone, Debug, PartialEq)]
enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    Absent,
}

#[derive(Clone, Debug, PartialEq)]
struct FieldRequirement {
    path: String,
    value: String,
    equal: bool,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector` of a query.
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self> {
        let labels = parse_labels(labels)
            .map_err(|why| Status::bad_request(format!("unable to parse requirement: {why}")))?;
        Ok(Selector { labels, fields: parse_fields(resource, fields)? })
    }

    /// Adds `metadata.name=NAME`.
    pub(crate) fn and_name(mut self, name: &str) -> Self {
        self.fields.push(FieldRequirement {
            path: "metadata.name".into(),
            value: name.to_owned(),
            equal: true,
        });
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|field| (field_of(object, &field.path) == field.value) == field.equal)
    }
}

/// Does a `LabelSelector` object (null or `{}` picks everything) pick these labels?
pub(crate) fn label_selector_matches(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"]
        .as_object()
        .is_none_or(|map| map.iter().all(|(k, v)| labels.get(k) == Some(v)));
    equal
        && selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
            let values: Vec<String> = expression["values"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect();
            let operator = match expression["operator"].as_str() {
                Some("In") => Operator::In(values),
                Some("NotIn") => Operator::NotIn(values),
                Some("Exists") => Operator::Exists,
                Some("DoesNotExist") => Operator::Absent,
                _ => return false,
            };
            let key = expression["key"].as_str().unwrap_or_default().to_owned();
            Requirement { key, operator }.matches(labels)
        })
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        let among = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match &self.operator {
            Operator::In(values) => among(values),
            Operator::NotIn(values) => !among(values),
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
        }
    }
}

/// The value at a dotted path, as text; absent is empty, as it is in a field selector.
fn field_of(object: &Value, path: &str) -> String {
    let value = path.split('.').fold(object, |value, key| &value[key]);
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<FieldRequirement>> {
    let mut fields = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (path, value, true)
        } else {
            let message = format!("invalid selector: '{text}'; can't understand '{part}'");
            return Err(Status::bad_request(message));
        };
        let known = resource.selectable_fields();
        if !known.iter().any(|one| one == path) {
            let known: Vec<String> = known.iter().map(|one| format!("{one:?}")).collect();
            let message = format!("{path:?} is not a known field selector: only {}", known.join(", "));
            return Err(Status::bad_request(message));
        }
        fields.push(FieldRequirement { path: path.into(), value: value.into(), equal });
    }
    Ok(fields)
}

/// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
fn parse_labels(text: &str) -> std::result::Result<Vec<Requirement>, String> {
    let mut tokens = tokens(text).into_iter().peekable();
    let mut requirements = Vec::new();
    while tokens.peek().is_some() {
        let negated = tokens.next_if(|token| token == "!").is_some();
        let key = identifier(tokens.next())?;
        let operator = match tokens.peek().map(String::as_str) {
            None | Some(",") if negated => Operator::Absent,
            None | Some(",") => Operator::Exists,
            Some("=" | "==") => {
                tokens.next();
                Operator::In(vec![value(&mut tokens)?])
            }
            Some("!=") => {
                tokens.next();
                Operator::NotIn(vec![value(&mut tokens)?])
            }
            Some("in") => {
                tokens.next();
                Operator::In(set(&mut tokens)?)
            }
            Some("notin") => {
                tokens.next();
                Operator::NotIn(set(&mut tokens)?)
            }
            Some(other) => {
                return Err(format!("found '{other}', expected: in, notin, =, ==, !=, gt, lt"));
            }
        };
        requirements.push(Requirement { key, operator });
        match tokens.next().as_deref() {
            None => {}
            Some(",") if tokens.peek().is_some() => {}
            Some(",") => return Err("found '', expected: identifier after ','".into()),
            Some(other) => return Err(format!("found '{other}', expected: ',' or 'end of string'")),
        }
    }
    Ok(requirements)
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<String>>;

fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '=' if rest.starts_with("==") => 2,
            '!' if rest.starts_with("!=") => 2,
            '=' | '!' | ',' | '(' | ')' => 1,
            _ => rest.find(|c: char| " =!,()".contains(c)).unwrap_or(rest.len()),
        };
        tokens.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    tokens
}

fn identifier(token: Option<String>) -> std::result::Result<String, String> {
    match token {
        Some(word) if !"=!,()".contains(word.chars().next().unwrap_or('=')) => Ok(word),
        other => Err(format!("found '{}', expected: identifier", other.unwrap_or_default())),
    }
}

/// The value after `=`; nothing is the empty value.
fn value(tokens: &mut Tokens) -> std::result::Result<String, String> {
    match tokens.peek().map(String::as_str) {
        None | Some(",") => Ok(String::new()),
        Some(_) => identifier(tokens.next()),
    }
}

fn set(tokens: &mut Tokens) -> std::result::Result<Vec<String>, String> {
    if tokens.next().as_deref() != Some("(") {
        return Err("found '', expected: '('".into());
    }
    let mut values = Vec::new();
    loop {
        values.push(value(tokens)?);
        match tokens.next().as_deref() {
            Some(",") => {}
            Some(")") => return Ok(values),
            other => {
                return Err(format!("found '{}', expected: ',' or ')'", other.unwrap_or_default()));
            }
        }
    }
}

/// The namespace and name that an object is stored under.
pub(crate) fn in_namespace(object: &Value, namespace: Option<&str>) -> bool {
    namespace.is_none_or(|wanted| object::namespace(object) == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn label_selectors_pick_by_equality_and_by_sets() {
        let labels = json!({"app": "web", "tier": "backend"});
        let picks = |text: &str| parse_labels(text).unwrap().iter().all(|one| one.matches(&labels));
        assert!(picks("app=web,tier==backend,other!=x"));
        assert!(picks("app in (api, web),tier notin (front),!nolabel,tier"));
        assert!(!picks("app in (api)") && !picks("!app") && !picks("nolabel") && !picks("app!=web"));
        assert!(picks("") && !picks("app="));
    }

    #[test]
    fn a_broken_label_selector_is_an_error() {
        assert_eq!(parse_labels("app===x").unwrap_err(), "found '=', expected: identifier");
        assert!(parse_labels("app in x").is_err() && parse_labels("a b").is_err());
    }

    #[test]
    fn label_selector_objects_pick_like_their_text() {
        let labels = json!({"app": "web"});
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "gone", "operator": "DoesNotExist"}, {"key": "app", "operator": "In", "values": ["web"]}]});
        assert!(label_selector_matches(&selector, &labels));
        assert!(label_selector_matches(&json!({}), &labels));
        assert!(!label_selector_matches(&json!({"matchLabels": {"app": "api"}}), &labels));
    }
}
