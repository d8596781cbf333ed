//! Extractors: JSON bodies, paths, queries, lists, preconditions. Whatever a request gets wrong is answered here, before
//! a handler runs, with the field and the fix.

pub mod client_address;
pub mod cursor;
pub mod if_match;
pub mod json;
pub mod list;
pub mod patch;
pub mod path;
pub mod query;

pub use client_address::ClientAddress;
pub use cursor::{CursorKey, Newest};
pub use if_match::IfMatch;
pub use json::{BodyLimits, Json, OptionalJson};
pub use list::{Age, List, Listing, NewestFirst, Page, Sort};
pub use patch::Patch;
pub use path::{Id, Path};
pub use query::Query;
