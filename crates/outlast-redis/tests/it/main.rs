//! Connections that fail, replies that are lost, and data that is not ours: the broker against real servers,
//! and the checks and looks that only they can show.

mod active;
mod archive;
mod connect;
mod expired;
mod foreign;
mod forgotten;
mod fsck;
mod ghosts;
mod half_open;
mod inspect;
mod kit;
mod lost;
mod memory;
mod moves;
mod outage;
mod permission;
mod poison;
mod random;
mod sets;
mod slow;
mod unfit;
mod wake;
