//! The name of this machine, as workers and schedulers show it.

/// The host's name; `unknown-host` where the system has none, as in asynq (contract §1.2).
pub(crate) fn name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "unknown-host".to_owned() } else { name }
}
