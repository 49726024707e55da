//! What the demo and the bench set up around a broker: a server of their own, a door in front of it, a folder, and the
//! program that runs Go's asynq.

mod asynq;
mod door;
mod folder;
mod server;

pub(crate) use asynq::find as find_asynq;
pub(crate) use door::{Door, Sent};
pub(crate) use folder::Folder;
pub(crate) use server::{Keeps, Server, find as find_server};
