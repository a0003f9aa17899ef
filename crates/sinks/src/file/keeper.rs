//! What becomes of renamed files: compressed, and deleted when there are more than are kept.
//!
//! Done on a thread of its own, beside the writing. Each job looks at the directory, so one that was
//! interrupted is made good by the next: an original goes only when its compressed copy is on the disk,
//! and half a copy is begun anew.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};

use cap_std::fs::{Dir, OpenOptions};
use flate2::{Compression, write::GzEncoder};
use tracing::warn;

use super::{
    directory,
    rotation::{self, COMPRESSED, PARTIAL, Rotation},
};
use crate::config::Compress;

/// A file that was renamed: its directory, below which base, and what it is called while it is written
/// to.
pub(super) struct Job {
    pub base: Arc<Dir>,
    pub directory: PathBuf,
    pub name: OsString,
}

/// Looks after renamed files, until the sender is dropped; `None` where nothing is done with them.
pub(super) fn start(rotation: Rotation) -> io::Result<Option<mpsc::Sender<Job>>> {
    if rotation.compress == Compress::None && rotation.keep == 0 {
        return Ok(None);
    }
    let (jobs, queue) = mpsc::channel::<Job>();
    thread::Builder::new().name("file-sink-keeper".to_owned()).spawn(move || {
        for Job { base, directory, name } in queue {
            let kept = base.open_dir(&directory).and_then(|dir| keep(&dir, &name, rotation));
            if let Err(error) = kept {
                let file = directory.join(&name);
                warn!(file = %file.display(), %error, "cannot look after the files it was renamed to");
            }
        }
    })?;
    Ok(Some(jobs))
}

fn keep(dir: &Dir, name: &OsStr, rotation: Rotation) -> io::Result<()> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for entry in dir.entries()? {
        let entry = entry?.file_name();
        if let Some(renamed) = rotation::recognise(name, &entry) {
            found.entry(renamed.age).or_default().push((entry, renamed.is_compressed));
        }
    }
    while 0 < rotation.keep && rotation.keep < found.len() {
        for (oldest, _) in found.pop_first().into_iter().flat_map(|(_, files)| files) {
            remove(dir, &oldest)?;
        }
    }
    if rotation.compress == Compress::Gzip {
        for (plain, _) in found.into_values().flatten().filter(|(_, compressed)| !compressed) {
            compress(dir, &plain)?;
        }
    }
    Ok(())
}

/// Somebody else may have been faster.
fn remove(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.remove_file(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Opens a file to be locked and read. For writing as well: NFS locks a file for one who may write to it only.
fn open(dir: &Dir, name: &OsStr) -> io::Result<File> {
    let file = dir.open_with(name, OpenOptions::new().read(true).write(true))?;
    Ok(file.into_std())
}

fn compress(dir: &Dir, name: &OsStr) -> io::Result<()> {
    let file = match open(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match directory::lock(&file) {
        // Another worker that shares the directory is at it.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        locked => locked?,
    }
    let compressed = behind(name, COMPRESSED);
    let partial = behind(&compressed, PARTIAL);
    if let Err(error) = copy(dir, file, &partial) {
        // Gives the disk back what may have filled it.
        remove(dir, &partial)?;
        return Err(error);
    }
    dir.rename(&partial, dir, &compressed)?;
    directory::sync(dir)?;
    remove(dir, name)
}

fn copy(dir: &Dir, mut from: File, to: &OsStr) -> io::Result<()> {
    let mut encoder = GzEncoder::new(dir.create(to)?.into_std(), Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?.sync_all()
}

fn behind(name: &OsStr, more: &str) -> OsString {
    let mut longer = name.to_owned();
    longer.push(more);
    longer
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use cap_std::ambient_authority;

    use super::*;

    #[test]
    fn a_file_that_is_compressed_is_opened_so_that_network_file_systems_lock_it() {
        let temp = tempfile::TempDir::new().unwrap();
        let dir = Dir::open_ambient_dir(temp.path(), ambient_authority()).unwrap();
        dir.write("old", "line\n").unwrap();
        let mut file = open(&dir, OsStr::new("old")).unwrap();
        file.write_all(b"LINE").unwrap();
        assert_eq!(dir.read_to_string("old").unwrap(), "LINE\n");
    }
}
