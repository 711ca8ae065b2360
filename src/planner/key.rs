//! Which sharding keys a statement can touch: predicates as constraints on key columns, the equalities that carry
//! them from one column to another, and their values as slots once the parameters are bound.
//!
//! A *node* stands for one key column of one use of a sharded table, or for a derived column that carries one. An
//! edge `from → to` says: rows of `to` matter only if their key is among the keys of `from` that matter. Every
//! constraint and edge may be dropped without making an answer wrong; none may be added lightly.

use super::refusal::{PlanError, Refusal};
use crate::topology::SlotId;
use crate::topology::hash;
use crate::topology::key_value::{KeyError, KeyType, KeyValue};
use crate::topology::schema::{Column, HashFamily};
use std::sync::Arc;

/// A range of integer keys is a set of keys when it has at most this many.
const RANGE_KEYS_MAX: i128 = 64;

/// More keys than this in one array parameter are not looked at: the statement counts as unrestricted.
const ARRAY_KEYS_MAX: usize = 65_536;

/// A node of the [`Graph`].
pub type NodeId = usize;

/// What is known of a key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// How its values hash.
    pub key_type: KeyType,
    /// Its declared type, as `format_type` prints it.
    pub type_name: Arc<str>,
    /// `table.column`, for people.
    pub name: Arc<str>,
    /// Whether PostgreSQL stores no NULL in it.
    pub not_null: bool,
}

impl KeyColumn {
    /// The key column `column` of `table`.
    pub fn new(table: &str, column: &Column) -> Option<Self> {
        let key_type = KeyType::of_column(column)?;
        Some(Self {
            key_type,
            type_name: column.type_name.clone(),
            name: format!("{table}.{}", column.name).into(),
            not_null: column.not_null,
        })
    }

    fn family(&self) -> HashFamily {
        self.key_type.family()
    }

    /// Whether equal values of both columns hash alike.
    pub fn equals_as(&self, other: &Self) -> bool {
        self.family() == other.family()
    }

    /// Whether a value of this column, stored into `target`, still hashes alike.
    pub fn stores_as(&self, target: &Self) -> bool {
        self.type_name == target.type_name
            || (self.family() == HashFamily::Integer && target.family() == HashFamily::Integer)
    }
}

/// Where a key value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// NULL.
    Null,
    /// A string literal, to be read as the key's type.
    Text(Arc<str>),
    /// A numeric literal with its sign.
    Number(Arc<str>),
    /// A parameter.
    Parameter {
        /// From zero.
        index: u16,
        /// Its declared type, or that of the cast around it; 0: the key's.
        oid: u32,
    },
    /// An array literal: all its elements.
    ArrayText(Arc<str>),
    /// An array parameter: all its elements.
    ArrayParameter {
        /// From zero.
        index: u16,
        /// Its elements' type; 0: the key's.
        element_oid: u32,
    },
}

impl Source {
    /// The parameter, from zero, if it is one.
    pub fn parameter(&self) -> Option<u16> {
        match self {
            Self::Parameter { index, .. } | Self::ArrayParameter { index, .. } => Some(*index),
            Self::Null | Self::Text(_) | Self::Number(_) | Self::ArrayText(_) => None,
        }
    }
}

/// Bound parameters.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments<'a> {
    /// By parameter, from zero; `None` is NULL.
    pub values: &'a [Option<&'a [u8]>],
    /// Bind's format codes: none (all text), one for all, or one each.
    pub formats: &'a [i16],
}

impl<'a> Arguments<'a> {
    /// The value of a parameter and whether it is in binary.
    pub fn value(&self, index: u16) -> Result<(Option<&'a [u8]>, bool), PlanError> {
        let at = usize::from(index);
        let value = self.values.get(at).ok_or(PlanError::NoParameter {
            number: u32::from(index) + 1,
        })?;
        let format = match self.formats {
            [] => 0,
            [one] => *one,
            many => many.get(at).copied().unwrap_or(0),
        };
        Ok((*value, format == 1))
    }
}

/// What one value says about where its row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spot {
    /// In this slot.
    Slot(SlotId),
    /// NULL: equal to nothing.
    Null,
    /// Not a value of the key's type: equal to nothing, and an error to store.
    Nowhere,
    /// Not understood.
    Unknown,
}

