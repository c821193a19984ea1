//! Schemas: what fields an object may have, and of which type.

pub(crate) mod custom;
pub(crate) mod fields;

mod built_in;

pub(crate) use built_in::Schemas;
