//! What the layers promise, over a model that fails on purpose.

mod breaker;
mod journal;
mod kit;
mod outbox;
