//! [`Answer`]: what a command of the console gives, as plain data. Columns are known before a command runs, since the
//! extended protocol asks for them first. Knows no message.

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `text`
    Text,
    /// `integer`
    Integer,
    /// `bigint`
    Bigint,
}

/// A column of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
}

impl Column {
    /// A column of texts.
    pub const fn text(name: &'static str) -> Self {
        let kind = Kind::Text;
        Self { name, kind }
    }

    /// A column of whole numbers that stay small.
    pub const fn integer(name: &'static str) -> Self {
        let kind = Kind::Integer;
        Self { name, kind }
    }

    /// A column of whole numbers that grow.
    pub const fn bigint(name: &'static str) -> Self {
        let kind = Kind::Bigint;
        Self { name, kind }
    }
}

/// A value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell {
    /// Nothing.
    Null,
    /// Of a [`Kind::Text`].
    Text(String),
    /// Of a [`Kind::Integer`] or [`Kind::Bigint`].
    Number(i64),
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl<T: Into<Cell>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl From<$number> for Cell {
            /// What is too large to show is shown as the largest.
            fn from(number: $number) -> Self {
                Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
    )*};
}
numbers!(u8 u16 u32 u64 usize i32 i64 u128);

/// One row of an answer; as many cells as the command has columns.
pub type Row = Vec<Cell>;

/// A row of cells out of values of several types.
macro_rules! row {
    ($($value:expr),* $(,)?) => { vec![$($crate::admin::answer::Cell::from($value)),*] };
}
pub(crate) use row;

/// What a command gave.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its rows, if it has columns.
    pub rows: Vec<Row>,
    /// What a person should hear beside them.
    pub notices: Vec<String>,
}

impl Answer {
    /// No rows, and something to hear.
    pub fn notice(notice: String) -> Self {
        Self {
            rows: Vec::new(),
            notices: vec![notice],
        }
    }

    /// Rows alone.
    pub fn rows(rows: Vec<Row>) -> Self {
        Self {
            rows,
            notices: Vec::new(),
        }
    }
}
