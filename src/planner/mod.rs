//! Statement + topology → plan. Pure: never waits, knows no connection. A statement is planned in two parts:
//! [`template()`] parses once and finds where the key is; [`Template::plan`] takes the parameters and says which shards
//! run what. Start at [`plan`] for the result.

pub mod plan;
