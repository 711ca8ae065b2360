//! House rules as tests: floors, purity, file heads. The floors are read from the table in `src/lib.rs`, so that
//! the map that people read is the one that holds. Each rule is a plain function over a file's text, and each is
//! shown to find a planted violation.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const MAIN_LINES_MAX: usize = 80;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// All Rust files below these folders: path from the root, and text.
fn sources(folders: &[&str]) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    for folder in folders {
        walk(&root().join(folder), &mut found);
    }
    found.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (
            path.strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned(),
            text,
        )
    };
    found.into_iter().map(read).collect()
}

/// Runs a rule over files and fails with all that it found.
fn enforce(files: &[(String, String)], rule: impl Fn(&str, &str) -> Vec<String>) {
    assert!(!files.is_empty(), "no files to check");
    let found = |(file, text): &(String, String)| -> Vec<String> {
        rule(file, text)
            .into_iter()
            .map(|what| format!("{file}: {what}"))
            .collect()
    };
    let all: Vec<String> = files.iter().flat_map(found).collect();
    assert!(
        all.is_empty(),
        "{} violations:\n{}",
        all.len(),
        all.join("\n")
    );
}

// --- Reading Rust: just enough of it ------------------------------------------------------------------------------

/// Identifiers, lifetimes, `::` and single punctuation characters; comments and literals are left out.
fn tokens(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut tokens: Vec<String> = Vec::new();
    let mut i = 0;
    while i < chars.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < chars.len() && at(i) != '\n' {
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 1;
            i += 2;
            while i < chars.len() && depth > 0 {
                match (at(i), at(i + 1)) {
                    ('/', '*') => (depth, i) = (depth + 1, i + 2),
                    ('*', '/') => (depth, i) = (depth - 1, i + 2),
                    _ => i += 1,
                }
            }
        } else if c == '"' {
            i += 1;
            while i < chars.len() && at(i) != '"' {
                i += if at(i) == '\\' { 2 } else { 1 };
            }
            i += 1;
        } else if c == '\'' && (at(i + 1) == '\\' || at(i + 2) == '\'') {
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < chars.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else if is_word(c) || c == '\'' {
            let start = i;
            i += 1;
            while is_word(at(i)) {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            let raw = matches!(word.as_str(), "r" | "br" | "cr");
            let hashes = (i..).take_while(|&j| raw && at(j) == '#').count();
            if raw && at(i + hashes) == '"' {
                let end: Vec<char> = std::iter::once('"')
                    .chain(std::iter::repeat_n('#', hashes))
                    .collect();
                i += hashes + 1;
                while i < chars.len() && !chars[i..].starts_with(&end) {
                    i += 1;
                }
                i += end.len();
            } else {
                tokens.push(word);
            }
        } else if c == ':' && at(i + 1) == ':' {
            tokens.push("::".to_owned());
            i += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            i += 1;
        }
    }
    tokens
}

fn is_identifier(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Each path in the tokens, the groups of `use` spread out, with the number of inline modules around it.
fn paths(tokens: &[String]) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    let mut braces: Vec<bool> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        match tokens[i].as_str() {
            "{" => braces.push(i >= 2 && tokens[i - 2] == "mod"),
            "}" => drop(braces.pop()),
            token if is_identifier(token) => {
                let inline_modules = braces.iter().filter(|is_module| **is_module).count();
                let mut spread = Vec::new();
                i = path(tokens, i, &[], &mut spread);
                found.extend(spread.into_iter().map(|path| (inline_modules, path)));
                continue;
            }
            _ => {}
        }
        i += 1;
    }
    found
}

/// Reads one path from `start`; gives the index after it.
fn path(tokens: &[String], start: usize, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut i = start;
    loop {
        match tokens.get(i).map(String::as_str) {
            Some("{") if !path.is_empty() => {
                i += 1;
                while tokens.get(i).is_some_and(|token| token != "}") {
                    i = if tokens[i] == "," {
                        i + 1
                    } else {
                        self::path(tokens, i, &path, found)
                    };
                }
                return i + 1;
            }
            Some(token) if is_identifier(token) => path.push(token.to_owned()),
            // A glob or a turbofish: nothing more to know.
            _ => {
                found.push(path);
                return i + 1;
            }
        }
        i += 1;
        if tokens.get(i).is_none_or(|token| token != "::") {
            if tokens.get(i).is_some_and(|token| token == "as") {
                i += 2;
            }
            found.push(path);
            return i;
        }
        i += 1;
    }
}

