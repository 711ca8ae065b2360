//! The stream of a move: publication and slot on the shard that has the slots, subscription on the one that follows. Every
//! call can be repeated. A marker row travels in the stream: what was committed before it was written has arrived with it.

use super::side::{MoveError, Side, literal};
use super::table::MovedTable;
use crate::config::{Address, Config, Shard};
use crate::topology::slot::SlotSet;
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Between two looks at the marker.
const MARKER_PAUSE: Duration = Duration::from_millis(1);
/// How long a slot may stay in use after its subscription was dropped.
const SLOT_PATIENCE: Duration = Duration::from_secs(10);

/// Every database sees the subscriptions of all.
const SUBSCRIPTIONS: &str = "SELECT FROM pg_catalog.pg_subscription \
     WHERE subdbid = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";

/// Which way the rows flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the move's source to its target.
    Forward,
    /// Back, after the flip.
    Back,
}

impl Direction {
    fn is_forward(self) -> bool {
        self == Self::Forward
    }

    /// The name of publication, subscription and slot. Slots are a server's: the databases of other clusters may be there too.
    pub fn name(self, side: &Side, id: i32) -> String {
        let cluster = &side.cluster;
        match self {
            Self::Forward => format!("pgring_move_{id}_{cluster}"),
            Self::Back => format!("pgring_back_{id}_{cluster}"),
        }
    }
}

/// How a shard reaches another, as libpq reads it.
pub fn connection_string(config: &Config, shard: &Shard) -> String {
    let mut hosts = Vec::new();
    let mut ports = Vec::new();
    for node in &shard.nodes {
        let (host, port) = match node {
            Address::Tcp { host, port } => (host.clone(), port),
            Address::Unix { directory, port } => (directory.display().to_string(), port),
        };
        hosts.push(host);
        ports.push(port.to_string());
    }
    let quote = |value: &str| format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut text = format!(
        "host={} port={} dbname={} user={} target_session_attrs=read-write connect_timeout={}",
        quote(&hosts.join(",")),
        quote(&ports.join(",")),
        quote(&shard.database),
        quote(&config.backend.user),
        config.pool.connect.as_secs().max(2)
    );
    let password = config.backend.password.as_ref();
    if let Some(password) = password.and_then(|secret| secret.password()) {
        let _ = write!(text, " password={}", quote(password));
    }
    text
}

/// Makes the publication on the side that has the rows, if it is not there.
///
/// # Errors
/// [`MoveError`]
pub async fn publish(
    from: &Side,
    id: i32,
    direction: Direction,
    slots: &SlotSet,
    tables: &[MovedTable],
) -> Result<(), MoveError> {
    let name = direction.name(from, id);
    let there: bool = from
        .value(&format!(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_publication WHERE pubname = '{name}')"
        ))
        .await?;
    if there {
        return Ok(());
    }
    let forward = match direction.is_forward() {
        true => "forward",
        false => "NOT forward",
    };
    let mut sql = format!(
        "CREATE PUBLICATION {name} FOR TABLE ONLY pgring.marker WHERE (move = {id} AND {forward})"
    );
    for table in tables {
        let _ = write!(
            sql,
            ", TABLE {} WHERE ({})",
            table.from(),
            table.is_in(slots)
        );
    }
    sql.push_str(" WITH (publish = 'insert, update, delete', publish_via_partition_root = true)");
    from.run(&sql).await
}

/// Makes a slot on the side that has the rows, if it is not there, without a snapshot.
///
/// # Errors
/// [`MoveError`]
pub async fn make_slot(from: &Side, id: i32, direction: Direction) -> Result<(), MoveError> {
    let name = direction.name(from, id);
    from.run(&format!(
        "SELECT pg_catalog.pg_create_logical_replication_slot('{name}', 'pgoutput') \
         WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}')"
    ))
    .await
}

/// Forgets what the slot has not sent of what is committed now: nothing of it is wanted.
///
/// # Errors
/// [`MoveError`]
pub async fn skip(from: &Side, id: i32, direction: Direction) -> Result<(), MoveError> {
    // What an apply worker has committed may not be flushed yet, and only what is flushed can be skipped.
    from.run("SELECT pg_catalog.pg_logical_emit_message(true, 'pgring', '')")
        .await?;
    from.run(&format!(
        "SELECT pg_catalog.pg_replication_slot_advance('{}', pg_catalog.pg_current_wal_flush_lsn())",
        direction.name(from, id)
    ))
    .await
}

/// Forgets what the slot has not sent of what was committed before that place of the log, which is on disk. Nobody may
/// follow the slot yet.
///
/// # Errors
/// [`MoveError`]
pub async fn skip_to(
    from: &Side,
    id: i32,
    direction: Direction,
    place: &str,
) -> Result<(), MoveError> {
    from.run(&format!(
        "SELECT pg_catalog.pg_replication_slot_advance(slot_name, '{place}') FROM pg_catalog.pg_replication_slots \
         WHERE slot_name = '{}' AND confirmed_flush_lsn < '{place}'",
        direction.name(from, id)
    ))
    .await
}

/// How many bytes of the log the side that has the rows keeps for the slot.
///
/// # Errors
/// [`MoveError`]
pub async fn retained(from: &Side, id: i32, direction: Direction) -> Result<i64, MoveError> {
    from.value(&format!(
        "SELECT coalesce(sum(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)), 0)::pg_catalog.int8 \
         FROM pg_catalog.pg_replication_slots WHERE slot_name = '{}'",
        direction.name(from, id)
    ))
    .await
}

/// Whether the subscription is there on the side that follows.
///
/// # Errors
/// [`MoveError`]
pub async fn is_subscribed(to: &Side, id: i32, direction: Direction) -> Result<bool, MoveError> {
    let name = direction.name(to, id);
    to.value(&format!(
        "SELECT EXISTS ({SUBSCRIPTIONS} AND subname = '{name}')"
    ))
    .await
}

