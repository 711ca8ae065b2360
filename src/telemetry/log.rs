//! Owns the program's log: events of `tracing` as lines on stderr, for people or for machines.

use std::io::{IsTerminal, stderr};
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to stderr. The variable `PGRING_LOG` sets the levels, in `tracing`'s syntax (`debug`,
/// `info,pgring::backend=trace`); where it is not set, `levels` do. No effect if logging was started before.
///
/// # Errors
/// When `PGRING_LOG` is no such list.
pub fn start(format: Format, levels: &str) -> Result<(), tracing_subscriber::filter::ParseError> {
    let levels = std::env::var("PGRING_LOG").unwrap_or_else(|_| levels.to_owned());
    let filter = EnvFilter::builder().parse(levels)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    // Whoever started logging before keeps it: that is a test or an embedding program.
    let _ = match format {
        Format::Text => lines
            .with_target(false)
            .with_ansi(stderr().is_terminal())
            .try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    Ok(())
}
