//! A file that holds what a program printed, for as long as somebody looks at it.
//!
//! Who makes such a file removes it with the last clone of its [`SpooledFile`]; here is only the handle.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file with the output of one run. It is removed with the last clone of this.
#[derive(Clone)]
pub struct SpooledFile(Arc<Inner>);

struct Inner {
    path: PathBuf,
    len: u64,
    /// What its end sets off.
    _owner: Box<dyn Send + Sync>,
}

impl SpooledFile {
    /// `len` bytes at `path`; `owner` is dropped with the last clone, and removes the file then.
    #[must_use]
    pub fn new(path: PathBuf, len: u64, owner: impl Send + Sync + 'static) -> Self {
        Self(Arc::new(Inner { path, len, _owner: Box::new(owner) }))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len
    }

    /// Whether nothing was printed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The same file.
impl PartialEq for SpooledFile {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for SpooledFile {}

impl fmt::Debug for SpooledFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpooledFile")
            .field("path", &self.path())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
