//! The gateway on real Postgres and RabbitMQ, asked over real HTTP. One binary, one module a concern.

mod auth;
mod bad_input;
mod served;
mod broker_restart;
mod confirms;
mod spike;
mod system;
