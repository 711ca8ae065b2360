//! The same statements on one PostgreSQL and on four shards through the router: rows, their order where ORDER BY is
//! total, column names and types, command tags and errors must be equal, by the simple protocol with text and by the
//! extended one with binary results. What the router refuses is no difference but must be marked in the case files,
//! so that nothing is refused by accident and nothing stays refused unnoticed.
//!
//! `cases/*.sql`: statements separated by empty lines. A first line `-- refused: code` says that the router must
//! refuse, `-- unordered` that an ORDER BY inside does not fix the order of the rows, `-- ordered` that
//! something else does, `-- fails: code` that PostgreSQL
//! itself says no. `UPDATE_EXPECT=1` rewrites the marks of refusals. `PGRING_DIFFERENTIAL_SEED` and `PGRING_DIFFERENTIAL_STATEMENTS` are for long runs of the
//! generator; a failure prints its seed and the smallest statement found that still differs.

#[path = "../integration/support/mod.rs"]
mod support;

mod aggregates;
mod compare;
mod everyday;
mod generator;
mod random;
mod schema;
mod tpch;

use compare::{Pair, Verdict};
use random::Random;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use support::setting;

#[test]
fn the_cases_agree_with_one_postgresql() {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = String::new();
    let mut refused = BTreeMap::<String, usize>::new();
    let mut count = 0;
    let deployment = schema::deploy();
    for file in case_files() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut pair = schema::fill(&deployment);
        let text = fs::read_to_string(&file).expect("read a case file");
        let mut rewritten = Vec::new();
        for paragraph in text.split("\n\n") {
            let case = Case::parse(paragraph);
            if case.sql.is_empty() {
                rewritten.push(paragraph.trim_end().to_owned());
                continue;
            }
            count += 1;
            let verdict = pair.run(&case.sql, case.ordered);
            rewritten.push(case.marked(&verdict));
            match (&verdict, &case.refused) {
                (Verdict::Refused(code), expected) => {
                    *refused.entry(code.clone()).or_default() += 1;
                    if expected.as_ref() != Some(code) {
                        writeln!(
                            wrong,
                            "{name}: {}\n  refused with {code}, marked {expected:?}",
                            case.sql
                        )
                        .unwrap();
                    }
                }
                (Verdict::Same, None) => {}
                (Verdict::Same, Some(_)) => {
                    writeln!(
                        wrong,
                        "{name}: {}\n  is no longer refused: take its mark off",
                        case.sql
                    )
                    .unwrap();
                }
                (Verdict::Different(how), _) => {
                    writeln!(wrong, "{name}: {}\n{how}", case.sql).unwrap()
                }
            }
        }
        if let Err(how) = pair.same_state(&schema::TABLES) {
            writeln!(wrong, "{name}: the tables differ at the end: {how}").unwrap();
        }
        if update {
            fs::write(&file, rewritten.join("\n\n") + "\n").expect("write a case file");
        }
    }
    println!("{count} cases, refused: {refused:?}");
    assert!(wrong.is_empty() || update, "\n{wrong}");
}

#[test]
fn generated_statements_agree_with_one_postgresql() {
    let seed = setting("PGRING_DIFFERENTIAL_SEED", 1);
    let statements = setting("PGRING_DIFFERENTIAL_STATEMENTS", 300);
    let deployment = schema::deploy();
    let mut pair = schema::fill(&deployment);
    let mut random = Random::new(seed);
    let mut refused = BTreeMap::<String, (usize, String)>::new();
    for number in 0..statements {
        let statement = generator::statement(&mut random);
        let sql = statement.sql();
        match pair.run(&sql, statement.is_ordered()) {
            Verdict::Same => {}
            Verdict::Refused(code) => refused.entry(code).or_insert((0, sql.clone())).0 += 1,
            Verdict::Different(how) => {
                let smallest = statement.shrink(|smaller| {
                    let mut pair = schema::fill(&deployment);
                    matches!(
                        pair.run(&smaller.sql(), smaller.is_ordered()),
                        Verdict::Different(_)
                    )
                });
                panic!(
                    "seed {seed}, statement {number}: {sql}\n{how}\nsmallest: {}",
                    smallest.sql()
                );
            }
        }
        if statement.writes()
            && let Err(how) = pair.same_state(&schema::TABLES)
        {
            panic!("seed {seed}, statement {number}: {sql}\nleft different tables: {how}");
        }
    }
    let total: usize = refused.values().map(|(count, _)| count).sum();
    println!("{statements} statements, {total} refused:");
    for (code, (count, example)) in &refused {
        println!("  {count} {code}, such as: {example}");
    }
    let half = usize::try_from(statements).unwrap() / 2;
    assert!(
        total <= half,
        "more than half of what the generator makes is refused: {total}"
    );
}

