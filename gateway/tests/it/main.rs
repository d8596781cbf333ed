//! The gateway on real Postgres and RabbitMQ, asked over real HTTP. One binary, one module a concern.

mod auth;
mod bad_input;
mod broker_restart;
mod confirms;
mod connections;
mod events;
mod operations;
mod own_broker;
mod pages;
mod partitions;
mod rejected;
mod resources;
mod roles;
mod served;
mod spike;
mod student_way;
mod system;
mod unavailable;
mod waits;
