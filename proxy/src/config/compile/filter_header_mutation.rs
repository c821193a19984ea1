//! `Mutations` of the header mutation filter.

use ::http::HeaderValue;
use outrigger_xds_api::wire::core::v3 as core;
use outrigger_xds_api::wire::envoy::config::common::mutation_rules::v3 as rules;
use outrigger_xds_api::wire::extensions::filters::http::header_mutation::v3 as wire;
use outrigger_xds_api::wire::protobuf::value::Kind;

use super::cx::{CompileCx, Compiled, unsupported};
use super::header_mutation::{compile_addition, mutable_name};
use super::route_match::compile_string_matcher;
use super::values;
use crate::formatter::CapturePlan;
use crate::http::filters::{Mutation, Mutations, QueryMutation};
use crate::route::{AppendAction, HeaderMutations};

/// Compiles the field `mutations`.
pub(crate) fn compile_mutations(
    cx: &mut CompileCx<'_>,
    value: &Option<wire::Mutations>,
) -> Compiled<Mutations> {
    let Some(value) = value else { return Ok(Mutations::default()) };
    cx.field("mutations", |cx| {
        let wire::Mutations {
            request_mutations,
            query_parameter_mutations,
            response_mutations,
            response_trailers_mutations,
            request_trailers_mutations,
        } = value;
        unsupported!(cx; response_trailers_mutations, request_trailers_mutations);
        let mut plan = CapturePlan::live();
        let request = cx.each("request_mutations", request_mutations, |mutation, cx| {
            compile_mutation(cx, mutation, &mut CapturePlan::live())
        });
        let response = cx.each("response_mutations", response_mutations, |mutation, cx| {
            compile_mutation(cx, mutation, &mut plan)
        });
        let query = cx.each("query_parameter_mutations", query_parameter_mutations, compile_query_mutation);
        Ok(Mutations {
            request: request?.into(),
            response: response?.into(),
            query: query?.into(),
            keeps_request_head: plan.names_request(),
        })
    })
}

fn compile_mutation(
    cx: &mut CompileCx<'_>,
    value: &rules::HeaderMutation,
    plan: &mut CapturePlan,
) -> Compiled<Mutation> {
    use rules::header_mutation::{Action, RemoveOnMatch};
    match &value.action {
        Some(Action::Remove(name)) => {
            let name = mutable_name(cx, "remove", name)?;
            Ok(Mutation::Change(HeaderMutations { remove: [name].into(), add: Box::default() }))
        }
        Some(Action::Append(option)) => {
            let addition = cx.field("append", |cx| compile_addition(option, plan, cx))?;
            Ok(Mutation::Change(HeaderMutations { remove: Box::default(), add: [addition].into() }))
        }
        Some(Action::RemoveOnMatch(RemoveOnMatch { key_matcher })) => match key_matcher {
            Some(matcher) => cx
                .field("remove_on_match.key_matcher", |cx| compile_string_matcher(cx, matcher))
                .map(Mutation::RemoveOnMatch),
            None => Err(cx.refuse("remove_on_match.key_matcher", "value is required")),
        },
        None => Err(cx.refuse("", "one of remove, append or remove_on_match is required")),
    }
}

fn compile_query_mutation(value: &core::KeyValueMutation, cx: &mut CompileCx<'_>) -> Compiled<QueryMutation> {
    use core::key_value_append::KeyValueAppendAction as Wire;
    let core::KeyValueMutation { append, remove } = value;
    let Some(append) = append else {
        return match remove.is_empty() {
            true => Err(cx.refuse("", "one of append or remove is required")),
            false => Ok(QueryMutation::Remove(remove.as_str().into())),
        };
    };
    if !remove.is_empty() {
        return Err(cx.refuse("remove", "only one of append and remove can be set"));
    }
    cx.field("append", |cx| {
        let core::KeyValueAppend { record, entry, action } = append;
        unsupported!(cx; entry);
        let action = match values::enumeration(cx, "action", *action)? {
            Wire::AppendIfExistsOrAdd => AppendAction::AppendOrAdd,
            Wire::AddIfAbsent => AppendAction::AddIfAbsent,
            Wire::OverwriteIfExistsOrAdd => AppendAction::OverwriteOrAdd,
            Wire::OverwriteIfExists => AppendAction::OverwriteIfExists,
        };
        let Some(core::KeyValuePair { key, value }) = record else {
            return Err(cx.refuse("record", "value is required"));
        };
        let Some(Kind::StringValue(text)) = value.as_ref().and_then(|v| v.kind.as_ref()) else {
            return Err(cx.refuse("record.value", "must be a string"));
        };
        if text.contains('%') {
            return Err(cx.refuse("record.value", "commands and encoded text are not supported"));
        }
        for (field, text) in [("record.key", key), ("record.value", text)] {
            let is_plain = |b: u8| b.is_ascii_graphic() && !b"&#<>`".contains(&b);
            if HeaderValue::from_str(text).is_err() || !text.bytes().all(is_plain) {
                return Err(cx.refuse(field, "must be text that can stand in a query"));
            }
        }
        Ok(QueryMutation::Set { name: key.as_str().into(), value: text.as_str().into(), action })
    })
}