// --- Floors -------------------------------------------------------------------------------------------------------

/// Module → floor, from the rows `//! | 4 | [`executor`], [`transaction`] | … |` of lib.rs.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in lib.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!", floor, modules, ..] = cells[..] else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        for module in modules.split(',') {
            floors.insert(
                module.trim().trim_matches(['[', ']', '`']).to_owned(),
                floor,
            );
        }
    }
    floors
}

/// The modules that lib.rs declares.
fn declared(lib: &str) -> Vec<String> {
    let tokens = tokens(lib);
    tokens
        .windows(2)
        .filter(|pair| pair[0] == "mod")
        .map(|pair| pair[1].clone())
        .collect()
}

/// `src/wire/frame.rs` → `wire`, `frame`; `src/wire/mod.rs` → `wire`; `src/lib.rs` → nothing.
fn module_path(file: &str) -> Vec<&str> {
    let inside = file
        .strip_prefix("src/")
        .unwrap_or(file)
        .trim_end_matches(".rs");
    let mut path: Vec<&str> = inside.split('/').collect();
    if matches!(path.last(), Some(&"mod" | &"lib" | &"main")) {
        path.pop();
    }
    path
}

fn floor_violations(file: &str, text: &str, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let module = module_path(file);
    let Some(&own) = module.first() else {
        return Vec::new();
    };
    let Some(floor) = floors.get(own) else {
        return vec![format!("\"{own}\" has no floor in lib.rs")];
    };
    let mut violations = Vec::new();
    for (inline_modules, path) in paths(&tokens(text)) {
        let supers = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let other = match path[0].as_str() {
            "crate" => path.get(1),
            "super" if supers == module.len() + inline_modules => path.get(supers),
            _ => continue,
        };
        let Some(other) = other.filter(|other| *other != own) else {
            continue;
        };
        match floors.get(other) {
            None => violations.push(format!(
                "{} is no module of lib.rs's table",
                path.join("::")
            )),
            Some(other_floor) if other_floor >= floor => {
                violations.push(format!(
                    "floor {floor} imports {} of floor {other_floor}",
                    path.join("::")
                ));
            }
            Some(_) => {}
        }
    }
    violations
}

#[test]
fn modules_import_lower_floors_only() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let floors = floors(&lib);
    enforce(&sources(&["src"]), |file, text| {
        floor_violations(file, text, &floors)
    });
}

#[test]
fn the_table_of_floors_names_each_module_once() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut declared = declared(&lib);
    declared.sort();
    let named: Vec<String> = floors(&lib).into_keys().collect();
    assert_eq!(named, declared);
}

#[test]
fn an_import_of_the_same_or_a_higher_floor_is_found() {
    let lib = "//! | 3 | [`planner`], [`backend`] | x |\n//! | 2 | [`sql`] | y |\n//! | Floor | Modules | |\n";
    let floors = floors(lib);
    assert_eq!(floors.len(), 3);
    let count = |file: &str, text: &str| floor_violations(file, text, &floors).len();
    // What is allowed.
    assert_eq!(
        count(
            "src/planner/mod.rs",
            "use crate::sql::lex; use crate::planner::plan; use super::sql;"
        ),
        0
    );
    assert_eq!(
        count(
            "src/planner/plan.rs",
            "use super::super::sql; mod tests { use super::super::plan; use super::*; }"
        ),
        0
    );
    assert_eq!(
        count(
            "src/sql/mod.rs",
            "// crate::planner\n/* crate::planner /* nested */ */ const A: &str = \"crate::planner\";"
        ),
        0
    );
    assert_eq!(
        count(
            "src/sql/mod.rs",
            "const A: &str = r#\"\"crate::planner\"#; const B: char = '\"'; fn f<'a>(a: &'a u8) {}"
        ),
        0
    );
    // What is not.
    assert_eq!(count("src/planner/mod.rs", "use crate::backend::pool;"), 1);
    assert_eq!(
        count(
            "src/sql/lex.rs",
            "fn f() -> crate::planner::Plan { crate::planner::plan::<u8>() }"
        ),
        2
    );
    assert_eq!(
        count(
            "src/sql/lex.rs",
            "use crate::{planner::{self, plan as p}, sql::x, backend};"
        ),
        3
    );
    assert_eq!(count("src/sql/lex.rs", "use super::super::planner;"), 1);
    assert_eq!(
        count("src/sql/mod.rs", "mod tests { use super::super::planner; }"),
        1
    );
    assert_eq!(
        count(
            "src/sql/mod.rs",
            "const A: char = '\\''; use crate::planner::*;"
        ),
        1
    );
    assert_eq!(count("src/sql/mod.rs", "use crate::stray;"), 1);
    assert_eq!(count("src/stray/mod.rs", ""), 1);
}

