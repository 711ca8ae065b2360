//! Moves slots between shards while clients run, so that ownership becomes what the shard map declares. Everything that a
//! move is stands on the shards: any router takes up what another left. DESIGN.md, "Rebalancing", is the long form.
//!
//! [`survey`] and [`move_plan`] say what is to be done; [`phase`] is the order of it; [`mover`] does it. Start there. What people ask
//! for is in [`request`].

pub mod move_plan;
pub mod phase;
pub mod record;
pub mod side;
pub mod table;
pub mod want;
pub mod guard;
pub mod stream;
pub mod routers;
pub mod copy;
pub mod verify;
pub mod flip;
pub mod handover;
pub mod survey;
pub mod placement;
pub mod mover;
pub mod request;
pub mod depart;
