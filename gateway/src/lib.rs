//! The HTTP edge: authenticates, validates, turns requests into durable messages, and reports their results.
//!
//! Imports run downwards only: `router` → `api`, `portal` → `app` → `commands`, `live`, `catalogue` → `auth` → `extract`
//! → `http` → `config`. Invariants: no 202 before the broker's confirm ([`commands`]); nothing but [`config`] reads the
//! environment; money, seats and results are never written here.

pub mod api;
pub mod app;
pub mod auth;
pub mod catalogue;
pub mod commands;
pub mod config;
pub mod extract;
pub mod gateway;
pub mod http;
pub mod live;
pub mod portal;
pub mod router;
pub mod telemetry;
