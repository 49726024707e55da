//! `--watch`: the same rows again every second. On a screen the table is drawn over; elsewhere one table
//! or one set of JSON objects follows the other.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;

use crate::exit::CliError;
use crate::output::{self, Format, Row};

/// How often.
const EVERY: Duration = Duration::from_secs(1);

/// To the upper left corner, and clear the screen from there.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Once, or again and again.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Watch {
    /// Look again every second
    #[arg(long)]
    watch: bool,
}

/// Prints what `look` sees, once or until stopped.
pub(crate) async fn rows<R: Row>(
    format: Format,
    Watch { watch }: Watch,
    mut look: impl AsyncFnMut() -> Result<Vec<R>, CliError>,
) -> Result<(), CliError> {
    if !watch {
        return output::rows(format, &look().await?);
    }
    let mut ticks = tokio::time::interval(EVERY);
    loop {
        ticks.tick().await;
        let rows = look().await?;
        match format {
            Format::Table if std::io::stdout().is_terminal() => {
                output::write(format!("{REDRAW}{}", output::table(&rows)).as_bytes())?;
            }
            Format::Table | Format::Json => output::rows(format, &rows)?,
        }
    }
}
