//! What the common suite cannot know: files, processes, disks, schemas, and the SQL itself.

mod kit;
mod verbs;
