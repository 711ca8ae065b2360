//! [`CopyLines`]: rows as COPY … TO writes them, from the values that PostgreSQL's output functions gave
//! (`CopyAttributeOutText`, `CopyAttributeOutCSV` and `CopyOneRowTo` in its `copyto.c`).

use super::copy::{CopyColumns, CopyFormat, CopyOptions};

/// Writes rows in one format. Header and trailer are not its.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyLines {
    format: CopyFormat,
    delimiter: u8,
    null: String,
    quote: u8,
    escape: u8,
    force_quote: bool,
}

impl CopyLines {
    /// None: options that are not understood here.
    pub fn new(options: &CopyOptions) -> Option<Self> {
        let is_known = options.encoding.is_none()
            && options.other.is_empty()
            && options.default.is_none()
            && !matches!(options.force_quote, CopyColumns::Names(_));
        is_known.then(|| Self {
            format: options.format,
            delimiter: options.delimiter,
            null: options.null.clone(),
            quote: options.quote,
            escape: options.escape,
            force_quote: options.force_quote == CopyColumns::All,
        })
    }

    /// Whether values are wanted in binary form.
    pub fn is_binary(&self) -> bool {
        self.format == CopyFormat::Binary
    }

    /// Appends a row; `out` holds nothing else of it.
    pub fn write<'a>(
        &self,
        out: &mut Vec<u8>,
        values: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    ) {
        let count = values.len();
        if self.format == CopyFormat::Binary {
            // PostgreSQL's rows have at most 1,664 columns.
            out.extend_from_slice(&(count as u16).to_be_bytes());
            for value in values {
                match value {
                    Some(value) => {
                        out.extend_from_slice(&(value.len() as u32).to_be_bytes());
                        out.extend_from_slice(value);
                    }
                    None => out.extend_from_slice(&(-1_i32).to_be_bytes()),
                }
            }
            return;
        }
        for (index, value) in values.enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            match (value, self.format) {
                (None, _) => out.extend_from_slice(self.null.as_bytes()),
                (Some(value), CopyFormat::Csv) => self.csv(out, value, count == 1),
                (Some(value), CopyFormat::Text | CopyFormat::Binary) => self.text(out, value),
            }
        }
        out.push(b'\n');
    }

    fn text(&self, out: &mut Vec<u8>, value: &[u8]) {
        for byte in value {
            let letter = match byte {
                8 => b'b',
                b'\t' => b't',
                b'\n' => b'n',
                11 => b'v',
                12 => b'f',
                b'\r' => b'r',
                byte if *byte == b'\\' || *byte == self.delimiter => *byte,
                byte => {
                    out.push(*byte);
                    continue;
                }
            };
            out.extend_from_slice(&[b'\\', letter]);
        }
    }

    fn csv(&self, out: &mut Vec<u8>, value: &[u8], alone: bool) {
        let is_special = |byte: &u8| {
            *byte == self.delimiter || *byte == self.quote || matches!(byte, b'\n' | b'\r')
        };
        let quoted = self.force_quote
            || value == self.null.as_bytes()
            || (alone && value == b"\\.")
            || value.iter().any(is_special);
        if !quoted {
            return out.extend_from_slice(value);
        }
        out.push(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                out.push(self.escape);
            }
            out.push(*byte);
        }
        out.push(self.quote);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::copy::CopyHeader;

    fn lines(format: CopyFormat, delimiter: u8, null: &str, force: CopyColumns) -> CopyLines {
        let options = CopyOptions {
            format,
            delimiter,
            null: null.to_owned(),
            default: None,
            header: CopyHeader::Off,
            quote: b'"',
            escape: b'"',
            force_quote: force,
            force_not_null: CopyColumns::None,
            force_null: CopyColumns::None,
            freeze: false,
            encoding: None,
            other: Vec::new(),
        };
        CopyLines::new(&options).unwrap()
    }

    fn written(lines: &CopyLines, values: &[Option<&str>]) -> Vec<u8> {
        let mut out = Vec::new();
        let values: Vec<_> = values
            .iter()
            .map(|value| value.map(str::as_bytes))
            .collect();
        lines.write(&mut out, values.into_iter());
        out
    }

    #[test]
    fn text_escapes_what_would_end_a_value_or_a_line() {
        let text = lines(CopyFormat::Text, b'|', "\\N", CopyColumns::None);
        let row = written(
            &text,
            &[
                Some("a|b\\c"),
                None,
                Some("\t\n\r\u{8}\u{b}\u{c}\u{1}ä"),
                Some(""),
            ],
        );
        assert_eq!(row, "a\\|b\\\\c|\\N|\\t\\n\\r\\b\\v\\f\u{1}ä|\n".as_bytes());
        assert_eq!(written(&text, &[]), b"\n");
    }

    #[test]
    fn csv_quotes_what_would_be_read_as_something_else() {
        let csv = lines(CopyFormat::Csv, b',', "", CopyColumns::None);
        let row = written(
            &csv,
            &[
                Some("a,b"),
                None,
                Some(""),
                Some("q\"q"),
                Some("\\."),
                Some("x y"),
            ],
        );
        assert_eq!(row, b"\"a,b\",,\"\",\"q\"\"q\",\\.,x y\n");
        assert_eq!(written(&csv, &[Some("\\.")]), b"\"\\.\"\n");
        let all = lines(CopyFormat::Csv, b';', "NULL", CopyColumns::All);
        assert_eq!(
            written(&all, &[Some("1"), None, Some("NULL")]),
            b"\"1\";NULL;\"NULL\"\n"
        );
    }

    #[test]
    fn binary_counts_and_measures() {
        let binary = lines(CopyFormat::Binary, b'\t', "\\N", CopyColumns::None);
        let row = written(&binary, &[Some("ab"), None]);
        assert_eq!(row, [0, 2, 0, 0, 0, 2, b'a', b'b', 255, 255, 255, 255]);
    }
}
