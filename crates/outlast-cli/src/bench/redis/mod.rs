//! The figures of a Redis or Valkey server, and on request Go's asynq beside ours: the same run, the same server, in
//! turns, at least three rounds, every task counted by its number on both sides.
//!
//! Ours is measured as users use it: `Client` and `Worker` in one process, as asynq's client and server are in one.
//! What is below them is measured too: the scripts' own time, and how fast the same scripts go without them
//! (`ceiling`). The bench leaves nothing on the server, unless it is killed.

mod asynq;
mod bare;
mod cost;
mod gauge;
mod ours;
mod ping;
mod plan;
mod site;
mod tally;
mod turns;

use std::path::PathBuf;

use outlast::mask_url;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use self::asynq::Asynq;
use self::gauge::Gauge;
use self::ours::Ours;
use self::plan::Plan;
use super::report::Figure;
use super::{Extent, Outcome};
use crate::exit::CliError;

pub(super) use self::site::Site;
pub(super) use self::tally::median;

/// True for URLs of servers that this can measure.
pub(crate) fn is_server(url: &str) -> bool {
    ["redis://", "rediss://", "redis+unix://"].iter().any(|scheme| url.starts_with(scheme))
}

/// Where is measured, and beside what.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    url: String,
    info: ConnectionInfo,
    /// Asynq's program, to be compared with.
    asynq: Option<Asynq>,
}

impl Server {
    /// The server of a URL, and the program that runs asynq there.
    ///
    /// # Errors
    /// For a URL that is of no server, or of one that asynq's program could not reach.
    pub(crate) fn of(url: &str, asynq: Option<PathBuf>) -> Result<Self, CliError> {
        let info = server_of(url)?;
        let asynq = asynq.map(|program| Asynq::new(&program, &info)).transpose()?;
        Ok(Self { url: url.to_owned(), info, asynq })
    }
}

/// A place of the bench's own on a server, for figures of another kind.
pub(super) struct Ground {
    /// The server's URL with the bench's namespace.
    pub(super) url: String,
    /// What kind of server it is.
    pub(super) mode: String,
    pub(super) site: Site,
    info: ConnectionInfo,
}

impl Ground {
    pub(super) async fn of(url: &str) -> Outcome<Self> {
        let info = server_of(url)?;
        let client = redis::Client::open(info.clone())?;
        let mode = Gauge::new(&client).await?.mode().await?;
        let (site, _) = site::both(&client).await?;
        Ok(Self { url: in_namespace(url, &site.root), mode, site, info })
    }

    /// Where the server listens.
    pub(super) fn address(&self) -> Outcome<String> {
        match self.info.addr() {
            ConnectionAddr::Tcp(host, port) => Ok(format!("{host}:{port}")),
            other => Err(format!("{other} is no address to put a door before").into()),
        }
    }

    /// The same place, reached by this port of the loopback.
    pub(super) fn url_at(&self, port: u16) -> Outcome<String> {
        let mut url = redis::parse_redis_url(&self.url).ok_or("the URL is of no server")?;
        url.set_host(Some("127.0.0.1"))?;
        url.set_port(Some(port)).map_err(|()| "the URL takes no port")?;
        Ok(url.into())
    }
}

/// Everything that the figures are made with.
struct Bench {
    plan: Plan,
    /// What the figures begin with that are wanted, unless all are.
    only: Option<String>,
    mode: String,
    client: redis::Client,
    gauge: Gauge,
    ours: Ours,
    asynq: Option<(Asynq, Site)>,
}

/// Runs every figure, or those whose names begin with `only`, on keys of its own, which are removed at the end; `each`
/// gets the figures as they come.
pub(crate) async fn run(
    server: &Server,
    extent: Extent,
    only: Option<&str>,
    mut each: impl FnMut(&Figure),
) -> Outcome<()> {
    let mut bench = Bench::open(server, extent, only).await?;
    let measured = tokio::select! {
        measured = bench.measure(&mut each) => measured,
        () = outlast::shutdown_signal() => Err("interrupted".into()),
    };
    // What was measured is worth more than a server that is gone meanwhile; but nobody is left with our keys unsaid.
    let cleared = bench.clear().await;
    measured.and(cleared)
}

impl Bench {
    async fn open(server: &Server, extent: Extent, only: Option<&str>) -> Outcome<Self> {
        let client = redis::Client::open(server.info.clone())?;
        let mut gauge = Gauge::new(&client).await?;
        let mode = gauge.mode().await?;
        let (own, asynqs) = site::both(&client).await?;
        let ours = Ours::open(in_namespace(&server.url, &own.root), own).await?;
        let asynq = server.asynq.clone().map(|asynq| (asynq, asynqs));
        let (plan, only) = (Plan::of(extent), only.map(str::to_owned));
        Ok(Self { plan, only, mode, client, gauge, ours, asynq })
    }