/// Makes the subscription on the side that follows, if it is not there. Publication and slot must be.
///
/// # Errors
/// [`MoveError`]
pub async fn subscribe(
    to: &Side,
    id: i32,
    direction: Direction,
    connection: &str,
) -> Result<(), MoveError> {
    let name = direction.name(to, id);
    if is_subscribed(to, id, direction).await? {
        return Ok(());
    }
    to.run(&format!(
        "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {name} \
         WITH (create_slot = false, slot_name = '{name}', copy_data = false, binary = false, streaming = off)",
        literal(connection)
    ))
    .await
}

/// Takes the whole stream away, whatever of it is there.
///
/// # Errors
/// [`MoveError`]
pub async fn remove(
    from: &Side,
    to: &Side,
    id: i32,
    direction: Direction,
) -> Result<(), MoveError> {
    let name = direction.name(from, id);
    if is_subscribed(to, id, direction).await? {
        to.run(&format!("ALTER SUBSCRIPTION {name} DISABLE"))
            .await?;
        to.run(&format!("ALTER SUBSCRIPTION {name} SET (slot_name = NONE)"))
            .await?;
        to.run(&format!("DROP SUBSCRIPTION {name}")).await?;
    }
    remove_slot(from, &name).await?;
    from.run(&format!("DROP PUBLICATION IF EXISTS {name}"))
        .await?;
    let marker = format!(
        "DELETE FROM pgring.marker WHERE move = {id} AND forward = {}",
        direction.is_forward()
    );
    from.run(&marker).await?;
    to.run(&marker).await
}

async fn remove_slot(from: &Side, name: &str) -> Result<(), MoveError> {
    let deadline = Instant::now() + SLOT_PATIENCE;
    loop {
        from.run(&format!(
            "SELECT pg_catalog.pg_terminate_backend(active_pid) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = '{name}' AND active"
        ))
        .await?;
        from.run(&format!(
            "SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots \
             WHERE slot_name = '{name}' AND NOT active"
        ))
        .await?;
        let there: bool = from
            .value(&format!(
                "SELECT EXISTS (SELECT FROM pg_catalog.pg_replication_slots WHERE slot_name = '{name}')"
            ))
            .await?;
        if !there {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(MoveError::TimedOut {
                what: format!("dropping replication slot {name}"),
                after: SLOT_PATIENCE,
            });
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// SQL that writes a marker, and gives what [`arrived`] looks for on the other side.
pub fn mark_sql(id: i32, direction: Direction) -> String {
    format!(
        "INSERT INTO pgring.marker AS m (move, forward, token) VALUES ({id}, {}, 1) \
         ON CONFLICT (move, forward) DO UPDATE SET token = m.token + 1 RETURNING token",
        direction.is_forward()
    )
}

/// What [`mark_sql`] gave, as text.
///
/// # Errors
/// [`MoveError::State`]
pub fn token(given: Option<String>) -> Result<i64, MoveError> {
    let token = given.as_deref().and_then(|given| given.parse().ok());
    token.ok_or_else(|| MoveError::State(format!("{given:?} is no marker")))
}

/// Writes a marker on one side. Returns what [`arrived`] looks for on the other.
///
/// # Errors
/// [`MoveError`]
pub async fn mark(from: &Side, id: i32, direction: Direction) -> Result<i64, MoveError> {
    from.value(&mark_sql(id, direction)).await
}

/// Where the log of the side that follows is, if everything that was committed before the marker has arrived there: it is
/// before that place.
///
/// # Errors
/// [`MoveError`]
pub async fn arrived(
    to: &Side,
    id: i32,
    direction: Direction,
    token: i64,
) -> Result<Option<String>, MoveError> {
    let rows = to
        .rows(&format!(
            "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text FROM pgring.marker \
             WHERE move = {id} AND forward = {} AND token >= {token}",
            direction.is_forward()
        ))
        .await?;
    let place = rows.first().map(|row| row.try_get(0)).transpose();
    place.map_err(|error| to.refuse(error))
}

/// How often the side that follows has failed to apply what came.
///
/// # Errors
/// [`MoveError`]
pub async fn failures(to: &Side, id: i32, direction: Direction) -> Result<i64, MoveError> {
    to.value(&format!(
        "SELECT coalesce(sum(apply_error_count), 0)::pg_catalog.int8 FROM pg_catalog.pg_stat_subscription_stats \
         WHERE subname = '{}'",
        direction.name(to, id)
    ))
    .await
}

/// Waits until the marker has arrived; gives where the log of the side that follows was then.
///
/// # Errors
/// [`MoveError::TimedOut`]
pub async fn arrival(
    from: &Side,
    to: &Side,
    id: i32,
    direction: Direction,
    token: i64,
    limit: Duration,
) -> Result<String, MoveError> {
    let start = Instant::now();
    loop {
        if let Some(place) = arrived(to, id, direction, token).await? {
            return Ok(place);
        }
        if start.elapsed() > limit {
            return Err(MoveError::TimedOut {
                what: format!("the stream from shard {} to shard {}", from.name, to.name),
                after: limit,
            });
        }
        sleep(MARKER_PAUSE).await;
    }
}

/// Waits until everything that is committed on one side now has arrived on the other; how long that took.
///
/// # Errors
/// [`MoveError::TimedOut`]
pub async fn level(
    from: &Side,
    to: &Side,
    id: i32,
    direction: Direction,
    limit: Duration,
) -> Result<Duration, MoveError> {
    let start = Instant::now();
    let token = mark(from, id, direction).await?;
    arrival(from, to, id, direction, token, limit).await?;
    Ok(start.elapsed())
}
