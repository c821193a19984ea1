//! What is wrong with the user's objects, and where.

use std::fmt;
use std::sync::Arc;

use crate::source::{ObjectKey, Origin, Position, Unreadable};

/// One thing that is wrong, pointing at the user's own object and field, and at the file where there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object, unless the file could not be read that far.
    pub object: Option<ObjectKey>,
    /// Path of the file, unless the object comes from an API server.
    pub file: Option<Arc<str>>,
    /// Where in the file, when known.
    pub position: Option<Position>,
    /// Path of the field, for example `spec.rules[0].backendRefs[1].weight`. Empty when it is about the whole object.
    pub field: String,
    /// What is wrong, in a sentence.
    pub reason: String,
    /// What kind of thing is wrong.
    pub concern: Concern,
}

/// What kind of thing is wrong, as far as the conditions in an object's status tell it apart. Reasons are the Gateway API's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Anything else.
    #[default]
    Other,
    /// The object is refused, and the last good version of it is in force.
    FellBack,
    /// What a route is attached to is not there.
    NoMatchingParent,
    /// What a policy is attached to is not there.
    TargetNotFound,
    /// Another policy has the same target, and counts.
    Conflicted,
    /// What a rule leads to is of a kind that no rule can lead to.
    InvalidKind,
    /// What a rule leads to is not there.
    BackendNotFound,
    /// A rule may not lead to another namespace.
    RefNotPermitted,
}

impl Finding {
    /// A finding about one field of an object.
    pub fn at(origin: &Origin, field: impl Into<String>, reason: impl Into<String>) -> Self {
        let field = field.into();
        Self {
            object: Some(origin.object.clone()),
            file: origin.text.as_ref().map(|text| text.file.clone()),
            position: origin.text.as_ref().map(|text| text.position_of(&field)),
            field,
            reason: reason.into(),
            concern: Concern::default(),
        }
    }

    /// The same, with the kind of thing that is wrong.
    pub fn about(self, concern: Concern) -> Self {
        Self { concern, ..self }
    }
}

impl From<Unreadable> for Finding {
    fn from(found: Unreadable) -> Self {
        Self {
            object: None,
            file: Some(found.file),
            position: found.position,
            field: String::new(),
            reason: found.reason,
            concern: Concern::default(),
        }
    }
}

impl fmt::Display for Finding {
    /// `FILE:LINE:COLUMN: KIND NAMESPACE/NAME: FIELD: REASON`, without the parts that are not known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            f.write_str(file)?;
            if let Some(Position { line, column }) = self.position {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)
    }
}

/// All that is wrong at one moment. Both lists are sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Objects and files that were refused. The last good version of each, if there was one, is in force.
    pub rejections: Vec<Finding>,
    /// Objects that are in force but cannot have their whole effect, for example a route to a Service that does not
    /// exist.
    pub problems: Vec<Finding>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::{test_objects, test_origin};

    #[test]
    fn a_finding_names_the_file_where_there_is_one() {
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  ports: []\n";
        let written = &test_objects(text)[0].origin;
        let finding = Finding::at(written, "spec.ports[0].port", "is wrong");
        assert_eq!(finding.to_string(), "test.yaml:5:3: Service default/a: spec.ports[0].port: is wrong");
        let finding = Finding::at(&test_origin("Service", "shop", "a"), "spec.ports[0].port", "is wrong");
        assert_eq!(finding.to_string(), "Service shop/a: spec.ports[0].port: is wrong");
    }
}
