//! Owns the signals that ask the program to stop, and the one that asks it to reload.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM, caught from the moment this is made.
pub(super) struct StopSignal {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignal {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Ends with the next signal, or at once if one came since [`Self::catch`]. Cancel safe.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// SIGHUP, caught from the moment this is made.
pub(super) struct ReloadSignal(Signal);

impl ReloadSignal {
    pub(super) fn catch() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }

    /// Ends with the next signal; several that come at once are one. Cancel safe.
    pub(super) async fn wait(&mut self) {
        self.0.recv().await;
    }
}
