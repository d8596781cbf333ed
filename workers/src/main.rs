//! The program `workers`: the pools, the clock, and the commands of those who run them.

use clap::Parser;

/// A batch is thousands of small strings that live as long as it does: glibc's malloc costs more, and keeps the peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    workers::cli::main(workers::cli::Cli::parse())
}
