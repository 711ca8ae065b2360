//! Gathers intermediate relations: the rows of several shards as arrays, one for each column, that become parameters of
//! the query over them. Values pass as the bytes that the shards sent; what is held at once is bounded by
//! `limits.merge_bytes`.

use super::merge::MergeError;
use super::{ExecuteError, shard_lost, stop, unexpected};
use crate::backend::connection::Backend;
use crate::planner::plan::Transport;
use crate::wire::backend_message::{self, DataRow, ErrorFields};
use crate::wire::frame::{Format, Frame};
use crate::wire::stream::FrameStream;
use bytes::{BufMut, BytesMut};
use futures_util::future::join_all;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

/// OID of `text`.
const TEXT: u32 = 25;

/// The bytes in front of a binary array's values (PostgreSQL's `array_recv` says how it looks).
const ARRAY_HEADER: usize = 20;

/// How much may be held, and is, for all statements of a router.
#[derive(Debug)]
pub struct Budget {
    statement_max: usize,
    total_max: usize,
    total: AtomicUsize,
}

impl Budget {
    /// `limits.merge_bytes` and `limits.merge_bytes_total`.
    pub fn new(statement_max: usize, total_max: usize) -> Self {
        Self {
            statement_max,
            total_max,
            total: AtomicUsize::new(0),
        }
    }

    /// What all statements hold now, and may hold at most.
    pub fn used(&self) -> (usize, usize) {
        (self.total.load(Ordering::Relaxed), self.total_max)
    }

    /// What one statement holds.
    pub fn statement(&self) -> Held<'_> {
        Held {
            budget: self,
            bytes: 0,
        }
    }
}

/// What one statement holds; dropped, others may.
#[derive(Debug)]
pub struct Held<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Held<'_> {
    /// Takes room for `bytes` more.
    ///
    /// # Errors
    /// [`MergeError::TooLarge`], [`MergeError::TotalTooLarge`].
    pub fn take(&mut self, bytes: usize) -> Result<(), MergeError> {
        let budget = self.budget;
        self.bytes += bytes;
        let total = budget.total.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if self.bytes > budget.statement_max {
            let bytes_max = budget.statement_max;
            return Err(MergeError::TooLarge { bytes_max });
        }
        if total > budget.total_max {
            let bytes_max = budget.total_max;
            return Err(MergeError::TotalTooLarge { bytes_max });
        }
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.total.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A request that a shard was sent, and the relation that its rows are of.
pub struct Source<'a> {
    /// Whose answers, one for each of `relations` and ReadyForQuery at the end, are awaited.
    pub backend: &'a mut Backend,
    /// Whether it is asked for ParameterDescription, and RowDescription or NoData, of the client's statement first.
    pub describes: bool,
    /// Indexes into the relations, in the order of the requests.
    pub relations: VecDeque<usize>,
}

/// One intermediate relation, as far as it was gathered.
pub struct Gathered {
    columns: Vec<Column>,
    rows: usize,
    /// The rows as they came, where their columns are not looked at.
    whole: Option<Vec<Frame>>,
}

/// The values of one column.
struct Column {
    transport: Transport,
    /// Room for the array's header, then each value with its length in front, as they stand in a binary array.
    values: BytesMut,
    has_null: bool,
}

impl Gathered {
    /// No rows yet.
    pub fn new(columns: &[Transport]) -> Self {
        let column = |transport: &Transport| Column {
            transport: *transport,
            values: BytesMut::zeroed(ARRAY_HEADER),
            has_null: false,
        };
        Self {
            columns: columns.iter().map(column).collect(),
            rows: 0,
            whole: None,
        }
    }

    /// No rows yet, which will be kept as they come.
    pub fn whole() -> Self {
        Self {
            columns: Vec::new(),
            rows: 0,
            whole: Some(Vec::new()),
        }
    }

    /// The rows (DataRow) that were kept as they came.
    pub fn into_rows(self) -> Vec<Frame> {
        self.whole.unwrap_or_default()
    }

    /// The formats in which the shards send the values of its columns.
    pub fn value_formats(columns: &[Transport]) -> impl Iterator<Item = Format> {
        columns.iter().map(|transport| match transport {
            Transport::Binary { .. } => Format::Binary,
            Transport::Text => Format::Text,
        })
    }

    /// The arrays, in the order of the columns.
    pub fn arrays(self) -> impl Iterator<Item = BytesMut> {
        let rows = self.rows;
        self.columns
            .into_iter()
            .map(move |column| column.array(rows))
    }

