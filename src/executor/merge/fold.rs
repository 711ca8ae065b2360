//! [`Folded`]: one row of several, column by column, for aggregates whose parts are integers and booleans.

use super::MergeError;
use crate::planner::plan::Fold;
use crate::wire::backend_message::{self, ColumnDescription, DataRow};
use crate::wire::frame::{Format, Frame};
use crate::wire::value::{self, SortType};
use bytes::BytesMut;

/// A row that is made of others.
#[derive(Debug)]
pub struct Folded {
    columns: Vec<Column>,
}

#[derive(Debug)]
struct Column {
    fold: Fold,
    sort_type: SortType,
    format: Format,
    value: Option<i64>,
}

impl Folded {
    /// For rows of `columns`.
    ///
    /// # Errors
    /// [`MergeError::Columns`]: they are of other types than the folds are for.
    pub fn new(folds: &[Fold], columns: &[ColumnDescription<'_>]) -> Result<Self, MergeError> {
        let of = |(fold, column): (&Fold, &ColumnDescription<'_>)| {
            let sort_type = SortType::of(column.type_oid)?;
            let fits = match fold {
                Fold::Sum => sort_type == SortType::Int8,
                Fold::And | Fold::Or => sort_type == SortType::Bool,
                Fold::Min | Fold::Max | Fold::BitAnd | Fold::BitOr | Fold::BitXor => {
                    matches!(sort_type, SortType::Int2 | SortType::Int4 | SortType::Int8)
                }
            };
            fits.then_some(Column {
                fold: *fold,
                sort_type,
                format: column.format,
                value: None,
            })
        };
        let found: Option<Vec<Column>> = folds.iter().zip(columns).map(of).collect();
        match found {
            Some(columns_found) if folds.len() == columns.len() => Ok(Self {
                columns: columns_found,
            }),
            _ => Err(MergeError::Columns {
                reason: "the columns are not those that the router's schema has".to_owned(),
            }),
        }
    }

    /// Takes in a row.
    ///
    /// # Errors
    /// [`MergeError::Row`], and [`MergeError::SumRange`].
    pub fn add(&mut self, row: &[u8]) -> Result<(), MergeError> {
        let values = DataRow::read(row).map_err(|_| MergeError::Row)?;
        if values.len() != self.columns.len() {
            return Err(MergeError::Row);
        }
        for (value, column) in values.zip(&mut self.columns) {
            if let Some(bytes) = value.map_err(|_| MergeError::Row)? {
                column.add(bytes)?;
            }
        }
        Ok(())
    }

    /// The row, as the shards would send it.
    pub fn row(&self) -> Frame {
        let values: Vec<Option<Vec<u8>>> = self.columns.iter().map(Column::bytes).collect();
        let mut out = BytesMut::new();
        backend_message::write_data_row(&mut out, values.iter().map(Option::as_deref));
        Frame::new(out.freeze())
    }
}

impl Column {
    fn add(&mut self, bytes: &[u8]) -> Result<(), MergeError> {
        let decoded = value::decode(self.sort_type, self.format, bytes);
        let decoded = decoded.map_err(|_| MergeError::Row)?;
        let new = decoded.integer().ok_or(MergeError::Row)?;
        let Some(old) = self.value else {
            self.value = Some(new);
            return Ok(());
        };
        self.value = Some(match self.fold {
            Fold::Sum => old.checked_add(new).ok_or(MergeError::SumRange)?,
            Fold::Min | Fold::And => old.min(new),
            Fold::Max | Fold::Or => old.max(new),
            Fold::BitAnd => old & new,
            Fold::BitOr => old | new,
            Fold::BitXor => old ^ new,
        });
        Ok(())
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let value = self.value?;
        Some(match (self.format, self.sort_type) {
            (Format::Text, SortType::Bool) => if value == 0 { b"f" } else { b"t" }.to_vec(),
            (Format::Text, _) => value.to_string().into_bytes(),
            // What is made of values of a type is one of it: the higher bytes only repeat the sign.
            (Format::Binary, SortType::Bool) => vec![value as u8],
            (Format::Binary, SortType::Int2) => (value as i16).to_be_bytes().to_vec(),
            (Format::Binary, SortType::Int4) => (value as i32).to_be_bytes().to_vec(),
            (Format::Binary, _) => value.to_be_bytes().to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::HEADER_BYTES;

    const BOOL: u32 = 16;
    const INT8: u32 = 20;
    const INT2: u32 = 21;
    const INT4: u32 = 23;
    const NUMERIC: u32 = 1700;

    fn folded(
        folds: &[(Fold, u32)],
        format: Format,
        rows: &[&[Option<&[u8]>]],
    ) -> Result<Vec<Option<Vec<u8>>>, MergeError> {
        let column = |(_, type_oid): &(Fold, u32)| ColumnDescription {
            type_oid: *type_oid,
            format,
            ..ColumnDescription::text("x")
        };
        let columns: Vec<_> = folds.iter().map(column).collect();
        let folds: Vec<Fold> = folds.iter().map(|(fold, _)| *fold).collect();
        let mut folded = Folded::new(&folds, &columns)?;
        for row in rows {
            let mut out = BytesMut::new();
            backend_message::write_data_row(&mut out, row.iter().copied());
            folded.add(&out[HEADER_BYTES..])?;
        }
        let row = folded.row();
        let values = DataRow::read(row.body()).unwrap();
        Ok(values
            .map(|value| value.unwrap().map(<[u8]>::to_vec))
            .collect())
    }

    #[test]
    fn nulls_count_for_nothing_and_are_what_is_left_of_nothing_else() {
        let folds = [
            (Fold::Sum, INT8),
            (Fold::Min, INT4),
            (Fold::Max, INT2),
            (Fold::And, BOOL),
            (Fold::Or, BOOL),
            (Fold::BitAnd, INT4),
            (Fold::BitOr, INT8),
            (Fold::BitXor, INT2),
        ];
        let null = [None; 8];
        let row = |text: [&'static str; 8]| text.map(|text| Some(text.as_bytes()));
        let one = row(["7", "-3", "-3", "t", "f", "-4", "5", "-1"]);
        let two = row(["-9", "2", "2", "f", "t", "6", "8", "3"]);
        let made = folded(&folds, Format::Text, &[&null, &one, &null, &two]).unwrap();
        let made: Vec<String> = made
            .into_iter()
            .map(|value| String::from_utf8(value.unwrap()).unwrap())
            .collect();
        assert_eq!(made, ["-2", "-3", "2", "f", "t", "4", "13", "-4"]);
        let made = folded(&folds, Format::Text, &[&null, &null]).unwrap();
        assert_eq!(made, [const { None }; 8]);
    }

    #[test]
    fn binary_values_keep_the_width_of_their_types() {
        let folds = [
            (Fold::Min, INT2),
            (Fold::Max, INT4),
            (Fold::Sum, INT8),
            (Fold::Or, BOOL),
        ];
        let row: [Option<&[u8]>; 4] = [
            Some(&[255, 254]),
            Some(&[127, 255, 255, 255]),
            Some(&[255; 8]),
            Some(&[1]),
        ];
        let made = folded(&folds, Format::Binary, &[&row, &row]).unwrap();
        assert_eq!(made[0].as_deref(), Some(&[255, 254][..]));
        assert_eq!(made[1].as_deref(), Some(&[127, 255, 255, 255][..]));
        assert_eq!(made[2], Some((-2_i64).to_be_bytes().to_vec()));
        assert_eq!(made[3].as_deref(), Some(&[1][..]));
    }

    #[test]
    fn what_is_not_as_planned_is_an_error() {
        let max = i64::MAX.to_string();
        let (one, max): ([Option<&[u8]>; 1], _) = ([Some(b"1")], [Some(max.as_bytes())]);
        let sum = |rows: &[&[Option<&[u8]>]]| folded(&[(Fold::Sum, INT8)], Format::Text, rows);
        assert_eq!(sum(&[&max, &one]), Err(MergeError::SumRange));
        assert_eq!(sum(&[&[Some(b"x")]]), Err(MergeError::Row));
        assert_eq!(sum(&[&[None, None]]), Err(MergeError::Row));
        for (fold, type_oid) in [(Fold::Sum, NUMERIC), (Fold::Sum, INT4), (Fold::And, INT4)] {
            let made = folded(&[(fold, type_oid)], Format::Text, &[]);
            assert!(matches!(made, Err(MergeError::Columns { .. })), "{made:?}");
        }
    }
}