fn spot(value: Result<KeyValue, KeyError>) -> Spot {
    match value {
        Ok(value) => Spot::Slot(hash::slot(&value)),
        Err(KeyError::OutOfRange | KeyError::Invalid) => Spot::Nowhere,
        Err(KeyError::NotUnderstood) => Spot::Unknown,
    }
}

impl KeyColumn {
    fn text_spot(&self, text: &str) -> Spot {
        spot(KeyValue::from_text(self.key_type, text))
    }

    fn number_spot(&self, text: &str) -> Spot {
        spot(KeyValue::from_number(self.key_type, text))
    }

    /// The place of a value of type `oid` (0: the key's own) as it came from the client.
    fn value_spot(&self, value: &[u8], binary: bool, oid: u32) -> Result<KeyValue, KeyError> {
        if binary {
            return KeyValue::from_binary(oid, self.key_type, value);
        }
        match std::str::from_utf8(value) {
            Ok(text) => KeyValue::from_parameter_text(oid, self.key_type, text),
            Err(_) => Err(KeyError::NotUnderstood),
        }
    }

    /// As [`Self::value_spot`] for a comparison, where PostgreSQL may have given a parameter of no declared type
    /// another one than the key's.
    fn compared_spot(&self, value: &[u8], binary: bool, oid: u32) -> Spot {
        match self.value_spot(value, binary, oid) {
            Err(KeyError::Invalid) if oid == 0 => Spot::Unknown,
            value => spot(value),
        }
    }

    /// The slot of the one value that `source` names; `None` where it is not one value, or none that is understood.
    pub fn slot(&self, source: &Source, arguments: Arguments<'_>) -> Option<SlotId> {
        let spot = match source {
            Source::Parameter { index, oid } => match arguments.value(*index).ok()? {
                (Some(value), binary) => self.compared_spot(value, binary, *oid),
                (None, _) => Spot::Null,
            },
            Source::Text(text) => self.text_spot(text),
            Source::Number(text) => self.number_spot(text),
            Source::Null | Source::ArrayText(_) | Source::ArrayParameter { .. } => Spot::Unknown,
        };
        match spot {
            Spot::Slot(slot) => Some(slot),
            Spot::Null | Spot::Nowhere | Spot::Unknown => None,
        }
    }

    /// The slots that `source` names, appended to `slots`; `false` if it is not understood.
    fn slots(
        &self,
        source: &Source,
        arguments: Arguments<'_>,
        slots: &mut Vec<SlotId>,
    ) -> Result<bool, PlanError> {
        let mut add = |spot: Spot| match spot {
            Spot::Slot(slot) => {
                slots.push(slot);
                true
            }
            Spot::Null | Spot::Nowhere => true,
            Spot::Unknown => false,
        };
        Ok(match source {
            Source::Null => true,
            Source::Text(text) => add(self.text_spot(text)),
            Source::Number(text) => add(self.number_spot(text)),
            Source::Parameter { index, oid } => match arguments.value(*index)? {
                (None, _) => true,
                (Some(value), binary) => add(self.compared_spot(value, binary, *oid)),
            },
            Source::ArrayText(text) => match text_elements(text) {
                Some(elements) => elements
                    .iter()
                    .flatten()
                    .all(|element| add(self.text_spot(element))),
                None => false,
            },
            Source::ArrayParameter { index, element_oid } => match arguments.value(*index)? {
                (None, _) => true,
                (Some(value), true) => match binary_elements(value) {
                    Some((sent, elements)) => {
                        // Without a declared type the elements say themselves what they are.
                        let oid = if *element_oid == 0 {
                            sent
                        } else {
                            *element_oid
                        };
                        elements
                            .iter()
                            .flatten()
                            .all(|element| add(self.compared_spot(element, true, oid)))
                    }
                    None => false,
                },
                (Some(value), false) => {
                    match std::str::from_utf8(value).ok().and_then(text_elements) {
                        Some(elements) => elements.iter().flatten().all(|element| {
                            add(self.compared_spot(element.as_bytes(), false, *element_oid))
                        }),
                        None => false,
                    }
                }
            },
        })
    }

    /// The slot of a new row that is stored with the key `source`. With a NULL that the column does not take it is any:
    /// PostgreSQL says so there.
    ///
    /// # Errors
    /// Refused when the key is NULL, or is not understood.
    pub fn stored(&self, source: &Source, arguments: Arguments<'_>) -> Result<SlotId, PlanError> {
        match self.set(source, arguments) {
            Err(PlanError::Refused { refusal, .. })
                if refusal == Refusal::NullKey && self.not_null =>
            {
                Ok(SlotId(0))
            }
            slot => slot,
        }
    }

