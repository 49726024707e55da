//! What the common suite cannot know: files, processes, disks, schemas, and the SQL itself.

mod child;
mod files;
mod kit;
mod processes;
mod sharing;
mod states;
mod tally;
mod verbs;
