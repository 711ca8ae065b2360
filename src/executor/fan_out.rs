//! Several shards' answers to one statement as one answer: all shards start at once, their rows are pulled one by one,
//! so the client's pace reaches the shards and memory is one read buffer a shard. What locks rows on every shard goes
//! from shard to shard instead, so that two of its kind do not wait for each other.

use super::merge::MergeError;
use super::merge::columns;
use super::merge::fold::Folded;
use super::merge::order::RowOrder;
use super::merge::tournament::Tournament;
use super::{ExecuteError, fill_watched, flush_large, shard_lost, stop, unexpected};
use crate::backend::connection::Backend;
use crate::planner::plan::{Merge, SortKey};
use crate::sql::copy_line::CopyLines;
use crate::wire::backend_message::{self, ColumnDescription, DataRow, TransactionStatus};
use crate::wire::frame::Frame;
use crate::wire::frontend_message;
use crate::wire::stream::FrameStream;
use bytes::BytesMut;
use futures_util::future::join_all;

/// How the names of columns begin that the planner adds for sorting.
const HIDDEN_COLUMN: &[u8] = b"pgring_sort_";

/// When the shards of a fan-out start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// All at once.
    AtOnce,
    /// One after the other, each when the one before it has its locks.
    InTurn,
}

/// What a fan-out shows of the shards' answers, beside rows and the command tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Show<'a> {
    /// RowDescription goes to the client.
    pub description: bool,
    /// The most rows that the client takes now.
    pub rows_max: Option<u64>,
    /// Rows go to the client as CopyData in this format, not as DataRow.
    pub copy: Option<&'a CopyLines>,
}

/// How a fan-out ended. The client has been sent the rows, not yet CommandComplete: what wrote must commit first.
#[derive(Debug, PartialEq, Eq)]
pub struct FannedOut {
    /// The command tag for the client.
    pub tag: String,
    /// The client was given all the rows that it takes now; what was left of them is gone.
    pub suspended: bool,
    /// The answer has rows, if only none of them.
    pub has_rows: bool,
    /// What each shard said at its ReadyForQuery, in the order of the backends.
    pub statuses: Vec<TransactionStatus>,
}

/// One shard's answer as it arrives.
struct Input<'a> {
    backend: &'a mut Backend,
    description: Option<Frame>,
    tag: Option<Frame>,
    /// The request was sent.
    started: bool,
    /// Nothing but ReadyForQuery is still to come.
    ended: bool,
    /// It reported an error.
    failed: bool,
    status: Option<TransactionStatus>,
}

/// What an input gives next.
enum Item {
    Description,
    Row(Frame),
    End,
}

impl Input<'_> {
    /// The next row, or the end of the answer. ReadyForQuery is read in [`Input::settle`].
    async fn next(
        &mut self,
        client: &mut FrameStream,
        notices: &mut Notices,
    ) -> Result<Item, ExecuteError> {
        loop {
            let frame = match self.backend.stream.buffered_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => {
                    fill_watched(self.backend, client).await?;
                    continue;
                }
                Err(source) => return Err(shard_lost(self.backend, source)),
            };
            match frame.tag() {
                b'D' => return Ok(Item::Row(frame)),
                b'T' => {
                    self.description = Some(frame);
                    return Ok(Item::Description);
                }
                b'C' => {
                    self.ended = true;
                    self.tag = Some(frame);
                    return Ok(Item::End);
                }
                b'I' => {
                    self.ended = true;
                    return Ok(Item::End);
                }
                b'E' => {
                    self.ended = true;
                    self.failed = true;
                    return Err(ExecuteError::Shard(self.backend.told(frame)));
                }
                b'N' => notices.pass(&frame, client.out()),
                b'S' => self.backend.note_parameter(frame.body()),
                b'A' => client.out().extend_from_slice(frame.bytes()),
                b'1' | b'2' | b'3' | b'n' => {}
                tag => return Err(unexpected(self.backend, tag)),
            }
        }
    }

    /// Reads on to ReadyForQuery.
    async fn settle(&mut self) -> Result<(), ExecuteError> {
        while self.status.is_none() {
            let frame = self
                .backend
                .stream
                .read_frame()
                .await
                .map_err(|source| shard_lost(self.backend, source))?;
            if frame.tag() == b'Z' {
                self.status = Some(
                    backend_message::read_ready_for_query(frame.body())
                        .map_err(|_| unexpected(self.backend, b'Z'))?,
                );
            }
        }
        Ok(())
    }
}

