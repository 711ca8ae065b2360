//! The last good ownership on disk, so that a router starts while a shard is down. Written whole, by a new file that takes
//! the old one's name. Must not decide which record wins.

use super::store::{self, RecordError};
use crate::topology::ownership::OwnershipRecord;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// The form of the file.
const FORMAT: u32 = 2;
/// Larger than the file of any cluster.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct File {
    format: u32,
    cluster: String,
    shards: Vec<Row>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Row {
    shard: String,
    cluster_id: String,
    epoch: u64,
    owned: String,
    fenced: String,
    closed: String,
    foreign_slots: String,
    joining: bool,
}

/// Why the file says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("not a topology file: {0}")]
    Form(#[from] serde_json::Error),
    /// Its slots are not slots.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It belongs to another version or another cluster.
    #[error("the file is of cluster \"{0}\" or of another version")]
    Other(String),
}

/// Reads the records of `cluster`. None where there is no file.
///
/// # Errors
/// [`CacheError`].
pub async fn read(path: &Path, cluster: &str) -> Result<Option<Vec<OwnershipRecord>>, CacheError> {
    match tokio::fs::metadata(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        Ok(_) => {}
    }
    decode(&tokio::fs::read(path).await?, cluster).map(Some)
}

/// Writes the records of `cluster`; a crash leaves the old file or the new one.
///
/// # Errors
/// What the operating system says.
pub async fn write(
    path: &Path,
    cluster: &str,
    records: &[OwnershipRecord],
) -> Result<(), CacheError> {
    let text = encode(cluster, records)?;
    // Two routers may share a directory.
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let path = path.to_owned();
    let written = tokio::task::spawn_blocking(move || {
        let write = || {
            use std::io::Write as _;
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &path)
        };
        write().inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    });
    Ok(written.await.map_err(io::Error::other)??)
}

fn encode(cluster: &str, records: &[OwnershipRecord]) -> Result<Vec<u8>, serde_json::Error> {
    let row = |record: &OwnershipRecord| Row {
        shard: record.shard.to_string(),
        cluster_id: record.cluster_id.to_string(),
        epoch: record.epoch.0,
        owned: record.owned.to_string(),
        fenced: record.fenced.to_string(),
        closed: record.closed.to_string(),
        foreign_slots: record.foreign_slots.to_string(),
        joining: record.joining,
    };
    let file = File {
        format: FORMAT,
        cluster: cluster.to_owned(),
        shards: records.iter().map(row).collect(),
    };
    serde_json::to_vec_pretty(&file)
}

fn decode(text: &[u8], cluster: &str) -> Result<Vec<OwnershipRecord>, CacheError> {
    let file: File = serde_json::from_slice(text)?;
    if file.format != FORMAT || file.cluster != cluster {
        return Err(CacheError::Other(file.cluster));
    }
    let record = |row: &Row| {
        store::parse_record([
            &row.shard,
            &row.cluster_id,
            &row.epoch.to_string(),
            &row.owned,
            &row.fenced,
            &row.closed,
            &row.foreign_slots,
            if row.joining { "true" } else { "false" },
        ])
    };
    Ok(file.shards.iter().map(record).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        let records = vec![
            store::parse_record([
                "s0",
                "c",
                "7",
                "{[0,8192)}",
                "{[5,6)}",
                "{[5,6)}",
                "{}",
                "false",
            ])
            .unwrap(),
            store::parse_record([
                "s1",
                "c",
                "1",
                "{[8192,16384)}",
                "{}",
                "{}",
                "{[5,6)}",
                "true",
            ])
            .unwrap(),
        ];
        let text = encode("shop", &records).unwrap();
        assert_eq!(decode(&text, "shop").unwrap(), records);
    }

    #[test]
    fn another_clusters_file_is_not_believed() {
        let text = encode("shop", &[]).unwrap();
        assert!(
            matches!(decode(&text, "other"), Err(CacheError::Other(cluster)) if cluster == "shop")
        );
        assert!(decode(b"{}", "shop").is_err());
    }
}