    /// The slot of rows whose key is set to `source`.
    ///
    /// # Errors
    /// Refused when the key is NULL, or is not understood.
    pub fn set(&self, source: &Source, arguments: Arguments<'_>) -> Result<SlotId, PlanError> {
        let refuse = |refusal, what: &str| {
            Err(PlanError::refused(
                refusal,
                format!("{what} for the sharding key {}", self.name),
            ))
        };
        let spot = match source {
            Source::Null => Spot::Null,
            Source::Text(text) => self.text_spot(text),
            Source::Number(text) => self.number_spot(text),
            Source::Parameter { index, oid } => match arguments.value(*index)? {
                (None, _) => Spot::Null,
                (Some(value), binary) => spot(self.value_spot(value, binary, *oid)),
            },
            Source::ArrayText(_) | Source::ArrayParameter { .. } => Spot::Unknown,
        };
        match spot {
            Spot::Slot(slot) => Ok(slot),
            // PostgreSQL reports it, on any shard.
            Spot::Nowhere => Ok(SlotId(0)),
            Spot::Null => refuse(Refusal::NullKey, "NULL"),
            Spot::Unknown => refuse(Refusal::KeyValue, "a value that pgring does not read"),
        }
    }

    /// The slot of the key that a hint names.
    ///
    /// # Errors
    /// Refused when the text is not a key.
    pub fn hinted(&self, text: &str) -> Result<SlotId, PlanError> {
        match self.text_spot(text) {
            Spot::Slot(slot) => Ok(slot),
            Spot::Null | Spot::Nowhere | Spot::Unknown => Err(PlanError::refused(
                Refusal::KeyValue,
                format!("the routing hint's key is not one of {}", self.name),
            )),
        }
    }

    /// The integer that `source` is, if it is one.
    fn integer(
        &self,
        source: &Source,
        arguments: Arguments<'_>,
    ) -> Result<Option<i128>, PlanError> {
        let parse = |text: &str| text.trim_ascii().parse::<i64>().ok().map(i128::from);
        Ok(match source {
            Source::Text(text) | Source::Number(text) => parse(text),
            Source::Parameter {
                index,
                oid: 0 | 20 | 21 | 23,
            } => match arguments.value(*index)? {
                (Some(value), true) if matches!(value.len(), 2 | 4 | 8) => {
                    Some(i128::from(integer(value)))
                }
                (Some(value), false) => std::str::from_utf8(value).ok().and_then(parse),
                _ => None,
            },
            Source::Null
            | Source::Parameter { .. }
            | Source::ArrayText(_)
            | Source::ArrayParameter { .. } => None,
        })
    }
}

fn integer(value: &[u8]) -> i64 {
    let negative = value.first().is_some_and(|byte| byte & 0x80 != 0);
    value
        .iter()
        .fold(if negative { -1 } else { 0 }, |number: i64, byte| {
            (number << 8) | i64::from(*byte)
        })
}

