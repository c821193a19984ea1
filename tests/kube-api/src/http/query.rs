//! The query of a request.

use crate::status::{Cause, Result, Status};

/// The parameters in their order, decoded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Query(pairs.collect())
    }

    /// The first value of a parameter; empty when it is absent.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Every value of a parameter.
    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(name, _)| name == key).map(|(_, value)| value.clone()).collect()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(name, _)| name == key)
    }

    /// `true`, `1` and an empty value are true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.has(key) && !matches!(self.get(key), "false" | "0")
    }

    /// Reads `dryRun`; `options` is the kind that a complaint names, for instance `CreateOptions`.
    pub(crate) fn dry_run(&self, options: &str) -> Result<bool> {
        let values: Vec<&str> =
            self.0.iter().filter(|(name, _)| name == "dryRun").map(|(_, value)| value.as_str()).collect();
        match values.as_slice() {
            [] => Ok(false),
            ["All"] => Ok(true),
            others => {
                let cause = Cause::unsupported("dryRun", &others.iter().copied().collect(), &["All"]);
                Err(Status::invalid("meta.k8s.io", options, "", &[cause]))
            }
        }
    }

    /// Reads `fieldValidation`; without it unknown fields are warned about.
    pub(crate) fn field_validation(&self, options: &str) -> Result<FieldValidation> {
        match self.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => {
                let supported = ["", "Ignore", "Strict", "Warn"];
                let cause = Cause::unsupported("fieldValidation", &other.into(), &supported);
                Err(Status::invalid("meta.k8s.io", options, "", &[cause]))
            }
        }
    }

    /// Who writes: `fieldManager`, else the first part of the user agent.
    pub(crate) fn field_manager(&self, user_agent: &str) -> String {
        match self.get("fieldManager") {
            "" => match user_agent.split('/').next().unwrap_or_default() {
                "" => "unknown".to_owned(),
                agent => agent.to_owned(),
            },
            manager => manager.to_owned(),
        }
    }
}

/// What happens with fields that the kind does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// They are dropped in silence.
    Ignore,
    /// They are dropped, with a warning each.
    Warn,
    /// They are refused.
    Strict,
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match byte {
            b'%' => digit(at + 1).zip(digit(at + 2)).map(|(high, low)| (high * 16 + low) as u8),
            _ => None,
        };
        at += if escaped.is_some() { 3 } else { 1 };
        decoded.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Decodes one segment of a path, where `+` means itself.
pub(crate) fn decode_segment(text: &str) -> String {
    decode(&text.replace('+', "%2B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = Query::parse("labelSelector=app+in+(a%2Cb)&watch=1&watch2&x=%zz%+1");
        assert_eq!(query.get("labelSelector"), "app in (a,b)");
        assert!(query.flag("watch") && query.flag("watch2") && !query.flag("absent"));
        assert_eq!(query.get("x"), "%zz% 1");
    }
}
