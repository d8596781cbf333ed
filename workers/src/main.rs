//! The program `workers`: the pools, the clock, and the commands of those who run them.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    workers::cli::main(workers::cli::Cli::parse())
}
