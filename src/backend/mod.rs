//! Connections to shards. The data plane's are raw and framed by `wire` ([`connection`], [`pool`]); the control plane's
//! are ordinary ones that read ownership, catalog and health ([`control`], [`catalog`], [`init`]). Must not know what a
//! statement means.

pub mod connection;
pub mod login;
pub mod pool;
pub mod servers;
pub mod statements;
pub mod defaults;
pub mod version;
pub mod control;
pub mod registration;
pub mod member;
mod presence;
mod acknowledge;
pub mod catalog;
pub mod sequence;
pub mod clock;
pub mod store;
pub mod replication;
pub mod init;
mod join;
mod cache;
mod pinned;
pub mod reload;
mod gate;
