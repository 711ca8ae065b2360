//! COPY … TO STDOUT of several shards as one: rows follow each other, a header comes once and a binary trailer once
//! (PostgreSQL's COPY, "File Formats").

use super::{ExecuteError, fill_watched, flush_large, shard_lost, stop, unexpected};
use crate::backend::connection::Backend;
use crate::wire::backend_message::{self, TransactionStatus};
use crate::wire::frame::Frame;
use crate::wire::frontend_message;
use crate::wire::stream::FrameStream;
use futures_util::future::join_all;

/// Bytes before the first tuple of a binary COPY: signature, flags, length of the (empty) extension.
const BINARY_HEADER_BYTES: usize = 19;
/// The trailer of a binary COPY: a field count of -1.
const BINARY_TRAILER: [u8; 2] = [0xff, 0xff];

/// What stands before the rows in each shard's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Rows only.
    Plain,
    /// A header line.
    HeaderLine,
    /// The binary format's header and trailer.
    Binary,
}

/// Waits for the COPY outputs of `backends`, each of which was sent the COPY as a simple query, and gives the client one
/// output, without CommandComplete. How many rows, and each shard's status.
///
/// # Errors
/// As [`super::fan_out::fan_out`].
///
/// # Cancel safety
/// Not cancel safe: drop the leases with it.
pub async fn copy_out(
    mut backends: Vec<&mut Backend>,
    framing: Framing,
    client: &mut FrameStream,
) -> Result<(u64, Vec<TransactionStatus>), ExecuteError> {
    let mut statuses = Vec::with_capacity(backends.len());
    let outcome = pull(&mut backends, framing, client, &mut statuses).await;
    match outcome {
        Ok(rows) => Ok((rows, statuses)),
        Err(error) => {
            // Shards before this one have been read to their ReadyForQuery.
            let done = statuses.len();
            let answered = matches!(error, ExecuteError::Shard(_));
            let running = backends.iter_mut().enumerate().skip(done);
            join_all(running.map(|(index, backend)| stop(backend, answered && index == done)))
                .await;
            Err(error)
        }
    }
}

/// Waits for the output of a COPY without rows, which `backend` was sent as a simple query, and gives the client how the
/// output begins.
///
/// # Errors
/// As [`copy_out`].
///
/// # Cancel safety
/// Not cancel safe: drop the lease with it.
pub async fn begin(
    backend: &mut Backend,
    framing: Framing,
    client: &mut FrameStream,
) -> Result<TransactionStatus, ExecuteError> {
    let begun = head(backend, framing, client).await;
    if let Err(error) = &begun {
        stop(backend, matches!(error, ExecuteError::Shard(_))).await;
    }
    begun
}

async fn head(
    backend: &mut Backend,
    framing: Framing,
    client: &mut FrameStream,
) -> Result<TransactionStatus, ExecuteError> {
    let flushed = backend.stream.flush().await;
    flushed.map_err(|source| shard_lost(backend, source))?;
    let mut first = true;
    loop {
        let frame = next_frame(backend, client).await?;
        match frame.tag() {
            b'H' | b'N' => client.out().extend_from_slice(frame.bytes()),
            b'd' => {
                // Header and trailer of an empty binary output travel together.
                if let Some(data) = shown(frame.body(), framing, first, true, false) {
                    frontend_message::write_copy_data(client.out(), data);
                }
                first = false;
            }
            b'c' | b'C' => {}
            b'E' => return Err(ExecuteError::Shard(backend.told(frame))),
            b'S' => backend.note_parameter(frame.body()),
            b'Z' => {
                let status = backend_message::read_ready_for_query(frame.body());
                return status.map_err(|_| unexpected(backend, b'Z'));
            }
            tag => return Err(unexpected(backend, tag)),
        }
    }
}

/// Ends the client's output, whose rows were written one by one.
pub fn end(framing: Framing, client: &mut FrameStream) {
    if framing == Framing::Binary {
        frontend_message::write_copy_data(client.out(), &BINARY_TRAILER);
    }
    frontend_message::write_copy_done(client.out());
}