    /// Adds a row; the bytes that it takes.
    ///
    /// # Errors
    /// [`MergeError::Row`]: it has other columns.
    pub fn add(&mut self, row: &Frame) -> Result<usize, MergeError> {
        if let Some(whole) = &mut self.whole {
            whole.push(row.clone());
            return Ok(row.bytes().len());
        }
        let values = DataRow::read(row.body()).map_err(|_| MergeError::Row)?;
        if values.len() != self.columns.len() {
            return Err(MergeError::Row);
        }
        let mut taken = 0;
        for (value, column) in values.zip(&mut self.columns) {
            taken += column.add(value.map_err(|_| MergeError::Row)?);
        }
        self.rows += 1;
        Ok(taken)
    }

    /// Checks that a shard sends the types that the columns were declared with.
    fn check(&self, description: &Frame) -> Result<(), MergeError> {
        if self.whole.is_some() {
            return Ok(());
        }
        let described = backend_message::read_row_description(description.body())
            .map_err(|_| MergeError::Row)?;
        let agrees = described.len() == self.columns.len()
            && described
                .iter()
                .zip(&self.columns)
                .all(|(found, column)| match column.transport {
                    Transport::Binary { oid } => found.type_oid == oid,
                    Transport::Text => true,
                });
        if agrees {
            Ok(())
        } else {
            let reason = "the columns are not those that the router's schema has".to_owned();
            Err(MergeError::Columns { reason })
        }
    }
}

impl Column {
    fn add(&mut self, value: Option<&[u8]>) -> usize {
        let before = self.values.len();
        match value {
            Some(value) => {
                // A value's length fitted into the shard's message.
                self.values.put_u32(value.len() as u32);
                self.values.put_slice(value);
            }
            None => {
                self.has_null = true;
                self.values.put_i32(-1);
            }
        }
        self.values.len() - before
    }

    /// The array of all values in binary form.
    fn array(mut self, rows: usize) -> BytesMut {
        let element = match self.transport {
            Transport::Binary { oid } => oid,
            Transport::Text => TEXT,
        };
        // Dimensions, whether there are NULLs, the type; of the one dimension how many, and the number of the first.
        let header = [
            u32::from(rows > 0),
            u32::from(self.has_null),
            element,
            rows as u32,
            1,
        ];
        for (place, word) in self.values.chunks_exact_mut(4).zip(header) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        if rows == 0 {
            self.values.truncate(12);
        }
        self.values
    }
}

/// Waits for the answers of all sources at once and adds their rows to `relations`, as far as `held` may
/// hold them. The RowDescription that a source was asked for.
///
/// # Errors
/// As [`super::fan_out::fan_out`]; [`MergeError::TooLarge`] over the limit.
///
/// # Cancel safety
/// Not cancel safe: drop the leases with it.
pub async fn gather(
    sources: Vec<Source<'_>>,
    relations: &mut [Gathered],
    held: &mut Held<'_>,
    client: &mut FrameStream,
) -> Result<Option<Frame>, ExecuteError> {
    let mut open: Vec<Open<'_>> = sources
        .into_iter()
        .map(|source| Open {
            backend: source.backend,
            describes: source.describes,
            description: None,
            relations: source.relations,
            is_ready: false,
        })
        .collect();
    let flushes = open.iter_mut().map(|source| async {
        let flushed = source.backend.stream.flush().await;
        flushed.map_err(|error| shard_lost(source.backend, error))
    });
    let flushed: Result<(), _> = join_all(flushes).await.into_iter().collect();
    let gathered = match flushed {
        Ok(()) => pull(&mut open, relations, held, client).await,
        Err(error) => Err(error),
    };
    if let Err(error) = gathered {
        let of_text = is_of_text(&error);
        let running = open.iter_mut().filter(|source| !source.is_ready);
        let stopped = join_all(running.map(|source| async {
            // What is wrong with a text, it says of the client's before it would run another.
            let describes = of_text && source.describes;
            let ended = source.relations.is_empty() || describes;
            stop(source.backend, ended).await.filter(|_| describes)
        }));
        let own = stopped.await.into_iter().flatten().next();
        return Err(own.map_or(error, ExecuteError::Shard));
    }
    Ok(open.into_iter().find_map(|source| source.description))
}

/// Whether an error is about a place in the text, which is not the client's.
fn is_of_text(error: &ExecuteError) -> bool {
    match error {
        ExecuteError::Shard(frame) => {
            ErrorFields::read(frame.body()).is_ok_and(|fields| fields.position.is_some())
        }
        _ => false,
    }
}

/// A source until its ReadyForQuery.
struct Open<'a> {
    backend: &'a mut Backend,
    describes: bool,
    description: Option<Frame>,
    relations: VecDeque<usize>,
    is_ready: bool,
}

