//! Real drivers of other languages. Each script gets the URL of an empty database with one sharded table and must end
//! with exit code 0; it runs against plain PostgreSQL first, to show that the script is right, and then through the
//! router over four shards. Drivers are installed below `target/`, in the versions named here. A runtime that this
//! machine lacks is printed as skipped; with `CI=true` that is a failure.

#[path = "../integration/support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use support::deployment::Options;
use support::{Deployment, Target};

/// The table that each script finds empty.
const SCHEMA: &str =
    "CREATE TABLE accounts (aid bigint PRIMARY KEY, name text, balance int CHECK (balance >= 0),
    price numeric, opened timestamptz, photo bytea, tags text[])";

const PSYCOPG: &str = "psycopg[binary]==3.3.9";
const ASYNCPG: &str = "asyncpg==0.32.0";
const NODE_POSTGRES: &str = "pg@8.23.1";
const SQLALCHEMY: &str = "SQLAlchemy==2.0.58 alembic==1.20.1 psycopg[binary]==3.3.9";
const DJANGO: &str = "Django==5.2.19 psycopg[binary]==3.3.9";
const NODE_COPY_STREAMS: &str = "pg-copy-streams@7.0.0";
const PRISMA: &str = "prisma@7.10.0 @prisma/client@7.10.0 @prisma/adapter-pg@7.10.0";
/// An administrator of the console.
const OPERATOR: &str = "[[user]]\nname = \"dba\"\npassword = \"dba\"\nadmin = true\n";
const JDBC_JAR: &str = "/usr/share/java/postgresql.jar";

#[test]
fn psycopg_works() {
    let Some(python) = runtime("python3") else {
        return;
    };
    let folder = installed("psycopg", PSYCOPG, pip);
    passes("psycopg", || {
        python_script(&python, &folder, "psycopg_driver.py")
    });
}

#[test]
fn psycopg_talks_to_the_console() {
    let Some(python) = runtime("python3") else {
        return;
    };
    let folder = installed("psycopg", PSYCOPG, pip);
    let deployment = Deployment::shared().settings(OPERATOR).start();
    let console = deployment.target().user("dba", "dba").database("pgring");
    run(
        "psycopg",
        "the console",
        &with_url(
            &|| python_script(&python, &folder, "psycopg_console.py"),
            &console,
        ),
    );
}

#[test]
fn asyncpg_works() {
    let Some(python) = runtime("python3") else {
        return;
    };
    let folder = installed("asyncpg", ASYNCPG, pip);
    passes("asyncpg", || {
        python_script(&python, &folder, "asyncpg_driver.py")
    });
}

#[test]
fn a_sqlalchemy_application_works() {
    let Some(python) = runtime("python3") else {
        return;
    };
    let folder = installed("sqlalchemy", SQLALCHEMY, pip);
    let declare = |options: Options<'static>| {
        let options = options.reference("countries").sharded("tenants", "id");
        options
            .sharded("customers", "tenant_id")
            .sharded("orders", "tenant_id")
    };
    serves("SQLAlchemy", declare, || {
        python_script(&python, &folder, "sqlalchemy/application.py")
    });
}

#[test]
fn a_django_application_works() {
    let Some(python) = runtime("python3") else {
        return;
    };
    let folder = installed("django", DJANGO, pip);
    let declare = |options: Options<'static>| {
        let options = options
            .reference("shop_country")
            .sharded("shop_tenant", "id");
        let options = options.sharded("shop_customer", "tenant_id");
        let options = options.sharded("shop_order", "tenant_id");
        options.sharded_with_unique_per_shard("shop_note", "tenant_id")
    };
    serves("Django", declare, || {
        python_script(&python, &folder, "django/application.py")
    });
}

#[test]
fn node_postgres_works() {
    let (Some(node), Some(_)) = (runtime("node"), runtime("npm")) else {
        return;
    };
    let folder = installed(
        "node-postgres",
        &format!("{NODE_POSTGRES} {NODE_COPY_STREAMS}"),
        npm,
    );
    passes("node-postgres", || {
        let mut command = Command::new(&node);
        command
            .arg(script("node_postgres_driver.js"))
            .env("NODE_PATH", folder.join("node_modules"));
        command
    });
}

#[test]
fn a_prisma_application_works() {
    let (Some(node), Some(_)) = (runtime("node"), runtime("npm")) else {
        return;
    };
    let schema = fs::read_to_string(script("prisma/schema.prisma")).expect("read the schema");
    let folder = installed("prisma", &format!("{PRISMA}\n{schema}"), prisma);
    // Node looks for the client that was generated beside the script.
    fs::copy(
        script("prisma/application.js"),
        folder.join("application.js"),
    )
    .expect("copy the script");
    passes("Prisma", || {
        let mut command = Command::new(&node);
        command.arg(folder.join("application.js"));
        command
    });
}

#[test]
fn jdbc_works() {
    let Some(command) = jdbc("JdbcDriver") else {
        return;
    };
    passes("JDBC", command);
}

#[test]
fn jdbc_talks_to_the_console() {
    let Some(command) = jdbc("JdbcConsole") else {
        return;
    };
    let deployment = Deployment::shared().settings(OPERATOR).start();
    let console = deployment.target().user("dba", "dba").database("pgring");
    run("JDBC", "the console", &with_url(&command, &console));
}

