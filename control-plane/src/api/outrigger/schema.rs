//! JSON Schema -> the structural schemas that CustomResourceDefinitions hold (OpenAPI v3).

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

/// The schema of what `T` reads.
pub(super) fn of<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.meta_schema = None;
    settings.inline_subschemas = true;
    let settings = settings.with_transform(Structural);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

/// Takes out what a structural schema must not have.
#[derive(Debug, Clone)]
struct Structural;

impl Transform for Structural {
    fn transform(&mut self, schema: &mut Schema) {
        // A name of a type here; an API server takes unknown fields out by itself.
        for key in ["title", "additionalProperties"] {
            schema.remove(key);
        }
        // Nothing is null: a field that is not said is not there.
        if let Some(Value::Array(types)) = schema.get("type") {
            let said = types.iter().find(|of| **of != json!("null")).cloned();
            said.map(|of| schema.insert("type".to_owned(), of));
        }
        // A default is written into the objects, so an empty one would look like a word of the user.
        if matches!(schema.get("default"), Some(default) if *default == json!(null) || *default == json!([]))
        {
            schema.remove("default");
        }
        // Lines of a comment end where the code does.
        if let Some(Value::String(text)) = schema.get_mut("description") {
            *text = text.replace('\n', " ");
        }
        transform_subschemas(self, schema);
    }
}
