//! Casts that users made and that PostgreSQL applies where the text shows no call: which of them a statement may apply,
//! judged as calls of their functions are. PostgreSQL's chapter "CREATE CAST".
//!
//! Such a cast needs a value of a type that a user made, or a place for one. That comes from a column of the type, from
//! a function or operator that a user made, from the type's name, or from a parameter of the type: [`Touched`].

use super::body::Judge;
use super::catalog_text;
use super::function::{self, Effect};
use super::refusal::{PlanError, Refusal};
use crate::sql::lex;
use crate::topology::schema::{AutomaticCast, ColumnDefault, Relation, RelationKind, Schema};
use std::sync::Arc;

/// The least OID of what users made.
const FIRST_OWN_OID: u32 = 16_384;

/// What of a statement may have an automatic cast applied to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Touched {
    /// Whether values of any type may be in it.
    any: bool,
    /// The types of its columns, each at least once.
    types: Vec<u32>,
}

impl Touched {
    /// What a statement of any form may touch.
    pub(super) fn anything() -> Self {
        Self {
            any: true,
            types: Vec::new(),
        }
    }

    /// Takes note of what gives, or takes, values of unknown types: a function or operator that a user made, a type's name.
    pub(super) fn add_anything(&mut self) {
        self.any = true;
    }

    /// Takes note of the declared types of parameters.
    pub(super) fn add_parameters(&mut self, oids: &[u32]) {
        self.any |= oids.iter().any(|oid| *oid >= FIRST_OWN_OID);
    }

    /// Takes note of a relation: its columns, and what is evaluated when it is read or, with `written`, written.
    /// PostgreSQL does not show these casts in the texts that it prints either.
    pub(super) fn add_relation(&mut self, relation: &Relation, written: bool) {
        let columns = relation.columns.iter();
        let own = columns.filter(|column| column.type_oid >= FIRST_OWN_OID);
        self.types.extend(own.map(|column| column.type_oid));
        self.any |= relation.kind == RelationKind::View && !relation.queries.is_empty();
        self.any |= relation
            .policies
            .iter()
            .any(|policy| names_own(&policy.text));
        if written {
            self.any |= !relation.triggers.is_empty() || !relation.rules.is_empty();
            self.any |= relation.checks.iter().any(|check| names_own(&check.text));
            self.any |= relation.columns.iter().any(|column| match &column.default {
                ColumnDefault::Expression(text) => names_own(text),
                ColumnDefault::Null | ColumnDefault::Sequence | ColumnDefault::Generated => false,
            });
        }
    }

    /// What the automatic casts do that a statement may apply which touches this, with their names; nothing that is
    /// [`Effect::Same`]. `assigns`: whether it assigns to columns.
    pub(super) fn casts(&self, schema: &Schema, assigns: bool) -> Vec<(Effect, Arc<str>)> {
        let may_apply = |cast: &&AutomaticCast| {
            let is_touched = self.any
                || cast.types.is_empty()
                || cast.types.iter().any(|own| self.types.contains(own));
            is_touched && (assigns || cast.is_implicit)
        };
        let casts = schema.automatic_casts.iter().filter(may_apply);
        let judged = casts.map(|cast| {
            let effect = match &cast.function {
                None => Effect::Time,
                Some(function) => function::of_user(&mut Judge::new(schema), "", function),
            };
            (effect, cast.name.clone())
        });
        judged
            .filter(|(effect, _)| *effect != Effect::Same)
            .collect()
    }
}

/// Whether an expression that PostgreSQL printed names what is not its own: only that is qualified there.
fn names_own(text: &str) -> bool {
    lex::lex(text, &catalog_text::LIMITS).map_or(true, |tokens| {
        tokens.iter().any(|token| token.is_symbol(text, "."))
    })
}

/// Refuses a statement after its block has made or changed casts, operators or domains, as long as they are not loaded.
///
/// # Errors
/// [`Refusal::UnloadedTable`].
pub(super) fn refuse_unloaded(schema: &Schema) -> Result<(), PlanError> {
    if !schema.unloaded_conversions {
        return Ok(());
    }
    Err(PlanError::refused(
        Refusal::UnloadedTable,
        "the transaction has changed casts, operators or domains",
    ))
}

/// Refuses a utility statement, or COPY, that may apply an automatic cast which does more than convert. `copies`: whether
/// it would do so on several shards.
///
/// # Errors
/// With the cast.
pub(super) fn check(
    touched: &Touched,
    what: &str,
    copies: bool,
    schema: &Schema,
) -> Result<(), PlanError> {
    refuse_unloaded(schema)?;
    for (effect, name) in touched.casts(schema, true) {
        let refusal = match effect {
            Effect::Session => Refusal::SessionState,
            Effect::Procedural => Refusal::ProceduralFunction,
            _ if !copies => continue,
            Effect::Designated => Refusal::DesignatedFunction,
            Effect::Catalog => Refusal::CatalogFunction,
            Effect::Same | Effect::Random | Effect::Time | Effect::Unknown => {
                Refusal::VolatileFunction
            }
        };
        let reason = format!("{what} may apply {name}, as PostgreSQL does by itself");
        return Err(PlanError::refused(refusal, reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_made_is_qualified_where_postgresql_prints_it() {
        for text in [
            "public.f(1)",
            "'x'::\"Own\".mood",
            "(a OPERATOR(public.<->) b)",
            "' not closed",
        ] {
            assert!(names_own(text), "{text}");
        }
        for text in [
            "(note <> 'a.b'::text)",
            "now()",
            "(n > 1.5)",
            "(code ~~ 'x%'::text)",
        ] {
            assert!(!names_own(text), "{text}");
        }
    }
}
