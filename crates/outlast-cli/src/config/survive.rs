//! `[survive]`: how outages are outlived.

use std::path::PathBuf;
use std::time::Duration;

use outlast::duration;
use outlast::survive::{JournalMode, LedgerLimits, SpoolLimits, Survive, WhenFull};
use toml::Spanned;

use super::load::Asked;
use super::raw::RawSurvive;
use super::resolve::Resolver;
use super::{Origin, Sourced, place};

/// How outages are outlived.
#[derive(Debug)]
pub(crate) struct SurviveConfig {
    pub(crate) journal: Sourced<JournalMode>,
    /// Unless set a worker waits for less than a command does.
    pub(crate) patience: Option<Sourced<Duration>>,
    pub(crate) items_max: Sourced<u64>,
    pub(crate) bytes_max: Sourced<u64>,
    pub(crate) age_max: Sourced<Duration>,
    pub(crate) when_full: Sourced<WhenFull>,
    pub(crate) keep_for: Sourced<Duration>,
    pub(crate) keep_bytes: Sourced<usize>,
}

impl SurviveConfig {
    /// What the spool is opened with.
    pub(crate) fn limits(&self) -> SpoolLimits {
        SpoolLimits {
            items_max: *self.items_max,
            bytes_max: *self.bytes_max,
            age_max: *self.age_max,
            when_full: *self.when_full,
        }
    }

    /// What a connection survives with, by this file and unless it is configured with this patience.
    pub(crate) fn survive(&self, spool: &Sourced<PathBuf>, patience: Duration) -> Survive {
        let patience = self.patience.as_ref().map_or(patience, |patience| patience.value);
        Survive::new(&spool.value)
            .limits(self.limits())
            .journal(*self.journal)
            .keep_for(*self.keep_for)
            .keep_bytes(*self.keep_bytes)
            .patience(patience)
    }
}

impl Resolver<'_> {
    /// `None` only together with a problem. All that is wrong is told at once.
    pub(super) fn survive(&mut self, raw: &RawSurvive, asked: &Asked) -> Option<SurviveConfig> {
        let (spool, ledger) = (SpoolLimits::default(), LedgerLimits::default());
        let journal = self.journal(raw, asked);
        let patience = match &raw.patience {
            None => Some(None),
            Some(written) => self.positive("survive.patience", written).map(Some),
        };
        let items_max = self.at_least_one("survive.items_max", &raw.items_max, spool.items_max);
        let bytes_max = self.at_least_one("survive.bytes_max", &raw.bytes_max, spool.bytes_max);
        let age_max = match &raw.age_max {
            None => Some(Sourced::default(spool.age_max)),
            Some(written) => self.positive("survive.age_max", written),
        };
        let when_full = match &raw.when_full {
            None => Some(Sourced::default(spool.when_full)),
            Some(written) => self.read("survive.when_full", written, when_full),
        };
        let keep_for = match &raw.keep_for {
            None => Some(Sourced::default(ledger.keep_for)),
            Some(written) => self.duration("survive.keep_for", written),
        };
        let keep_bytes =
            self.at_least_one("survive.keep_bytes", &raw.keep_bytes, ledger.bytes_max as u64);
        let keep_bytes = keep_bytes?;
        let bytes = usize::try_from(keep_bytes.value).unwrap_or(usize::MAX);
        Some(SurviveConfig {
            journal: journal?,
            patience: patience?,
            items_max: items_max?,
            bytes_max: bytes_max?,
            age_max: age_max?,
            when_full: when_full?,
            keep_for: keep_for?,
            keep_bytes: Sourced::new(bytes, keep_bytes.origin),
        })
    }

    fn journal(&mut self, raw: &RawSurvive, asked: &Asked) -> Option<Sourced<JournalMode>> {
        let outside = match &asked.journal {
            Some(text) => Some((text.clone(), Origin::Flag("--journal"))),
            None => self.env("OUTLAST_JOURNAL").map(|t| (t, Origin::Env("OUTLAST_JOURNAL"))),
        };
        match (outside, &raw.journal) {
            (Some((text, origin)), _) => match journal(&text) {
                Ok(mode) => Some(Sourced::new(mode, origin)),
                Err(why) => {
                    self.outside(format!("survive.journal ({origin}): {why}"));
                    None
                }
            },
            (None, Some(written)) => self.read("survive.journal", written, journal),
            (None, None) => Some(Sourced::default(JournalMode::default())),
        }
    }

    /// The file of `survive.spool`, relative to the configuration.
    pub(super) fn named_spool(&mut self, raw: &RawSurvive) -> Option<Sourced<PathBuf>> {
        let written = raw.spool.as_ref()?;
        if written.get_ref().is_empty() {
            self.wrong(written, "survive.spool is empty: name a file");
            return None;
        }
        let configuration = self.path();
        let beside = configuration.parent().unwrap_or(std::path::Path::new(""));
        match place::absolute(&beside.join(written.get_ref())) {
            Ok(path) => Some(Sourced::new(path, self.origin(written))),
            Err(problem) => {
                self.wrong(written, problem.to_string());
                None
            }
        }
    }

    fn at_least_one(
        &mut self,
        key: &str,
        written: &Option<Spanned<u64>>,
        unless_set: u64,
    ) -> Option<Sourced<u64>> {
        let Some(written) = written else { return Some(Sourced::default(unless_set)) };
        if *written.get_ref() == 0 {
            self.wrong(written, format!("{key} 0 is too small: use 1 or more"));
            return None;
        }
        Some(Sourced::new(*written.get_ref(), self.origin(written)))
    }

    fn read<T>(
        &mut self,
        key: &str,
        written: &Spanned<String>,
        parse: fn(&str) -> Result<T, String>,
    ) -> Option<Sourced<T>> {
        match parse(written.get_ref()) {
            Ok(value) => Some(Sourced::new(value, self.origin(written))),
            Err(why) => {
                self.wrong(written, format!("{key} is wrong: {why}"));
                None
            }
        }
    }
}

fn journal(text: &str) -> Result<JournalMode, String> {
    match text {
        "on_failure" => Ok(JournalMode::OnFailure),
        "always" => Ok(JournalMode::Always),
        other => Err(format!("{other:?} is no mode; write on_failure or always")),
    }
}

fn when_full(text: &str) -> Result<WhenFull, String> {
    match text {
        "reject" => Ok(WhenFull::Reject),
        "drop_oldest" => Ok(WhenFull::DropOldest),
        other => duration::parse(other).map(WhenFull::Block).map_err(|_| {
            format!("{other:?} is no answer; write reject, drop_oldest, or how long to wait, such as 10s")
        }),
    }
}

/// As it is written.
pub(super) fn journal_text(mode: JournalMode) -> &'static str {
    match mode {
        JournalMode::OnFailure => "on_failure",
        JournalMode::Always => "always",
    }
}

/// As it is written.
pub(super) fn when_full_text(when_full: WhenFull) -> String {
    match when_full {
        WhenFull::Reject => "reject".to_owned(),
        WhenFull::DropOldest => "drop_oldest".to_owned(),
        WhenFull::Block(at_most) => duration::format(at_most),
    }
}
