//! The number of threads of a worker process: by default half of the cores, at least one. The other half is for the broker
//! and the database; on two cores a second thread made every event cost more (wake-ups, stolen tasks, cold caches).

use super::Runtime;

impl Runtime {
    /// Returns the number of threads that run tasks.
    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            threads => threads,
        }
    }
}
