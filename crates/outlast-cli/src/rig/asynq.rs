//! Where the program is that runs Go's asynq.

use std::path::{Path, PathBuf};

use crate::exit::{CliError, Exit};

/// The program, and where it is built: beside the folder that holds this program's executable.
const PROGRAM: &str = "outlast-interop";

/// Names the program where it is elsewhere.
const ASYNQ_ENV: &str = "OUTLAST_ASYNQ";

/// The program: as given, else of the environment, else where `scripts/install-interop` puts it.
///
/// # Errors
/// When it is in none of these places, with the remedy.
pub(crate) fn find(given: Option<&Path>) -> Result<PathBuf, CliError> {
    let named = || std::env::var_os(ASYNQ_ENV).filter(|name| !name.is_empty()).map(PathBuf::from);
    let built = || {
        let own = std::env::current_exe().ok()?;
        Some(own.ancestors().nth(2)?.join("interop").join(PROGRAM))
    };
    let wanted = given.map(Path::to_owned).or_else(named).or_else(built);
    let wanted = wanted.unwrap_or_else(|| PathBuf::from(PROGRAM));
    if wanted.is_file() {
        return Ok(wanted);
    }
    let message = format!(
        "asynq is not there: no {}; build it with scripts/install-interop (it needs Go), or name the program by \
         {ASYNQ_ENV}",
        wanted.display()
    );
    Err(CliError::new(Exit::NotFound, message))
}
