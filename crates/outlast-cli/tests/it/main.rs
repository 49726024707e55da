//! The program as scripts and people use it: the real binary, real files, real processes. Every promise
//! of the command line is a test here, one file per noun.

mod bad_input;
mod bench;
mod config;
mod demo;
mod enqueue;
mod fsck;
mod golden;
mod handlers;
mod home;
mod kill;
mod limits;
mod migrate;
mod outage;
mod queues;
mod redis;
mod schedules;
mod tasks;
mod workers;
