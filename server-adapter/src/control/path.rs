//! Where the socket is. The kernel's addresses are short (108 bytes on Linux, 104 elsewhere), a data folder's path may
//! be long: then the socket is in a private folder among the temporary ones, and a link in the data folder says where.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use crate::tenants::alphanumeric;

/// Longest path that every system takes.
const LONGEST: usize = 100;
/// How a private folder's name begins.
const PRIVATE: &str = "firsthop-control-";
const NAME: &str = "control.sock";

/// Where a client finds the socket of a data folder.
pub(super) fn find(data: &Path) -> PathBuf {
    let path = data.join(NAME);
    // A link is followed here, since its own path may be what is too long.
    fs::read_link(&path).unwrap_or(path)
}

/// Makes room for the socket of a data folder, whose lock the caller holds: what is there was left by a server that did not end by
/// itself. Returns where to bind it.
pub(super) fn prepare(data: &Path) -> io::Result<PathBuf> {
    remove(data)?;
    let path = data.join(NAME);
    // The client may be in another working directory, but it joins the same name to its own path of the folder.
    if path.as_os_str().len() <= LONGEST {
        return Ok(path);
    }
    let private = std::env::temp_dir().join(format!("{PRIVATE}{}", alphanumeric(16)));
    // Fails if it is there: nobody can have put something in before.
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let bound = private.join(NAME);
    if bound.as_os_str().len() > LONGEST {
        fs::remove_dir(&private)?;
        let why = format!("{}: too long for a socket, and so is the path of the data folder", bound.display());
        return Err(io::Error::new(io::ErrorKind::InvalidFilename, why));
    }
    std::os::unix::fs::symlink(&bound, path)?;
    Ok(bound)
}

/// Removes the socket, and its private folder if it has one. What is no socket stays, and is an error.
pub(super) fn remove(data: &Path) -> io::Result<()> {
    let path = data.join(NAME);
    let Some(kind) = absent(fs::symlink_metadata(&path))?.map(|meta| meta.file_type()) else { return Ok(()) };
    if kind.is_symlink() {
        let bound = fs::read_link(&path)?;
        fs::remove_file(&path)?;
        // Only what this made: a folder of that name, of the same owner as the data folder.
        let private = bound.parent().filter(|folder| {
            folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PRIVATE))
        });
        let Some(private) = private else { return Ok(()) };
        let owner = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.uid());
        if absent(owner(private))? == Some(owner(data)?) {
            absent(fs::remove_file(&bound))?;
            absent(fs::remove_dir(private))?;
        }
        return Ok(());
    }
    if !kind.is_socket() {
        let why = format!("{} is not a socket: move it away", path.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
    }
    absent(fs::remove_file(&path)).map(drop)
}

/// None for what is not there.
fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_long_path_is_linked_to_a_short_one() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let data = folder.path().join("d".repeat(120));
        fs::create_dir(&data).expect("made");
        let bound = prepare(&data).expect("room");
        assert!(bound.as_os_str().len() <= LONGEST, "{}", bound.display());
        drop(UnixListener::bind(&bound).expect("bound"));
        assert_eq!(find(&data), bound);
        let mode = fs::metadata(bound.parent().unwrap()).expect("there").mode();
        assert_eq!(mode & 0o777, 0o700);
        // As after a crash: the next start finds it and makes another.
        let next = prepare(&data).expect("room");
        assert!(next != bound && !bound.parent().unwrap().exists(), "what was left is removed");
        remove(&data).expect("removed");
        assert!(!next.parent().unwrap().exists() && !data.join(NAME).is_symlink());
    }

    #[test]
    fn only_a_socket_makes_way() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(NAME);
        drop(UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "a crash leaves it");
        assert_eq!(prepare(folder.path()).expect("room"), path);
        assert!(!path.exists());
        fs::write(&path, "mine").expect("written");
        assert!(prepare(folder.path()).expect_err("not ours").to_string().contains("move it away"));
        assert_eq!(fs::read(&path).expect("still there"), b"mine");
        // A link elsewhere is not followed to remove what is there.
        fs::remove_file(&path).expect("removed");
        let other = folder.path().join("other");
        fs::write(&other, "mine").expect("written");
        std::os::unix::fs::symlink(&other, &path).expect("linked");
        remove(folder.path()).expect("removed");
        assert!(other.exists() && !path.is_symlink());
    }
}
