//! Reads a TOML document field by field, remembers where each stood, and collects every problem instead of
//! stopping at the first: what serde cannot do, and what a person who edits a shard map needs.

use super::address::Address;
use super::unit;
use std::cell::RefCell;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// Its line, from 1, where there is one to name.
    pub line: Option<usize>,
    /// The key's path, such as `shard[0].weight`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// All that is wrong in a `shard-config` directory, in the order of the files; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Each problem.
    pub problems: Vec<Problem>,
}

impl std::error::Error for ConfigError {}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

/// One file's text and the problems found in it so far.
pub(super) struct Document {
    file: PathBuf,
    text: String,
    problems: RefCell<Vec<Problem>>,
}

impl Document {
    /// Reads the file; if that fails the document is empty and has a problem.
    pub(super) fn read(file: PathBuf) -> Self {
        match std::fs::read_to_string(&file) {
            Ok(text) => Self::new(file, text),
            Err(error) => {
                let document = Self::new(file, String::new());
                document.report(None, String::new(), format!("cannot read: {error}"));
                document
            }
        }
    }

    pub(super) fn new(file: PathBuf, text: String) -> Self {
        Self {
            file,
            text,
            problems: RefCell::default(),
        }
    }

    /// The document's tables. None, with each problem reported, if it could not be read or is not TOML: what follows
    /// from that would only hide the reason.
    pub(super) fn parse(&self) -> Option<Spanned<DeTable<'_>>> {
        let (table, errors) = DeTable::parse_recoverable(&self.text);
        for error in errors {
            self.report(
                error.span(),
                String::new(),
                error.message().replace('\n', ", "),
            );
        }
        self.is_clean().then_some(table)
    }

    /// The outermost section.
    pub(super) fn root<'d>(&'d self, table: &'d Spanned<DeTable<'d>>) -> Section<'d> {
        Section {
            document: self,
            path: String::new(),
            span: None,
            table: Some(table.get_ref()),
            known: Vec::new(),
        }
    }

    /// Whether nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        problems
    }

    pub(super) fn report(&self, span: Option<Range<usize>>, key: String, message: String) {
        let line = span.map(|span| self.line(span.start));
        self.problems.borrow_mut().push(Problem {
            file: self.file.clone(),
            line,
            key,
            message,
        });
    }

    fn line(&self, offset: usize) -> usize {
        let before = &self.text.as_bytes()[..offset.min(self.text.len())];
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }
}

/// A table of the document, or the place where one could stand. Remembers which keys were asked for, so that
/// [`Section::finish`] can report all others.
pub(super) struct Section<'d> {
    document: &'d Document,
    path: String,
    span: Option<Range<usize>>,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
}

