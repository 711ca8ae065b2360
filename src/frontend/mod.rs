//! Sockets and conversations: [`Listener`] accepts clients, [`handshake`] lets them in, [`session`] answers them. Nothing
//! here decides which shard a statement goes to, and nothing here reads SQL beyond its class.

pub mod handshake;
pub mod auth;
pub mod session;
pub mod console;
mod several;
mod cursor;
mod store;
pub mod simple_query;
mod explain;
pub mod extended_query;
pub mod control;
pub mod copy;
mod create_as;
mod copy_added;
pub mod known;
mod clock;
mod draw;
mod key_move;
mod held;
pub mod statements;
mod own_schema;
mod sql_prepare;
mod temporary;
pub mod parameters;
mod pinned;
pub mod cancel;
pub mod error;

use crate::config::Address;
use crate::router::Router;
use crate::wire::error_response::{Report, Severity};
use crate::wire::sqlstate::SqlState;
use crate::wire::stream::{FrameStream, Transport};
use auth::Users;
use cancel::Cancels;
use handshake::{Conversation, Entered};
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// How long sessions may take to end once the router stops.
const STOP: Duration = Duration::from_secs(5);

/// How long the listener rests after the system refused a connection (out of file descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What each worker shares.
struct Floor {
    router: Arc<Router>,
    users: Users,
    cancels: Arc<Cancels>,
}

/// Why the router does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// `listen.address`.
        address: String,
        /// The system's words.
        #[source]
        source: io::Error,
    },
    /// A thread or its runtime cannot be made, or there is no randomness.
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    /// The users cannot be made ready.
    #[error(transparent)]
    Users(#[from] auth::AuthError),
}

/// A router that listens.
pub struct Listener {
    listener: TcpListener,
    floor: Arc<Floor>,
    stop: watch::Receiver<bool>,
}

impl Listener {
    /// Listens on `listen.address`. `stop` turning true ends [`Self::serve`].
    ///
    /// # Errors
    /// [`ServeError`].
    pub async fn bind(
        router: Arc<Router>,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, ServeError> {
        let address = match &router.config.listen.address {
            Address::Tcp { host, port } => (host.clone(), *port),
            Address::Unix { .. } => ("127.0.0.1".to_owned(), 0),
        };
        let listener = TcpListener::bind((address.0.as_str(), address.1)).await;
        let listener = listener.map_err(|source| ServeError::Listen {
            address: format!("{}:{}", address.0, address.1),
            source,
        })?;
        let users = Users::new(&router.config)?;
        Ok(Self {
            listener,
            floor: Arc::new(Floor {
                router,
                users,
                cancels: Arc::default(),
            }),
            stop,
        })
    }

    /// The port that was given.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Serves clients until the router stops. Each worker thread has a runtime of its own, and a client stays on one:
    /// its backends' wake-ups then come on the thread that answers it.
    ///
    /// # Errors
    /// [`ServeError::Start`].
    pub async fn serve(mut self) -> Result<(), ServeError> {
        let count = self.floor.router.workers;
        let mut workers = Vec::with_capacity(count);
        for number in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let floor = self.floor.clone();
            let worker = thread::Builder::new()
                .name(format!("pgring-{number}"))
                .spawn(move || runtime.block_on(work(&floor, number, receiver)))?;
            workers.push((sender, worker));
        }
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = self.stop.wait_for(|stop| *stop) => break,
                () = self.floor.router.ended() => break,
            };
            match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => {
                    let _ = workers[next % count].0.send(stream);
                    next += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        self.floor.router.clients.stop();
        let threads: Vec<_> = workers.into_iter().map(|(_, worker)| worker).collect();
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().for_each(|worker| drop(worker.join()))
        });
        let _ = joined.await;
        Ok(())
    }
}

/// One worker: its clients, each a task.
async fn work(
    floor: &Arc<Floor>,
    worker: usize,
    mut arrivals: mpsc::UnboundedReceiver<std::net::TcpStream>,
) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            arrival = arrivals.recv() => match arrival {
                Some(stream) => { clients.spawn(attend(floor.clone(), worker, stream)); }
                None => break,
            },
            Some(ended) = clients.join_next() => {
                if let Err(error) = ended && error.is_panic() {
                    tracing::error!("a session panicked: its client was cut off, its shards rolled back");
                }
            }
        }
    }
    let _ =
        tokio::time::timeout(STOP, async { while clients.join_next().await.is_some() {} }).await;
}

/// Counts one up as long as it lives.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn enter(count: &'a AtomicUsize) -> (Self, usize) {
        let before = count.fetch_add(1, Ordering::Relaxed);
        (Self(count), before + 1)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One client from its first byte to its last.
async fn attend(floor: Arc<Floor>, worker: usize, stream: std::net::TcpStream) {
    let limits = &floor.router.config.limits;
    let Ok(stream) = TcpStream::from_std(stream) else {
        return;
    };
    let _ = stream.set_nodelay(true);
    let mut client = FrameStream::new(Transport::Tcp(stream), limits.frame_bytes);
    let (_connected, clients) = Counted::enter(&floor.router.clients.connected);
    let (arriving, waiting) = Counted::enter(&floor.router.clients.unauthenticated);
    if clients > limits.clients || waiting > limits.unauthenticated_clients {
        let name = if clients > limits.clients {
            "limits.clients"
        } else {
            "limits.unauthenticated_clients"
        };
        Box::pin(refuse(&mut client, name)).await;
        return;
    }
    let (router, users, cancels) = (&floor.router, &floor.users, &floor.cancels);
    // Boxed, so that it goes with the login: a client that is idle costs its session only.
    let greeted = Box::pin(handshake::handshake(router, users, cancels, worker, client)).await;
    drop(arriving);
    let Some(Entered {
        conversation,
        mut visit,
        registered: _registered,
    }) = greeted
    else {
        return;
    };
    let mut running = pin!(async {
        match conversation {
            Conversation::Session(session) => session.run().await,
            Conversation::Console(console) => Box::pin(console.run()).await,
        }
    });
    // Who is cut off loses its session as it is: what runs for it on the shards is cancelled and rolled back.
    poll_fn(|context| match running.as_mut().poll(context) {
        Poll::Pending if visit.poll_killed(context) => Poll::Ready(()),
        polled => polled,
    })
    .await;
}

async fn refuse(client: &mut FrameStream, limit: &str) {
    let report = Report {
        severity: Severity::Fatal,
        sqlstate: SqlState::TOO_MANY_CONNECTIONS,
        message: "sorry, too many clients already",
        detail: Some(&format!("{limit} is reached.")),
        hint: Some("Raise the limit, or use fewer connections."),
        position: None,
    };
    // A client whose first packet is not read would get a reset instead of the error.
    let _ = tokio::time::timeout(ACCEPT_PAUSE, client.fill()).await;
    report.write(client.out());
    let _ = tokio::time::timeout(ACCEPT_PAUSE, client.flush()).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With tokio's own part a task is two kilobytes then.
    const TASK_BYTES_MAX: usize = 1952;

    fn bytes_of<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    /// Futures that are awaited in a rare branch are boxed there, so that not all clients pay for them all the time.
    #[test]
    fn the_task_of_a_client_is_small() {
        let bytes = bytes_of(attend);
        assert!(bytes <= TASK_BYTES_MAX, "{bytes} bytes");
    }
}
