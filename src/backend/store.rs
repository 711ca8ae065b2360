//! The schema `pgring` on a shard: its SQL, reading its one row, and how the control plane's connections are made. Knows
//! nothing of other shards.

use super::version::ServerVersion;
use crate::config::{Address, Config, Shard};
use crate::topology::Epoch;
use crate::topology::ownership::OwnershipRecord;
use crate::topology::slot::SlotSetError;
use std::error::Error as _;
use std::sync::LazyLock;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::{Client, Row};

/// The channel on which a shard says that its ownership or its schema changed.
pub const CHANNEL: &str = "pgring";
/// What is sent on [`CHANNEL`] after DDL.
pub const SCHEMA_CHANGED: &str = "schema";
/// What [`CREATE`]'s trigger sends on [`CHANNEL`].
pub const OWNERSHIP_CHANGED: &str = "ownership";

/// `application_name` of the control plane's connections.
pub const APPLICATION_NAME: &str = "pgring control";
/// The catalog is read as PostgreSQL prints it by default, whatever the database says.
const OPTIONS: &str = "-c standard_conforming_strings=on -c quote_all_identifiers=off -c datestyle=ISO,MDY \
     -c intervalstyle=postgres -c bytea_output=hex -c extra_float_digits=1";

/// Makes the schema. The row comes with it, at epoch 0, which means: not given out yet. `$`-quoted, so to be run by the
/// simple protocol. The trigger tells the routers, unless `pgring.notify` is `off`: a transaction that notified cannot be
/// prepared.
pub const CREATE: &str = "
    CREATE SCHEMA pgring;
    COMMENT ON SCHEMA pgring IS 'What the pgring router keeps on a shard; made by pgring init';
    CREATE TABLE pgring.ownership (
      only_row boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row),
      shard text NOT NULL,
      cluster uuid NOT NULL,
      epoch bigint NOT NULL CHECK (epoch >= 0),
      owned int4multirange NOT NULL CHECK (owned <@ int4range(0, 16384)),
      fenced int4multirange NOT NULL DEFAULT '{}' CHECK (fenced <@ owned),
      closed int4multirange NOT NULL DEFAULT '{}' CHECK (closed <@ fenced),
      foreign_slots int4multirange NOT NULL DEFAULT '{}'
        CHECK (foreign_slots <@ int4range(0, 16384) AND NOT foreign_slots && owned),
      joining boolean NOT NULL DEFAULT false CHECK (NOT joining OR isempty(owned))
    );
    COMMENT ON TABLE pgring.ownership IS 'Which slots this shard owns; one row, changed by routers only';
    COMMENT ON COLUMN pgring.ownership.fenced IS 'Slots whose statements routers hold while they move';
    COMMENT ON COLUMN pgring.ownership.closed IS 'Fenced slots that nobody may write here any more';
    COMMENT ON COLUMN pgring.ownership.foreign_slots IS 'Slots of other shards whose rows may lie here';
    COMMENT ON COLUMN pgring.ownership.joining IS 'Whether the shard is new and nothing is read here yet';
    CREATE TABLE pgring.acknowledgement (
      router int4 PRIMARY KEY CHECK (router > 0),
      epoch bigint NOT NULL,
      heard bigint NOT NULL,
      pids int4[] NOT NULL,
      at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE pgring.acknowledgement IS
      'Up to which epoch nothing that each router planned before still runs here, and its backends here';
    COMMENT ON COLUMN pgring.acknowledgement.heard IS 'The epoch that it knows of: what it planned before may still run';
    CREATE FUNCTION pgring.guard_ownership() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $guard$
    BEGIN
      IF TG_OP <> 'UPDATE' THEN
        RAISE EXCEPTION 'the ownership row of a shard cannot be removed' USING HINT = 'DROP SCHEMA pgring takes the shard out of its cluster.';
      END IF;
      IF NEW.epoch <= OLD.epoch AND OLD.epoch > 0 THEN
        RAISE EXCEPTION 'the epoch of an ownership row only grows';
      END IF;
      IF current_setting('pgring.notify', true) IS DISTINCT FROM 'off' THEN
        PERFORM pg_notify('pgring', 'ownership');
      END IF;
      RETURN NEW;
    END $guard$;
    CREATE TRIGGER guard_update BEFORE UPDATE ON pgring.ownership
      FOR EACH ROW EXECUTE FUNCTION pgring.guard_ownership();
    CREATE TRIGGER guard_removal BEFORE DELETE OR TRUNCATE ON pgring.ownership
      FOR EACH STATEMENT EXECUTE FUNCTION pgring.guard_ownership();
    CREATE TABLE pgring.move (
      id int4 PRIMARY KEY CHECK (id > 0),
      source text NOT NULL,
      target text NOT NULL CHECK (target <> source),
      slots int4multirange NOT NULL CHECK (slots <@ int4range(0, 16384)),
      phase text NOT NULL,
      wanted text NOT NULL DEFAULT 'run' CHECK (wanted IN ('run', 'pause', 'cancel', 'rollback', 'complete')),
      rate bigint NOT NULL DEFAULT 0 CHECK (rate >= 0),
      pause_budget int4 NOT NULL CHECK (pause_budget > 0),
      rows_expected bigint NOT NULL DEFAULT 0,
      bytes_expected bigint NOT NULL DEFAULT 0,
      rows_copied bigint NOT NULL DEFAULT 0,
      bytes_copied bigint NOT NULL DEFAULT 0,
      copy_seconds float8 NOT NULL DEFAULT 0,
      rows_deleted bigint NOT NULL DEFAULT 0,
      lag_ms float8,
      fences int4 NOT NULL DEFAULT 0,
      pause_ms float8,
      error text,
      created_at timestamptz NOT NULL DEFAULT now(),
      flipped_at timestamptz,
      returns_from pg_lsn,
      changed_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE pgring.move IS 'Moves of slots; the row on the source is the one that counts';
    COMMENT ON COLUMN pgring.move.rate IS 'bytes per second of copying and deleting; 0: as fast as it goes';
    COMMENT ON COLUMN pgring.move.pause_budget IS 'milliseconds for which statements may be held';
    COMMENT ON COLUMN pgring.move.lag_ms IS 'how long a write took to follow when that was measured last';
    COMMENT ON COLUMN pgring.move.fences IS 'how often the slots were fenced to be handed over';
    COMMENT ON COLUMN pgring.move.pause_ms IS 'how long they were fenced the last time';
    COMMENT ON COLUMN pgring.move.returns_from IS 'where the log of the target was when it became the owner';
    CREATE TABLE pgring.marker (
      move int4,
      forward boolean,
      token bigint NOT NULL,
      PRIMARY KEY (move, forward)
    );
    COMMENT ON TABLE pgring.marker IS 'Follows the rows of a move through its stream: what was written before it has arrived with it';
    CREATE TABLE pgring.decision (
      xid xid8 PRIMARY KEY,
      nonce bigint NOT NULL,
      others text[] NOT NULL,
      at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE pgring.decision IS
      'Transactions over several shards that this one decided, each a row of its own transaction, until all shards have finished it';
    COMMENT ON COLUMN pgring.decision.others IS 'the shards that prepared it';
    CREATE FUNCTION pgring.decide(nonce bigint, others text[]) RETURNS void
      LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog
      AS $decide$ INSERT INTO pgring.decision VALUES (pg_current_xact_id(), nonce, others) $decide$;
    COMMENT ON FUNCTION pgring.decide IS 'Adds the row by which the transaction that calls it decides';
    GRANT SELECT ON pgring.decision TO PUBLIC;
    GRANT USAGE ON SCHEMA pgring TO PUBLIC;
    GRANT SELECT ON pgring.move TO PUBLIC;
    GRANT SELECT ON pgring.ownership TO PUBLIC;";

/// What the control plane reads of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStatus {
    /// Its ownership row.
    pub ownership: OwnershipRecord,
    /// The server's setting; 0 means that nothing can be prepared.
    pub max_prepared_transactions: i32,
    /// Which PostgreSQL it is.
    pub server_version: ServerVersion,
    /// What unqualified names mean unless a session says otherwise.
    pub search_path: String,
}

/// How many columns [`RECORD`] has.
pub const RECORD_COLUMNS: usize = 8;

/// The select list from which [`parse_record`] reads a row of `pgring.ownership`.
pub const RECORD: &str = "shard, cluster::pg_catalog.text, epoch::pg_catalog.text, owned::pg_catalog.text, \
     fenced::pg_catalog.text, closed::pg_catalog.text, foreign_slots::pg_catalog.text, joining::pg_catalog.text";

static STATUS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {RECORD}, \
         pg_catalog.current_setting('max_prepared_transactions')::pg_catalog.int4, \
         pg_catalog.current_setting('server_version_num')::pg_catalog.int4, \
         pg_catalog.current_setting('search_path'), \
         pg_catalog.current_setting('server_version') FROM pgring.ownership"
    )
});

