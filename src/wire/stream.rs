//! [`FrameStream`]: a socket with its two buffers, read and written in frames. The only file of this floor that does
//! IO; it knows frame headers and nothing of what the frames mean.

use super::error_response::{ErrorReply, Fault};
use super::frame::{self, Frame, FrameError};
use super::spare;
use super::sqlstate::SqlState;
use crate::config::Address;
use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncReadExt as _, AsyncWrite, Interest};
use tokio::net::{TcpStream, UnixStream};

/// The most that one read of a stream takes that is not in the midst of something large.
const READ_BYTES: usize = 16 * 1024;

/// The most that one read takes once a read was full.
const LARGE_READ_BYTES: usize = 64 * 1024;

/// A stream that keeps its buffers does so up to this size of each.
const KEPT_BYTES: usize = 128 * 1024;

thread_local! {
    /// Where small reads land. A stream keeps no room for what it does not have: most streams wait most of the time.
    static LANDING: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// A connection's byte stream. TLS joins here.
#[derive(Debug)]
pub enum Transport {
    /// TCP, without delay.
    Tcp(TcpStream),
    /// A unix socket.
    Unix(UnixStream),
}

impl Transport {
    /// Connects to `address`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        match address {
            Address::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                socket2::SockRef::from(&stream).set_keepalive(true)?;
                Ok(Self::Tcp(stream))
            }
            Address::Unix { directory, port } => Ok(Self::Unix(
                UnixStream::connect(directory.join(format!(".s.PGSQL.{port}"))).await?,
            )),
        }
    }

    /// Registers the socket with the runtime that calls, so that its wake-ups stay on the caller's thread.
    fn rehome(self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream.into_std()?)?),
            Self::Unix(stream) => Self::Unix(UnixStream::from_std(stream.into_std()?)?),
        })
    }

    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        // A `read_buf` future keeps nothing between polls, so a new one each time is the same one.
        match self {
            Self::Tcp(stream) => pin!(stream.read_buf(buffer)).poll(context),
            Self::Unix(stream) => pin!(stream.read_buf(buffer)).poll(context),
        }
    }

    /// Reads what there is into `landing`, as far as it goes. What falls short of it was all: the reactor is told so,
    /// which spares the call that would find nothing (the manual page epoll(7), on edge-triggered sockets).
    fn poll_read_into(
        &self,
        context: &mut Context<'_>,
        landing: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut short = None;
            let read = self.try_io(Interest::READABLE, |socket| {
                let (read, _) = recv(socket, &mut *landing, RecvFlags::empty())?;
                if 0 < read && read < landing.len() {
                    short = Some(read);
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                Ok(read)
            });
            match (short, read) {
                (Some(read), _) => return Poll::Ready(Ok(read)),
                (None, Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                (None, Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                (None, read) => return Poll::Ready(read),
            }
            if !self.poll_readable(context) {
                return Poll::Pending;
            }
        }
    }

    fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // There is room nearly always, and to ask the reactor first costs more than to find none.
        match send(self.socket(), bytes, SendFlags::NOSIGNAL) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            written => return Poll::Ready(written.map_err(io::Error::from)),
        }
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }

    fn try_io<R>(
        &self,
        interest: Interest,
        call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>,
    ) -> io::Result<R> {
        match self {
            Self::Tcp(stream) => stream.try_io(interest, || call(stream.as_fd())),
            Self::Unix(stream) => stream.try_io(interest, || call(stream.as_fd())),
        }
    }

    fn poll_readable(&self, context: &mut Context<'_>) -> bool {
        let readable = match self {
            Self::Tcp(stream) => stream.poll_read_ready(context),
            Self::Unix(stream) => stream.poll_read_ready(context),
        };
        readable.is_ready()
    }

    fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }
}

/// Why a stream gave no frame.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// The operating system failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// A header that cannot be.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that would have to be held whole is over the limit.
    #[error("a message of {bytes} bytes is over limits.frame_bytes ({max})")]
    TooLarge {
        /// The frame's size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl ErrorReply for StreamError {
    fn sqlstate(&self) -> SqlState {
        match self {
            Self::Closed | Self::Io(_) => SqlState::CONNECTION_FAILURE,
            Self::Frame(error) => error.sqlstate(),
            Self::TooLarge { .. } => SqlState::PROGRAM_LIMIT_EXCEEDED,
        }
    }
    fn fault(&self) -> Fault {
        Fault::Client
    }
    fn detail(&self) -> Option<String> {
        None
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("Raise limits.frame_bytes.".to_owned()),
            Self::Closed | Self::Io(_) | Self::Frame(_) => None,
        }
    }
    fn refusal(&self) -> Option<&'static str> {
        None
    }
}

