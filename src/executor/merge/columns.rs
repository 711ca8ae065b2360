//! Whether the shards' RowDescriptions speak of the same rows.

use super::MergeError;
use crate::wire::backend_message::ColumnDescription;
use crate::wire::frame::Format;

/// OIDs from here on are given out by each shard for itself.
const FIRST_USER_OID: u32 = 16384;

/// Checks that rows described by `other` may follow rows described by `first`: the client is told of `first` only.
/// OIDs of user-defined types may differ between shards where values travel as text.
///
/// # Errors
/// [`MergeError::Columns`].
pub fn agree(
    first: &[ColumnDescription<'_>],
    other: &[ColumnDescription<'_>],
) -> Result<(), MergeError> {
    let differs = |reason: String| Err(MergeError::Columns { reason });
    if first.len() != other.len() {
        return differs(format!(
            "{} columns on one shard, {} on another",
            first.len(),
            other.len()
        ));
    }
    for (one, two) in first.iter().zip(other) {
        let both_user = one.type_oid >= FIRST_USER_OID && two.type_oid >= FIRST_USER_OID;
        let text = one.format == Format::Text && two.format == Format::Text;
        if one.name != two.name || one.format != two.format {
            return differs(format!(
                "column {} on one shard, {} on another",
                String::from_utf8_lossy(one.name),
                String::from_utf8_lossy(two.name)
            ));
        }
        if one.type_oid != two.type_oid && !(both_user && text) {
            return differs(format!(
                "column {} has type {} on one shard, {} on another",
                String::from_utf8_lossy(one.name),
                one.type_oid,
                two.type_oid
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32, format: i16) -> ColumnDescription<'_> {
        let format = if format == 1 {
            Format::Binary
        } else {
            Format::Text
        };
        ColumnDescription {
            type_oid,
            format,
            ..ColumnDescription::text(name)
        }
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
