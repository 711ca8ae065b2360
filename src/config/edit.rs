//! [`apply`]: changes `shards.toml` as a person would, by its text: what is not changed stays as it is written, with its
//! comments. Pure: knows no file. That a map is right is for [`super::Config::with_shards`] to say, before and after.

use toml_edit::{Array, ArrayOfTables, DocumentMut, Item, Table, Value, value};

/// One change. Shards and pins are meant by their place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// A `[[shard]]` more, after the others.
    AddShard {
        /// `name`
        name: String,
        /// `nodes`
        nodes: Vec<String>,
        /// `database`; None leaves it out.
        database: Option<String>,
        /// `weight`; None leaves it out.
        weight: Option<u32>,
    },
    /// Another `weight`.
    Weigh {
        /// Which shard.
        shard: usize,
        /// Its weight.
        weight: u32,
    },
    /// A `[[shard]]` less.
    RemoveShard(usize),
    /// A `[[pin]]` more, after the others.
    AddPin {
        /// `table`
        table: String,
        /// `key`
        key: String,
        /// `shard`
        shard: String,
    },
    /// Another `shard` of a pin.
    Repin {
        /// Which pin.
        pin: usize,
        /// Its shard.
        shard: String,
    },
    /// A `[[pin]]` less.
    RemovePin(usize),
}

/// Why a text is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// No TOML.
    #[error("it is not TOML: {0}")]
    Toml(String),
    /// Written so that it cannot be changed in place.
    #[error("its [[{0}]] sections are written inline, as {0} = […]")]
    Inline(&'static str),
    /// Something else than what is to be changed would be another.
    #[error(
        "it is written in a way that would not stay as it is, such as with line ends of both kinds"
    )]
    Format,
}

/// The text with the changes, in their order: each place is that of the text as the changes before have left it.
///
/// # Errors
/// [`EditError`]
pub fn apply(text: &str, edits: &[Edit]) -> Result<String, EditError> {
    // Line ends are changed back at the end.
    let is_dos = text.contains("\r\n");
    let mut unix = text.replace("\r\n", "\n");
    let lines_alike = !is_dos || unix.replace('\n', "\r\n") == text;
    if !unix.is_empty() && !unix.ends_with('\n') {
        unix.push('\n');
    }
    let parsed: Result<DocumentMut, _> = unix.parse();
    let mut document =
        parsed.map_err(|error| EditError::Toml(error.message().replace('\n', ", ")))?;
    if !lines_alike || document.to_string() != unix {
        return Err(EditError::Format);
    }
    for edit in edits {
        apply_one(&mut document, edit)?;
    }
    let edited = document.to_string();
    Ok(match is_dos {
        true => edited.replace('\n', "\r\n"),
        false => edited,
    })
}

fn apply_one(document: &mut DocumentMut, edit: &Edit) -> Result<(), EditError> {
    match edit {
        Edit::AddShard {
            name,
            nodes,
            database,
            weight,
        } => {
            let mut shard = Table::new();
            shard.insert("name", value(name));
            if let Some(weight) = weight {
                shard.insert("weight", value(i64::from(*weight)));
            }
            if let Some(database) = database {
                shard.insert("database", value(database));
            }
            shard.insert("nodes", value(nodes.iter().collect::<Array>()));
            push(document, "shard", shard)?;
        }
        Edit::Weigh { shard, weight } => {
            if let Some(shard) = sections(document, "shard")?.get_mut(*shard) {
                set(shard, "weight", Value::from(i64::from(*weight)));
            }
        }
        Edit::RemoveShard(shard) => remove(document, "shard", *shard)?,
        Edit::AddPin { table, key, shard } => {
            let mut pin = Table::new();
            pin.insert("table", value(table));
            pin.insert("key", value(key));
            pin.insert("shard", value(shard));
            push(document, "pin", pin)?;
        }
        Edit::Repin { pin, shard } => {
            if let Some(pin) = sections(document, "pin")?.get_mut(*pin) {
                set(pin, "shard", Value::from(shard));
            }
        }
        Edit::RemovePin(pin) => remove(document, "pin", *pin)?,
    }
    Ok(())
}

