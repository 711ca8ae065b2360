//! What a router tells the people who run it. Must not know statements' literals or anybody's secrets.

pub mod log;
