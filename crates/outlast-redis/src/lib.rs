//! The Redis and Valkey broker: every verb as Lua over asynq's wire format. Internal to the `outlast`
//! crate, versioned with it.
//!
//! `docs/redis-keys.md` lists what is stored beyond asynq's own keys; the scripts are in `src/lua`, each
//! with its contract at the top.

mod address;
mod answer;
mod beat;
mod broker;
mod calm;
mod claim;
mod command;
mod conn;
mod enqueue;
mod error;
mod extend;
mod fsck;
mod health;
mod held;
mod hub;
mod inspect;
mod keys;
mod link;
mod memory;
mod password_file;
mod patience;
mod people;
mod permissions;
mod porter;
mod proto;
mod record;
mod scripts;
mod session;
mod settle;
mod shown;
mod sweep;
mod wait;

pub use broker::{Options, RedisBroker};
