//! In which order a worker asks its queues: a pure function, the same for every broker.

/// How weights are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Priority {
    /// A queue of weight 6 is asked first about six times as often as one of weight 1; none starves.
    #[default]
    Weighted,
    /// Queues of greater weight always come first; the others wait until those are empty.
    Strict,
}

/// The order in which to ask queues of these weights. `random(n)` is uniform in `0..n`.
///
/// Weighted order is drawn without replacement: each next queue with a probability in proportion to its
/// weight among those that remain, which is what asynq's shuffle of repeated names does (contract §4.2).
///
/// ```
/// use outlast_core::pick::{Priority, order};
/// assert_eq!(order(&[1, 6, 3], Priority::Strict, |_| 0), [1, 2, 0]);
/// assert_eq!(order(&[1, 6, 3], Priority::Weighted, |_| 0), [0, 1, 2]);
/// ```
#[must_use]
pub fn order(weights: &[u32], priority: Priority, random: impl FnMut(u64) -> u64) -> Vec<usize> {
    match priority {
        Priority::Weighted => weighted(weights, random),
        Priority::Strict => {
            let mut order: Vec<usize> = (0..weights.len()).collect();
            order.sort_by_key(|&index| std::cmp::Reverse(weights[index]));
            order
        }
    }
}

fn weighted(weights: &[u32], mut random: impl FnMut(u64) -> u64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..weights.len()).collect();
    let mut total: u64 = weights.iter().map(|&weight| u64::from(weight.max(1))).sum();
    let mut order = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let mut ticket = random(total) % total;
        let at = left
            .iter()
            .position(|&index| {
                let weight = u64::from(weights[index].max(1));
                let hit = ticket < weight;
                ticket = ticket.saturating_sub(weight);
                hit
            })
            .unwrap_or(0);
        total -= u64::from(weights[left[at]].max(1));
        order.push(left.remove(at));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_is_in_every_order_exactly_once() {
        for ticket in 0..50 {
            let mut order = order(&[6, 3, 1, 0], Priority::Weighted, |n| ticket % n);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn a_queue_comes_first_in_proportion_to_its_weight() {
        let mut first = [0_u32; 3];
        for ticket in 0..10 {
            first
                [order(&[6, 3, 1], Priority::Weighted, |n| if n == 10 { ticket } else { 0 })[0]] +=
                1;
        }
        assert_eq!(first, [6, 3, 1]);
    }

    #[test]
    fn strict_order_keeps_the_given_order_among_equals() {
        assert_eq!(order(&[2, 5, 2, 5], Priority::Strict, |_| 0), [1, 3, 0, 2]);
    }
}