/// The `[[name]]` sections, which may be none.
fn sections<'d>(
    document: &'d mut DocumentMut,
    name: &'static str,
) -> Result<&'d mut ArrayOfTables, EditError> {
    let none = Item::ArrayOfTables(ArrayOfTables::new());
    let item = document.entry(name).or_insert(none);
    match item {
        Item::ArrayOfTables(sections) => Ok(sections),
        Item::None | Item::Value(_) | Item::Table(_) => Err(EditError::Inline(name)),
    }
}

/// Sets a value where it stands, with the comment behind it; else at the section's end.
fn set(section: &mut Table, key: &str, mut new: Value) {
    match section.get_mut(key).and_then(Item::as_value_mut) {
        Some(old) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        None => {
            section.insert(key, Item::Value(new));
        }
    }
}

/// Puts a section behind those of its kind, or at the end.
fn push(
    document: &mut DocumentMut,
    name: &'static str,
    mut section: Table,
) -> Result<(), EditError> {
    let last = tables(document).filter_map(Table::position).max();
    let sections = sections(document, name)?;
    if sections.is_empty() {
        section.set_position(Some(last.unwrap_or(0) + 1));
    }
    sections.push(section);
    Ok(())
}

/// Takes a section away, with the comment right above it. Comments above that, behind an empty line, go to what follows.
fn remove(document: &mut DocumentMut, name: &'static str, index: usize) -> Result<(), EditError> {
    let sections = sections(document, name)?;
    if index >= sections.len() {
        return Ok(());
    }
    let removed = sections.remove(index);
    if sections.is_empty() {
        document.remove(name);
    }
    let prefix = |table: &Table| {
        let prefix = table.decor().prefix();
        let prefix = prefix.and_then(|prefix| prefix.as_str());
        prefix.unwrap_or_default().to_owned()
    };
    let above = prefix(&removed);
    let kept = match above.rfind("\n\n") {
        Some(end) => &above[..=end],
        None if above.starts_with('\n') => "",
        None => "",
    };
    if kept.trim().is_empty() {
        return Ok(());
    }
    let position = removed.position();
    let next = tables(document)
        .filter(|table| table.position() > position)
        .min_by_key(|table| table.position())
        .and_then(Table::position);
    match next {
        None => {
            let trailing = document.trailing().as_str().unwrap_or_default();
            let trailing = format!("{kept}{trailing}");
            document.set_trailing(trailing);
        }
        Some(next) => {
            let following = |table: &&mut Table| table.position() == Some(next);
            if let Some(table) = tables_mut(document).find(following) {
                let joined = format!("{kept}{}", prefix(table));
                table.decor_mut().set_prefix(joined);
            }
        }
    }
    Ok(())
}

/// Every section of the document, of whatever kind.
fn tables(document: &DocumentMut) -> impl Iterator<Item = &Table> {
    document.iter().flat_map(|(_, item)| {
        let own = item.as_table().into_iter();
        own.chain(item.as_array_of_tables().into_iter().flatten())
    })
}

