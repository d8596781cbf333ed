//! The requester of a command, as text in the event and in `operations.principal`.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{named_enum::named_enum, text};

named_enum! {
    /// The role of a signed-in user. The name is used in tokens, in the database and in the principal.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Role {
        /// Registers, pays, attends.
        Student = "student",
        /// Runs classes.
        Teacher = "teacher",
        /// Decides payments.
        Accountant = "accountant",
        /// Runs the institute.
        Admin = "admin",
    }
}

impl Role {
    /// Returns true for roles that see and decide other people's payments and registrations.
    pub const fn is_staff(self) -> bool {
        matches!(self, Role::Accountant | Role::Admin)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The error for a text that is no role or no principal.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is neither a role nor a principal (`anonymous`, `system`, `student:<uuid>`, …)")]
pub struct UnknownPrincipal(String);

impl FromStr for Role {
    type Err = UnknownPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Role::from_name(text).ok_or_else(|| UnknownPrincipal(text.to_owned()))
    }
}

/// The requester: an unknown visitor, the platform itself, or a signed-in user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A visitor without an account; the operation id is the only capability to its result.
    Anonymous,
    /// The clock, or a follow-up of another command.
    System,
    /// A signed-in user.
    User {
        /// `users.id`.
        id: Uuid,
        /// The role in the access token.
        role: Role,
    },
}

impl Principal {
    /// The user's id, where there is a user.
    pub const fn user_id(&self) -> Option<Uuid> {
        match self {
            Principal::User { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The user's role, where there is a user.
    pub const fn role(&self) -> Option<Role> {
        match self {
            Principal::User { role, .. } => Some(*role),
            _ => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Principal::Anonymous => f.write_str("anonymous"),
            Principal::System => f.write_str("system"),
            Principal::User { id, role } => {
                f.write_str(role.name())?;
                f.write_str(":")?;
                f.write_str(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
        }
    }
}

impl FromStr for Principal {
    type Err = UnknownPrincipal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "anonymous" => Ok(Principal::Anonymous),
            "system" => Ok(Principal::System),
            _ => {
                let (role, id) = text.split_once(':').ok_or_else(|| UnknownPrincipal(text.to_owned()))?;
                let id = id.parse().map_err(|_| UnknownPrincipal(text.to_owned()))?;
                Ok(Principal::User { id, role: role.parse()? })
            }
        }
    }
}

impl Serialize for Principal {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text::parsed(deserializer)
    }
}
