//! The formats of EXPLAIN: in which one a plan is asked for, what type its column has, and where the routing stands in it.
//! (PostgreSQL's chapter "EXPLAIN".)

use crate::wire::backend_message::ColumnDescription;
use std::borrow::Cow;
use std::fmt::Write;

/// The FORMAT of EXPLAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlanFormat {
    /// Lines.
    Text,
    /// An array of objects.
    Json,
    /// An element with elements.
    Xml,
    /// A list.
    Yaml,
}

impl PlanFormat {
    /// That of the options, folded, with their values as written. What is no format is PostgreSQL's to report.
    pub fn of(options: &[(Cow<'_, str>, Option<&str>)]) -> Self {
        let mut formats = options.iter().filter(|(name, _)| name == "format");
        let format = formats.next_back().and_then(|(_, value)| *value);
        let format = format.unwrap_or_default().trim_matches(['\'', '"']);
        let is = |name: &str| format.eq_ignore_ascii_case(name);
        match () {
            () if is("json") => Self::Json,
            () if is("xml") => Self::Xml,
            () if is("yaml") => Self::Yaml,
            () => Self::Text,
        }
    }

    /// The one column of EXPLAIN.
    pub fn column(self) -> ColumnDescription<'static> {
        let type_oid = match self {
            Self::Text | Self::Yaml => 25,
            Self::Json => 114,
            Self::Xml => 142,
        };
        ColumnDescription {
            type_oid,
            ..ColumnDescription::text("QUERY PLAN")
        }
    }

    /// One document of those of several shards, in order, and of the routing's lines. Not for [`Self::Text`].
    pub fn document(self, shards: &[(&str, String)], routing: &[String]) -> String {
        let documents = shards.iter().map(|(_, document)| document.trim());
        match self {
            Self::Text => documents.collect::<Vec<_>>().join("\n"),
            Self::Json => {
                let mut parts: Vec<String> = documents
                    .map(|document| {
                        let inside = document.strip_prefix('[').unwrap_or(document);
                        let inside = inside.strip_suffix(']').unwrap_or(inside);
                        inside.trim_matches('\n').to_owned()
                    })
                    .collect();
                parts.push(format!(
                    "  {{\n    \"Routing\": [{}],\n    \"Shards\": [{}]\n  }}",
                    listed(routing.iter().map(|line| quoted(line))),
                    listed(shards.iter().map(|(name, _)| quoted(name))),
                ));
                format!("[\n{}\n]", parts.join(",\n"))
            }
            Self::Yaml => {
                let mut parts: Vec<String> = documents.map(str::to_owned).collect();
                parts.push(format!(
                    "- Routing: [{}]\n  Shards: [{}]",
                    listed(routing.iter().map(|line| quoted(line))),
                    listed(shards.iter().map(|(name, _)| quoted(name))),
                ));
                parts.join("\n")
            }
            Self::Xml => {
                let mut document =
                    "<explain xmlns=\"http://www.postgresql.org/2009/explain\">\n".to_owned();
                for whole in documents {
                    let inside = whole.split_once('\n').map_or("", |(_, rest)| rest);
                    let inside = inside.strip_suffix("</explain>").unwrap_or(inside);
                    document.push_str(inside);
                }
                document.push_str("  <Routing>\n");
                let names = shards.iter().map(|(name, _)| ("Shard", *name));
                let lines = routing.iter().map(|line| ("Line", line.as_str()));
                for (element, text) in lines.chain(names) {
                    let text = escaped(text);
                    let _ = writeln!(document, "    <{element}>{text}</{element}>");
                }
                document.push_str("  </Routing>\n</explain>");
                document
            }
        }
    }
}

fn listed(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// A string of JSON, which is one of YAML too.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\n' => quoted.push_str("\\n"),
            '\u{0}'..='\u{1f}' => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(character));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

/// Text of XML.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}
