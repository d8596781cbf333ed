//! Enums whose variants have fixed names on the wire and in the database, one line a variant.

/// Defines an enum from `Variant = "name"` lines, with `ALL`, `name()` and `from_name()`. Derives and serde attributes
/// are written at the enum as usual; a test here asserts that serde uses the same names.
macro_rules! named_enum {
    (
        $(#[$attribute:meta])*
        pub enum $enum:ident {
            $($(#[$doc:meta])* $variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$attribute])*
        pub enum $enum {
            $($(#[$doc])* $variant,)*
        }

        impl $enum {
            /// Every variant, in the order of definition.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The variant's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The variant of this name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|variant| variant.name() == name)
            }
        }
    };
}

pub(crate) use named_enum;

#[cfg(test)]
mod tests {
    use crate::{
        Role,
        messages::{EmailTemplate, PaymentMethod},
    };

    #[test]
    fn serde_uses_the_same_names() {
        fn assert_names<T: serde::Serialize>(variants: impl IntoIterator<Item = (T, &'static str)>) {
            for (variant, name) in variants {
                assert_eq!(serde_json::to_value(variant).expect("a unit variant"), name);
            }
        }
        assert_names(EmailTemplate::ALL.map(|template| (template, template.name())));
        assert_names(PaymentMethod::ALL.map(|method| (method, method.name())));
        assert_names(Role::ALL.map(|role| (role, role.name())));
    }
}
