//! How many threads a worker process has: by default half of the cores, at least one. The other half belongs to the broker
//! and the database; on two cores a second thread made every event dearer (wake-ups, stolen tasks, cold caches).

use super::Runtime;

impl Runtime {
    /// The threads that run the tasks.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            threads => threads,
        }
    }
}
