//! A TCP relay between router and shard that can delay, cut and refuse.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A relay in front of a PostgreSQL's socket. Its threads end with its connections.
pub struct Fault {
    state: Arc<State>,
    port: u16,
}

struct State {
    server: String,
    refuse: AtomicBool,
    delay_micros: AtomicU64,
    open: Mutex<Vec<(TcpStream, UnixStream)>>,
}

impl Fault {
    /// Relays to the unix socket at `path`.
    pub fn before(path: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            server: path.into(),
            refuse: AtomicBool::new(false),
            delay_micros: AtomicU64::new(0),
            open: Mutex::new(Vec::new()),
        });
        let accepted = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                accept(&accepted, client);
            }
        });
        Self { state, port }
    }

    /// The relay's own address, as a shard map names it.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Each piece of data waits this long before it goes on, in both directions.
    pub fn delay(&self, delay: Duration) {
        self.state
            .delay_micros
            .store(delay.as_micros() as u64, SeqCst);
    }

    /// Closes all connections and refuses new ones.
    pub fn cut(&self) {
        self.state.refuse.store(true, SeqCst);
        for (client, server) in self.state.open.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Accepts connections again.
    pub fn mend(&self) {
        self.state.refuse.store(false, SeqCst);
    }
}

fn accept(state: &Arc<State>, client: TcpStream) {
    let Some(server) = UnixStream::connect(&state.server)
        .ok()
        .filter(|_| !state.refuse.load(SeqCst))
    else {
        return;
    };
    let _ = client.set_nodelay(true);
    let (Ok(client_reads), Ok(server_reads)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    let (Ok(client_kept), Ok(server_kept)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    state.open.lock().unwrap().push((client_kept, server_kept));
    let (up, down) = (Arc::clone(state), Arc::clone(state));
    std::thread::spawn(move || {
        pump(&up, client_reads, &server);
        let _ = server.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        pump(&down, server_reads, &client);
        let _ = client.shutdown(Shutdown::Write);
    });
}

fn pump(state: &State, mut from: impl Read, mut to: impl Write) {
    let mut chunk = [0; 8192];
    while let Ok(count) = from.read(&mut chunk) {
        let delay = Duration::from_micros(state.delay_micros.load(SeqCst));
        if !delay.is_zero() {
            std::thread::sleep(delay);
        }
        if count == 0 || to.write_all(&chunk[..count]).is_err() {
            return;
        }
    }
}
