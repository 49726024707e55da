//! The Redis and Valkey broker: every verb as Lua over asynq's wire format. Internal to the `outlast`
//! crate, versioned with it.
//!
//! `docs/redis-keys.md` lists what is stored beyond asynq's own keys.

#[cfg_attr(not(test), expect(dead_code, reason = "the broker that uses it is being written"))]
mod proto;
#[cfg_attr(not(test), expect(dead_code, reason = "the broker that uses it is being written"))]
mod record;