fn tables_mut(document: &mut DocumentMut) -> impl Iterator<Item = &mut Table> {
    document.iter_mut().flat_map(|(_, item)| match item {
        Item::Table(table) => vec![table],
        Item::ArrayOfTables(tables) => tables.iter_mut().collect(),
        Item::None | Item::Value(_) => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = r#"# Our shards.

[cluster]
name     = "shop"               # short
database = "shop"

[[shard]]
name = "s0"
weight = 2                      # twice as large
nodes = [ "10.0.0.1:5432" ]

# The second one.
[[shard]]
name = "s1"
nodes = ["10.0.0.2:5432"]       # in the cellar

[[table]]
name = "public.orders"
key = "customer_id"

# Large tenants:

# ACME
[[pin]]
table = "public.orders"
key = "42"
shard = "s1"

[[pin]]
slots = "1-2"
shard = "s0" # why not

# The end.
"#;

    /// What a change adds and takes away, line by line.
    fn difference(text: &str, edits: &[Edit]) -> Vec<String> {
        let edited = apply(text, edits).unwrap();
        let (before, after): (Vec<_>, Vec<_>) = (text.lines().collect(), edited.lines().collect());
        let same = |(one, other): &(&&str, &&str)| one == other;
        let start = before.iter().zip(&after).take_while(same).count();
        let (before, after) = (&before[start..], &after[start..]);
        let pairs = before.iter().rev().zip(after.iter().rev());
        let end = pairs.take_while(same).count();
        let gone = before[..before.len() - end].iter();
        let new = after[..after.len() - end].iter();
        let gone = gone.map(|line| format!("-{line}"));
        gone.chain(new.map(|line| format!("+{line}"))).collect()
    }

    fn pin(key: &str) -> Edit {
        Edit::AddPin {
            table: "public.orders".to_owned(),
            key: key.to_owned(),
            shard: "s0".to_owned(),
        }
    }

    #[test]
    fn nothing_but_what_changes_is_changed() {
        assert_eq!(apply(MAP, &[]).unwrap(), MAP);
        let weigh = |shard| Edit::Weigh { shard, weight: 0 };
        assert_eq!(
            difference(MAP, &[weigh(0)]),
            [
                "-weight = 2                      # twice as large",
                "+weight = 0                      # twice as large"
            ]
        );
        assert_eq!(difference(MAP, &[weigh(1)]), ["+weight = 0"]);
        let repin = Edit::Repin {
            pin: 1,
            shard: "s1".to_owned(),
        };
        assert_eq!(
            difference(MAP, &[repin]),
            ["-shard = \"s0\" # why not", "+shard = \"s1\" # why not"]
        );
    }

    #[test]
    fn what_is_added_stands_behind_its_like() {
        let shard = Edit::AddShard {
            name: "s2".to_owned(),
            nodes: vec!["10.0.0.3:5432".to_owned(), "[::1]:1".to_owned()],
            database: Some("shop_2".to_owned()),
            weight: Some(3),
        };
        let edited = apply(MAP, &[shard]).unwrap();
        let expected = "nodes = [\"10.0.0.2:5432\"]       # in the cellar\n\n[[shard]]\nname = \"s2\"\nweight = 3\n\
             database = \"shop_2\"\nnodes = [\"10.0.0.3:5432\", \"[::1]:1\"]\n\n[[table]]";
        assert!(edited.contains(expected), "{edited}");
        let edited = apply(MAP, &[pin("it's \"7\"")]).unwrap();
        let (_, end) = edited.split_once("# why not\n").unwrap();
        let (section, end) = end.split_at(end.find("\n# The end").unwrap());
        assert_eq!(end, "\n# The end.\n");
        assert!(
            section.starts_with("\n[[pin]]\ntable = \"public.orders\"\nkey = "),
            "{section}"
        );
        // Where there was none, it is the last.
        let map = "[[shard]]\nname = \"s0\"\n[[table]]\nname = \"t\"\n[[shard]]\nname = \"s1\"";
        let edited = apply(map, &[pin("1")]).unwrap();
        let end =
            "name = \"s1\"\n\n[[pin]]\ntable = \"public.orders\"\nkey = \"1\"\nshard = \"s0\"\n";
        assert!(edited.ends_with(end), "{edited}");
    }

    #[test]
    fn what_is_removed_takes_its_own_comment_with_it_and_no_other() {
        assert_eq!(
            difference(MAP, &[Edit::RemoveShard(1)]),
            [
                "-# The second one.",
                "-[[shard]]",
                "-name = \"s1\"",
                "-nodes = [\"10.0.0.2:5432\"]       # in the cellar",
                "-"
            ]
        );
        let edited = apply(MAP, &[Edit::RemovePin(0)]).unwrap();
        let kept = "key = \"customer_id\"\n\n# Large tenants:\n\n[[pin]]\nslots = \"1-2\"";
        assert!(edited.contains(kept), "{edited}");
        assert!(!edited.contains("ACME"), "{edited}");
        // The last of its kind; what stood above it stays.
        let edited = apply(MAP, &[Edit::RemovePin(1), Edit::RemovePin(0)]).unwrap();
        assert!(
            edited.ends_with("key = \"customer_id\"\n\n# Large tenants:\n\n# The end.\n"),
            "{edited}"
        );
        assert!(!edited.contains("[[pin]]"));
        // And what was taken away can be put back.
        assert!(apply(&edited, &[pin("1")]).unwrap().contains("[[pin]]"));
        assert_eq!(apply(MAP, &[Edit::RemovePin(9)]).unwrap(), MAP);
    }

    #[test]
    fn line_ends_stay_as_they_are() {
        let dos = MAP.replace('\n', "\r\n");
        let edited = apply(&dos, &[pin("1")]).unwrap();
        assert_eq!(
            edited.replace("\r\n", "\n"),
            apply(MAP, &[pin("1")]).unwrap()
        );
        assert!(!edited.replace("\r\n", "").contains('\n'));
        let mixed = dos.replacen("\r\n", "\n", 1);
        assert_eq!(apply(&mixed, &[pin("1")]), Err(EditError::Format));
        assert_eq!(apply("\u{feff}a = 1\n", &[]), Err(EditError::Format));
    }

    #[test]
    fn whatever_way_a_map_is_written_it_stays_so() {
        let map = "cluster = { name = 'shop' }\ncluster.database = \"x\"\n";
        assert!(matches!(apply(map, &[]), Err(EditError::Toml(_))));
        let map = "ring.virtual_nodes = 10\ncluster = { name = 'shop', database = 'x' }\n[[shard]] # one\n  \
             name = 's0'\n  nodes = [\n    'h:1', # left\n    # right\n    'h:2',\n  ]\n[[shard]]\nname='s1'\nnodes=['h:3']\n\
             #[[pin]]\n#slots = '7'\n";
        assert_eq!(apply(map, &[]).unwrap(), map);
        let headed = |header| map.replacen("[[shard]]", header, 1);
        for header in ["\t[[shard]]", "[[shard]]  "] {
            assert_eq!(apply(&headed(header), &[]), Ok(headed(header)));
        }
        // These spaces would go.
        assert_eq!(apply(&headed("[[ shard ]]"), &[]), Err(EditError::Format));
        let edits = [Edit::Weigh {
            shard: 0,
            weight: 0,
        }];
        assert_eq!(difference(map, &edits), ["+weight = 0"]);
        let edits = [pin("1"), Edit::RemovePin(0)];
        assert_eq!(apply(map, &edits).unwrap(), map);
        let end = "[[shard]]\nname='s1'\nnodes=['h:3']\n";
        let edits = [Edit::RemoveShard(1)];
        assert_eq!(apply(map, &edits).unwrap(), map.replace(end, ""));
        // A key of whatever characters.
        let keys = [
            "a\"b",
            "it's",
            "x\ny",
            "\\",
            "\u{7f}\t",
            "\u{1f418}",
            "'''\"\"\"",
        ];
        for key in keys {
            let edited = apply(map, &[pin(key)]).unwrap();
            let read: toml::Table = edited.parse().unwrap();
            assert_eq!(read["pin"][0]["key"].as_str(), Some(key));
        }
    }

    #[test]
    fn what_cannot_be_changed_in_place_is_left_alone() {
        let inline = "pin = [{ slots = \"1\", shard = \"s0\" }]\n";
        assert_eq!(apply(inline, &[pin("1")]), Err(EditError::Inline("pin")));
        assert!(matches!(apply("[[pin]\n", &[]), Err(EditError::Toml(_))));
    }
}
