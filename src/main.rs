//! The program: arguments in, exit code out. All else is in [`pgring::cli`].

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    pgring::cli::run(pgring::cli::Arguments::parse())
}
