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
    /// The order of `keys` over rows of `columns`.
    ///
    /// # Errors
    /// [`MergeError::SortType`] and [`MergeError::SortCollation`] for keys that only PostgreSQL may compare.
    pub fn new(keys: &[SortKey], columns: &[ColumnDescription<'_>]) -> Result<Self, MergeError> {
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