impl<'d> Section<'d> {
    /// The value of `name`, if it is there.
    pub(super) fn value(&mut self, name: &'static str) -> Option<Value<'d>> {
        self.known.push(name);
        let (_, value) = self.table?.iter().find(|(key, _)| key.get_ref() == name)?;
        Some(Value {
            document: self.document,
            path: self.key(name),
            span: value.span(),
            value: value.get_ref(),
        })
    }

    /// The value of `name`; its absence is a problem.
    pub(super) fn required(&mut self, name: &'static str) -> Option<Value<'d>> {
        let value = self.value(name);
        if value.is_none() {
            self.report(name, "is missing".to_owned());
        }
        value
    }

    /// The table `name`, empty if absent.
    pub(super) fn section(&mut self, name: &'static str) -> Section<'d> {
        match self.value(name) {
            Some(value) => value.section(),
            None => Section {
                document: self.document,
                path: self.key(name),
                span: None,
                table: None,
                known: Vec::new(),
            },
        }
    }

    /// The array of tables `name`, empty if absent.
    pub(super) fn sections(&mut self, name: &'static str) -> Vec<Section<'d>> {
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        match value.value {
            DeValue::Array(_) => value.items().into_iter().map(Value::section).collect(),
            _ => {
                value.problem(format!("must be written as [[{}]]", value.path));
                Vec::new()
            }
        }
    }

    pub(super) fn text(&mut self, name: &'static str) -> Option<&'d str> {
        self.value(name)?.text()
    }

    pub(super) fn boolean(&mut self, name: &'static str, default: bool) -> bool {
        self.value(name)
            .and_then(|value| value.boolean())
            .unwrap_or(default)
    }

    pub(super) fn count(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> usize {
        let value = self.value(name).and_then(|value| value.integer(range));
        value
            .and_then(|count| usize::try_from(count).ok())
            .unwrap_or(default)
    }

    pub(super) fn bytes(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
        default: usize,
    ) -> usize {
        let Some(value) = self.value(name) else {
            return default;
        };
        let Some(bytes) = value.parse(unit::bytes) else {
            return default;
        };
        if !range.contains(&bytes) {
            let (least, most) = (
                unit::print_bytes(*range.start()),
                unit::print_bytes(*range.end()),
            );
            value.problem(format!("must be between {least} and {most}"));
        }
        usize::try_from(bytes).unwrap_or(default)
    }

    pub(super) fn duration(
        &mut self,
        name: &'static str,
        range: RangeInclusive<Duration>,
        default: Duration,
    ) -> Duration {
        let Some(value) = self.value(name) else {
            return default;
        };
        let Some(duration) = value.parse(unit::duration) else {
            return default;
        };
        if !range.contains(&duration) {
            let (least, most) = (
                unit::print_duration(*range.start()),
                unit::print_duration(*range.end()),
            );
            value.problem(format!("must be between {least} and {most}"));
        }
        duration
    }

    /// The line that the section starts at; 0 for the document itself.
    pub(super) fn line(&self) -> usize {
        self.span
            .as_ref()
            .map_or(0, |span| self.document.line(span.start))
    }

    /// Reports a problem with `name` at the section's own line.
    pub(super) fn report(&self, name: &str, message: String) {
        self.document
            .report(self.span.clone(), self.key(name), message);
    }

    /// Reports each key that nobody asked for, with the nearest that exists.
    pub(super) fn finish(self) {
        let Some(table) = self.table else { return };
        for (key, _) in table {
            let name: &str = key.get_ref();
            if !self.known.contains(&name) {
                let nearest = nearest(name, self.known.iter().copied());
                self.document.report(
                    Some(key.span()),
                    self.key(name),
                    format!("unknown key{nearest}"),
                );
            }
        }
    }

    fn key(&self, name: &str) -> String {
        match (self.path.is_empty(), name.is_empty()) {
            (true, _) => name.to_owned(),
            (false, true) => self.path.clone(),
            (false, false) => format!("{}.{name}", self.path),
        }
    }
}

/// A value of the document and where it stands.
pub(super) struct Value<'d> {
    document: &'d Document,
    path: String,
    span: Range<usize>,
    value: &'d DeValue<'d>,
}

impl<'d> Value<'d> {
    pub(super) fn problem(&self, message: String) {
        self.document
            .report(Some(self.span.clone()), self.path.clone(), message);
    }

    /// From 1.
    pub(super) fn line(&self) -> usize {
        self.document.line(self.span.start)
    }

    pub(super) fn text(&self) -> Option<&'d str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected("a string");
        }
        text
    }

    /// A string, or an integer as it is written.
    pub(super) fn text_or_integer(&self) -> Option<&'d str> {
        match self.value {
            DeValue::Integer(integer) if integer.radix() == 10 => Some(integer.as_str()),
            _ => self.text(),
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let boolean = self.value.as_bool();
        if boolean.is_none() {
            self.expected("true or false");
        }
        boolean
    }

    pub(super) fn integer(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let DeValue::Integer(integer) = self.value else {
            self.expected("a whole number");
            return None;
        };
        let number = i128::from_str_radix(integer.as_str(), integer.radix()).ok();
        let number = number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| range.contains(number));
        if number.is_none() {
            self.problem(format!(
                "must be between {} and {}",
                range.start(),
                range.end()
            ));
        }
        number
    }

    pub(super) fn address(&self) -> Option<Address> {
        self.parse(|text| {
            text.parse()
                .map_err(|error: super::AddressError| error.to_string())
        })
    }

    /// The string's value by `read`, whose error is the problem.
    pub(super) fn parse<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        match read(self.text()?) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem(message);
                None
            }
        }
    }

    /// The array's items.
    pub(super) fn items(&self) -> Vec<Value<'d>> {
        let DeValue::Array(array) = self.value else {
            self.expected("an array");
            return Vec::new();
        };
        let item = |(index, item): (usize, &'d Spanned<DeValue<'d>>)| Value {
            document: self.document,
            path: format!("{}[{index}]", self.path),
            span: item.span(),
            value: item.get_ref(),
        };
        array.iter().enumerate().map(item).collect()
    }

    fn section(self) -> Section<'d> {
        let table = self.value.as_table();
        if table.is_none() {
            self.expected("a table");
        }
        Section {
            document: self.document,
            path: self.path,
            span: Some(self.span),
            table,
            known: Vec::new(),
        }
    }

    fn expected(&self, wanted: &str) {
        self.problem(format!("must be {wanted}, not {}", self.value.type_str()));
    }
}

/// `" (did you mean …?)"` with the name that is nearest to `name`, or nothing if none is near.
pub(super) fn nearest<'n>(name: &str, known: impl Iterator<Item = &'n str>) -> String {
    let scored = known.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let nearest = scored
        .filter(|(distance, known)| *distance <= 1 + known.chars().count() / 4)
        .min();
    nearest.map_or(String::new(), |(_, known)| {
        format!(" (did you mean \"{known}\"?)")
    })
}
