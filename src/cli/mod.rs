//! The command line: one file per subcommand, each from arguments to a running router or a report.
//!

pub mod programs;
pub mod sandbox;