/// What stands at the head of the input; see [`FrameStream::head`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// This many bytes belong to frames that may pass unread; the last frame may be cut off.
    Pass(usize),
    /// One whole frame with this tag, of this many bytes in all.
    Frame(u8, usize),
    /// More bytes are needed.
    Incomplete,
}

/// A socket with its input and output buffers.
#[derive(Debug)]
pub struct FrameStream {
    transport: Option<Transport>,
    input: BytesMut,
    /// What leaves before `output`, and is not copied into it.
    shared: VecDeque<Bytes>,
    output: BytesMut,
    /// Bytes of the frame now passing that have not arrived yet.
    passing: usize,
    /// Bytes of the frame that is waited for whole that have not arrived yet; `input` has room for them.
    awaited: usize,
    /// The last read was full: more of the same is to be expected.
    large: bool,
    /// A buffer may have grown beyond [`KEPT_BYTES`].
    grown: bool,
    /// The last read took all that was there: the next one has to wait, most likely.
    drained: bool,
    frame_bytes_max: usize,
    traffic: Traffic,
}

/// Bytes that have passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// From the other side.
    pub received: u64,
    /// To the other side.
    pub sent: u64,
}

impl FrameStream {
    /// Wraps a connected transport. A frame that is held whole may have `frame_bytes_max` bytes.
    pub fn new(transport: Transport, frame_bytes_max: usize) -> Self {
        Self {
            transport: Some(transport),
            input: BytesMut::new(),
            shared: VecDeque::new(),
            output: BytesMut::new(),
            passing: 0,
            awaited: 0,
            large: false,
            grown: false,
            drained: false,
            frame_bytes_max,
            traffic: Traffic::default(),
        }
    }

    /// What has passed since this was asked last.
    pub fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Where the other side is, and this one; None for sockets without addresses.
    pub fn addresses(&self) -> Option<(SocketAddr, SocketAddr)> {
        match self.transport.as_ref()? {
            Transport::Tcp(stream) => Some((stream.peer_addr().ok()?, stream.local_addr().ok()?)),
            Transport::Unix(_) => None,
        }
    }

