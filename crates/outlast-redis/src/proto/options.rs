//! The text form of enqueue options in a `SchedulerEntry` (contract §2.8).
