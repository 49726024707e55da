//! What the layers promise, over a model that fails on purpose.

mod breaker;
mod child;
mod crash;
mod drain;
mod journal;
mod kit;
mod ledger;
mod outbox;
mod random;
mod seen;
mod spool;
mod stand_in;
mod syscalls;
