//! Who asks, and may they?

pub(crate) mod rbac;
pub(crate) mod reviews;
pub(crate) mod tokens;

use serde_json::{Value, json};

/// An authenticated user, or the anonymous one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// `extra`, as it goes out.
    pub(crate) extra: serde_json::Map<String, Value>,
}

impl User {
    pub(crate) fn new(name: &str, groups: &[&str]) -> Self {
        User {
            name: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            ..User::default()
        }
    }

    /// `UserInfo`, as reviews show it.
    pub(crate) fn to_json(&self) -> Value {
        let mut user = json!({"username": self.name});
        if !self.uid.is_empty() {
            user["uid"] = self.uid.as_str().into();
        }
        user["groups"] = self.groups.clone().into();
        if !self.extra.is_empty() {
            user["extra"] = self.extra.clone().into();
        }
        user
    }
}