// --- Purity -------------------------------------------------------------------------------------------------------

fn is_pure(file: &str) -> bool {
    let module = module_path(file);
    match module[..] {
        ["wire", "stream", ..] => false,
        ["sql" | "topology" | "planner" | "wire", ..] | ["executor", "merge", ..] => true,
        _ => matches!(
            module.last(),
            Some(&"state" | &"phase" | &"two_phase" | &"move_plan" | &"gid")
        ),
    }
}

fn purity_violations(file: &str, text: &str) -> Vec<String> {
    if !file.starts_with("src/") || !is_pure(file) {
        return Vec::new();
    }
    let tokens = tokens(text);
    let words = ["async", "await", "Instant", "SystemTime", "tokio"];
    let mut violations: Vec<String> = tokens
        .iter()
        .filter(|token| words.contains(&token.as_str()))
        .map(|word| format!("a pure module says {word}"))
        .collect();
    let outside = ["net", "fs", "process", "thread", "env"];
    for (_, path) in paths(&tokens) {
        if path[0] == "std"
            && path
                .get(1)
                .is_some_and(|module| outside.contains(&module.as_str()))
        {
            violations.push(format!("a pure module uses {}", path.join("::")));
        }
    }
    violations
}

#[test]
fn pure_modules_do_no_io() {
    enforce(&sources(&["src"]), purity_violations);
}

#[test]
fn io_in_a_pure_module_is_found() {
    for impure in [
        "use tokio::net::TcpStream;",
        "use std::net::IpAddr;",
        "use std::{fmt, fs::File};",
        "fn f() { std::fs::read(\"x\"); }",
        "async fn f() {}",
        "use std::time::Instant;",
        "fn f() { std::time::SystemTime::now(); }",
        "use std::io; use std::env;",
    ] {
        for file in [
            "src/sql/lex.rs",
            "src/wire/mod.rs",
            "src/executor/merge.rs",
            "src/executor/merge/tree.rs",
            "src/transaction/state.rs",
            "src/transaction/gid.rs",
        ] {
            assert_eq!(purity_violations(file, impure).len(), 1, "{file}: {impure}");
        }
        for file in [
            "src/wire/stream.rs",
            "src/executor/relay.rs",
            "src/cli/mod.rs",
            "tests/state.rs",
        ] {
            assert_eq!(purity_violations(file, impure), [""; 0], "{file}: {impure}");
        }
    }
    assert_eq!(
        purity_violations(
            "src/sql/lex.rs",
            "// tokio\nuse std::time::Duration; use std::io::Write;"
        ),
        [""; 0]
    );
}

// --- The rest -----------------------------------------------------------------------------------------------------

fn head_violations(_: &str, text: &str) -> Vec<String> {
    let first = text.lines().next().unwrap_or_default();
    let says_something = first
        .strip_prefix("//! ")
        .is_some_and(|words| words.len() > 10);
    if says_something {
        Vec::new()
    } else {
        vec!["does not open with //! and what it owns".to_owned()]
    }
}

#[test]
fn each_file_says_what_it_owns() {
    enforce(&sources(&["src", "tests", "benches"]), head_violations);
}

