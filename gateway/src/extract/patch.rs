//! Members of a JSON merge patch (RFC 7396).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A member of a merge patch: absent stays, `null` is cleared, a value is set. Fields of this type have
/// `#[serde(default, skip_serializing_if = "Patch::is_absent")]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Patch<T> {
    /// The member was not sent.
    #[default]
    Absent,
    /// `null` was sent.
    Null,
    /// A value was sent.
    Value(T),
}

impl<T> Patch<T> {
    /// Returns `true` where the member was not sent.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Returns the value, where one was sent.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Null => None,
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(|sent| sent.map_or(Self::Null, Self::Value))
    }
}

impl<T: Serialize> Serialize for Patch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct Change {
        #[serde(default, skip_serializing_if = "Patch::is_absent")]
        name: Patch<String>,
    }

    #[test]
    fn absent_null_and_a_value_are_told_apart_and_kept() {
        for (json, name) in [
            ("{}", Patch::Absent),
            (r#"{"name":null}"#, Patch::Null),
            (r#"{"name":"Asha"}"#, Patch::Value("Asha".to_owned())),
        ] {
            let change: Change = serde_json::from_str(json).expect("reads");
            assert_eq!(change, Change { name });
            assert_eq!(serde_json::to_string(&change).expect("writes"), json);
        }
    }
}
