//! What is wrong with a configuration, and where: all of it at once, so that a file is repaired in one go.

use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::exit::{CliError, Exit, chain};

/// One thing that is wrong.
#[derive(Debug)]
pub(crate) struct Problem {
    place: Option<(PathBuf, Option<usize>)>,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Problem {
    /// Something in the file at `path`.
    pub(crate) fn at(path: &Path, line: Option<usize>, message: impl Into<String>) -> Self {
        Self { place: Some((path.to_owned(), line)), message: message.into(), source: None }
    }

    /// Something given on the command line or in the environment; the message says which.
    pub(crate) fn outside(message: impl Into<String>) -> Self {
        Self { place: None, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((path, Some(line))) => write!(f, "{}:{line}: {}", path.display(), self.message),
            Some((path, None)) => write!(f, "{}: {}", path.display(), self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// All that is wrong: never empty.
#[derive(Debug)]
pub(crate) struct Problems(pub(crate) Vec<Problem>);

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl From<Problems> for CliError {
    fn from(problems: Problems) -> Self {
        match <[Problem; 1]>::try_from(problems.0) {
            Ok([problem]) => CliError::new(Exit::Usage, problem.to_string()).with_source(problem),
            // Several: each on its own line, with its own sources.
            Err(many) => {
                let lines: Vec<String> = many.iter().map(|problem| chain(problem)).collect();
                CliError::new(Exit::Usage, lines.join("\noutlast: "))
            }
        }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        Problems::from(problem).into()
    }
}
