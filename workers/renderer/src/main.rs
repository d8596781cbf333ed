//! The program `renderer`: the pool `documents`.

use clap::Parser;

/// A PDF is made of many small objects that live as long as its layout: glibc's malloc costs more, and keeps the peak.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    renderer::cli::main(renderer::cli::RendererCli::parse())
}
