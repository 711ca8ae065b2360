//! [`Wants`]: what people want of the move that is driven, asked for beside the work so that the work can look at it as
//! often as it likes.

use super::record::Wanted;
use super::side::{MoveError, Side};
use std::time::Duration;
use tokio::sync::watch;

/// How often the shard is asked.
const INTERVAL: Duration = Duration::from_millis(200);

/// What people want, as it was a moment ago.
#[derive(Debug, Clone)]
pub struct Wants(watch::Receiver<Wanted>);

impl Wants {
    /// Asks until the connection ends, or nobody wants to know.
    pub fn follow(source: Side, id: i32, now: Wanted) -> Self {
        let (sender, receiver) = watch::channel(now);
        tokio::spawn(async move {
            let sql = format!("SELECT wanted FROM pgring.move WHERE id = {id}");
            while !sender.is_closed() {
                let asked = source.value::<String>(&sql).await;
                let Ok(Ok(wanted)) = asked.map(|word| word.parse()) else {
                    return;
                };
                sender.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
                tokio::time::sleep(INTERVAL).await;
            }
        });
        Self(receiver)
    }

    /// What people want now.
    pub fn now(&self) -> Wanted {
        *self.0.borrow()
    }

    /// Returns at once while the work is wanted, and waits while it is paused: then true.
    ///
    /// # Errors
    /// [`MoveError::Interrupted`]: something else is wanted.
    pub async fn go_on(&mut self) -> Result<bool, MoveError> {
        let mut paused = false;
        loop {
            let lost = || MoveError::State("the source was lost".to_owned());
            self.0.has_changed().map_err(|_| lost())?;
            match self.now() {
                Wanted::Run => return Ok(paused),
                Wanted::Pause => paused = true,
                Wanted::Cancel | Wanted::Rollback | Wanted::Complete => {
                    return Err(MoveError::Interrupted);
                }
            }
            self.0.changed().await.map_err(|_| lost())?;
        }
    }
}
