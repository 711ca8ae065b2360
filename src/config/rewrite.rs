//! [`Rewrite`]: replaces a file whole, so that whoever reads it at any moment reads the old text or the new one, and so that
//! no other program of this kind edits its folder at the same time. Knows nothing of what is in it. Blocks.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Why a file is left as it is.
#[derive(Debug, thiserror::Error)]
pub enum RewriteError {
    /// Another edit is under way.
    #[error("somebody else edits {} at this time", .0.display())]
    Locked(PathBuf),
    /// The system said no.
    #[error("{}: {source}", .file.display())]
    Io {
        /// The file or folder.
        file: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// A file that may be replaced. Dropped, it leaves the file as it is.
#[derive(Debug)]
pub struct Rewrite {
    /// Where the file is, behind all links.
    file: PathBuf,
    folder: File,
    before: String,
    /// The new text, if it was written.
    prepared: Option<PathBuf>,
}

impl Rewrite {
    /// Reads the file, and keeps others from editing in its folder.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn begin(file: &Path) -> Result<Self, RewriteError> {
        let refuse = |source| RewriteError::Io {
            file: file.to_owned(),
            source,
        };
        let file = fs::canonicalize(file).map_err(refuse)?;
        let folder = File::open(file.parent().unwrap_or(&file)).map_err(refuse)?;
        match folder.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RewriteError::Locked(file)),
            Err(TryLockError::Error(error)) => return Err(refuse(error)),
        }
        let before = fs::read_to_string(&file).map_err(refuse)?;
        Ok(Self {
            file,
            folder,
            before,
            prepared: None,
        })
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.before
    }

    /// Writes the new text beside the file, to disk, with the file's permissions.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn prepare(&mut self, text: &str) -> Result<(), RewriteError> {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".edit");
        let prepared = self.file.with_file_name(name);
        let mut write = || {
            // One that is there was left by a crash: nobody else may be at it.
            match fs::remove_file(&prepared) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let permissions = fs::metadata(&self.file)?.permissions();
            let mut new = OpenOptions::new();
            let mut new = new.write(true).create_new(true).open(&prepared)?;
            self.prepared = Some(prepared.clone());
            new.set_permissions(permissions)?;
            new.write_all(text.as_bytes())?;
            new.sync_all()
        };
        write().map_err(|source| RewriteError::Io {
            file: prepared.clone(),
            source,
        })
    }

    /// Whether the file is what it was when this began.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn is_untouched(&self) -> Result<bool, RewriteError> {
        let text = fs::read_to_string(&self.file).map_err(|source| self.refuse(source))?;
        Ok(text == self.before)
    }

    /// Puts what was prepared in the file's place.
    ///
    /// # Errors
    /// [`RewriteError`]
    pub fn replace(&mut self) -> Result<(), RewriteError> {
        if let Some(prepared) = &self.prepared {
            fs::rename(prepared, &self.file).map_err(|source| self.refuse(source))?;
            self.prepared = None;
            // The name is on disk, too; if that cannot be had, the file is replaced all the same.
            if let Err(error) = self.folder.sync_all() {
                tracing::warn!(file = %self.file.display(), %error, "the folder was not written to disk");
            }
        }
        Ok(())
    }

    fn refuse(&self, source: io::Error) -> RewriteError {
        RewriteError::Io {
            file: self.file.clone(),
            source,
        }
    }
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        if let Some(prepared) = &self.prepared {
            // What is left is overwritten by the next edit.
            let _ = fs::remove_file(prepared);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    /// A folder that goes away.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let name = format!("pgring-{name}-{}", std::process::id());
            let folder = std::env::temp_dir().join(name);
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_keeps_its_permissions_and_links() {
        let folder = Folder::new("rewrite");
        let (file, link) = (folder.0.join("real.toml"), folder.0.join("shards.toml"));
        fs::write(&file, "old").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        symlink(&file, &link).unwrap();
        // What a crash left, though it were a link to somewhere else.
        symlink("/nowhere/else", folder.0.join("real.toml.edit")).unwrap();
        let mut rewrite = Rewrite::begin(&link).unwrap();
        assert_eq!(rewrite.text(), "old");
        assert!(matches!(
            Rewrite::begin(&file),
            Err(RewriteError::Locked(_))
        ));
        rewrite.prepare("new").unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "old");
        assert!(rewrite.is_untouched().unwrap());
        rewrite.replace().unwrap();
        drop(rewrite);
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        // Given up, it leaves nothing behind; and sees what somebody else did.
        let mut rewrite = Rewrite::begin(&file).unwrap();
        rewrite.prepare("newer").unwrap();
        fs::write(&file, "by hand").unwrap();
        assert!(!rewrite.is_untouched().unwrap());
        drop(rewrite);
        assert_eq!(fs::read_to_string(&file).unwrap(), "by hand");
        assert_eq!(folder.names(), ["real.toml", "shards.toml"]);
        let missing = Rewrite::begin(&folder.0.join("none.toml"));
        assert!(matches!(missing, Err(RewriteError::Io { .. })));
    }
}
