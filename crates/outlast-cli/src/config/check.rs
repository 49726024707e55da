//! Checks of a configuration that ask the machine: is every program there, and does anybody serve the
//! queues that are named? Asked where handlers are about to run, and by `config check`; a machine that
//! only enqueues need not have the programs.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use outlast::QueueName;

use super::place::absolute;
use super::problem::Problem;
use super::{Config, Origin, Run};

/// The handlers' programs that cannot be run.
pub(crate) fn programs(config: &Config, path: Option<&OsStr>) -> Vec<Problem> {
    let mut missing = Vec::new();
    for handler in &config.handlers {
        let Run::Command(words) = &handler.run.value else { continue };
        let program = words.first().map(String::as_str).unwrap_or_default();
        if let Err(why) = find_program(program, config.path(), path) {
            let message = format!("handler {:?}: {why}", handler.pattern.value);
            missing.push(located(&handler.run.origin, message));
        }
    }
    missing
}

/// Queues that schedules or groups name and that this worker does not serve: no mistake if another
/// worker does, so a warning.
pub(crate) fn unserved(config: &Config) -> Vec<String> {
    let served = |name: &QueueName| config.queues.iter().any(|queue| queue.name == *name);
    let schedules = config.schedules.iter().filter(|s| !served(&s.queue)).map(|s| {
        format!(
            "schedule {} enqueues into {}, which is not among the queues here",
            s.name.value, s.queue.value
        )
    });
    let groups = config.groups.iter().filter(|g| !served(&g.queue)).map(|g| {
        let (pattern, queue) = (&g.pattern.value, &g.queue.value);
        format!("group {pattern} is in {queue}, which is not among the queues here")
    });
    schedules.chain(groups).collect()
}

fn located(origin: &Origin, message: String) -> Problem {
    match origin {
        Origin::File(path, line) => Problem::at(path, Some(*line), message),
        Origin::Flag(_) | Origin::Env(_) | Origin::Default => Problem::outside(message),
    }
}

/// Where a program is: a path is taken relative to the configuration, a name is looked up in `path`, as a
/// shell does.
///
/// Looked up once and here, so that a missing program is an error at the start instead of the failure of
/// every task, and so that no run searches the folders again.
pub(crate) fn find_program(
    program: &str,
    config: Option<&Path>,
    path: Option<&OsStr>,
) -> Result<PathBuf, String> {
    if program.contains('/') {
        let folder = config.and_then(Path::parent).unwrap_or(Path::new(""));
        let file = absolute(&folder.join(program)).map_err(|problem| problem.to_string())?;
        return runnable(&file).map(|()| file.clone());
    }
    let folders = path.map(std::env::split_paths).into_iter().flatten();
    let mut refused = None;
    for folder in folders {
        let file = folder.join(program);
        match runnable(&file) {
            Ok(()) => return absolute(&file).map_err(|problem| problem.to_string()),
            Err(why) if file.exists() => refused = Some(why),
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| format!("command {program:?} is not found in PATH")))
}

fn runnable(file: &Path) -> Result<(), String> {
    let shown = file.display();
    match file.metadata() {
        Err(error) => Err(format!("command {shown} cannot be run: {error}")),
        Ok(meta) if !meta.is_file() => Err(format!("command {shown} is no file")),
        Ok(meta) if meta.permissions().mode() & 0o111 == 0 => {
            Err(format!("command {shown} is not executable"))
        }
        Ok(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        let path = OsStr::new("/nowhere:/bin");
        let found = find_program("sh", None, Some(path)).expect("every unix has sh");
        assert_eq!(found, Path::new("/bin/sh"));
        let missing = find_program("no-such-program", None, Some(path)).expect_err("is missing");
        assert_eq!(missing, "command \"no-such-program\" is not found in PATH");
        let folder = find_program("./bin", Some(Path::new("/outlast.toml")), None);
        assert_eq!(folder.expect_err("is a folder"), "command /bin is no file");
    }
}