/// The elements of an array's text form; `None` if it is nested, has bounds, or is malformed.
fn text_elements(text: &str) -> Option<Vec<Option<String>>> {
    let body = text.trim_ascii().strip_prefix('{')?.strip_suffix('}')?;
    let mut elements = Vec::new();
    if body.trim_ascii().is_empty() {
        return Some(elements);
    }
    let mut chars = body.chars().peekable();
    loop {
        while chars.next_if(char::is_ascii_whitespace).is_some() {}
        let mut element = String::new();
        let quoted = chars.next_if_eq(&'"').is_some();
        if quoted {
            loop {
                match chars.next()? {
                    '"' => break,
                    '\\' => element.push(chars.next()?),
                    other => element.push(other),
                }
            }
            while chars.next_if(char::is_ascii_whitespace).is_some() {}
        } else {
            while let Some(next) = chars.next_if(|next| *next != ',') {
                match next {
                    '{' | '}' | '"' | '\\' => return None,
                    other => element.push(other),
                }
            }
            element.truncate(element.trim_ascii_end().len());
            if element.is_empty() {
                return None;
            }
        }
        let null = !quoted && element.eq_ignore_ascii_case("null");
        elements.push((!null).then_some(element));
        if elements.len() > ARRAY_KEYS_MAX {
            return None;
        }
        match chars.next() {
            None => return Some(elements),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// The element type and elements of an array's binary form.
#[allow(clippy::type_complexity)]
fn binary_elements(value: &[u8]) -> Option<(u32, Vec<Option<&[u8]>>)> {
    fn word<'a>(rest: &mut &'a [u8]) -> Option<u32> {
        let (head, tail): (&'a [u8; 4], _) = rest.split_first_chunk()?;
        *rest = tail;
        Some(u32::from_be_bytes(*head))
    }
    let mut rest = value;
    let (dimensions, _has_null, oid) = (word(&mut rest)?, word(&mut rest)?, word(&mut rest)?);
    if dimensions > 1 {
        return None;
    }
    let count = if dimensions == 0 {
        0
    } else {
        word(&mut rest)? as usize
    };
    if dimensions == 1 {
        word(&mut rest)?;
    }
    // Four bytes each at least.
    if count > ARRAY_KEYS_MAX || count > rest.len() / 4 {
        return None;
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let length = word(&mut rest)?;
        if length == u32::MAX {
            elements.push(None);
        } else {
            let (element, tail) = rest.split_at_checked(length as usize)?;
            elements.push(Some(element));
            rest = tail;
        }
    }
    rest.is_empty().then_some((oid, elements))
}

/// A set of keys that a predicate names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySet {
    /// Any of these.
    Of(Vec<Source>),
    /// The integers from `low` to `high`.
    Range {
        /// The lower bound and whether it belongs to the range.
        low: (Source, bool),
        /// The upper bound and whether it belongs to the range.
        high: (Source, bool),
    },
}

/// A predicate on one key column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Constraint {
    /// The column.
    pub column: Arc<KeyColumn>,
    /// The keys that satisfy it.
    pub set: KeySet,
}

impl Constraint {
    /// The slots of its keys; `None` if they are not known.
    fn slots(&self, arguments: Arguments<'_>) -> Result<Option<Vec<SlotId>>, PlanError> {
        let mut slots = Vec::new();
        match &self.set {
            KeySet::Of(sources) => {
                for source in sources {
                    if !self.column.slots(source, arguments, &mut slots)? {
                        return Ok(None);
                    }
                }
            }
            KeySet::Range { low, high } => {
                let (Some(from), Some(to)) = (
                    self.column.integer(&low.0, arguments)?,
                    self.column.integer(&high.0, arguments)?,
                ) else {
                    return Ok(None);
                };
                let (from, to) = (from + i128::from(!low.1), to - i128::from(!high.1));
                if to - from >= RANGE_KEYS_MAX {
                    return Ok(None);
                }
                for key in from..=to {
                    match self.column.number_spot(&key.to_string()) {
                        Spot::Slot(slot) => slots.push(slot),
                        Spot::Null | Spot::Nowhere => {}
                        Spot::Unknown => return Ok(None),
                    }
                }
            }
        }
        slots.sort_unstable();
        slots.dedup();
        Ok(Some(slots))
    }

    /// The predicate in words, for EXPLAIN.
    pub fn words(&self) -> String {
        let source = |source: &Source| match source {
            Source::Null => "NULL".to_owned(),
            Source::Text(text) | Source::ArrayText(text) => format!("'{text}'"),
            Source::Number(text) => text.to_string(),
            Source::Parameter { index, .. } | Source::ArrayParameter { index, .. } => {
                format!("${}", index + 1)
            }
        };
        let name = &self.column.name;
        match &self.set {
            KeySet::Of(sources) => match sources.as_slice() {
                [one @ (Source::ArrayText(_) | Source::ArrayParameter { .. })] => {
                    format!("{name} = ANY ({})", source(one))
                }
                [one] => format!("{name} = {}", source(one)),
                [first, second, third, .., last] if sources.len() > 4 => {
                    format!(
                        "{name} IN ({}, {}, {}, …, {})",
                        source(first),
                        source(second),
                        source(third),
                        source(last)
                    )
                }
                many => format!(
                    "{name} IN ({})",
                    many.iter().map(source).collect::<Vec<_>>().join(", ")
                ),
            },
            KeySet::Range { low, high } => {
                format!("{name} BETWEEN {} AND {}", source(&low.0), source(&high.0))
            }
        }
    }
}

#[derive(Debug)]
struct Node {
    column: Arc<KeyColumn>,
    constraints: Vec<Constraint>,
    lows: Vec<(Source, bool)>,
    highs: Vec<(Source, bool)>,
    /// Edges that end here.
    from: Vec<NodeId>,
    /// If there are any: the keys are among those of all of these together.
    union_of: Vec<NodeId>,
}

/// Key columns and what is known of them.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: Vec<Node>,
}

