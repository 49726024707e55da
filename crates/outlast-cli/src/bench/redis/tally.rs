//! From the samples of several rounds to figures: medians, and ours beside asynq's.

use std::collections::HashMap;

use crate::bench::report::Figure;

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Side {
    Ours,
    Asynq,
}

/// One value of one round.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) figure: &'static str,
    pub(super) unit: &'static str,
    pub(super) value: f64,
    /// Whether every task was counted exactly once; `None` where there are none to count.
    pub(super) exact: Option<bool>,
}

impl Sample {
    pub(super) fn new(figure: &'static str, value: f64, unit: &'static str) -> Self {
        Self { figure, unit, value, exact: None }
    }

    pub(super) fn exact(mut self, exact: bool) -> Self {
        self.exact = Some(exact);
        self
    }
}

/// The samples of one measurement, which may be of several figures.
#[derive(Default)]
pub(super) struct Tally {
    /// The figures, in the order in which they first came.
    order: Vec<&'static str>,
    samples: HashMap<(&'static str, Side), Vec<Sample>>,
}

impl Tally {
    pub(super) fn add(&mut self, side: Side, sample: Sample) {
        if !self.order.contains(&sample.figure) {
            self.order.push(sample.figure);
        }
        self.samples.entry((sample.figure, side)).or_default().push(sample);
    }

    /// The figures: the medians of ours, beside the medians of asynq's where there are any. A figure is exact if
    /// both sides were in every round.
    pub(super) fn figures(&self, peer: &'static str) -> Vec<Figure> {
        let figure = |name: &&'static str| {
            let ours = self.samples.get(&(*name, Side::Ours))?;
            let asynqs = self.samples.get(&(*name, Side::Asynq));
            let mut figure = Figure::new(name, median(values(ours)), ours.first()?.unit);
            let both = ours.iter().chain(asynqs.into_iter().flatten());
            figure.exact = both.filter_map(|sample| sample.exact).reduce(|all, one| all && one);
            figure.rounds = (ours.len() > 1).then_some(ours.len());
            Some(match asynqs {
                Some(asynqs) => figure.against(peer, median(values(asynqs))),
                None => figure,
            })
        };
        self.order.iter().filter_map(figure).collect()
    }
}

fn values(samples: &[Sample]) -> Vec<f64> {
    samples.iter().map(|sample| sample.value).collect()
}

/// The value in the middle; between the two of them, if they are even in number.
pub(in crate::bench) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => f64::midpoint(values[middle - 1], *value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds_beside_the_median_of_the_others() {
        let mut tally = Tally::default();
        for (ours, asynqs) in [(300.0, 10.0), (100.0, 30.0), (200.0, 20.0)] {
            tally.add(Side::Ours, Sample::new("drain", ours, "tasks/s").exact(true));
            tally.add(Side::Asynq, Sample::new("drain", asynqs, "tasks/s").exact(true));
        }
        let figure = tally.figures("asynq").remove(0);
        assert_eq!(
            (figure.value, figure.peer_value, figure.ratio),
            (200.0, Some(20.0), Some(10.0))
        );
        assert_eq!((figure.exact, figure.rounds), (Some(true), Some(3)));
    }

    #[test]
    fn one_task_lost_in_one_round_of_either_side_spoils_the_figure() {
        for spoiled in [Side::Ours, Side::Asynq] {
            let mut tally = Tally::default();
            for (side, nth) in
                [(Side::Ours, 0), (Side::Asynq, 0), (Side::Ours, 1), (Side::Asynq, 1)]
            {
                let exact = (side, nth) != (spoiled, 1);
                tally.add(side, Sample::new("drain", 1.0, "tasks/s").exact(exact));
            }
            assert_eq!(tally.figures("asynq").remove(0).exact, Some(false));
        }
    }

    #[test]
    fn the_median_of_two_lies_between_them() {
        assert_eq!(median(vec![2.0, 1.0]), 1.5);
    }
}
