//! One figure of the bench, as a line of a table or of JSON.

use serde::Serialize;

/// A figure with its yardstick.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Its name, such as `enqueue.bulk`.
    pub(crate) figure: &'static str,
    /// Its value.
    pub(crate) value: f64,
    /// What the value counts.
    pub(crate) unit: &'static str,
    /// Broker and durability.
    pub(crate) mode: String,
    /// Whether every task was counted exactly once; `None` where there are no tasks to count.
    pub(crate) exact: Option<bool>,
    /// What ran beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<&'static str>,
    /// That one's value, in the same unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peer_value: Option<f64>,
    /// Ours divided by that one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<f64>,
    /// How many rounds the values are the medians of, where there were several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounds: Option<usize>,
}

/// The durability of the embedded broker.
pub(crate) const MODE: &str = "sqlite file, synchronous=FULL";

impl Figure {
    /// A figure of ours that has no peer.
    pub(crate) fn new(figure: &'static str, value: f64, unit: &'static str) -> Self {
        let value = round(value);
        Self {
            figure,
            value,
            unit,
            mode: MODE.to_owned(),
            exact: None,
            against: None,
            peer_value: None,
            ratio: None,
            rounds: None,
        }
    }

    /// With the result of counting every task.
    #[must_use]
    pub(crate) fn exact(mut self, exact: bool) -> Self {
        self.exact = Some(exact);
        self
    }

    /// With what ran beside it.
    #[must_use]
    pub(crate) fn against(mut self, peer: &'static str, value: f64) -> Self {
        self.against = Some(peer);
        self.peer_value = Some(round(value));
        self.ratio = Some(round(self.value / value)).filter(|ratio| ratio.is_finite());
        self
    }

    /// With a number to be read beside it, of another unit.
    #[must_use]
    pub(crate) fn beside(mut self, what: &'static str, value: f64) -> Self {
        self.against = Some(what);
        self.peer_value = Some(round(value));
        self
    }

    /// A ceiling, with what was reached below it: the ratio is how much of it that is.
    #[must_use]
    pub(crate) fn reached(mut self, what: &'static str, value: f64) -> Self {
        self.against = Some(what);
        self.peer_value = Some(round(value));
        self.ratio = Some(round(value / self.value));
        self
    }

    /// Measured under other conditions than the embedded broker's.
    #[must_use]
    pub(crate) fn mode(mut self, mode: &str) -> Self {
        self.mode = mode.to_owned();
        self
    }
}

/// Three significant digits: more would claim a precision that no shared machine has.
fn round(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10_f64.powf(2.0 - value.abs().log10().floor());
    (value * scale).round() / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_three_digits_and_ratios_follow_them() {
        let figure = Figure::new("x", 123_456.0, "tasks/s").against("peer", 246_912.0);
        assert_eq!(
            (figure.value, figure.peer_value, figure.ratio),
            (123_000.0, Some(247_000.0), Some(0.498))
        );
        assert_eq!(round(0.0), 0.0);
    }
}
