//! Schemas: what fields an object may have, and of which type.

pub(crate) mod custom;
pub(crate) mod fields;

mod built_in;
mod micro_time;

pub(crate) use built_in::Schemas;
