//! The deterministic core of Regency: it decides, and does nothing else.
//!
//! No clock, no I/O, no randomness, no threads, no locks. A [`Replica`](replica::Replica) takes
//! [`Event`](event::Event)s with the time at which they happen and returns [`Action`](action::Action)s; the
//! same events give the same actions, byte for byte, on every machine. What the rules say, by number, is in
//! `docs/protocol.md`; code cites them as `[WRITE-2]`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    warn(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::float_arithmetic
    )
)]

pub mod action;
mod amnesia;
mod announcements;
mod chain;
mod checkpoint;
pub mod client;
pub mod codec;
mod decided;
pub mod digest;
pub mod event;
pub mod ids;
mod journal;
pub mod leader_change;
pub mod limits;
mod links;
pub mod manifest;
pub mod message;
pub mod mutants;
mod ordering;
pub mod record;
pub mod replica;
mod request;
mod requests;
mod sessions;
pub mod snapshot;
pub mod state_transfer;
pub mod time;
pub mod view;
mod voting_record;
