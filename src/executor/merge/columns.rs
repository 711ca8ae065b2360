//! Whether the shards' RowDescriptions speak of the same rows.

use super::MergeError;
use crate::wire::backend_message::Column;

/// OIDs from here on are given out by each shard for itself.
const FIRST_USER_OID: u32 = 16384;

/// Checks that rows described by `other` may follow rows described by `first`: the client is told of `first` only.
/// OIDs of user-defined types may differ between shards where values travel as text.
///
/// # Errors
/// [`MergeError::Columns`].
pub fn agree(first: &[Column<'_>], other: &[Column<'_>]) -> Result<(), MergeError> {
    let differs = |reason: String| Err(MergeError::Columns { reason });
    if first.len() != other.len() {
        return differs(format!("{} columns on one shard, {} on another", first.len(), other.len()));
    }
    for (one, two) in first.iter().zip(other) {
        let both_user = one.type_oid >= FIRST_USER_OID && two.type_oid >= FIRST_USER_OID;
        let text = one.format == 0 && two.format == 0;
        if one.name != two.name || one.format != two.format {
            return differs(format!("column {:?} on one shard, {:?} on another", one.name, two.name));
        }
        if one.type_oid != two.type_oid && !(both_user && text) {
            return differs(format!(
                "column {:?} has type {} on one shard, {} on another",
                one.name, one.type_oid, two.type_oid
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32, format: i16) -> Column<'_> {
        Column { name, table_oid: 0, attribute: 0, type_oid, type_size: 4, type_modifier: -1, format }
    }

    #[test]
    fn user_types_may_differ_as_text_only() {
        assert!(agree(&[column("a", 20000, 0)], &[column("a", 20001, 0)]).is_ok());
        assert!(agree(&[column("a", 20000, 1)], &[column("a", 20001, 1)]).is_err());
        assert!(agree(&[column("a", 23, 0)], &[column("a", 20, 0)]).is_err());
        assert!(agree(&[column("a", 23, 0)], &[column("b", 23, 0)]).is_err());
        assert!(agree(&[column("a", 23, 0)], &[]).is_err());
    }
}