#[test]
fn what_the_generator_makes_is_valid() {
    let deployment = support::Deployment::shared()
        .shards(1)
        .schema(schema::SCHEMA)
        .plain()
        .start();
    let mut one = deployment.one().connect();
    schema::rows()
        .iter()
        .for_each(|insert| drop(one.run(insert)));
    let mut random = Random::new(7);
    for _ in 0..300 {
        let sql = generator::statement(&mut random).sql();
        if let Some(failure) = one.simple(&sql).failure {
            assert_eq!(failure.code(), "23505", "{sql}: {failure}");
        }
    }
}

#[test]
fn the_cases_succeed_on_one_postgresql_unless_marked() {
    let deployment = support::Deployment::shared()
        .shards(1)
        .schema(schema::SCHEMA)
        .plain()
        .start();
    let mut one = deployment.one().connect();
    let mut wrong = String::new();
    for file in case_files() {
        schema::empty(&mut one);
        schema::rows()
            .iter()
            .for_each(|insert| drop(one.run(insert)));
        let text = fs::read_to_string(&file).expect("read a case file");
        for case in text
            .split("\n\n")
            .map(Case::parse)
            .filter(|case| !case.sql.is_empty())
        {
            let failure = one.simple(&case.sql).failure;
            if failure.as_ref().map(|failure| failure.code()) != case.fails.as_deref() {
                writeln!(wrong, "{}\n  failed: {failure:?}", case.sql).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn a_difference_is_noticed() {
    let deployment = support::Deployment::shared()
        .shards(1)
        .schema(schema::SCHEMA)
        .plain()
        .start();
    let mut pair = Pair::new(
        deployment.one().connect(),
        deployment.one().connect(),
        Vec::new(),
    );
    assert_eq!(pair.run("SELECT 1", true), Verdict::Same);
    for differing in [
        "SELECT pg_backend_pid()",
        "SELECT 1 FROM generate_series(1, 2 + pg_backend_pid() % 2) UNION ALL SELECT pg_backend_pid()",
        "DO $$ BEGIN RAISE 'pid %', pg_backend_pid(); END $$",
    ] {
        assert!(
            matches!(pair.run(differing, false), Verdict::Different(_)),
            "{differing}"
        );
    }
}

/// One statement of a case file.
struct Case {
    comments: Vec<String>,
    sql: String,
    refused: Option<String>,
    fails: Option<String>,
    ordered: bool,
}

impl Case {
    fn parse(paragraph: &str) -> Self {
        let (mut comments, mut sql, mut unordered) = (Vec::new(), Vec::new(), false);
        let mut in_order = false;
        let (mut refused, mut fails) = (None, None);
        for line in paragraph.trim_end().lines() {
            if let Some(code) = line.strip_prefix("-- refused: ") {
                refused = Some(code.trim().to_owned());
            } else if line.starts_with("--") {
                unordered |= line == "-- unordered";
                in_order |= line == "-- ordered";
                fails = fails.or(line
                    .strip_prefix("-- fails: ")
                    .map(|code| code.trim().to_owned()));
                comments.push(line.to_owned());
            } else {
                sql.push(line);
            }
        }
        let sql = sql.join("\n").trim().trim_end_matches(';').to_owned();
        let ordered = in_order || !unordered && sql.to_uppercase().contains("ORDER BY");
        Self {
            comments,
            sql,
            refused,
            fails,
            ordered,
        }
    }

    /// The case as it should stand in its file, given what happened.
    fn marked(&self, verdict: &Verdict) -> String {
        let mut lines = self.comments.clone();
        if let Verdict::Refused(code) = verdict {
            lines.push(format!("-- refused: {code}"));
        }
        lines.push(format!("{};", self.sql));
        lines.join("\n")
    }
}

fn case_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/cases");
    let entries = fs::read_dir(folder).expect("the folder of cases");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}
