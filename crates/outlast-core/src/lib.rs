//! The words and the laws of Outlast: here, the maths of schedules.

pub mod schedule;
