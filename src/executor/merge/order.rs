//! [`RowOrder`]: compares two DataRows as the statement's ORDER BY does.

use super::MergeError;
use crate::planner::plan::SortKey;
use crate::wire::backend_message::{ColumnDescription, DataRow};
use crate::wire::frame::Format;
use crate::wire::value::{self, SortType};
use std::cmp::Ordering;

/// One key, ready to compare.
#[derive(Debug, Clone, Copy)]
struct Key {
    column: usize,
    sort_type: SortType,
    format: Format,
    descending: bool,
    nulls_first: bool,
}

/// The order of a [`crate::planner::plan::Merge::Sort`] over rows that are described by given columns.
#[derive(Debug, Clone)]
pub struct RowOrder {
    keys: Vec<Key>,
}

impl RowOrder {
    /// The order of `keys` over rows of `columns`. `rounds_floats`: floats as text have fewer digits than they need to
    /// tell two of them apart (extra_float_digits below 1).
    ///
    /// # Errors
    /// [`MergeError::SortType`] and [`MergeError::SortCollation`] for keys that only PostgreSQL may compare.
    pub fn new(
        keys: &[SortKey],
        columns: &[ColumnDescription<'_>],
        rounds_floats: bool,
    ) -> Result<Self, MergeError> {
        let keys = keys.iter().map(|key| {
            let index = usize::from(key.column);
            let column = columns.get(index).ok_or(MergeError::Row)?;
            let sort_type = SortType::of(column.type_oid).ok_or(MergeError::SortType {
                column: index + 1,
                type_oid: column.type_oid,
            })?;
            if sort_type.is_collatable() && !key.text_by_bytes {
                return Err(MergeError::SortCollation { column: index + 1 });
            }
            let is_float = matches!(sort_type, SortType::Float4 | SortType::Float8);
            if is_float && rounds_floats && column.format == Format::Text {
                let reason = "Floats are rounded while extra_float_digits is below 1.".to_owned();
                return Err(MergeError::SortValue {
                    column: index + 1,
                    reason,
                });
            }
            Ok(Key {
                column: index,
                sort_type,
                format: column.format,
                descending: key.descending,
                nulls_first: key.nulls_first,
            })
        });
        Ok(Self {
            keys: keys.collect::<Result<_, _>>()?,
        })
    }

    /// Compares the bodies of two DataRows.
    ///
    /// # Errors
    /// [`MergeError::Row`] and [`MergeError::SortValue`].
    pub fn compare(&self, left: &[u8], right: &[u8]) -> Result<Ordering, MergeError> {
        for key in &self.keys {
            let ordering = match (field(left, key.column)?, field(right, key.column)?) {
                (None, None) => Ordering::Equal,
                (None, Some(_)) if key.nulls_first => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(_), None) if key.nulls_first => Ordering::Greater,
                (Some(_), None) => Ordering::Less,
                (Some(left), Some(right)) => {
                    let ordering = value::compare(key.sort_type, key.format, left, right).map_err(
                        |error| MergeError::SortValue {
                            column: key.column + 1,
                            reason: error.to_string(),
                        },
                    )?;
                    if key.descending {
                        ordering.reverse()
                    } else {
                        ordering
                    }
                }
            };
            if ordering != Ordering::Equal {
                return Ok(ordering);
            }
        }
        Ok(Ordering::Equal)
    }
}

fn field(row: &[u8], column: usize) -> Result<Option<&[u8]>, MergeError> {
    DataRow::read(row)
        .and_then(|row| row.column(column))
        .map_err(|_| MergeError::Row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;

    const INT4: u32 = 23;
    const TEXT: u32 = 25;
    const FLOAT8: u32 = 701;
    const JSON: u32 = 114;

    fn key(column: u16, descending: bool, nulls_first: bool) -> SortKey {
        SortKey {
            column,
            descending,
            nulls_first,
            text_by_bytes: false,
        }
    }

    fn columns(types: &[u32]) -> Vec<ColumnDescription<'static>> {
        let column = |type_oid: &u32| ColumnDescription {
            type_oid: *type_oid,
            ..ColumnDescription::text("x")
        };
        types.iter().map(column).collect()
    }

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut out = BytesMut::new();
        let values = values.iter().map(|value| value.map(str::as_bytes));
        crate::wire::backend_message::write_data_row(&mut out, values.collect::<Vec<_>>());
        out[crate::wire::frame::HEADER_BYTES..].to_vec()
    }

    #[test]
    fn each_key_has_its_own_direction_and_place_for_nulls() {
        let keys = [key(0, true, true), key(1, false, false)];
        let order = RowOrder::new(&keys, &columns(&[INT4, INT4]), false).unwrap();
        let sorted = [
            row(&[None, Some("1")]),
            row(&[Some("10"), Some("2")]),
            row(&[Some("9"), Some("3")]),
            row(&[Some("9"), Some("20")]),
            row(&[Some("9"), None]),
        ];
        for (index, left) in sorted.iter().enumerate() {
            for (other, right) in sorted.iter().enumerate() {
                assert_eq!(order.compare(left, right).unwrap(), index.cmp(&other));
            }
        }
    }

    #[test]
    fn what_only_postgresql_can_compare_is_refused() {
        let refused = |type_oid, rounds| {
            RowOrder::new(&[key(0, false, false)], &columns(&[type_oid]), rounds).unwrap_err()
        };
        assert!(matches!(
            refused(TEXT, false),
            MergeError::SortCollation { column: 1 }
        ));
        assert!(matches!(
            refused(JSON, false),
            MergeError::SortType { column: 1, .. }
        ));
        assert!(matches!(
            refused(FLOAT8, true),
            MergeError::SortValue { column: 1, .. }
        ));
        assert!(RowOrder::new(&[key(0, false, false)], &columns(&[FLOAT8]), false).is_ok());
    }

    #[test]
    fn a_row_that_lacks_the_column_is_an_error() {
        let order = RowOrder::new(&[key(1, false, false)], &columns(&[INT4, INT4]), false).unwrap();
        let short = row(&[Some("1")]);
        assert_eq!(order.compare(&short, &short), Err(MergeError::Row));
    }
}
