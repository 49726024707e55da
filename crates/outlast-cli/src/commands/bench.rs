//! `outlast bench`: figures of the broker on this machine, each beside its yardstick.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use outlast::QueueName;
use serde::Serialize;

use super::{Context, open, progress};
use crate::bench::{self, Extent, Figure};
use crate::config::Config;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};
use crate::rig::find_asynq;

/// How often the clock beside the number of figures moves.
const TICK: Duration = Duration::from_millis(500);

/// What to measure, and where.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// End in about a minute; the figures are rougher
    #[arg(long)]
    quick: bool,
    /// With a million tasks waiting as well: of a server, about 2 GB of its memory
    #[arg(long, conflicts_with = "quick")]
    full: bool,
    /// Do next to nothing, to see that all figures come
    #[arg(long, hide = true, conflicts_with_all = ["quick", "full"])]
    tiny: bool,
    /// What outliving outages costs, and what it does in one: on the server of --broker, or on one that is started for it
    #[arg(long, conflicts_with_all = ["against", "only"])]
    outage: bool,
    /// Of a server, only the figures that begin with this, such as `drain`
    #[arg(long, value_name = "FIGURE")]
    only: Option<String>,
    /// The folder whose disk is measured, for the embedded broker and for what waits for a server
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Run this beside ours, on the same server, in turns
    #[arg(long, value_name = "PEER")]
    against: Option<Peer>,
    /// The program that runs asynq; where scripts/install-interop puts it unless given [env: OUTLAST_ASYNQ]
    #[arg(long, value_name = "PATH", requires = "against")]
    asynq: Option<PathBuf>,
    /// Be the other process of the pickup figure, for this queue
    #[arg(long, hide = true, value_name = "QUEUE")]
    produce: Option<QueueName>,
}

/// Who can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Go's asynq
    Asynq,
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
            (Some(peer), Some(value)) => format!("{}: {peer}", number(value)),
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
    if let Some(queue) = &args.produce {
        let produced = bench::produce(&context.connect().await?.client(), queue).await;
        return produced.map(|()| Exit::Done).map_err(failed);
    }
    let mut figures = Vec::new();
    let mut trouble = None;
    let counter = progress::counter("figures");
    counter.enable_steady_tick(TICK);
    measure(context, args, |figure| {
        if context.format() == Format::Json
            && let Err(error) = output::rows(Format::Json, &[Shown(figure)])
        {
            trouble.get_or_insert(error);
        }
        counter.inc(1);
        figures.push(figure.clone());
    })
    .await?;
    counter.finish_and_clear();
    if let Some(error) = trouble {
        return Err(error);
    }
    if let (Some(only), true) = (&args.only, figures.is_empty()) {
        return Err(CliError::usage(format!("no figure begins with {only:?}")));
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

/// A server if one is configured, else the embedded broker in a file of its own.
async fn measure(
    context: &Context,
    args: &BenchArgs,
    each: impl FnMut(&Figure),
) -> Result<(), CliError> {
    let config = context.load(&context.global.asked())?;
    if args.outage {
        return outage(&config, args, each).await;
    }
    if !bench::redis::is_server(&config.broker.value) {
        if args.against.is_some() || args.only.is_some() {
            return Err(CliError::usage(
                "--against and --only are for servers: name one with --broker redis://…",
            ));
        }
        let size = bench::sqlite::Size::of(args.extent());
        return bench::sqlite::run(&args.dir, size, each).await.map_err(failed);
    }
    let asynq = args.against.map(|Peer::Asynq| find_asynq(args.asynq.as_deref()));
    let server = bench::redis::Server::of(&config.broker.value, asynq.transpose()?)?;
    // It says what is wrong with a server as all commands do.
    open(&config).await?.close().await;
    let only = args.only.as_deref();
    bench::redis::run(&server, args.extent(), only, each).await.map_err(failed)
}

/// On the configured server if there is one, else on one of its own.
async fn outage(
    config: &Config,
    args: &BenchArgs,
    each: impl FnMut(&Figure),
) -> Result<(), CliError> {
    let url = &config.broker.value;
    let url = Some(url.as_str()).filter(|url| bench::redis::is_server(url));
    if url.is_some() {
        open(config).await?.close().await;
    }
    bench::outage::run(url, &args.dir, args.extent(), each).await.map_err(failed)
}

impl BenchArgs {
    fn extent(&self) -> Extent {
        match (self.tiny, self.quick, self.full) {
            (true, ..) => Extent::Tiny,
            (_, true, _) => Extent::Quick,
            (.., true) => Extent::Full,
            _ => Extent::Usual,
        }
    }
}

/// A bench that could not be done, with the exit code of its cause where that is a broker's.
fn failed(error: Box<dyn std::error::Error>) -> CliError {
    match error.downcast::<outlast::Error>() {
        Ok(error) => CliError::from(*error),
        Err(error) => error.downcast::<CliError>().map_or_else(
            |error| CliError::new(Exit::Failed, format!("could not measure: {error}")),
            |error| *error,
        ),
    }
}
