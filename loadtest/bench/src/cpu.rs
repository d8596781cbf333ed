//! CPU time and memory of groups of processes, from /proc. The CPU time includes children that have ended, such as
//! backends of Postgres: the kernel adds the time of a reaped child to its parent.

use std::{collections::BTreeMap, fs, time::Duration};

/// Ticks a second in /proc, the same on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process, with or without its descendants, under a name of the table.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Name in the table.
    pub name: String,
    /// Pid of the process.
    pub pid: u32,
    /// True if its descendants are counted too.
    pub tree: bool,
}

/// CPU time that groups have used since they began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Usage {
    /// CPU seconds by group.
    pub cpu_seconds: BTreeMap<String, f64>,
}

struct Process {
    parent: u32,
    ticks: f64,
    ticks_of_reaped: f64,
}

/// Reads the CPU time of all groups.
pub(crate) fn usage(groups: &[Group]) -> Usage {
    let processes = processes();
    let mut usage = Usage::default();
    for group in groups {
        let members = members(&processes, group).into_iter().filter_map(|pid| processes.get(&pid));
        let ticks: f64 = members.map(|p| if group.tree { p.ticks + p.ticks_of_reaped } else { p.ticks }).sum();
        *usage.cpu_seconds.entry(group.name.clone()).or_default() += ticks / TICKS_PER_SECOND;
    }
    usage
}

/// Memory by group, MiB: the proportional set size where it can be read, which counts the shared memory of Postgres
/// once.
pub(crate) fn memory_mib(groups: &[Group]) -> BTreeMap<String, f64> {
    let processes = processes();
    let mut memory = BTreeMap::new();
    for group in groups {
        let kib: f64 = members(&processes, group).into_iter().map(memory_kib).sum();
        *memory.entry(group.name.clone()).or_default() += kib / 1024.0;
    }
    memory
}

/// CPU time of the calling thread; zero where the kernel does not report it.
pub(crate) fn of_current_thread() -> Duration {
    // The first number is nanoseconds on a CPU.
    let schedstat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = schedstat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

impl Usage {
    /// Returns the CPU seconds between two readings, by group.
    pub(crate) fn since(&self, before: &Usage) -> BTreeMap<String, f64> {
        let earlier = |name: &String| before.cpu_seconds.get(name).copied().unwrap_or_default();
        self.cpu_seconds.iter().map(|(name, seconds)| (name.clone(), seconds - earlier(name))).collect()
    }
}

fn processes() -> BTreeMap<u32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, process(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))).collect()
}

/// Parses a line of proc(5): after the name in brackets come state, ppid, …; utime, stime, cutime and cstime are
/// fields 14 to 17.
fn process(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let sum = |fields: &[&str]| fields.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    let (ticks, ticks_of_reaped) = (sum(fields.get(11..13)?), sum(fields.get(13..15)?));
    Some(Process { parent: fields.get(1)?.parse().ok()?, ticks, ticks_of_reaped })
}

fn members(processes: &BTreeMap<u32, Process>, group: &Group) -> Vec<u32> {
    let mut found = vec![group.pid];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied().filter(|_| group.tree) {
        found.extend(processes.iter().filter(|(_, process)| process.parent == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found
}

fn memory_kib(pid: u32) -> f64 {
    let field = |file: &str, name: &str| -> Option<f64> {
        let text = fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    field("smaps_rollup", "Pss:").or_else(|| field("status", "VmRSS:")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_process_is_read_whatever_its_name() {
        let stat = "42 (a) (b) S 7 42 42 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        let process = process(stat).expect("reads");
        assert_eq!((process.parent, process.ticks, process.ticks_of_reaped), (7, 30.0, 70.0));
    }

    #[test]
    fn a_group_uses_time() {
        let group = [Group { name: "own".into(), pid: std::process::id(), tree: true }];
        assert!(usage(&group).cpu_seconds.contains_key("own"));
        assert!(memory_mib(&group)["own"] > 0.1);
    }
}
