//! Statement + topology → plan. Pure: never waits, knows no connection. A statement is planned in two parts:
//! [`template()`] parses once and finds where the key is; [`Template::plan`] takes the parameters and says which shards
//! run what. Start at [`plan`] for the result.

pub mod advise;
pub mod plan;
pub mod refusal;

mod added;
mod aggregate;
mod analysis;
mod attached;
mod automatic;
mod body;
mod catalog_text;
mod clock;
mod create_as;
mod ddl;
mod describe;
mod event_trigger;
mod expression;
mod function;
mod gather;
mod foreign;
mod gathered;
mod hint;
mod insert;
mod key;
mod key_move;
mod merge;
mod order;
mod partial;
mod partial_text;
mod query;
mod rewrite;
mod scope;
mod select;
mod sorting;
mod source;
mod spelled;
mod store;
mod template;
mod temporary;
mod typing;
mod utility;
mod view;
mod with;
mod write;

pub use added::{AddedColumn, AddedValue, CopyAdded, copy_added};
pub use analysis::Fill;
pub use ddl::changes;
pub use hint::Hint;
pub use key::Arguments;
pub use refusal::{PlanError, Refusal};
pub use spelled::{SpelledValues, Spelling, spelling};
pub use store::carried;
pub use template::{Binding, Context, Template, alike, all_shards, template, template_on_one};
pub use temporary::{mentioned as mentioned_temporary, plan as temporary};
pub use utility::{CopyOut, CopyRoute, CopySplit, CopyTimes, copy_from, copy_to, utility};
