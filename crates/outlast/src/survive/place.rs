//! Where tasks wait for a broker that is away when nobody names a file: the same for every process of a user, so that a
//! service, its workers and `outlast outbox` deliver what any of them has stored.

use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use outlast_survive::SpoolErrorKind;

use crate::connect::place_of;
use crate::error::{Error, ErrorKind, Result};

/// The variable that names the file for all of a process's connections.
const SPOOL: &str = "OUTLAST_SPOOL";

/// What can be done where the file of nobody's choice cannot be used.
const REMEDY: &str =
    "name a file by OUTLAST_SPOOL or Survive::new, or open the broker by Connection::without_spool";

/// The file in which tasks and outcomes wait for the broker behind `url` unless somebody names one: that of `OUTLAST_SPOOL`,
/// else `outlast/outbox-….db` in the folder where programs of this user keep their state (`XDG_STATE_HOME`, else
/// `~/.local/state`). Its name is made from the server's address, database and namespace: two brokers have two files, and
/// all URLs of one broker have one. `None` for an embedded broker, which is on the same disk. `env` reads the environment.
///
/// # Errors
/// [`ErrorKind::Invalid`] for a URL that names no broker, [`ErrorKind::Spool`] if there is no such folder.
///
/// ```
/// use outlast::survive::default_spool;
/// let env = |name: &str| (name == "HOME").then(|| "/home/ann".into());
/// let spool = default_spool("redis://queue:secret@10.0.0.7", env)?.unwrap();
/// assert!(spool.starts_with("/home/ann/.local/state/outlast"));
/// # Ok::<(), outlast::Error>(())
/// ```
pub fn default_spool(url: &str, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
    let Some(place) = place_of(url)? else { return Ok(None) };
    named(&env).map_or_else(|| in_state_folder(&place, &env), Ok).map(Some)
}

/// The file that the environment names.
pub(super) fn named(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    env(SPOOL).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The file in the state folder that is this broker's.
pub(super) fn in_state_folder(
    place: &str,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<PathBuf> {
    // The XDG specification has relative paths ignored.
    let folder = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")));
    let Some(state) = state else {
        let what = "no place for the outbox: neither XDG_STATE_HOME nor HOME is set";
        return Err(unusable(what));
    };
    // FNV-1a: the same in every release.
    let mixed = place.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(state.join("outlast").join(format!("outbox-{mixed:016x}.db")))
}

/// Makes the folder of a file that nobody has named, readable for its user alone: payloads are nobody else's business. A
/// folder that somebody named must exist: a slip in a path must not become a second, empty outbox.
pub(super) fn make_folder(spool: &Path) -> Result<()> {
    let Some(folder) = spool.parent() else { return Ok(()) };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| {
        let what = format!("could not make the outbox's folder {}: {error}", folder.display());
        unusable(&what).caused_by(error)
    })
}

/// What went wrong with the file of nobody's choice, with what can be done.
pub(super) fn remedied(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Spool(SpoolErrorKind::Misconfigured) => {
            unusable(&error.to_string()).caused_by(error)
        }
        _ => error,
    }
}

fn unusable(what: &str) -> Error {
    Error::new(ErrorKind::Spool(SpoolErrorKind::Misconfigured), format!("{what}; {REMEDY}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool(url: &str, variables: &[(&str, &str)]) -> Result<Option<PathBuf>> {
        let value = |name: &str| variables.iter().find(|(key, _)| *key == name);
        default_spool(url, |name| value(name).map(|(_, value)| value.into()))
    }

    #[test]
    fn each_broker_has_one_file_however_its_url_is_written_and_an_embedded_one_has_none() {
        let place = |url| spool(url, &[("HOME", "/home/ann")]).expect("a URL");
        let first = place("redis://:secret@10.0.0.7:6379/0").expect("a server may be away");
        assert!(first.starts_with("/home/ann/.local/state/outlast"), "{}", first.display());
        for same in ["redis://u:rotated@10.0.0.7", "redis://10.0.0.7/?namespace=asynq"] {
            assert_eq!(place(same), Some(first.clone()), "{same}");
        }
        for other in ["redis://10.0.0.8", "redis://10.0.0.7/1", "redis://10.0.0.7?namespace=x"] {
            assert_ne!(place(other), Some(first.clone()), "{other}");
        }
        assert_eq!(place("sqlite://tasks.db"), None);
    }

    #[test]
    fn the_file_is_the_named_one_or_in_the_state_folder() {
        let (home, state) = (("HOME", "/home/ann"), ("XDG_STATE_HOME", "/state"));
        let place = |variables: &[_]| spool("redis://h", variables).expect("a place").expect("one");
        assert_eq!(place(&[home, state, (SPOOL, "box.db")]), Path::new("box.db"));
        assert!(place(&[home, state, (SPOOL, "")]).starts_with("/state/outlast"));
        assert!(place(&[home, ("XDG_STATE_HOME", "state")]).starts_with("/home/ann/.local/state"));
    }

    #[test]
    fn a_process_without_a_home_is_told_what_it_can_do() {
        let error = spool("redis://h", &[]).expect_err("there is no place");
        assert_eq!(error.kind(), ErrorKind::Spool(SpoolErrorKind::Misconfigured));
        assert!(error.to_string().contains("name a file by OUTLAST_SPOOL"), "{error}");
    }
}