impl Graph {
    /// A node without constraints.
    pub fn add(&mut self, column: Arc<KeyColumn>) -> NodeId {
        self.nodes.push(Node {
            column,
            constraints: Vec::new(),
            lows: Vec::new(),
            highs: Vec::new(),
            from: Vec::new(),
            union_of: Vec::new(),
        });
        self.nodes.len() - 1
    }

    /// The column of a node.
    pub fn column(&self, node: NodeId) -> &Arc<KeyColumn> {
        &self.nodes[node].column
    }

    /// Only rows of `node` with a key in `set` matter.
    pub fn constrain(&mut self, node: NodeId, set: KeySet) {
        let column = self.nodes[node].column.clone();
        self.nodes[node]
            .constraints
            .push(Constraint { column, set });
    }

    /// Only rows of `node` with a key above `bound` matter.
    pub fn bound_below(&mut self, node: NodeId, bound: Source, inclusive: bool) {
        self.nodes[node].lows.push((bound, inclusive));
    }

    /// Only rows of `node` with a key below `bound` matter.
    pub fn bound_above(&mut self, node: NodeId, bound: Source, inclusive: bool) {
        self.nodes[node].highs.push((bound, inclusive));
    }

    /// Only rows of `to` whose key is among the keys of `from` matter.
    pub fn edge(&mut self, from: NodeId, to: NodeId) {
        if from != to {
            self.nodes[to].from.push(from);
        }
    }

    /// The keys of `node` are those of one of `arms`.
    pub fn union(&mut self, node: NodeId, arms: &[NodeId]) {
        self.nodes[node].union_of.extend_from_slice(arms);
    }

    /// Whether the keys of `node` that matter are the key of one row of `anchors`, once that row is fixed.
    pub fn tied(&self, node: NodeId, anchors: &[NodeId]) -> bool {
        self.tied_beyond(node, anchors, &mut Vec::new())
    }

    fn tied_beyond(&self, node: NodeId, anchors: &[NodeId], visited: &mut Vec<NodeId>) -> bool {
        if anchors.contains(&node) {
            return true;
        }
        if visited.contains(&node) {
            return false;
        }
        visited.push(node);
        let Node { from, union_of, .. } = &self.nodes[node];
        from.iter()
            .any(|from| self.tied_beyond(*from, anchors, visited))
            || (!union_of.is_empty()
                && union_of
                    .iter()
                    .all(|arm| self.tied_beyond(*arm, anchors, &mut visited.clone())))
    }

    /// All that is known of `node`'s keys.
    pub fn formula(&self, node: NodeId) -> Formula {
        self.formula_beyond(node, &mut Vec::new())
    }

    fn formula_beyond(&self, node: NodeId, visited: &mut Vec<NodeId>) -> Formula {
        let mut all = Vec::new();
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        let mut open = vec![node];
        while let Some(id) = open.pop() {
            if visited.contains(&id) {
                continue;
            }
            visited.push(id);
            let node = &self.nodes[id];
            for constraint in &node.constraints {
                let part = Formula::Is(constraint.clone());
                if !all.contains(&part) {
                    all.push(part);
                }
            }
            lows.extend(node.lows.iter().cloned());
            highs.extend(node.highs.iter().cloned());
            if !node.union_of.is_empty() {
                let arms: Vec<Formula> = node
                    .union_of
                    .iter()
                    .map(|arm| self.formula_beyond(*arm, &mut visited.clone()))
                    .collect();
                if !arms.contains(&Formula::Any) {
                    all.push(Formula::Or(arms));
                }
            }
            open.extend(node.from.iter().rev());
        }
        if self.nodes[node].column.family() == HashFamily::Integer {
            for low in &lows {
                for high in &highs {
                    let set = KeySet::Range {
                        low: low.clone(),
                        high: high.clone(),
                    };
                    all.push(Formula::Is(Constraint {
                        column: self.nodes[node].column.clone(),
                        set,
                    }));
                }
            }
        }
        match all.len() {
            0 => Formula::Any,
            1 => all.swap_remove(0),
            _ => Formula::And(all),
        }
    }
}