async fn pull(
    open: &mut [Open<'_>],
    relations: &mut [Gathered],
    held: &mut Held<'_>,
    client: &mut FrameStream,
) -> Result<(), ExecuteError> {
    loop {
        for source in open.iter_mut().filter(|source| !source.is_ready) {
            source.read(relations, held, client)?;
        }
        if open.iter().all(|source| source.is_ready) {
            return Ok(());
        }
        poll_fn(|context| fill(open, client, context)).await?;
    }
}

/// Reads what has come from any of the sources, and notices a client that leaves.
fn fill(
    open: &mut [Open<'_>],
    client: &mut FrameStream,
    context: &mut Context<'_>,
) -> Poll<Result<(), ExecuteError>> {
    let mut has_read = false;
    for source in open.iter_mut().filter(|source| !source.is_ready) {
        match source.backend.stream.poll_fill(context) {
            Poll::Ready(Ok(_)) => has_read = true,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(shard_lost(source.backend, error))),
            Poll::Pending => {}
        }
    }
    if has_read {
        return Poll::Ready(Ok(()));
    }
    super::watch(client, context).map(Err)
}

impl Open<'_> {
    /// Takes in the frames that are there.
    fn read(
        &mut self,
        relations: &mut [Gathered],
        held: &mut Held<'_>,
        client: &mut FrameStream,
    ) -> Result<(), ExecuteError> {
        loop {
            let frame = match self.backend.stream.buffered_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => return Ok(()),
                Err(error) => return Err(shard_lost(self.backend, error)),
            };
            let current = self.relations.front();
            let current = current.and_then(|index| relations.get_mut(*index));
            match (frame.tag(), current) {
                (b'T', _) if self.describes => {
                    self.describes = false;
                    self.description = Some(frame);
                }
                (b'n', _) if self.describes => self.describes = false,
                (b'D', Some(relation)) => {
                    held.take(relation.add(&frame)?)?;
                }
                (b'T', Some(relation)) => relation.check(&frame)?,
                (b'C', Some(_)) => drop(self.relations.pop_front()),
                (b'E', _) => {
                    self.relations.clear();
                    return Err(ExecuteError::Shard(self.backend.told(frame)));
                }
                (b'Z', None) => {
                    self.is_ready = true;
                    return Ok(());
                }
                (b'N' | b'A', _) => client.out().extend_from_slice(frame.bytes()),
                (b'S', _) => self.backend.note_parameter(frame.body()),
                (b'1' | b'2' | b'3' | b't', _) => {}
                (tag, _) => return Err(unexpected(self.backend, tag)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&[u8]>]) -> Frame {
        let mut out = BytesMut::new();
        backend_message::write_data_row(&mut out, values.iter().copied());
        Frame::new(out.freeze())
    }

    #[test]
    fn columns_become_arrays_as_postgresql_reads_them() {
        let int4 = Transport::Binary { oid: 23 };
        let mut gathered = Gathered::new(&[int4, Transport::Text]);
        for values in [[Some(&[0, 0, 0, 7][..]), None], [None, Some(&b"{a}"[..])]] {
            gathered.add(&row(&values)).unwrap();
        }
        let arrays: Vec<_> = gathered.arrays().collect();
        #[rustfmt::skip]
        let expected: [&[u8]; 2] = [
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 0, 7, 255, 255, 255, 255],
            &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 2, 0, 0, 0, 1, 255, 255, 255, 255, 0, 0, 0, 3, b'{', b'a', b'}'],
        ];
        assert_eq!(arrays, expected);
    }

    #[test]
    fn no_rows_are_an_empty_array_of_the_type() {
        let gathered = Gathered::new(&[Transport::Binary { oid: 20 }]);
        let arrays: Vec<_> = gathered.arrays().collect();
        assert_eq!(arrays, [&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20][..]]);
    }

    #[test]
    fn statements_share_what_the_router_holds() {
        let budget = Budget::new(10, 15);
        let mut first = budget.statement();
        first.take(10).unwrap();
        let bytes_max = 15;
        assert_eq!(
            budget.statement().take(6),
            Err(MergeError::TotalTooLarge { bytes_max })
        );
        let bytes_max = 10;
        assert_eq!(
            budget.statement().take(11),
            Err(MergeError::TooLarge { bytes_max })
        );
        assert_eq!(first.take(1), Err(MergeError::TooLarge { bytes_max }));
        drop(first);
        assert_eq!(budget.statement().take(10), Ok(()));
        assert_eq!(budget.total.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_row_of_another_width_is_an_error() {
        let mut gathered = Gathered::new(&[Transport::Text]);
        assert_eq!(gathered.add(&row(&[None, None])), Err(MergeError::Row));
    }
}
