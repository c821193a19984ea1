//! ReferenceGrant -> [`Grant`].

use super::wire;
use crate::api::{Refusal, Strict, name_of, read};
use crate::model::{Grant, GrantFrom, GrantTo};
use crate::source::Object;

/// Decodes a ReferenceGrant.
pub(in crate::api) fn reference_grant(object: &Object) -> Result<Grant, Refusal> {
    let Strict { spec, .. }: Strict<wire::GrantSpec> = read(object)?;
    let from = spec.from.into_iter();
    let from = from.map(|wire::GrantFrom { group, kind, namespace }| GrantFrom { group, kind, namespace });
    let to = spec.to.into_iter().map(|wire::GrantTo { group, kind, name }| GrantTo { group, kind, name });
    Ok(Grant { name: name_of(object), from: from.collect(), to: to.collect() })
}