    /// Connects to `address`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(address: &Address, frame_bytes_max: usize) -> io::Result<Self> {
        Ok(Self::new(
            Transport::connect(address).await?,
            frame_bytes_max,
        ))
    }

    /// Registers the socket with the calling runtime; buffers stay.
    ///
    /// # Errors
    /// What the operating system says; the stream is closed then.
    pub fn rehome(&mut self) -> io::Result<()> {
        let transport = self.transport.take().ok_or(io::ErrorKind::NotConnected)?;
        self.transport = Some(transport.rehome()?);
        Ok(())
    }

    /// Whether nothing waits in either direction and the socket, asked without waiting, gives neither bytes nor an end.
    pub fn is_quiet(&self) -> bool {
        let Some(transport) = &self.transport else {
            return false;
        };
        let nothing_sent = matches!(transport.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.is_drained() && self.passing == 0 && nothing_sent
    }

    /// Whether nothing waits in either direction.
    pub fn is_drained(&self) -> bool {
        self.input.is_empty() && self.unsent_bytes() == 0
    }

    /// What has arrived and was not consumed.
    pub fn input(&self) -> &[u8] {
        &self.input
    }

    /// Drops `bytes` from the head of the input.
    pub fn consume(&mut self, bytes: usize) {
        advance(&mut self.input, bytes);
    }

    /// Takes all of the input with its buffer, which [`Self::put_back`] has used again.
    pub fn take_all(&mut self) -> BytesMut {
        std::mem::take(&mut self.input)
    }

    /// Takes back what [`Self::take_all`] gave: all of it where nothing was read since, else its room.
    pub fn put_back(&mut self, buffer: BytesMut) {
        if self.input.is_empty() {
            self.input = buffer;
        } else {
            spare::give(buffer);
        }
    }

    /// Takes `bytes` from the head of the input.
    pub fn take(&mut self, bytes: usize) -> BytesMut {
        self.input.split_to(bytes)
    }

    /// Where messages to send are appended; they leave with [`Self::flush`] or [`Self::fill`].
    pub fn out(&mut self) -> &mut BytesMut {
        if self.output.capacity() == 0 {
            self.output = spare::take();
        }
        &mut self.output
    }

    /// Appends bytes to what is sent without copying them.
    pub fn send_shared(&mut self, bytes: Bytes) {
        if !self.output.is_empty() {
            self.shared.push_back(self.output.split().freeze());
        }
        self.shared.push_back(bytes);
    }

    /// How much waits to be sent.
    pub fn unsent_bytes(&self) -> usize {
        let shared: usize = self.shared.iter().map(Bytes::len).sum();
        shared + self.output.len()
    }

    /// What waits to be sent; what is shared stays so.
    pub fn unsent(&self) -> Vec<Bytes> {
        let mut unsent: Vec<_> = self.shared.iter().cloned().collect();
        unsent.push(Bytes::copy_from_slice(&self.output));
        unsent
    }

    /// What stands at the head of the input: a run of frames whose tag `passes`, of which even a part may be handed on,
    /// or one frame that was waited for whole. A returned [`Head::Pass`] must be consumed whole before the next call.
    ///
    /// # Errors
    /// [`StreamError::Frame`] for an impossible length, [`StreamError::TooLarge`] past the limit.
    pub fn head(&mut self, passes: impl Fn(u8) -> bool) -> Result<Head, StreamError> {
        self.awaited = 0;
        let mut run = self.passing.min(self.input.len());
        self.passing -= run;
        while self.passing == 0 {
            let Some(header) = frame::header(&self.input[run..])? else {
                break;
            };
            let arrived = self.input.len() - run;
            if !passes(header.tag) {
                if run > 0 {
                    break;
                }
                if header.frame_bytes > self.frame_bytes_max {
                    return Err(StreamError::TooLarge {
                        bytes: header.frame_bytes,
                        max: self.frame_bytes_max,
                    });
                }
                if arrived >= header.frame_bytes {
                    return Ok(Head::Frame(header.tag, header.frame_bytes));
                }
                self.awaited = header.frame_bytes - arrived;
                // What follows it may come with its end, and must not have all of it moved.
                self.input.reserve(self.awaited + READ_BYTES);
                break;
            }
            run += arrived.min(header.frame_bytes);
            self.passing = header.frame_bytes - arrived.min(header.frame_bytes);
        }
        Ok(if run > 0 {
            Head::Pass(run)
        } else {
            Head::Incomplete
        })
    }

    /// The next frame if it has arrived whole.
    ///
    /// # Errors
    /// As [`Self::head`].
    pub fn buffered_frame(&mut self) -> Result<Option<Frame>, StreamError> {
        Ok(match self.head(|_| false)? {
            Head::Frame(_, bytes) => Some(Frame::new(self.input.split_to(bytes).freeze())),
            Head::Pass(_) | Head::Incomplete => None,
        })
    }

    /// The next frame, waited for. Cancel safe.
    ///
    /// # Errors
    /// [`StreamError::Closed`] at the end, else as [`Self::head`] and [`Self::fill`].
    pub async fn read_frame(&mut self) -> Result<Frame, StreamError> {
        loop {
            if let Some(frame) = self.buffered_frame()? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// Reads once, at least one byte, and meanwhile sends what waits in the output, so that two sides that both
    /// write first do not wait for each other. Cancel safe.
    ///
    /// # Errors
    /// [`StreamError::Closed`] at the end of the stream.
    pub async fn fill(&mut self) -> Result<usize, StreamError> {
        poll_fn(|context| self.poll_fill(context)).await
    }

    /// [`Self::fill`] as a poll.
    pub fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        // A failed write is left for the read to explain: what the other side said last may still be there.
        let written = self.poll_flush(context);
        match self.poll_read(context) {
            Poll::Pending => match written {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
            },
            read => read,
        }
    }

    /// Reads once without sending; for watching a client while it is being answered.
    pub fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, StreamError>> {
        let transport = self.transport.as_mut().ok_or(StreamError::Closed)?;
        if std::mem::take(&mut self.drained) && !transport.poll_readable(context) {
            return Poll::Pending;
        }
        let read = if self.large {
            // Within a frame that is waited for there is room, and more would move all of it.
            if self.awaited == 0 {
                self.input.reserve(LARGE_READ_BYTES);
            }
            transport.poll_read(context, &mut self.input)
        } else {
            LANDING.with_borrow_mut(|landing| {
                let read = transport.poll_read_into(context, landing);
                if let Poll::Ready(Ok(read)) = read {
                    if self.input.capacity() == 0 {
                        self.input = spare::take();
                    }
                    self.input.extend_from_slice(&landing[..read]);
                }
                read
            })
        };
        let read = ready!(read)?;
        self.awaited = self.awaited.saturating_sub(read);
        self.large = read >= READ_BYTES;
        self.grown |= self.large;
        self.drained = !self.large;
        self.traffic.received += read as u64;
        match read {
            0 => Poll::Ready(Err(StreamError::Closed)),
            read => Poll::Ready(Ok(read)),
        }
    }

    /// Whether a read would give something, bytes or an end; if not, the task is woken once it does. Costs less than a read.
    pub fn poll_readable(&self, context: &mut Context<'_>) -> bool {
        match &self.transport {
            Some(transport) => transport.poll_readable(context),
            None => true,
        }
    }

    /// Gives the buffers up for others to use: for a stream that waits.
    pub fn rest(&mut self) {
        self.large &= !self.input.is_empty();
        if self.shared.is_empty() {
            self.shared = VecDeque::new();
        }
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() {
                spare::give(std::mem::take(buffer));
            }
        }
    }

    /// Gives up what room the buffers have beyond what a stream that is used often may keep.
    pub fn trim(&mut self) {
        if !std::mem::take(&mut self.grown) {
            return;
        }
        self.large = false;
        for buffer in [&mut self.input, &mut self.output] {
            if buffer.is_empty() && spare::has_room_for(buffer, KEPT_BYTES + 1) {
                *buffer = BytesMut::new();
            }
        }
    }

    /// Sends all of the output. Cancel safe: what was not sent stays.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        poll_fn(|context| self.poll_flush(context)).await
    }

    /// [`Self::flush`], while what arrives is read too, so that a side that answers before it has read all does not stop
    /// both. Returns early once `input_bytes_max` bytes wait to be looked at.
    ///
    /// # Errors
    /// As [`Self::flush`] and [`Self::fill`].
    pub async fn flush_absorbing(&mut self, input_bytes_max: usize) -> Result<(), StreamError> {
        poll_fn(|context| {
            loop {
                if let Poll::Ready(flushed) = self.poll_flush(context) {
                    return Poll::Ready(flushed);
                }
                if self.input.len() >= input_bytes_max {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_read(context))?;
            }
        })
        .await
    }

    /// [`Self::flush`] as a poll.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        self.grown |= self.output.len() > READ_BYTES;
        while let Some(bytes) = self.shared.front_mut() {
            if bytes.is_empty() {
                self.shared.pop_front();
                continue;
            }
            let transport = self.transport.as_mut().ok_or(StreamError::Closed)?;
            match ready!(transport.poll_write(context, bytes))? {
                0 => return Poll::Ready(Err(StreamError::Closed)),
                written => {
                    bytes.advance(written);
                    self.traffic.sent += written as u64;
                }
            }
        }
        while !self.output.is_empty() {
            let transport = self.transport.as_mut().ok_or(StreamError::Closed)?;
            let written = ready!(transport.poll_write(context, &self.output))?;
            if written == 0 {
                return Poll::Ready(Err(StreamError::Closed));
            }
            advance(&mut self.output, written);
            self.traffic.sent += written as u64;
        }
        Poll::Ready(Ok(()))
    }
}

/// Drops `bytes` from the head of `buffer`, which keeps its room if nothing is left.
fn advance(buffer: &mut BytesMut, bytes: usize) {
    match bytes == buffer.len() {
        true => buffer.clear(),
        false => buffer.advance(bytes),
    }
}
