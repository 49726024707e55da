//! The figures of one process under stable names, for whatever collects them. As text they are in the format that
//! Prometheus reads.

use std::fmt;

use outlast_core::Timestamp;

use crate::breaker::{CircuitState, Class, HomeStatus};
use crate::spool::Store;
use crate::survivor::Status;

/// Whether a figure only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, the same in every release.
    pub name: &'static str,
    /// What it is.
    pub help: &'static str,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Its values: one, or one for each store, home or class there is.
    pub samples: Vec<Sample>,
}

/// A value of a figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What it is the value of.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

/// All figures at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Metrics(Vec<Metric>);

impl Metrics {
    pub(crate) fn of(status: &Status, now: Timestamp) -> Self {
        let mut metrics = Self(Vec::new());
        metrics.counters(status);
        metrics.stores(status, now);
        metrics.homes(&status.homes, now);
        metrics
    }

    /// The figures, in the order of their text.
    pub fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.0.iter()
    }

    /// The value of a figure with these labels.
    #[must_use]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let metric = self.0.iter().find(|metric| metric.name == name)?;
        let is_it = |sample: &&Sample| {
            let own = sample.labels.iter().map(|(name, value)| (*name, value.as_str()));
            own.eq(labels.iter().copied())
        };
        metric.samples.iter().find(is_it).map(|sample| sample.value)
    }

    fn counters(&mut self, status: &Status) {
        let counts = status.counts;
        for (name, help, count) in [
            ("outlast_stored_total", "Tasks stored in the outbox.", counts.stored),
            ("outlast_journaled_total", "Outcomes stored in the journal.", counts.journaled),
            ("outlast_delivered_total", "Tasks delivered from the outbox.", counts.delivered),
            ("outlast_applied_total", "Outcomes applied from the journal.", counts.applied),
            (
                "outlast_adopted_total",
                "Of those, adopted after their lease was lost.",
                counts.adopted,
            ),
            ("outlast_lease_lost_total", "Outcomes that came too late.", counts.lease_lost),
            ("outlast_duplicates_total", "Stored tasks that were duplicates.", counts.duplicates),
            ("outlast_id_conflicts_total", "Stored tasks whose id was taken.", counts.id_conflicts),
            ("outlast_quarantined_total", "Items put into quarantine.", counts.quarantined),
            ("outlast_dropped_total", "Tasks dropped to make room.", counts.dropped),
            (
                "outlast_possible_repeats_total",
                "Items that may have been applied twice.",
                counts.possible_repeats,
            ),
            (
                "outlast_offered_again_total",
                "Items that the broker had acknowledged and forgotten.",
                counts.offered_again,
            ),
            ("outlast_outages_total", "Outages that have begun.", counts.outages),
            (
                "outlast_sick_calls_total",
                "Probes and trials of a broker that was down.",
                counts.sick_calls,
            ),
        ] {
            self.add((name, help, MetricKind::Counter), [(Vec::new(), count as f64)]);
        }
    }

    fn stores(&mut self, status: &Status, now: Timestamp) {
        let stores = [(Store::Outbox, &status.outbox), (Store::Journal, &status.journal)];
        let label = |store: Store| vec![("store", store.as_str().to_owned())];
        let mut gauge = |name, help, value: &dyn Fn(&crate::spool::Waiting) -> f64| {
            let samples = stores.map(|(store, waiting)| (label(store), value(waiting)));
            self.add((name, help, MetricKind::Gauge), samples);
        };
        gauge(
            "outlast_spool_items",
            "Items that wait on the disk, of all processes.",
            &|waiting| waiting.items as f64,
        );
        gauge("outlast_spool_bytes", "Bytes of their records.", &|waiting| waiting.bytes as f64);
        gauge("outlast_spool_oldest_seconds", "Age of the oldest.", &|waiting| {
            waiting.oldest.map_or(0.0, |oldest| now.since(oldest).as_secs_f64())
        });
        gauge("outlast_spool_quarantined", "Items in quarantine.", &|waiting| {
            waiting.quarantined as f64
        });
        let rate = [(Vec::new(), status.drain_rate)];
        let help = "Tasks a second that are delivered at most.";
        self.add(("outlast_drain_rate", help, MetricKind::Gauge), rate);
    }

    fn homes(&mut self, homes: &[HomeStatus], now: Timestamp) {
        let label = |status: &HomeStatus| ("home", status.home.0.to_string());
        let outages = homes.iter().map(|status| {
            let since = status.outage.as_ref().map(|outage| now.since(outage.since));
            (vec![label(status)], since.map_or(0.0, |time| time.as_secs_f64()))
        });
        let help = "How long the broker is down, 0 if it is not.";
        self.add(("outlast_outage_seconds", help, MetricKind::Gauge), outages);
        let states = homes.iter().flat_map(|status| {
            let of = |class: Class, state: CircuitState| {
                let labels = vec![label(status), ("class", class.as_str().to_owned())];
                (labels, degree(state))
            };
            [
                of(Class::Produce, status.produce),
                of(Class::Consume, status.consume),
                of(Class::Admin, status.admin),
            ]
        });
        let help = "Whether calls pass: 0 closed (they do), 1 half-open (one at a time), 2 open.";
        self.add(("outlast_breaker_state", help, MetricKind::Gauge), states);
    }

    fn add(
        &mut self,
        (name, help, kind): (&'static str, &'static str, MetricKind),
        samples: impl IntoIterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) {
        let samples = samples.into_iter().map(|(labels, value)| Sample { labels, value });
        self.0.push(Metric { name, help, kind, samples: samples.collect() });
    }
}

fn degree(state: CircuitState) -> f64 {
    match state {
        CircuitState::Closed => 0.0,
        CircuitState::HalfOpen => 1.0,
        CircuitState::Open => 2.0,
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Metric { name, help, kind, samples } in &self.0 {
            let kind = match kind {
                MetricKind::Counter => "counter",
                MetricKind::Gauge => "gauge",
            };
            writeln!(f, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
            for Sample { labels, value } in samples {
                let pair =
                    |(name, value): &(&str, String)| format!("{name}=\"{}\"", escaped(value));
                let pairs: Vec<String> = labels.iter().map(pair).collect();
                match pairs.is_empty() {
                    true => writeln!(f, "{name} {value}")?,
                    false => writeln!(f, "{name}{{{}}} {value}", pairs.join(","))?,
                }
            }
        }
        Ok(())
    }
}

/// A label's value as the format wants it.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
