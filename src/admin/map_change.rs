//! [`MapChange`]: the commands that edit the shard map, from their text and to it. Pure; [`super::map`] does them.

use super::command::{CommandError, name};
use crate::config::Address;
use crate::sql::lex::Token;
use crate::sql::reader::Reader;
use postgres_protocol::escape::escape_literal;
use std::borrow::Cow;
use std::fmt;

/// A table as an operator names it: with its schema or without.
pub type TableName = (Option<String>, String);

/// An edit of the shard map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapChange {
    /// Declares a shard.
    AddShard {
        /// Its name.
        name: String,
        /// Its servers.
        nodes: Vec<Address>,
        /// Its database; None for the cluster's.
        database: Option<String>,
        /// Its share of the slots; None for 1.
        weight: Option<u32>,
    },
    /// Has a rebalance empty a shard.
    DrainShard(String),
    /// Declares a shard no more.
    RemoveShard(String),
    /// Puts a key on a shard of its own choice.
    PinKey {
        /// The key's text.
        key: String,
        /// Whose key it is.
        table: TableName,
        /// The shard's name.
        shard: String,
    },
    /// Leaves a key to the ring.
    UnpinKey {
        /// The key's text.
        key: String,
        /// Whose key it is.
        table: TableName,
    },
}

impl MapChange {
    /// What CommandComplete says.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::AddShard { .. } => "ADD SHARD",
            Self::DrainShard(_) => "DRAIN SHARD",
            Self::RemoveShard(_) => "REMOVE SHARD",
            Self::PinKey { .. } => "PIN KEY",
            Self::UnpinKey { .. } => "UNPIN KEY",
        }
    }
}

impl fmt::Display for MapChange {
    /// As it would be written, for the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tag())?;
        let quoted = |text: &str| escape_literal(text).trim_start().to_owned();
        let shown = |(schema, name): &TableName| match schema {
            Some(schema) => format!("{schema}.{name}"),
            None => name.clone(),
        };
        match self {
            Self::AddShard {
                name,
                nodes,
                database,
                weight,
            } => {
                let nodes: Vec<String> =
                    nodes.iter().map(|node| quoted(&node.to_string())).collect();
                write!(f, " {name} NODES {}", nodes.join(", "))?;
                if let Some(database) = database {
                    write!(f, " DATABASE {}", quoted(database))?;
                }
                if let Some(weight) = weight {
                    write!(f, " WEIGHT {weight}")?;
                }
                Ok(())
            }
            Self::DrainShard(name) | Self::RemoveShard(name) => write!(f, " {name}"),
            Self::PinKey { key, table, shard } => {
                write!(f, " {} OF {} TO {shard}", quoted(key), shown(table))
            }
            Self::UnpinKey { key, table } => write!(f, " {} OF {}", quoted(key), shown(table)),
        }
    }
}

/// The command, if it is one of these; its end is for the caller to see.
pub(super) fn parse(reader: &mut Reader<'_, '_>) -> Result<Option<MapChange>, CommandError> {
    Ok(Some(match () {
        () if reader.take(&["add", "shard"]) => add_shard(reader)?,
        () if reader.take(&["drain", "shard"]) => MapChange::DrainShard(name(reader)?),
        () if reader.take(&["remove", "shard"]) => MapChange::RemoveShard(name(reader)?),
        () if reader.take(&["pin", "key"]) => {
            let key = key(reader)?;
            reader.expect(&["of"])?;
            let table = table(reader)?;
            reader.expect(&["to"])?;
            let shard = name(reader)?;
            MapChange::PinKey { key, table, shard }
        }
        () if reader.take(&["unpin", "key"]) => {
            let key = key(reader)?;
            reader.expect(&["of"])?;
            let table = table(reader)?;
            MapChange::UnpinKey { key, table }
        }
        () => return Ok(None),
    }))
}

/// `name NODES 'host:port' [, …] [DATABASE 'x'] [WEIGHT n]`
fn add_shard(reader: &mut Reader<'_, '_>) -> Result<MapChange, CommandError> {
    let shard = name(reader)?;
    let value = |option| move |reason| CommandError::Value { option, reason };
    reader.expect(&["nodes"])?;
    let mut nodes = Vec::new();
    loop {
        let node = reader.string()?.parse::<Address>();
        let node = node.map_err(|error| error.to_string());
        nodes.push(node.map_err(value("NODES"))?);
        if !reader.take_symbol(",") {
            break;
        }
    }
    let (mut database, mut weight) = (None, None);
    loop {
        if database.is_none() && reader.take(&["database"]) {
            database = Some(name(reader)?);
        } else if weight.is_none() && reader.take(&["weight"]) {
            let number = reader.number()?.parse::<u32>();
            let number = number.map_err(|_| "must be a whole number from 0".to_owned());
            weight = Some(number.map_err(value("WEIGHT"))?);
        } else {
            break;
        }
    }
    Ok(MapChange::AddShard {
        name: shard,
        nodes,
        database,
        weight,
    })
}

/// A key's text. A number need not be quoted.
pub(super) fn key(reader: &mut Reader<'_, '_>) -> Result<String, CommandError> {
    Ok(match reader.peek().is_some_and(Token::is_string) {
        true => reader.string()?.into_owned(),
        false => reader.number()?,
    })
}

/// A table's name.
pub(super) fn table(reader: &mut Reader<'_, '_>) -> Result<TableName, CommandError> {
    let name = reader.qualified_name()?;
    Ok((name.schema.map(Cow::into_owned), name.name.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::super::command::{self, Change, Command};
    use crate::wire::error_response::ErrorReply as _;

    #[test]
    fn edits_are_logged_as_they_are_written() {
        for text in [
            "ADD SHARD s4 NODES '10.0.0.1:5432'",
            "ADD SHARD s4 NODES '10.0.0.1:5432', '[::1]:5433' DATABASE 'shop_4' WEIGHT 2",
            "DRAIN SHARD s1",
            "REMOVE SHARD s1",
            "PIN KEY 'it''s' OF public.orders TO s1",
            "UNPIN KEY '42' OF orders",
        ] {
            let [Command::Change(Change::Map(change))] = &command::parse(text).unwrap()[..] else {
                panic!("{text}");
            };
            assert_eq!(change.to_string(), text);
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        for (text, message) in [
            ("ADD SHARD s4", "42601 syntax error at end of input"),
            (
                "ADD SHARD s4 NODES 'h'",
                "22023 NODES: \"h\" does not end with a port, as in \"10.0.0.1:5432\"",
            ),
            (
                "ADD SHARD s4 NODES 'h:1' WEIGHT -1",
                "22023 WEIGHT: must be a whole number from 0",
            ),
            (
                "ADD SHARD s4 NODES 'h:1' WEIGHT 1 WEIGHT 2",
                "42601 syntax error at or near \"WEIGHT\"",
            ),
            (
                "DRAIN SHARD s1 now",
                "42601 syntax error at or near \"now\"",
            ),
            (
                "PIN KEY x OF t TO s1",
                "42601 syntax error at or near \"x\"",
            ),
            ("PIN KEY '1' TO s1", "42601 syntax error at or near \"TO\""),
            ("UNPIN KEY '1'", "42601 syntax error at end of input"),
        ] {
            let error = command::parse(text).unwrap_err();
            assert_eq!(format!("{} {error}", error.sqlstate()), message);
        }
    }
}
