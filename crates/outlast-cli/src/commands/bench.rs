//! `outlast bench`: figures of the embedded broker on this machine, each beside its yardstick.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::Context;
use crate::bench::{self, Figure, Size};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};

/// What to measure, and where.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// End within a minute; the figures are rougher
    #[arg(long)]
    quick: bool,
    /// The folder whose disk is measured
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Be the other process of the pickup figure
    #[arg(long, hide = true)]
    produce: bool,
}

/// A figure as a row.
#[derive(Serialize)]
#[serde(transparent)]
struct Shown<'a>(&'a Figure);

impl Row for Shown<'_> {
    const HEAD: &'static [&'static str] = &["figure", "value", "unit", "exact", "ratio", "against"];

    fn cells(&self) -> Vec<String> {
        let figure = self.0;
        let exact = figure.exact.map(|exact| if exact { "yes" } else { "NO" });
        let number = |value: f64| value.to_string();
        let against = match (figure.against, figure.peer_value) {
            (Some(peer), Some(value)) => format!("{} {}: {peer}", number(value), figure.unit),
            _ => String::new(),
        };
        vec![
            figure.figure.to_owned(),
            number(figure.value),
            figure.unit.to_owned(),
            exact.unwrap_or_default().to_owned(),
            figure.ratio.map(number).unwrap_or_default(),
            against,
        ]
    }
}

pub(crate) async fn run(context: &Context, args: &BenchArgs) -> Outcome {
    if args.produce {
        return bench::produce(&context.client().await?)
            .await
            .map(|()| Exit::Done)
            .map_err(|error| failed(&*error));
    }
    let size = if args.quick { Size::QUICK } else { Size::FULL };
    let mut figures = Vec::new();
    let mut trouble = None;
    bench::run(&args.dir, size, |figure| {
        if context.format() == Format::Json
            && let Err(error) = output::rows(Format::Json, &[Shown(figure)])
        {
            trouble.get_or_insert(error);
        }
        figures.push(figure.clone());
    })
    .await
    .map_err(|error| failed(&*error))?;
    if let Some(error) = trouble {
        return Err(error);
    }
    if context.format() == Format::Table {
        output::rows(Format::Table, &figures.iter().map(Shown).collect::<Vec<_>>())?;
    }
    match figures.iter().find(|figure| figure.exact == Some(false)) {
        None => Ok(Exit::Done),
        Some(figure) => Err(CliError::new(
            Exit::Failed,
            format!("{}: a task was lost or ran twice", figure.figure),
        )),
    }
}

fn failed(error: &dyn std::error::Error) -> CliError {
    CliError::new(Exit::Failed, format!("could not measure: {error}"))
}
