//! The program `workers`: the pools, the clock, and the ops command line.

use clap::Parser;

/// Deliveries settled together are thousands of small strings that are freed together: glibc's malloc costs more, and
/// keeps the peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    workers::cli::main(workers::cli::Cli::parse())
}
