//! Looking at queues and tasks, and acting on them.
