//! The command line: one file per subcommand, each from arguments to a running router or a report.
//! Start at [`run`].

mod advise;
mod check;
mod demo;
mod explain;
mod init;
mod inspect;
pub mod programs;
mod rebalance;
pub mod sandbox;
mod serve;
mod stop;
pub mod tpch;

use crate::config::{Config, ConfigError};
use crate::telemetry::log;
use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// A PostgreSQL sharding router: one stateless binary that applications connect to as if it were PostgreSQL.
#[derive(Debug, Parser)]
#[command(name = "pgring", version, max_term_width = 120)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// How log lines look; the variable PGRING_LOG sets their levels ("debug", "info,pgring::backend=trace")
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Demo),
    Serve(serve::Serve),
    Check(check::Check),
    Init(init::Init),
    Explain(explain::Explain),
    Advise(advise::Advise),
    Rebalance(rebalance::Rebalance),
}

impl Command {
    /// What is logged unless the environment says otherwise: reports speak for themselves, a router must tell more.
    /// The control plane reports its lost connections better than its pool does.
    fn log_levels(&self) -> &'static str {
        match self {
            Self::Serve(_) => "info,deadpool_postgres=error",
            Self::Demo(_)
            | Self::Check(_)
            | Self::Init(_)
            | Self::Explain(_)
            | Self::Advise(_)
            | Self::Rebalance(_) => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Args)]
struct ConfigArgument {
    /// The folder that holds pgring.toml and shards.toml
    #[arg(
        short = 'c',
        long = "config",
        value_name = "DIR",
        env = "PGRING_CONFIG",
        default_value = "shard-config"
    )]
    directory: PathBuf,
}

impl ConfigArgument {
    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.directory)
    }
}

/// Runs a subcommand. 0: it did what it should; 1: it failed, and stderr says why. (2, wrong usage, is for the
/// parser of arguments.)
pub fn run(arguments: Arguments) -> ExitCode {
    let format = match arguments.log_format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let levels = arguments.command.log_levels();
    let started = log::start(format, levels).context("the variable PGRING_LOG");
    let done = started.and_then(|()| run_command(arguments.command));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<ConfigError>() {
                // Each of its lines names file, line and key already.
                Some(problems) => eprintln!("{problems}"),
                None => eprintln!("pgring: {error:#}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn run_command(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match command {
            Command::Demo(demo) => demo.run().await,
            Command::Serve(serve) => serve.run().await,
            Command::Check(check) => check.run().await,
            Command::Init(init) => init.run().await,
            Command::Explain(explain) => explain.run().await,
            Command::Advise(advise) => advise.run().await,
            Command::Rebalance(rebalance) => rebalance.run().await,
        }
    })
}

/// Writes a report to stdout; unlike `println!` it does not panic where nobody reads on.
fn print(report: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(report.as_bytes())?;
    stdout.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_are_those_of_the_manual() {
        let parse = |line: &str| {
            Arguments::try_parse_from(line.split(' ')).map(|arguments| arguments.command)
        };
        assert!(matches!(
            parse("pgring demo --shards 2 --port 7000 --dir /tmp/d"),
            Ok(Command::Demo(_))
        ));
        assert!(matches!(
            parse("pgring serve -c conf --log-format json"),
            Ok(Command::Serve(_))
        ));
        assert!(matches!(
            parse("pgring check --online"),
            Ok(Command::Check(_))
        ));
        assert!(matches!(parse("pgring init -c conf"), Ok(Command::Init(_))));
        assert!(matches!(
            parse("pgring explain -c conf SELECT"),
            Ok(Command::Explain(_))
        ));
        assert!(matches!(
            parse("pgring rebalance --rate 50MB --pause-budget 200ms"),
            Ok(Command::Rebalance(_))
        ));
        assert!(parse("pgring rebalance --plan --cancel").is_err());
        assert!(parse("pgring demo --shards 0").is_err());
        assert!(parse("pgring explain").is_err());
    }
}
