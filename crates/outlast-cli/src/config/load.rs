//! From flags, environment and file to a [`Config`], or to everything that is wrong with it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::CONFIG_FILE;
use super::problem::{Problem, Problems};
use super::raw::RawConfig;
use super::resolve::Resolver;
use super::{Config, Origin, Sourced};

/// What the command line asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// `--broker`
    pub(crate) broker: Option<String>,
    /// `--spool`
    pub(crate) spool: Option<PathBuf>,
    /// `--slots`
    pub(crate) slots: Option<u32>,
    /// `--queues`
    pub(crate) queues: Option<String>,
    /// `--journal`
    pub(crate) journal: Option<String>,
    /// `--shutdown`
    pub(crate) shutdown: Option<String>,
}

/// Reads the configuration: the file that is named, or `outlast.toml` in the current folder if there is
/// one, below the environment and the flags.
pub(crate) fn load(
    asked: &Asked,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Config, Problems> {
    let file = find(asked, env)?;
    let text = match &file {
        Some(path) => read(path)?,
        None => String::new(),
    };
    let path = file.as_ref().map_or_else(|| PathBuf::from(CONFIG_FILE), |file| file.value.clone());
    let raw = RawConfig::parse(&path, &text)?;
    let mut resolver = Resolver::new(Arc::new(path), text, env);
    let config = resolver.resolve(raw, file, asked);
    resolver.finish(config)
}

fn find(
    asked: &Asked,
    env: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Sourced<PathBuf>>, Problem> {
    let named = asked.config.clone().map(|path| Sourced::new(path, Origin::Flag("--config")));
    let set = || {
        let value = env("OUTLAST_CONFIG").filter(|value| !value.is_empty())?;
        Some(Sourced::new(PathBuf::from(value), Origin::Env("OUTLAST_CONFIG")))
    };
    match named.or_else(set) {
        Some(file) if file.is_file() => Ok(Some(file)),
        Some(Sourced { value, origin }) => Err(Problem::outside(format!(
            "configuration {} ({origin}) is no file that can be read",
            value.display()
        ))),
        None => {
            let here = Path::new(CONFIG_FILE);
            Ok(here.is_file().then(|| Sourced::default(here.to_owned())))
        }
    }
}

fn read(path: &Path) -> Result<String, Problem> {
    let bytes = std::fs::read(path)
        .map_err(|error| Problem::at(path, None, "could not be read").with_source(error))?;
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        Problem::at(path, Some(line), "is not valid UTF-8")
    })
}