/// Runs a class of ours; None where this machine lacks what it needs.
fn jdbc(class: &'static str) -> Option<impl Fn() -> Command> {
    let (java, javac) = (runtime("java")?, runtime("javac")?);
    if !Path::new(JDBC_JAR).exists() {
        skipped(JDBC_JAR);
        return None;
    }
    let source = format!("{class}.java");
    let text = fs::read_to_string(script(&source)).expect("read the script");
    let folder = installed(class, &text, |_, folder| {
        let mut command = Command::new(&javac);
        command.args(["-cp", JDBC_JAR, "-d"]).arg(folder);
        command.arg(script(&source));
        command
    });
    Some(move || {
        let mut command = Command::new(&java);
        command.args(["-Xshare:auto", "-XX:TieredStopAtLevel=1", "-cp"]);
        command
            .arg(format!("{JDBC_JAR}:{}", folder.display()))
            .arg(class);
        command
    })
}

#[test]
fn ruby_pg_works() {
    let Some(ruby) = runtime("ruby") else {
        return;
    };
    let has_driver = Command::new(&ruby).args(["-e", "require 'pg'"]).output();
    if !has_driver.is_ok_and(|output| output.status.success()) {
        return skipped("ruby's pg");
    }
    passes("Ruby's pg", || {
        let mut command = Command::new(&ruby);
        command.arg(script("ruby_pg_driver.rb"));
        command
    });
}

/// The program's name if this machine has it.
fn runtime(name: &str) -> Option<PathBuf> {
    let answers = |output: &Output| output.status.success();
    let version = if name.starts_with("java") {
        "-version"
    } else {
        "--version"
    };
    match Command::new(name).arg(version).output() {
        Ok(output) if answers(&output) => Some(name.into()),
        _ => {
            skipped(name);
            None
        }
    }
}

fn skipped(what: &str) {
    assert!(
        std::env::var("CI").as_deref() != Ok("true"),
        "{what} is missing"
    );
    eprintln!("skipped: {what} is missing");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/drivers")
        .join(name)
}

fn python_script(python: &Path, folder: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command
        .arg(script(name))
        .env("PYTHONPATH", folder)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn pip(what: &str, folder: &Path) -> Command {
    let mut command = Command::new("python3");
    let arguments = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--root-user-action=ignore",
    ];
    command
        .args(arguments)
        .arg("--target")
        .arg(folder)
        .args(what.split(' '));
    command
}

fn npm(what: &str, folder: &Path) -> Command {
    let mut command = Command::new("npm");
    command
        .args([
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
        ])
        .arg(folder);
    command.args(what.split(' '));
    command
}

/// Installs Prisma and has it make the client of our schema. Its client compiles queries by WebAssembly; the binary with
/// which its own program would change schemas is not needed, and any program does in its place.
fn prisma(_: &str, folder: &Path) -> Command {
    const STEPS: &str = "set -e; cd \"$1\"; cp \"$2\" .; shift 2;
        npm install --ignore-scripts --no-audit --no-fund --loglevel=error \"$@\";
        PRISMA_SCHEMA_ENGINE_BINARY=$(command -v node) CHECKPOINT_DISABLE=1 \
          node node_modules/prisma/build/index.js generate --schema schema.prisma";
    let mut command = Command::new("sh");
    command.args(["-c", STEPS, "sh"]).arg(folder);
    command.arg(script("prisma/schema.prisma"));
    command.args(PRISMA.split(' '));
    command
}

/// The folder with `what`, installed once; `target/` keeps it.
fn installed(name: &str, what: &str, install: impl Fn(&str, &Path) -> Command) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("drivers")
        .join(name);
    let (marker, wanted) = (folder.join("installed"), what.to_owned());
    if fs::read_to_string(&marker).is_ok_and(|installed| installed == wanted) {
        return folder;
    }
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("make a folder for the driver");
    let output = install(what, &folder)
        .output()
        .unwrap_or_else(|error| panic!("installing {what}: {error}"));
    assert!(
        output.status.success(),
        "installing {what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    fs::write(marker, wanted).expect("remember what is installed");
    folder
}

/// Runs an application that makes its own tables, declared beforehand, on one PostgreSQL, and through the router over
/// one shard and over four. It gets the number of shards as its second argument; 0 is plain PostgreSQL.
fn serves(
    name: &str,
    declare: impl Fn(Options<'static>) -> Options<'static>,
    command: impl Fn() -> Command,
) {
    for shards in [0, 1, 4] {
        let options = declare(Deployment::shared().shards(shards.max(1)));
        let deployment = match shards {
            0 => options.plain().start(),
            _ => options.start(),
        };
        let (against, url) = match shards {
            0 => ("plain PostgreSQL".into(), deployment.one().url()),
            _ => (
                format!("the router over {shards}"),
                deployment.target().url(),
            ),
        };
        let with_shards = || {
            let mut command = command();
            command.arg(&url).arg(shards.to_string());
            command
        };
        let started = std::time::Instant::now();
        run(name, &against, &with_shards);
        eprintln!("{name} against {against}: {:?}", started.elapsed());
        assert_eq!(deployment.prepared(), [""; 0]);
    }
}

/// Runs the script on one PostgreSQL and through the router.
fn passes(name: &str, command: impl Fn() -> Command) {
    let plain = Deployment::shared()
        .shards(1)
        .schema(SCHEMA)
        .plain()
        .start();
    run(name, "plain PostgreSQL", &with_url(&command, &plain.one()));
    let deployment = Deployment::shared()
        .schema(SCHEMA)
        .sharded("accounts", "aid")
        .start();
    run(
        name,
        "the router",
        &with_url(&command, &deployment.target()),
    );
    assert_eq!(deployment.prepared(), [""; 0]);
}

fn with_url(command: &impl Fn() -> Command, target: &Target) -> impl Fn() -> Command {
    let url = target.url();
    move || {
        let mut command = command();
        command.arg(&url);
        command
    }
}

fn run(name: &str, against: &str, command: &impl Fn() -> Command) {
    let output = command()
        .output()
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(
        output.status.success(),
        "{name} against {against}: {}\n{said}",
        output.status
    );
}
