//! `[[handler]]`: which command or endpoint runs which tasks.

use std::collections::HashMap;
use std::time::Duration;

use outlast::{TaskType, limits};
use toml::Spanned;

use super::raw::RawHandler;
use super::resolve::Resolver;
use super::{HandlerConfig, Origin, Run, Sourced, place};

/// How long a task sleeps whose handler asked for a snooze.
const SNOOZE_DEFAULT: Duration = Duration::from_secs(30);

impl Resolver<'_> {
    pub(super) fn handlers(&mut self, written: &[Spanned<RawHandler>]) -> Vec<HandlerConfig> {
        let mut first: HashMap<String, Origin> = HashMap::new();
        let mut handlers = Vec::new();
        for entry in written {
            let Some(handler) = self.handler(entry) else { continue };
            let Sourced { value, origin } = handler.pattern.clone();
            if let Some(before) = first.get(&value) {
                let message = format!("handler type {value:?} is bound twice, first at {before}");
                self.wrong_at(&origin, message);
            }
            first.entry(value).or_insert(origin);
            handlers.push(handler);
        }
        handlers
    }

    fn handler(&mut self, entry: &Spanned<RawHandler>) -> Option<HandlerConfig> {
        let raw = entry.get_ref();
        let pattern = self.pattern(entry)?;
        let run = self.run(entry)?;
        let timeout = match &raw.timeout {
            None => None,
            Some(written) => Some(self.positive("timeout", written)?),
        };
        let snooze = match &raw.snooze {
            None => Sourced::default(SNOOZE_DEFAULT),
            Some(written) => self.positive("snooze", written)?,
        };
        let concurrency =
            raw.concurrency.as_ref().map(|n| Sourced::new(*n.get_ref(), self.origin(n)));
        if let (Some(0), Some(place)) = (concurrency.as_ref().map(|n| n.value), &raw.concurrency) {
            self.wrong(
                place,
                "concurrency 0 would never run anything: use 1 or more, or leave it out",
            );
        }
        Some(HandlerConfig {
            pattern,
            run,
            timeout,
            concurrency,
            snooze,
            output_max: self.output_max(raw.output_max.as_ref())?,
        })
    }

    /// A type, or its beginning followed by `*`.
    fn pattern(&mut self, entry: &Spanned<RawHandler>) -> Option<Sourced<String>> {
        let Some(written) = &entry.get_ref().pattern else {
            self.wrong(
                entry,
                "handler has no type: say which tasks it runs, such as type = \"image:*\"",
            );
            return None;
        };
        self.name("handler type", written, |text| TaskType::new(text))?;
        let text = written.get_ref();
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            let why = "has a * that is not at its end: give a type, or its beginning and a *";
            self.wrong(written, format!("handler type {text:?} {why}"));
            return None;
        }
        Some(Sourced::new(text.clone(), self.origin(written)))
    }

    fn output_max(&mut self, written: Option<&Spanned<u64>>) -> Option<Sourced<usize>> {
        let Some(written) = written else {
            return Some(Sourced::default(limits::RESULT_BYTES_MAX));
        };
        match usize::try_from(*written.get_ref()).ok().filter(|n| *n <= limits::RESULT_BYTES_MAX) {
            Some(bytes) => Some(Sourced::new(bytes, self.origin(written))),
            None => {
                let (value, most) = (written.get_ref(), limits::RESULT_BYTES_MAX);
                self.wrong(
                    written,
                    format!("output_max {value} is too large: a result has at most {most} bytes"),
                );
                None
            }
        }
    }

    fn run(&mut self, entry: &Spanned<RawHandler>) -> Option<Sourced<Run>> {
        let raw = entry.get_ref();
        match (&raw.command, &raw.url) {
            (Some(command), None) => self.command(command),
            (None, Some(url)) => self.url(url),
            (Some(command), Some(_)) => {
                self.wrong(command, "handler has a command and a url: give one of them");
                None
            }
            (None, None) => {
                self.wrong(entry, "handler has neither a command nor a url: give one of them");
                None
            }
        }
    }

    fn command(&mut self, written: &Spanned<Vec<String>>) -> Option<Sourced<Run>> {
        let words = written.get_ref();
        let wrong = match words.first() {
            None => Some("command is empty: give a program and its arguments".to_owned()),
            Some(program) if program.trim().is_empty() => {
                Some(format!("command {words:?} names no program"))
            }
            Some(program) if program.contains("{payload}") => Some(format!(
                "command {words:?} would let a payload choose the program: use {{payload}} in an argument"
            )),
            Some(_) if words.iter().any(|word| word.contains('\0')) => {
                Some(format!("command {words:?} holds a NUL character"))
            }
            Some(_) => None,
        };
        match wrong {
            Some(message) => {
                self.wrong(written, message);
                None
            }
            None => Some(Sourced::new(Run::Command(words.clone()), self.origin(written))),
        }
    }

    fn url(&mut self, written: &Spanned<String>) -> Option<Sourced<Run>> {
        let shown = place::masked(written.get_ref());
        match reqwest::Url::parse(written.get_ref()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => {
                Some(Sourced::new(Run::Url(url), self.origin(written)))
            }
            Ok(_) => {
                self.wrong(written, format!("url {shown:?} is not http:// or https://"));
                None
            }
            Err(error) => {
                self.wrong_with(written, format!("url {shown:?} is wrong"), error);
                None
            }
        }
    }
}