#[test]
fn a_file_without_a_head_is_found() {
    assert_eq!(
        head_violations("", "//! Owns the frames of the protocol.\n").len(),
        0
    );
    for bad in [
        "",
        "use std::fmt;\n",
        "//!\n//! Owns it.\n",
        "// Owns the frames of the protocol.\n",
        "\n//! Owns the frames.\n",
    ] {
        assert_eq!(head_violations("", bad).len(), 1, "{bad:?}");
    }
}

fn word_violations(file: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let follows =
        |index: usize, next: &str| tokens.get(index + 1).is_some_and(|token| token == next);
    let mut violations = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let unfinished =
            matches!(token.as_str(), "todo" | "unimplemented" | "dbg") && follows(index, "!");
        let parser = token == "sqlparser" && file != "src/sql/parse.rs";
        if unfinished || parser || token == "unsafe" {
            violations.push(format!("says {token}"));
        }
    }
    violations
}

#[test]
fn nothing_is_unsafe_or_unfinished_and_one_file_names_the_parser() {
    enforce(&sources(&["src", "tests", "benches"]), word_violations);
}

#[test]
fn unsafe_unfinished_and_parser_naming_code_is_found() {
    for bad in [
        "unsafe { f() }",
        "todo!()",
        "unimplemented!(\"x\")",
        "dbg!(x);",
        "use sqlparser::ast;",
        "sqlparser::parse()",
    ] {
        assert_eq!(word_violations("src/sql/mod.rs", bad).len(), 1, "{bad}");
    }
    assert_eq!(
        word_violations(
            "src/sql/parse.rs",
            "use sqlparser::ast; #![forbid(unsafe_code)] fn todo() {} // dbg!(x)"
        ),
        [""; 0]
    );
}

fn main_violations(_: &str, text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines < MAIN_LINES_MAX {
        Vec::new()
    } else {
        vec![format!(
            "{lines} lines: less than {MAIN_LINES_MAX} are allowed"
        )]
    }
}

#[test]
fn main_is_short() {
    let main: Vec<_> = sources(&["src"])
        .into_iter()
        .filter(|(file, _)| file == "src/main.rs")
        .collect();
    enforce(&main, main_violations);
}

#[test]
fn a_long_main_is_found() {
    assert_eq!(main_violations("", &"\n".repeat(79)).len(), 0);
    assert_eq!(main_violations("", &"\n".repeat(80)).len(), 1);
}

/// What may stand at the top level; tool settings are dotfiles.
const TOP_LEVEL: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "README.md",
    "benches",
    "shard-config",
    "src",
    "tests",
];

fn top_level_violations(names: &[String]) -> Vec<String> {
    let stray = |name: &&String| {
        !name.starts_with('.') && *name != "target" && !TOP_LEVEL.contains(&name.as_str())
    };
    names
        .iter()
        .filter(stray)
        .map(|name| format!("{name} stands at the top level"))
        .collect()
}

#[test]
fn the_top_level_holds_what_it_should() {
    let entries = fs::read_dir(root()).unwrap();
    let names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(top_level_violations(&names), [""; 0]);
}

#[test]
fn a_stray_file_at_the_top_level_is_found() {
    let names = ["src", ".ci", "target", "notes.txt"].map(str::to_owned);
    assert_eq!(
        top_level_violations(&names),
        ["notes.txt stands at the top level"]
    );
}

/// The refusals that the README's table names, in its last column: codes in parentheses.
fn readme_codes(readme: &str) -> Vec<String> {
    let rows = readme
        .lines()
        .filter(|line| line.starts_with('|') && line.matches('|').count() == 4);
    let cells = rows.filter_map(|row| row.rsplit('|').nth(1));
    let mut codes = Vec::new();
    for cell in cells {
        for parenthesis in cell
            .split('(')
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let quoted = parenthesis.split('`').skip(1).step_by(2);
            codes.extend(quoted.map(str::to_owned));
        }
    }
    codes
}