    async fn measure(&mut self, each: &mut impl FnMut(&Figure)) -> Outcome<()> {
        let mode = self.mode.clone();
        let mut each = |figure: Figure| each(&figure.mode(&mode));
        let only = self.only.clone();
        let is_wanted = |name: &str| only.as_deref().is_none_or(|only| name.starts_with(only));
        if is_wanted("yardstick") {
            self.ping().await?.into_iter().for_each(&mut each);
        }
        let mut known = Vec::new();
        for (_, turn) in turns::of(self.plan).into_iter().filter(|(name, _)| is_wanted(name)) {
            for figure in self.take_turns(turn).await? {
                known.push(figure.clone());
                each(figure);
            }
        }
        turns::kept(&known).into_iter().for_each(&mut each);
        Ok(())
    }

    /// The yardsticks: how fast the server answers the smallest command, through our client library and asynq's.
    async fn ping(&self) -> Outcome<Vec<Figure>> {
        let seconds = self.plan.ping_seconds;
        let theirs = match &self.asynq {
            Some((asynq, _)) => Some(asynq.ping(seconds).await?),
            None => None,
        };
        let mut figures = Vec::new();
        for (nth, (name, connections)) in ping::KINDS.into_iter().enumerate() {
            let rate = ping::rate(&self.client, connections, seconds).await?;
            let figure = Figure::new(name, rate, "PING/s");
            figures.push(match theirs {
                Some(theirs) => figure.against("go-redis, asynq's client library", theirs[nth]),
                None => figure,
            });
        }
        Ok(figures)
    }

    /// Leaves nothing on the server. Whatever of ours still runs is cut off before.
    async fn clear(&mut self) -> Outcome<()> {
        self.ours.connection.clone().close().await;
        let ours = self.ours.site.clear().await;
        if let Some((_, site)) = &mut self.asynq {
            site.clear().await?;
        }
        ours
    }
}

/// The server of a URL, for a bare connection and for asynq. Our own option, the namespace, says nothing about it: the
/// bench has one of its own.
fn server_of(url: &str) -> Result<ConnectionInfo, CliError> {
    let shown = mask_url(url);
    let parsed = redis::parse_redis_url(url).filter(|parsed| parsed.scheme() == "redis");
    let info = parsed.as_ref().and_then(|_| url.into_connection_info().ok());
    let (Some(parsed), Some(info)) = (parsed, info) else {
        let what = format!("bench measures servers over redis:// only, not {shown}");
        return Err(CliError::usage(what));
    };
    let mut login = info.redis_settings().clone();
    for (name, value) in parsed.query_pairs() {
        login = match &*name {
            "db" => {
                let db = value.parse().map_err(|_| format!("{shown}: db {value:?} is no number"));
                login.set_db(db.map_err(CliError::usage)?)
            }
            "user" => login.set_username(&*value),
            "password" => login.set_password(&*value),
            _ => login,
        };
    }
    Ok(info.set_redis_settings(login))
}

/// The URL with this namespace instead of the one it has.
fn in_namespace(url: &str, root: &str) -> String {
    let (server, query) = url.split_once('?').unwrap_or((url, ""));
    let others =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("namespace="));
    let own = format!("namespace={root}");
    let query: Vec<&str> = others.chain([own.as_str()]).collect();
    format!("{server}?{}", query.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_is_the_urls_and_the_namespace_is_the_benchs() {
        let url = "redis://u:pw@h:7000?namespace=billing&db=3";
        let info = server_of(url).expect("a URL");
        let login = info.redis_settings();
        assert_eq!((login.db(), login.username(), login.password()), (3, Some("u"), Some("pw")));
        assert_eq!(in_namespace(url, "b1"), "redis://u:pw@h:7000?db=3&namespace=b1");
        assert_eq!(in_namespace("redis://h/1", "b1"), "redis://h/1?namespace=b1");
    }

    #[test]
    fn servers_that_asynq_could_not_be_measured_on_are_refused_without_their_password() {
        for url in ["rediss://u:pw@h", "redis+unix:///run/redis.sock?password=pw"] {
            let error = server_of(url).expect_err(url).to_string();
            assert!(error.contains("over redis:// only") && !error.contains("pw"), "{error}");
        }
    }
}
