//! Tests of the renderer: on real services where a test needs them, each with a database and a vhost of its own.

mod catalog;
mod documents;