#[test]
fn the_readme_names_refusals_that_exist() {
    let codes = readme_codes(&fs::read_to_string(root().join("README.md")).unwrap());
    assert!(codes.len() > 20, "only {} codes found", codes.len());
    let sources = sources(&["src"]);
    let is_there = |code: &&String| {
        sources
            .iter()
            .any(|(_, text)| text.contains(&format!("\"{code}\"")))
    };
    let missing: Vec<&String> = codes.iter().filter(|code| !is_there(code)).collect();
    assert!(missing.is_empty(), "no source says {missing:?}");
}

#[test]
fn codes_are_read_from_the_last_column_only() {
    let row = "| Writes (`no`) | `INSERT` (`no`) | Keys (`key-update`), `SET` (`a`, `b`) |\n| two | (`no`) |\n";
    assert_eq!(readme_codes(row), ["key-update", "a", "b"]);
}

/// The codes that `src/planner/refusal.rs` has: each with when, and what to do instead.
fn refusals(text: &str) -> Vec<[String; 3]> {
    let mut found = Vec::new();
    let strings = |line: &str| -> Vec<String> {
        let line = line.replace("\\\"", "\u{1}").replace("\\\\", "\\");
        let strings = line.split('"').skip(1).step_by(2);
        strings.map(|text| text.replace('\u{1}', "\"")).collect()
    };
    let mut when: Vec<&str> = Vec::new();
    let table = text.split("\nrefusals! {").nth(1).unwrap_or_default();
    let table = table.split("\n}").next().unwrap_or_default();
    for line in table.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("/// ") {
            when.push(doc);
        } else if let [code, hint] = strings(line).as_slice() {
            found.push([code.clone(), when.join(" "), hint.clone()]);
            when.clear();
        }
    }
    let others = text.split("OTHER_CODES").nth(1).unwrap_or_default();
    let others = others.split("];").next().unwrap_or_default();
    for entry in strings(others).chunks(3) {
        found.push([entry[0].clone(), entry[1].clone(), entry[2].clone()]);
    }
    found.sort();
    found
}

/// The codes that a source gives to clients, beside those of the planner.
fn codes_given(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let literal = |text: &str, index: usize| -> Option<String> {
        text.split('"').nth(2 * index + 1).map(str::to_owned)
    };
    let named = text.split("code: \"").skip(1);
    let named = named.filter_map(|rest| rest.split('"').next().map(str::to_owned));
    let answered = text
        .split("fn refusal(&self)")
        .skip(1)
        .flat_map(|function| {
            let function = function.split("\n    }").next().unwrap_or_default();
            let some = function.split("Some(\"").skip(1);
            some.filter_map(|rest| rest.split('"').next().map(str::to_owned))
                .collect::<Vec<_>>()
        });
    // The second argument of a call.
    let called = text
        .split(" refused(")
        .chain(text.split("(refused("))
        .skip(1);
    let called = called.filter_map(|rest| literal(rest.split(");").next()?, 1));
    let called = called.filter(|code| code.contains('-'));
    let is_code = |code: &String| {
        !code.is_empty()
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-')
    };
    named
        .chain(answered)
        .chain(called)
        .filter(is_code)
        .collect()
}

#[test]
fn the_readme_lists_every_refusal_once() {
    const FIRST: &str = "| Code | When | Instead |\n|---|---|---|\n";
    let source = fs::read_to_string(root().join("src/planner/refusal.rs")).unwrap();
    let refusals = refusals(&source);
    let codes: Vec<&String> = refusals.iter().map(|[code, ..]| code).collect();
    assert!(codes.len() > 70, "only {} codes found", codes.len());
    assert!(codes.windows(2).all(|pair| pair[0] != pair[1]), "{codes:?}");
    let mut given: Vec<String> = sources(&[
        "src/frontend",
        "src/executor",
        "src/admin",
        "src/transaction",
    ])
    .iter()
    .flat_map(|(_, text)| codes_given(text))
    .collect();
    given.sort();
    given.dedup();
    assert!(given.len() >= 18, "only {given:?}");
    let unlisted: Vec<_> = given.iter().filter(|code| !codes.contains(code)).collect();
    assert!(unlisted.is_empty(), "refusal.rs does not list {unlisted:?}");

    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
    let rows = refusals.iter().map(|[code, when, instead]| {
        format!("| `{code}` | {} | {} |\n", cell(when), cell(instead))
    });
    let table: String = rows.collect();
    let path = root().join("README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(FIRST).expect("a table of codes");
    let after = rest.find("\n\n").map_or("", |end| &rest[end + 1..]);
    let expected = format!("{before}{FIRST}{table}{after}");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &expected).unwrap();
    } else if readme != expected {
        let other = readme
            .lines()
            .zip(expected.lines())
            .find(|(one, other)| one != other);
        panic!(
            "README.md has another table of refusals, first: {other:#?}; UPDATE_EXPECT=1 writes it"
        );
    }
}

