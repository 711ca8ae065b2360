//! A TCP relay between router and shard that can delay, cut and refuse, and that lets a test act at a message of its
//! choice ([`Trap`]).

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A relay in front of a PostgreSQL's socket. Its threads end with its connections.
pub struct Fault {
    state: Arc<State>,
    port: u16,
}

/// Where the way of a message is when the trap springs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// It does not arrive.
    Before,
    /// It arrives; its answer does not.
    Unanswered,
    /// It is answered.
    After,
}

/// Springs once, at one message on its way to a shard, whichever relay it passes of those that [`Fault::set`] it.
pub struct Trap {
    text: Vec<u8>,
    moment: Moment,
    /// Messages with the text that are still let through, and one.
    left: AtomicUsize,
}

impl Trap {
    /// At the `count`th message, from one, in which `text` is.
    pub fn at(text: &[u8], count: usize, moment: Moment) -> Arc<Self> {
        Arc::new(Self {
            text: text.to_owned(),
            moment,
            left: AtomicUsize::new(count),
        })
    }

    /// Whether it has.
    pub fn has_sprung(&self) -> bool {
        self.left.load(SeqCst) == 0
    }

    /// Whether these bytes are, or have, its message.
    fn springs_at(&self, bytes: &[u8]) -> bool {
        let found = bytes.windows(self.text.len()).any(|part| part == self.text);
        let one_less = |left: usize| left.checked_sub(1);
        found && self.left.fetch_update(SeqCst, SeqCst, one_less) == Ok(1)
    }
}

type Act = Box<dyn Fn() + Send + Sync>;

struct State {
    server: String,
    trap: Mutex<Option<(Arc<Trap>, Arc<Act>)>>,
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
            trap: Mutex::new(None),
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

    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.state.refuse.load(SeqCst)
    }

    /// Sets a trap; when it springs at a message of this relay's, `act` is called, and unless that is answered its
    /// connection ends.
    pub fn set(&self, trap: &Arc<Trap>, act: impl Fn() + Send + Sync + 'static) {
        *self.state.trap.lock().unwrap() = Some((trap.clone(), Arc::new(Box::new(act))));
    }

    /// Takes the trap away.
    pub fn free(&self) {
        *self.state.trap.lock().unwrap() = None;
    }

    /// A second handle on the same relay.
    pub fn handle(&self) -> Self {
        Self {
            state: self.state.clone(),
            port: self.port,
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
    let link = Arc::new(Link {
        state: state.clone(),
        awaited: AtomicBool::new(false),
    });
    let back = link.clone();
    std::thread::spawn(move || {
        link.pump(client_reads, &server, Link::passes);
        let _ = server.shutdown(Shutdown::Write);
    });
    std::thread::spawn(move || {
        back.pump(server_reads, &client, Link::returns);
        let _ = client.shutdown(Shutdown::Write);
    });
}

/// One connection.
struct Link {
    state: Arc<State>,
    /// The trap springs at the next answer.
    awaited: AtomicBool,
}

impl Link {
    fn pump(
        &self,
        mut from: impl Read,
        mut to: impl Write,
        pass: impl Fn(&Self, &[u8], &mut dyn Write) -> bool,
    ) {
        let mut chunk = [0; 8192];
        while let Ok(count) = from.read(&mut chunk) {
            let delay = Duration::from_micros(self.state.delay_micros.load(SeqCst));
            if !delay.is_zero() {
                std::thread::sleep(delay);
            }
            if count == 0 || !pass(self, &chunk[..count], &mut to) {
                return;
            }
        }
    }

    /// On the way to the shard. Whether the connection goes on.
    fn passes(&self, bytes: &[u8], to: &mut dyn Write) -> bool {
        let trap = self.state.trap.lock().unwrap().clone();
        if let Some((trap, act)) = trap.filter(|(trap, _)| trap.springs_at(bytes)) {
            if trap.moment == Moment::Before {
                act();
                return false;
            }
            self.awaited.store(true, SeqCst);
        }
        to.write_all(bytes).is_ok()
    }

    /// On the way back.
    fn returns(&self, bytes: &[u8], to: &mut dyn Write) -> bool {
        let trap = self.state.trap.lock().unwrap().clone();
        match trap.filter(|_| self.awaited.swap(false, SeqCst)) {
            None => to.write_all(bytes).is_ok(),
            Some((trap, act)) => {
                let answered = trap.moment == Moment::After && to.write_all(bytes).is_ok();
                act();
                answered
            }
        }
    }
}