/// Why an ownership row could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The shard did not answer as it should.
    #[error("{}", reason(.0))]
    Query(#[from] tokio_postgres::Error),
    /// There is no schema `pgring`, or no slot was given out yet.
    #[error("the database has no pgring ownership")]
    Missing,
    /// The row is there and cannot be understood.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// An ownership row that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not a number from 0.
    #[error("\"{0}\" is not an epoch")]
    Epoch(String),
    /// Not slots.
    #[error(transparent)]
    Slots(#[from] SlotSetError),
}

/// Reads the columns of [`RECORD`] as PostgreSQL prints them.
///
/// # Errors
/// [`RecordError`].
pub fn parse_record(columns: [&str; RECORD_COLUMNS]) -> Result<OwnershipRecord, RecordError> {
    let [
        shard,
        cluster_id,
        epoch,
        owned,
        fenced,
        closed,
        foreign_slots,
        joining,
    ] = columns;
    Ok(OwnershipRecord {
        shard: shard.into(),
        cluster_id: cluster_id.into(),
        epoch: Epoch(
            epoch
                .parse()
                .map_err(|_| RecordError::Epoch(epoch.to_owned()))?,
        ),
        owned: owned.parse()?,
        fenced: fenced.parse()?,
        closed: closed.parse()?,
        foreign_slots: foreign_slots.parse()?,
        joining: joining == "true",
    })
}

/// Reads a row that begins with [`RECORD`].
///
/// # Errors
/// [`StoreError`].
pub fn read_record(row: &Row) -> Result<OwnershipRecord, StoreError> {
    let mut columns = [""; RECORD_COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.try_get(index)?;
    }
    Ok(parse_record(columns)?)
}

/// Whether the slots of a shard were given out.
pub fn is_given_out(record: &OwnershipRecord) -> bool {
    record.epoch > Epoch(0)
}

/// Reads a shard's status.
///
/// # Errors
/// [`StoreError`].
pub async fn status(client: &Client) -> Result<ShardStatus, StoreError> {
    let row = client
        .query_typed_opt(&STATUS, &[])
        .await
        .map_err(StoreError::of)?;
    let row = row.ok_or(StoreError::Missing)?;
    let column = |index| row.try_get::<_, &str>(index);
    let ownership = read_record(&row)?;
    if !is_given_out(&ownership) {
        return Err(StoreError::Missing);
    }
    Ok(ShardStatus {
        ownership,
        max_prepared_transactions: row.try_get(RECORD_COLUMNS)?,
        server_version: ServerVersion {
            number: row.try_get(RECORD_COLUMNS + 1)?,
            text: column(RECORD_COLUMNS + 3)?.into(),
        },
        search_path: column(RECORD_COLUMNS + 2)?.to_owned(),
    })
}

impl StoreError {
    /// What the answer to a question about the schema `pgring` says.
    pub(super) fn of(error: tokio_postgres::Error) -> Self {
        match error.code() {
            Some(code) if is_missing(code) => Self::Missing,
            _ => Self::Query(error),
        }
    }
}

/// Whether that is what a database without the schema says.
pub(super) fn is_missing(code: &tokio_postgres::error::SqlState) -> bool {
    use tokio_postgres::error::SqlState;
    *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME
}

/// How the control plane connects to a shard's primary.
pub fn connection_config(config: &Config, shard: &Shard) -> tokio_postgres::Config {
    let mut connection = tokio_postgres::Config::new();
    for node in &shard.nodes {
        match node {
            Address::Tcp { host, port } => connection.host(host).port(*port),
            Address::Unix { directory, port } => connection.host_path(directory).port(*port),
        };
    }
    connection
        .user(&config.backend.user)
        .dbname(&shard.database)
        .application_name(APPLICATION_NAME)
        .options(OPTIONS)
        .connect_timeout(config.pool.connect)
        .ssl_mode(SslMode::Disable)
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    if let Some(password) = config
        .backend
        .password
        .as_ref()
        .and_then(|secret| secret.password())
    {
        connection.password(password);
    }
    connection
}

/// What a shard, or the way to it, said; in one line.
pub fn reason(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return error.message().to_owned();
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_postgresql_prints_it() {
        let record = parse_record([
            "s0",
            "c",
            "7",
            "{[0,5),[9,10)}",
            "{[9,10)}",
            "{}",
            "{[7,8)}",
            "true",
        ])
        .unwrap();
        assert_eq!(
            (
                &*record.shard,
                record.epoch,
                record.owned.len(),
                record.fenced.len(),
                record.closed.len(),
                record.foreign_slots.to_string()
            ),
            ("s0", Epoch(7), 6, 1, 0, "{[7,8)}".to_owned())
        );
        assert!(parse_record(["s0", "c", "-1", "{}", "{}", "{}", "{}", "false"]).is_err());
        assert!(parse_record(["s0", "c", "1", "{[0,99999)}", "{}", "{}", "{}", "false"]).is_err());
    }
}
