//! PostgreSQL's wire protocol (version 3): frames, messages both ways, startup, SCRAM, values and errors.
//! Pure but for the stream and its spare buffers: appends to buffers and reads slices; knows nothing of sessions, shards or SQL.
//! Start at [`frame`]; the order below is the reading order.
//!
//! Whatever a peer sent, clients and shards alike, is checked before it is believed: a length before anything is
//! allocated for it, a count against the bytes that are there, text for its NUL. Writers trust their caller
//! for one thing only: that a message stays below 2 GiB, which the named buffer limits see to.

pub mod frame;
pub mod frontend_message;
pub mod backend_message;
pub mod startup;
pub mod scram;
pub mod value;
pub mod sqlstate;
pub mod error_response;
pub mod spare;
pub mod stream;