/// The keys of a node, as an expression over constraints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formula {
    /// Any key.
    Any,
    /// Those of a constraint.
    Is(Constraint),
    /// Those that are in all of these.
    And(Vec<Formula>),
    /// Those that are in one of these.
    Or(Vec<Formula>),
}

impl Formula {
    /// The slots of the keys, ascending; `None` for all.
    pub fn slots(&self, arguments: Arguments<'_>) -> Result<Option<Vec<SlotId>>, PlanError> {
        match self {
            Self::Any => Ok(None),
            Self::Is(constraint) => constraint.slots(arguments),
            Self::And(parts) => {
                let mut all: Option<Vec<SlotId>> = None;
                for part in parts {
                    all = match (all, part.slots(arguments)?) {
                        (None, slots) | (slots, None) => slots,
                        (Some(mut slots), Some(others)) => {
                            slots.retain(|slot| others.binary_search(slot).is_ok());
                            Some(slots)
                        }
                    };
                }
                Ok(all)
            }
            Self::Or(parts) => {
                let mut all = Vec::new();
                for part in parts {
                    match part.slots(arguments)? {
                        Some(slots) => all.extend(slots),
                        None => return Ok(None),
                    }
                }
                all.sort_unstable();
                all.dedup();
                Ok(Some(all))
            }
        }
    }

    /// Adds the parameters, from zero, whose values decide.
    pub fn add_parameters(&self, parameters: &mut Vec<u16>) {
        match self {
            Self::Any => {}
            Self::Is(constraint) => {
                let sources = match &constraint.set {
                    KeySet::Of(sources) => sources.iter().collect(),
                    KeySet::Range { low, high } => vec![&low.0, &high.0],
                };
                parameters.extend(sources.into_iter().filter_map(Source::parameter));
            }
            Self::And(parts) | Self::Or(parts) => {
                for part in parts {
                    part.add_parameters(parameters);
                }
            }
        }
    }

