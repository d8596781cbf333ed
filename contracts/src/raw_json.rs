//! JSON that one program writes for another and that programs between them pass on unparsed.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// A JSON value kept as its text.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RawJson(Box<RawValue>);

impl RawJson {
    /// Serialises a value; null where it has keys that are no strings or numbers that JSON lacks.
    pub fn of(value: &impl Serialize) -> Self {
        to_raw_value(value).map(Self).unwrap_or_default()
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// The parsed value.
    ///
    /// # Errors
    /// Where a string escapes half of a surrogate pair: only the form of the text was checked before, not its escapes.
    pub fn value(&self) -> serde_json::Result<Value> {
        serde_json::from_str(self.get())
    }
}

impl Default for RawJson {
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl From<Value> for RawJson {
    fn from(value: Value) -> Self {
        Self::of(&value)
    }
}

/// Compares the texts: values that differ in white space alone are not equal.
impl PartialEq for RawJson {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl JsonSchema for RawJson {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_is_passed_on_unchanged() {
        let text = r#"{"b":1.0,  "a":["ü",null]}"#;
        let raw: RawJson = serde_json::from_str(text).expect("JSON");
        assert_eq!(raw.get(), text);
        assert_eq!(serde_json::to_string(&raw).expect("text"), text);
        assert_eq!(raw.value().expect("a value"), json!({ "a": ["ü", null], "b": 1.0 }));
        assert_eq!(
            serde_json::from_value::<RawJson>(json!({ "a": 1 })).expect("by way of a value"),
            json!({ "a": 1 }).into()
        );
        assert_eq!(RawJson::default().get(), "null");
        assert!(serde_json::from_str::<RawJson>("{\"a\":").is_err());
        let half = serde_json::from_str::<RawJson>(r#""\ud800""#);
        assert!(half.is_err() || half.expect("well-formed").value().is_err());
    }
}