#[test]
fn codes_are_found_where_they_are_given() {
    let text = "Err(refused(\n \"BEGIN\",\n \"begin-modes\",\n \"why\")); x { code: \"fastpath\", }\n\
        fn refusal(&self) -> X {\n match self { A => Some(\"b-c\"), B => None }\n    }";
    assert_eq!(codes_given(text), ["fastpath", "b-c", "begin-modes"]);
}

/// How many behaviours `tests/behaviours.md` lists.
const BEHAVIOURS: usize = 83;

/// What is wrong with the table of behaviours: numbers that are missing or out of order, rows without a test that do not
/// say what they wait for, and tests, for which `is_there` is asked, that are not there.
fn behaviour_violations(table: &str, is_there: impl Fn(&str) -> bool) -> Vec<String> {
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| # "))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    let mut violations = Vec::new();
    if rows.len() != BEHAVIOURS {
        violations.push(format!("{} rows", rows.len()));
    }
    for (row, number) in rows.iter().zip(1..) {
        let &[written, _, answer, shown] = row.as_slice() else {
            violations.push(format!("row {number} has {} columns", row.len()));
            continue;
        };
        if written != number.to_string() {
            violations.push(format!("{written} stands where {number} should"));
        }
        let tests: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if tests.is_empty() && !answer.contains("to come") {
            violations.push(format!("nothing shows {number}"));
        }
        let missing = tests.into_iter().filter(|test| !is_there(test));
        violations.extend(missing.map(|test| format!("{number}: there is no {test}")));
    }
    violations
}

#[test]
fn every_behaviour_is_shown_by_tests_that_exist() {
    let table = fs::read_to_string(root().join("tests/behaviours.md")).unwrap();
    let files = sources(&["src", "tests"]);
    let is_there = |test: &str| {
        let function = format!("fn {test}()");
        match test.contains('/') {
            true => root().join("tests").join(test).is_file(),
            false => files.iter().any(|(_, text)| text.contains(&function)),
        }
    };
    assert_eq!(behaviour_violations(&table, is_there), [""; 0]);
}

#[test]
fn a_behaviour_without_its_test_is_found() {
    let rows = |shown: &str, last: usize| -> String {
        let row = |number| format!("| {number} | what | relayed | {shown} |\n");
        "| # | Behaviour | | |\n|---|\n".to_owned() + &(1..=last).map(row).collect::<String>()
    };
    let is_there = |test: &str| test == "there";
    assert_eq!(
        behaviour_violations(&rows("`there`", 83), is_there),
        [""; 0]
    );
    assert_eq!(
        behaviour_violations(&rows("`there`", 82), is_there),
        ["82 rows"]
    );
    let missing = behaviour_violations(&rows("`there` `gone`", 83), is_there);
    assert_eq!((missing.len(), &*missing[4]), (83, "5: there is no gone"));
    let empty = behaviour_violations(&rows("words", 83), is_there);
    assert_eq!((empty.len(), &*empty[0]), (83, "nothing shows 1"));
    let swapped = rows("`there`", 83).replace("| 7 |", "| 8 |");
    assert_eq!(
        behaviour_violations(&swapped, is_there),
        ["8 stands where 7 should"]
    );
    let narrow = rows("`there`", 83).replace("| 9 | what", "| 9");
    assert_eq!(
        behaviour_violations(&narrow, is_there),
        ["row 9 has 3 columns"]
    );
}