    /// The constraints in it, for EXPLAIN.
    pub fn words(&self) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Is(constraint) => Some(constraint.words()),
            Self::And(parts) => Some(
                parts
                    .iter()
                    .filter_map(Self::words)
                    .collect::<Vec<_>>()
                    .join(" AND "),
            ),
            Self::Or(parts) => Some(
                parts
                    .iter()
                    .filter_map(Self::words)
                    .collect::<Vec<_>>()
                    .join(" OR "),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::schema::{Collation, ColumnDefault};

    fn column(type_oid: u32, type_name: &str) -> Arc<KeyColumn> {
        let column = Column {
            name: "k".into(),
            type_oid,
            type_name: type_name.into(),
            collation: Collation::None,
            collation_name: None,
            default: ColumnDefault::Null,
            not_null: false,
        };
        Arc::new(KeyColumn::new("t", &column).expect("a key type"))
    }

    fn slots(
        column: &Arc<KeyColumn>,
        set: KeySet,
        values: &[Option<&[u8]>],
        formats: &[i16],
    ) -> Option<Vec<SlotId>> {
        let constraint = Constraint {
            column: column.clone(),
            set,
        };
        constraint
            .slots(Arguments { values, formats })
            .expect("the parameters are there")
    }

    #[test]
    fn array_texts_are_read_or_refused() {
        let some = |elements: &[&str]| {
            Some(
                elements
                    .iter()
                    .map(|element| Some((*element).to_owned()))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(text_elements("{1, 2 ,3}"), some(&["1", "2", "3"]));
        assert_eq!(text_elements("{}"), Some(Vec::new()));
        assert_eq!(
            text_elements(r#"{"a,b","c\"d","NULL"}"#),
            some(&["a,b", "c\"d", "NULL"])
        );
        assert_eq!(
            text_elements("{NULL,x}"),
            Some(vec![None, Some("x".to_owned())])
        );
        for text in [
            "",
            "{1",
            "{{1},{2}}",
            "[1:2]={1,2}",
            "{1,}",
            "{\"a}",
            "{a\\b}",
            "{1}x",
        ] {
            assert_eq!(text_elements(text), None, "{text}");
        }
    }

    #[test]
    fn malformed_binary_arrays_are_refused() {
        let mut array = Vec::new();
        for word in [1_u32, 0, 20, 1, 1, 8] {
            array.extend(word.to_be_bytes());
        }
        array.extend(42_i64.to_be_bytes());
        assert_eq!(
            binary_elements(&array),
            Some((20, vec![Some(&42_i64.to_be_bytes()[..])]))
        );
        for end in 0..array.len() {
            assert_eq!(binary_elements(&array[..end]), None, "{end} bytes");
        }
        let mut longer = array.clone();
        longer.push(0);
        assert_eq!(binary_elements(&longer), None);
        array[12..16].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(binary_elements(&array), None);
    }

    #[test]
    fn every_way_to_say_a_key_finds_the_same_slot() {
        let column = column(23, "integer");
        let wanted = slots(
            &column,
            KeySet::Of(vec![Source::Number("42".into())]),
            &[],
            &[],
        );
        assert_eq!(wanted.as_ref().map(Vec::len), Some(1));
        let parameter = |oid| KeySet::Of(vec![Source::Parameter { index: 0, oid }]);
        for (set, value, format) in [
            (KeySet::Of(vec![Source::Text(" 42".into())]), None, 0),
            (KeySet::Of(vec![Source::ArrayText("{42}".into())]), None, 0),
            (parameter(0), Some(&b"42"[..]), 0),
            (parameter(0), Some(&42_i32.to_be_bytes()[..]), 1),
            (parameter(20), Some(&42_i64.to_be_bytes()[..]), 1),
            (parameter(21), Some(&42_i16.to_be_bytes()[..]), 1),
            (parameter(1700), Some(&b"42.0"[..]), 0),
        ] {
            assert_eq!(
                slots(&column, set.clone(), &[value], &[format]),
                wanted,
                "{set:?}"
            );
        }
        let range = KeySet::Range {
            low: (Source::Number("41".into()), false),
            high: (Source::Number("42".into()), true),
        };
        assert_eq!(slots(&column, range, &[], &[]), wanted);
    }

    #[test]
    fn what_is_not_understood_does_not_restrict() {
        let column = column(23, "integer");
        let parameter = |oid| KeySet::Of(vec![Source::Parameter { index: 0, oid }]);
        // A binary value of another width is of another type, which PostgreSQL has chosen.
        assert_eq!(
            slots(&column, parameter(0), &[Some(&42_i64.to_be_bytes())], &[1]),
            None
        );
        assert_eq!(slots(&column, parameter(701), &[Some(b"42")], &[0]), None);
        assert_eq!(
            slots(
                &column,
                KeySet::Of(vec![Source::ArrayText("{{1}}".into())]),
                &[],
                &[]
            ),
            None
        );
        let wide = KeySet::Range {
            low: (Source::Number("1".into()), true),
            high: (Source::Number("65".into()), true),
        };
        assert_eq!(slots(&column, wide, &[], &[]), None);
    }

    #[test]
    fn what_equals_nothing_needs_no_shard() {
        let column = column(23, "integer");
        for source in [
            Source::Null,
            Source::Number("99999999999".into()),
            Source::ArrayText("{NULL}".into()),
        ] {
            assert_eq!(
                slots(&column, KeySet::Of(vec![source]), &[], &[]),
                Some(Vec::new())
            );
        }
        let empty = KeySet::Range {
            low: (Source::Number("2".into()), true),
            high: (Source::Number("1".into()), true),
        };
        assert_eq!(slots(&column, empty, &[], &[]), Some(Vec::new()));
    }

    #[test]
    fn equalities_carry_keys_in_their_direction_only() {
        let mut graph = Graph::default();
        let (a, b, c) = (
            graph.add(column(20, "bigint")),
            graph.add(column(20, "bigint")),
            graph.add(column(20, "bigint")),
        );
        graph.edge(a, b);
        graph.edge(b, c);
        graph.edge(c, b);
        graph.constrain(a, KeySet::Of(vec![Source::Number("1".into())]));
        assert_ne!(graph.formula(c), Formula::Any);
        assert_eq!(graph.formula(c), graph.formula(a));
        assert!(graph.tied(c, &[a]) && !graph.tied(a, &[c]));
        let union = graph.add(column(20, "bigint"));
        graph.union(union, &[a, c]);
        assert!(matches!(graph.formula(union), Formula::Or(arms) if arms.len() == 2));
        let free = graph.add(column(20, "bigint"));
        graph.union(union, &[free]);
        assert_eq!(graph.formula(union), Formula::Any);
    }
}