/// NOTICEs that every shard sends are shown once.
#[derive(Default)]
struct Notices {
    seen: Vec<Frame>,
}

impl Notices {
    /// How many different notices of one statement are told apart.
    const SEEN_MAX: usize = 100;

    fn pass(&mut self, frame: &Frame, out: &mut BytesMut) {
        if self.seen.iter().all(|seen| seen.body() != frame.body()) {
            out.extend_from_slice(frame.bytes());
            if self.seen.len() < Self::SEEN_MAX {
                self.seen.push(frame.clone());
            }
        }
    }
}

/// Waits for the answers of `backends`, to each of which one request that ends in ReadyForQuery was appended, and gives
/// the client one answer.
///
/// # Errors
/// [`ExecuteError`]. For [`ExecuteError::Shard`] and [`ExecuteError::Merge`] all backends stand at ReadyForQuery again
/// or are marked broken; for the others the leases must be dropped.
///
/// # Cancel safety
/// Not cancel safe: drop the leases with it.
pub async fn fan_out(
    backends: Vec<&mut Backend>,
    merge: &Merge,
    start: Start,
    show: Show<'_>,
    client: &mut FrameStream,
) -> Result<FannedOut, ExecuteError> {
    let mut inputs: Vec<Input<'_>> = backends
        .into_iter()
        .map(|backend| Input {
            backend,
            description: None,
            tag: None,
            started: start == Start::AtOnce,
            ended: false,
            failed: false,
            status: None,
        })
        .collect();
    let starting = inputs.iter_mut().filter(|input| input.started);
    let flushed = join_all(starting.map(|input| async {
        input
            .backend
            .stream
            .flush()
            .await
            .map_err(|source| shard_lost(input.backend, source))
    }))
    .await;
    let outcome = match flushed.into_iter().collect::<Result<(), _>>() {
        Ok(()) => pull(&mut inputs, merge, show, client).await,
        Err(error) => Err(error),
    };
    let rows = match outcome {
        Ok(rows) => rows,
        Err(error) => {
            for input in inputs.iter_mut().filter(|input| !input.started) {
                input.backend.stream.out().clear();
            }
            let failed = inputs.iter().position(|input| input.failed);
            let running = inputs
                .iter_mut()
                .enumerate()
                .filter(|(_, input)| input.started && input.status.is_none());
            let stopped = join_all(running.map(|(place, input)| async move {
                stop(input.backend, input.ended)
                    .await
                    .map(|own| (place, own))
            }))
            .await;
            // Of those that failed by themselves the first is shown, whichever was heard of first.
            let earlier = stopped.into_iter().flatten().next();
            return Err(match (earlier, failed) {
                (Some((place, own)), Some(failed)) if place < failed => ExecuteError::Shard(own),
                _ => error,
            });
        }
    };
    for input in &mut inputs {
        input.settle().await?;
    }
    let tags = inputs.iter().filter_map(|input| input.tag.as_ref());
    let mut tags = tags.filter_map(|tag| backend_message::read_command_complete(tag.body()).ok());
    let tag = match merge {
        Merge::First(alike) => {
            let mut tags: Vec<_> = tags.map(Some).collect();
            let mut alike = alike.iter();
            let mut next = || tags.get_mut(usize::from(*alike.next()?)).map(Option::take);
            let first = next().flatten();
            while let Some(tag) = next() {
                if tag != first {
                    return Err(MergeError::OutcomesDiffer.into());
                }
            }
            first
        }
        Merge::Of(place) => tags.nth(usize::from(*place)),
        Merge::Relay
        | Merge::Append { .. }
        | Merge::InTurn(_)
        | Merge::Fold(_)
        | Merge::Sort { .. }
        | Merge::Move(_)
        | Merge::Store(_) => backend_message::sum_tags(tags),
    };
    let tag = tag.map(|tag| tag.to_string()).unwrap_or_default();
    let tag = match rows {
        Some(rows) if tag.starts_with("SELECT") => format!("SELECT {rows}"),
        Some(_) | None => tag,
    };
    let suspended = rows.is_some() && rows == show.rows_max;
    Ok(FannedOut {
        tag,
        suspended,
        has_rows: rows.is_some(),
        statuses: inputs.iter().filter_map(|input| input.status).collect(),
    })
}

