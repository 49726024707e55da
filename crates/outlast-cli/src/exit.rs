//! How the program ends: the exit codes that scripts rely on, and the errors that lead to them.

use std::error::Error as StdError;
use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// Why the program ends. The numbers are a promise to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done.
    Done = 0,
    /// It failed, for a reason that is none of the others.
    Failed = 1,
    /// Wrong use, wrong input or wrong configuration: try something else.
    Usage = 2,
    /// Some of it was done; what was not has been named.
    Partly = 3,
    /// The broker could not be reached, or refuses writes: try later.
    Unavailable = 4,
    /// What was named does not exist.
    NotFound = 5,
    /// It exists already, or the state of things forbids it.
    Conflict = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// What a command answers: how it ended, or why it could not.
pub(crate) type Outcome = Result<Exit, CliError>;

/// An error with the exit code it leads to, a message, and the error below it.
#[derive(Debug)]
pub(crate) struct CliError {
    exit: Exit,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl CliError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), source: None }
    }

    /// Wrong use or wrong input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Exit::NotFound, message)
    }

    pub(crate) fn failed(
        message: impl Into<String>,
        source: impl StdError + Send + Sync + 'static,
    ) -> Self {
        Self::new(Exit::Failed, message).with_source(source)
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for CliError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// The message and those of its sources, as one line. Some errors already quote their source; what was
/// said is not said again.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(source) = below {
        let more = source.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        below = source.source();
    }
    text
}

/// Says on stderr why the program ends, and answers with the code. A reader that went away (`| head`) is
/// no error: it has seen what it wanted.
pub(crate) fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(exit) => exit.into(),
        Err(error) if reader_left(&error) => Exit::Done.into(),
        Err(error) => {
            // Nobody may be reading any more; the exit code is for whoever started us.
            let _ = writeln!(std::io::stderr(), "outlast: {}", chain(&error));
            error.exit().into()
        }
    }
}

fn reader_left(error: &CliError) -> bool {
    let io = error.source.as_deref().and_then(|source| source.downcast_ref::<std::io::Error>());
    error.message == crate::output::STDOUT
        && io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_told_once() {
        let disk = std::io::Error::other("disk full");
        let error = CliError::failed("could not write report.txt", disk);
        assert_eq!(chain(&error), "could not write report.txt: disk full");
        let told =
            CliError::failed("could not write: disk full", std::io::Error::other("disk full"));
        assert_eq!(chain(&told), "could not write: disk full");
    }
}
