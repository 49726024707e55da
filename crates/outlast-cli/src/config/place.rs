//! Which file is the configuration, where the embedded broker keeps its file when nobody says, and how
//! a broker's URL is shown.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::problem::Problem;
use super::{Config, Origin, Sourced};
use crate::exit::CliError;

/// There is no file in which tasks could wait for a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoPlace;

impl fmt::Display for NoPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "no place for the outbox: neither XDG_STATE_HOME nor HOME is set; name a file by --spool",
        )
    }
}

impl From<NoPlace> for CliError {
    fn from(why: NoPlace) -> Self {
        CliError::usage(why.to_string())
    }
}

/// The configuration that is read when none is named.
pub(crate) const CONFIG_FILE: &str = "outlast.toml";

/// The file of the embedded broker.
const BROKER_FILE: &str = "outlast.db";

/// The URL of the embedded broker: next to the configuration if there is one, so that a project keeps
/// its tasks with it; else where programs of this user keep their state.
pub(crate) fn embedded_broker(
    config: Option<&Path>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<String, Problem> {
    let folder = match config {
        Some(file) => absolute(file.parent().unwrap_or(Path::new("")))?,
        None => state_folder(env)?,
    };
    Ok(format!("sqlite://{}", folder.join(BROKER_FILE).display()))
}

fn state_folder(env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Problem> {
    // The XDG specification has relative paths ignored.
    let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    state.map(|state| state.join("outlast")).ok_or_else(|| {
        Problem::outside(
            "no place for the embedded broker: neither XDG_STATE_HOME nor HOME is set; give --broker",
        )
    })
}

/// The URL of a broker as the file means it: a relative path is relative to the file, not to whoever
/// reads it.
pub(crate) fn beside(config: &Path, url: &str) -> Result<String, Problem> {
    match url.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() && Path::new(path).is_relative() => {
            let folder = absolute(config.parent().unwrap_or(Path::new("")))?;
            Ok(format!("sqlite://{}", folder.join(path).display()))
        }
        _ => Ok(url.to_owned()),
    }
}

/// Makes the folder of the embedded broker where it is our choice and does not exist yet. A folder that
/// somebody named must exist: a slip in a path must not become a second, empty broker.
pub(crate) fn make_folder(config: &Config) -> Result<(), Problem> {
    let path = config.broker.value.strip_prefix("sqlite://").map(Path::new);
    let folder = path.and_then(Path::parent).filter(|_| config.broker.origin == Origin::Default);
    let Some(folder) = folder else { return Ok(()) };
    private_folder(folder).map_err(|error| {
        let message = format!("could not make the broker's folder {}", folder.display());
        Problem::outside(message).with_source(error)
    })
}

/// The same for the folder of the outbox.
pub(crate) fn make_spool_folder(spool: &Sourced<PathBuf>) -> Result<(), Problem> {
    let folder = spool.value.parent().filter(|_| spool.origin == Origin::Default);
    let Some(folder) = folder else { return Ok(()) };
    private_folder(folder).map_err(|error| {
        let folder = folder.display();
        let message =
            format!("could not make the outbox's folder {folder}; name a file by --spool");
        Problem::outside(message).with_source(error)
    })
}

/// Readable for its user alone, as the library makes it: payloads are nobody else's business.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// An absolute path without asking the disk: the folder need not exist yet.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Problem> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path)
        .map(|path| path.components().collect())
        .map_err(|error| Problem::outside("could not find the current folder").with_source(error))
}

/// A URL that may be shown and logged.
pub(crate) fn masked(url: &str) -> String {
    outlast::mask_url(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_broker_is_beside_the_configuration_or_in_the_state_folder() {
        let none = |_: &str| None;
        let beside = embedded_broker(Some(Path::new("/srv/app/outlast.toml")), none);
        assert_eq!(beside.expect("has a folder"), "sqlite:///srv/app/outlast.db");
        let home = |name: &str| (name == "HOME").then(|| "/home/ann".into());
        let state = embedded_broker(None, home).expect("has a home");
        assert_eq!(state, "sqlite:///home/ann/.local/state/outlast/outlast.db");
        let xdg = |name: &str| (name == "XDG_STATE_HOME").then(|| "/state".into());
        assert_eq!(
            embedded_broker(None, xdg).expect("is set"),
            "sqlite:///state/outlast/outlast.db"
        );
        assert!(embedded_broker(None, none).is_err());
    }

    /// What the program made first was readable for everybody, and then the library's tasks in it too.
    #[test]
    fn a_folder_of_nobodys_choice_is_its_users_alone() {
        use std::os::unix::fs::PermissionsExt;

        let state = tempfile::tempdir().expect("a folder");
        let folder = state.path().join("state/outlast");
        let spool = Sourced::default(folder.join("outbox.db"));
        make_spool_folder(&spool).expect("made");
        let mode = folder.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        make_spool_folder(&spool).expect("there is one");
    }

    #[test]
    fn secrets_are_masked_and_paths_are_not() {
        let cases = [
            ("redis://:secret@10.0.0.7:6379/0", "redis://***@10.0.0.7:6379/0"),
            ("redis://user:p@ss@host", "redis://user:***@host"),
            ("https://host/hook?token=abc&x=1", "https://host/hook?token=***&x=1"),
            ("sqlite:///a@b.db", "sqlite:///a@b.db"),
            ("sqlite::memory:", "sqlite::memory:"),
        ];
        for (url, shown) in cases {
            assert_eq!(masked(url), shown);
        }
    }
}