/// Gives the client the description and the rows. The number of rows given, if the answer has rows.
async fn pull(
    inputs: &mut [Input<'_>],
    merge: &Merge,
    show: Show<'_>,
    client: &mut FrameStream,
) -> Result<Option<u64>, ExecuteError> {
    let mut notices = Notices::default();
    // Each input's first row, read while its description was waited for.
    let mut heads: Vec<Option<Frame>> = Vec::with_capacity(inputs.len());
    let mut described = false;
    for input in &mut *inputs {
        let mut head = None;
        input.started = true;
        loop {
            match input.next(client, &mut notices).await? {
                Item::Description => described = true,
                Item::Row(frame) => {
                    head = Some(frame);
                    break;
                }
                Item::End => break,
            }
        }
        heads.push(head);
    }
    let hidden = match merge {
        Merge::Sort { hidden_columns, .. } => *hidden_columns,
        Merge::Relay
        | Merge::Append { .. }
        | Merge::InTurn(_)
        | Merge::Fold(_)
        | Merge::First(_)
        | Merge::Of(_)
        | Merge::Move(_)
        | Merge::Store(_) => 0,
    };
    let shown = describe(inputs, hidden, show, client)?;
    if !described {
        return Ok(None);
    }
    match merge {
        Merge::InTurn(turns) => {
            let mut window = Window::new(0, None, show);
            for turn in turns.iter().map(|turn| usize::from(*turn)) {
                // A row that ON CONFLICT or a trigger left out is missing in its turn.
                if let Some(row) = heads.get_mut(turn).and_then(Option::take) {
                    heads[turn] = next_row(&mut inputs[turn], client, &mut notices).await?;
                    window.pass(&row, shown, client)?;
                    flush_large(client).await?;
                }
            }
            append(inputs, heads, &mut window, shown, client, &mut notices).await?;
            Ok(Some(window.given))
        }
        Merge::Relay | Merge::Append { .. } | Merge::Move(_) => {
            let (offset, limit) = match merge {
                Merge::Append { offset, limit } => (*offset, *limit),
                _ => (0, None),
            };
            let mut window = Window::new(offset, limit, show);
            append(inputs, heads, &mut window, shown, client, &mut notices).await?;
            Ok(Some(window.given))
        }
        Merge::Fold(folds) => {
            let first = inputs.iter().find_map(|input| input.description.as_ref());
            let first = first.ok_or(MergeError::Row)?.clone();
            let mut folded = Folded::new(folds, &columns_of(&first)?)?;
            for (input, head) in inputs.iter_mut().zip(heads) {
                folded.add(head.ok_or(MergeError::Row)?.body())?;
                if next_row(input, client, &mut notices).await?.is_some() {
                    return Err(MergeError::Row.into());
                }
            }
            let mut window = Window::new(0, None, show);
            window.pass(&folded.row(), shown, client)?;
            Ok(Some(window.given))
        }
        Merge::Of(_) | Merge::Store(_) => Err(MergeError::Row.into()),
        Merge::First(alike) => {
            let mut window = Window::new(0, None, show);
            let shown_step = alike.first().map(|step| usize::from(*step));
            for (index, (input, head)) in inputs.iter_mut().zip(heads).enumerate() {
                let mut row = head;
                while let Some(frame) = row {
                    if Some(index) == shown_step {
                        window.pass(&frame, shown, client)?;
                        flush_large(client).await?;
                    }
                    row = next_row(input, client, &mut notices).await?;
                }
            }
            Ok(Some(window.given))
        }
        Merge::Sort {
            keys,
            offset,
            limit,
            ..
        } => {
            let window = Window::new(*offset, *limit, show);
            Ok(Some(
                merge_sorted(inputs, heads, keys, window, shown, client, &mut notices).await?,
            ))
        }
    }
}

/// Checks that all inputs describe the same rows and shows the client the description without its last `hidden`
/// columns. How many columns are shown.
fn describe(
    inputs: &[Input<'_>],
    hidden: u16,
    show: Show<'_>,
    client: &mut FrameStream,
) -> Result<u16, ExecuteError> {
    let mut descriptions = inputs.iter().filter_map(|input| input.description.as_ref());
    let Some(first) = descriptions.next() else {
        return Ok(u16::MAX);
    };
    let columns = columns_of(first)?;
    for other in descriptions {
        columns::agree(&columns, &columns_of(other)?)?;
    }
    let shown = (columns.len() as u16).saturating_sub(hidden);
    let added = &columns[usize::from(shown)..];
    if added
        .iter()
        .any(|column| !column.name.starts_with(HIDDEN_COLUMN))
    {
        let reason = "the columns are not those that the router's schema has".to_owned();
        return Err(MergeError::Columns { reason }.into());
    }
    if show.description {
        backend_message::truncate_row_description(client.out(), first.body(), shown)
            .map_err(|_| MergeError::Row)?;
    }
    Ok(shown)
}

fn columns_of(description: &Frame) -> Result<Vec<ColumnDescription<'_>>, MergeError> {
    backend_message::read_row_description(description.body()).map_err(|_| MergeError::Row)
}

async fn next_row(
    input: &mut Input<'_>,
    client: &mut FrameStream,
    notices: &mut Notices,
) -> Result<Option<Frame>, ExecuteError> {
    match input.next(client, notices).await? {
        Item::Row(frame) => Ok(Some(frame)),
        Item::End => Ok(None),
        Item::Description => Err(unexpected(input.backend, b'T')),
    }
}

/// All rows of one input after those of the other.
async fn append(
    inputs: &mut [Input<'_>],
    heads: Vec<Option<Frame>>,
    window: &mut Window<'_>,
    shown: u16,
    client: &mut FrameStream,
    notices: &mut Notices,
) -> Result<(), ExecuteError> {
    for (input, head) in inputs.iter_mut().zip(heads) {
        let mut row = head;
        while let Some(frame) = row {
            window.pass(&frame, shown, client)?;
            flush_large(client).await?;
            row = next_row(input, client, notices).await?;
        }
    }
    Ok(())
}

async fn merge_sorted(
    inputs: &mut [Input<'_>],
    mut heads: Vec<Option<Frame>>,
    keys: &[SortKey],
    mut window: Window<'_>,
    shown: u16,
    client: &mut FrameStream,
    notices: &mut Notices,
) -> Result<u64, ExecuteError> {
    // A simple query's inputs are all described; an extended one's are, because the fan-out asks for it.
    let description = inputs
        .iter()
        .find_map(|input| input.description.clone())
        .ok_or(MergeError::Row)?;
    let rounds_floats = inputs.iter().any(|input| input.backend.rounds_floats());
    let order = RowOrder::new(keys, &columns_of(&description)?, rounds_floats)?;
    let compare =
        |heads: &[Option<Frame>], left: usize, right: usize| match (&heads[left], &heads[right]) {
            (Some(left), Some(right)) => order.compare(left.body(), right.body()),
            _ => Err(MergeError::Row),
        };
    let mut tournament = Tournament::default();
    for input in 0..inputs.len() {
        if heads[input].is_some() {
            tournament.enter(input, |left, right| compare(&heads, left, right))?;
        }
    }
    while let Some(winner) = tournament.leave() {
        let next = next_row(&mut inputs[winner], client, notices).await?;
        let Some(row) = std::mem::replace(&mut heads[winner], next) else {
            continue;
        };
        if let Some(next) = &heads[winner] {
            if order.compare(row.body(), next.body())?.is_gt() {
                return Err(MergeError::InputOrder { shard: winner }.into());
            }
            tournament.enter(winner, |left, right| compare(&heads, left, right))?;
        }
        window.pass(&row, shown, client)?;
        flush_large(client).await?;
    }
    Ok(window.given)
}

/// OFFSET and LIMIT over the merged rows. What the shards send past it was bounded by the LIMIT pushed down, and is
/// read and dropped.
struct Window<'a> {
    skip: u64,
    left: Option<u64>,
    given: u64,
    copy: Option<&'a CopyLines>,
    /// The row that is written.
    line: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(offset: u64, limit: Option<u64>, show: Show<'a>) -> Self {
        Self {
            skip: offset,
            left: limit.into_iter().chain(show.rows_max).min(),
            given: 0,
            copy: show.copy,
            line: Vec::new(),
        }
    }

    fn pass(
        &mut self,
        row: &Frame,
        columns: u16,
        client: &mut FrameStream,
    ) -> Result<(), MergeError> {
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        if self.left == Some(0) {
            return Ok(());
        }
        self.left = self.left.map(|left| left - 1);
        self.given += 1;
        if let Some(copy) = self.copy {
            let values = DataRow::read(row.body()).map_err(|_| MergeError::Row)?;
            let values: Result<Vec<_>, _> = values.take(usize::from(columns)).collect();
            let values = values.map_err(|_| MergeError::Row)?;
            self.line.clear();
            copy.write(&mut self.line, values.into_iter());
            frontend_message::write_copy_data(client.out(), &self.line);
            return Ok(());
        }
        backend_message::truncate_data_row(client.out(), row.body(), columns)
            .map_err(|_| MergeError::Row)
    }
}