async fn pull(
    backends: &mut [&mut Backend],
    framing: Framing,
    client: &mut FrameStream,
    statuses: &mut Vec<TransactionStatus>,
) -> Result<u64, ExecuteError> {
    for backend in &mut *backends {
        backend
            .stream
            .flush()
            .await
            .map_err(|source| shard_lost(backend, source))?;
    }
    let (mut rows, last) = (0, backends.len().saturating_sub(1));
    for (index, backend) in backends.iter_mut().enumerate() {
        let mut first = true;
        loop {
            let frame = next_frame(backend, client).await?;
            match frame.tag() {
                b'H' if index == 0 => client.out().extend_from_slice(frame.bytes()),
                b'H' => {}
                b'd' => {
                    if let Some(data) =
                        shown(frame.body(), framing, first, index == 0, index == last)
                    {
                        frontend_message::write_copy_data(client.out(), data);
                    }
                    first = false;
                }
                b'c' if index == last => client.out().extend_from_slice(frame.bytes()),
                b'c' => {}
                b'C' => {
                    rows += backend_message::read_command_complete(frame.body())
                        .ok()
                        .and_then(|tag| tag.rows)
                        .unwrap_or(0);
                }
                b'E' => return Err(ExecuteError::Shard(backend.told(frame))),
                b'N' => client.out().extend_from_slice(frame.bytes()),
                b'S' => backend.note_parameter(frame.body()),
                b'Z' => {
                    let status = backend_message::read_ready_for_query(frame.body());
                    statuses.push(status.map_err(|_| unexpected(backend, b'Z'))?);
                    break;
                }
                tag => return Err(unexpected(backend, tag)),
            }
            flush_large(client).await?;
        }
    }
    Ok(rows)
}

async fn next_frame(
    backend: &mut Backend,
    client: &mut FrameStream,
) -> Result<Frame, ExecuteError> {
    loop {
        match backend.stream.buffered_frame() {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => fill_watched(backend, client).await?,
            Err(source) => return Err(shard_lost(backend, source)),
        }
    }
}

/// What of one CopyData the client gets.
fn shown(
    data: &[u8],
    framing: Framing,
    first: bool,
    first_shard: bool,
    last_shard: bool,
) -> Option<&[u8]> {
    let skip = match framing {
        Framing::HeaderLine if first && !first_shard => return None,
        Framing::Binary if first && !first_shard => BINARY_HEADER_BYTES,
        Framing::Plain | Framing::HeaderLine | Framing::Binary => 0,
    };
    let data = data.get(skip..)?;
    let data = match framing {
        Framing::Binary if !last_shard => data
            .strip_suffix(&BINARY_TRAILER)
            .filter(|rest| is_end(rest, first))
            .unwrap_or(data),
        Framing::Plain | Framing::HeaderLine | Framing::Binary => data,
    };
    (!data.is_empty()).then_some(data)
}

/// Whether a binary CopyData that ends in the trailer's bytes holds the trailer: PostgreSQL sends it by itself, or right
/// after the header where there are no rows.
fn is_end(rest: &[u8], first: bool) -> bool {
    rest.is_empty() || (first && rest.len() == BINARY_HEADER_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_and_binary_frames_come_once() {
        let header = [7; BINARY_HEADER_BYTES];
        let with = |tail: &[u8]| [&header[..], tail].concat();
        assert_eq!(
            shown(b"a,b\n", Framing::HeaderLine, true, true, false),
            Some(&b"a,b\n"[..])
        );
        assert_eq!(
            shown(b"a,b\n", Framing::HeaderLine, true, false, false),
            None
        );
        assert_eq!(
            shown(b"1,2\n", Framing::HeaderLine, false, false, true),
            Some(&b"1,2\n"[..])
        );
        assert_eq!(
            shown(&with(b"row"), Framing::Binary, true, false, false),
            Some(&b"row"[..])
        );
        assert_eq!(
            shown(&with(b"row"), Framing::Binary, true, true, false),
            Some(&with(b"row")[..])
        );
        assert_eq!(
            shown(&BINARY_TRAILER, Framing::Binary, false, true, false),
            None
        );
        assert_eq!(
            shown(&BINARY_TRAILER, Framing::Binary, false, false, true),
            Some(&BINARY_TRAILER[..])
        );
        // No rows at all: header and trailer travel together.
        assert_eq!(
            shown(&with(&BINARY_TRAILER), Framing::Binary, true, true, false),
            Some(&header[..])
        );
        assert_eq!(
            shown(&with(&BINARY_TRAILER), Framing::Binary, true, false, false),
            None
        );
        // A row whose last value ends in the same bytes is a row.
        let row = [b"row", &BINARY_TRAILER[..]].concat();
        assert_eq!(
            shown(&row, Framing::Binary, false, true, false),
            Some(&row[..])
        );
    }
}
