//! What happens to a broker's data as a whole: it is copied, it comes back as it was at an earlier moment, it is gone.

use std::sync::atomic::Ordering;

use outlast_core::TaskRecord;

use super::ModelBroker;
use super::queue::Queue;
use super::world::World;

/// Everything that a broker had stored at one moment: a snapshot, or what a replica has that is behind.
#[derive(Clone, Debug)]
pub struct Saved(World);

impl ModelBroker {
    /// A copy of everything.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved(self.world().clone())
    }

    /// From here on this is what the broker has: a restart from an old snapshot, or the promotion of a replica that was
    /// behind. The epoch is data, so it comes back too.
    pub fn restore(&self, saved: Saved) {
        *self.world() = saved.0;
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.bell.notify_waiters();
    }

    /// Everything is gone, as after FLUSHALL or behind a name that leads to an empty server. No two are the same epoch.
    pub fn flush(&self) {
        let mut world = self.world();
        *world = World::new(world.archive_max);
        world.epoch = 1 + self.flushes.fetch_add(1, Ordering::Relaxed);
        drop(world);
        self.bell.notify_waiters();
    }

    /// The tasks of all queues, for whoever counts.
    #[must_use]
    pub fn census(&self) -> Vec<TaskRecord> {
        let world = self.world();
        let tasks = world.queues.values().flat_map(|queue: &Queue| queue.tasks.values());
        tasks.map(|entry| entry.record.clone()).collect()
    }
}
