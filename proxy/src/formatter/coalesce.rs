//! `%COALESCE({"operators": [...]}):Z%`: the first operator that has a value.

use serde_json::Value;

use super::CapturePlan;
use super::Values;
use super::append::{Appended, clip};
use super::operator::Operator;
use super::time::Clock;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Coalesce {
    operators: Box<[Operator]>,
    length: usize,
}

impl Coalesce {
    /// Compiles what stands in the brackets.
    ///
    /// # Errors
    /// In Envoy's words.
    pub(super) fn compile(json: &str, length: Option<usize>, plan: &mut CapturePlan) -> Result<Self, String> {
        if json.is_empty() {
            return Err("COALESCE requires parameters".into());
        }
        let json: Value = serde_json::from_str(json)
            .map_err(|error| format!("COALESCE: failed to parse JSON configuration: {error}"))?;
        let operators = match json.get("operators") {
            None => return Err("COALESCE: JSON configuration must contain 'operators' array".into()),
            Some(Value::Array(operators)) if operators.is_empty() => {
                return Err("COALESCE: 'operators' array must not be empty".into());
            }
            Some(Value::Array(operators)) => operators,
            Some(_) => return Err("COALESCE: 'operators' must be an array".into()),
        };
        let operators = operators.iter().enumerate().map(|(at, entry)| {
            compile_entry(entry, plan)
                .map_err(|error| format!("COALESCE: failed to parse operator at index {at}: {error}"))
        });
        Ok(Self { operators: operators.collect::<Result<_, _>>()?, length: length.unwrap_or(usize::MAX) })
    }

    pub(super) fn append(&self, values: Values<'_>, clock: &mut Clock, out: &mut Vec<u8>) -> Appended {
        let start = out.len();
        for operator in &self.operators {
            let appended = operator.append(values, clock, out);
            if appended == Appended::Empty || out.len() == start {
                out.truncate(start);
                continue;
            }
            return match appended {
                // A number of JSON stays whole.
                Appended::Raw if values.json => appended,
                appended => clip(appended, start, self.length, out),
            };
        }
        Appended::Empty
    }
}

fn compile_entry(entry: &Value, plan: &mut CapturePlan) -> Result<Operator, String> {
    if let Value::String(command) = entry {
        return Operator::compile(command, None, None, plan);
    }
    let Value::Object(entry) = entry else {
        return Err(
            "operator entry must be either a string (command name) or an object with 'command' field".into(),
        );
    };
    let Some(Value::String(command)) = entry.get("command") else {
        return Err("operator object must have 'command' field".into());
    };
    let parameters = match entry.get("param") {
        None => None,
        Some(Value::String(parameters)) => Some(parameters.as_str()),
        Some(_) => return Err("'param' field must be a string".into()),
    };
    let length = match entry.get("max_length") {
        None => None,
        Some(length) => match length.as_i64().map(usize::try_from) {
            Some(Ok(length)) if length > 0 => Some(length),
            Some(_) => return Err("'max_length' must be a positive integer".into()),
            None => return Err("'max_length' field must be an integer".into()),
        },
    };
    Operator::compile(command, parameters, length, plan)
}
