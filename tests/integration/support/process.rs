//! A child process that cannot outlive the test, even if the test process is killed.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};

/// Ends (kill -9) when dropped, or when this process dies.
pub struct Guarded {
    child: Child,
    // A shell that waits on a pipe to us: its end without a word means that we died.
    watchdog: Child,
}

impl Guarded {
    /// Starts `command`.
    pub fn spawn(command: &mut Command) -> Self {
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let watchdog = Command::new("sh")
            .args([
                "-c",
                "read -r line || kill -9 \"$0\"",
                &child.id().to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a watchdog");
        Self { child, watchdog }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it is alive.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("ask for a child").is_none()
    }

    /// Kill -9, and wait until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
        if let Some(mut pipe) = self.watchdog.stdin.take() {
            let _ = pipe.write_all(b"done\n");
        }
        let _ = self.watchdog.wait();
    }
}
