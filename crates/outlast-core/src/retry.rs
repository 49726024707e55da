//! How long to wait before the next attempt: a pure function of the policy, the attempts so far and a
//! random number that the caller brings.

use std::time::Duration;

use crate::limits::DURATION_MAX;

/// A backoff policy.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum Backoff {
    /// asynq's default: n⁴ + 15 + r·(n+1) seconds, r from 0 to 29 (contract §4.4).
    #[default]
    Asynq,
    /// `base · factor^n`, at most `cap`, of which the part `jitter` (0 to 1) is random.
    Exponential {
        /// The first delay.
        base: Duration,
        /// What each further delay is multiplied by.
        factor: f64,
        /// The longest delay.
        cap: Duration,
        /// Which part of the delay is random: 0 none, 1 all ("full jitter").
        jitter: f64,
    },
    /// Always the same delay.
    Fixed(Duration),
}

impl Backoff {
    /// The delay before the retry after `retried` earlier failures (0 at the first failure); `random` is
    /// uniform in `[0, 1)`.
    ///
    /// ```
    /// use outlast_core::Backoff;
    /// use std::time::Duration;
    /// assert_eq!(Backoff::Asynq.delay(0, 0.0), Duration::from_secs(15));
    /// assert_eq!(Backoff::Asynq.delay(5, 0.999), Duration::from_secs(625 + 15 + 29 * 6));
    /// ```
    #[must_use]
    pub fn delay(&self, retried: u32, random: f64) -> Duration {
        let random = if random.is_finite() { random.clamp(0.0, 1.0 - f64::EPSILON) } else { 0.0 };
        let delay = match self {
            Backoff::Asynq => asynq(retried, random),
            Backoff::Exponential { base, factor, cap, jitter } => {
                exponential(*base, *factor, *cap, *jitter, (retried, random))
            }
            Backoff::Fixed(delay) => *delay,
        };
        delay.min(DURATION_MAX)
    }
}

fn asynq(retried: u32, random: f64) -> Duration {
    let n = u64::from(retried);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "random is in [0, 1)"
    )]
    let r = (random * 30.0) as u64;
    let seconds = n.saturating_pow(4).saturating_add(15).saturating_add(r.saturating_mul(n + 1));
    Duration::from_secs(seconds)
}

fn exponential(
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: f64,
    at: (u32, f64),
) -> Duration {
    let (retried, random) = at;
    let exponent = i32::try_from(retried).unwrap_or(i32::MAX);
    let grown = base.as_secs_f64() * factor.max(1.0).powi(exponent);
    let full = grown.min(cap.as_secs_f64());
    let jitter = if jitter.is_finite() { jitter.clamp(0.0, 1.0) } else { 0.0 };
    Duration::try_from_secs_f64(full * (1.0 - jitter * random)).unwrap_or(cap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_stays_within_the_bounds_of_the_contract() {
        // (n, least, most) from contract §4.4.
        for (n, least, most) in
            [(0, 15, 44), (1, 16, 74), (2, 31, 118), (5, 640, 814), (10, 10_015, 10_334)]
        {
            assert_eq!(Backoff::Asynq.delay(n, 0.0), Duration::from_secs(least));
            assert_eq!(Backoff::Asynq.delay(n, 0.999_999), Duration::from_secs(most));
        }
    }

    #[test]
    fn no_policy_panics_or_exceeds_ten_years() {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 0.5, 1e300];
        for factor in odd {
            for jitter in odd {
                let base = Duration::from_secs(1);
                let policy = Backoff::Exponential { base, factor, cap: Duration::MAX, jitter };
                for retried in [0, 1, 64, u32::MAX] {
                    assert!(policy.delay(retried, 0.5) <= DURATION_MAX);
                    assert!(Backoff::Asynq.delay(retried, jitter) <= DURATION_MAX);
                }
            }
        }
    }

    #[test]
    fn exponential_delays_grow_to_the_cap_and_jitter_only_shortens() {
        let cap = Duration::from_secs(60);
        let policy =
            Backoff::Exponential { base: Duration::from_secs(1), factor: 2.0, cap, jitter: 0.5 };
        assert_eq!(policy.delay(3, 0.0), Duration::from_secs(8));
        assert_eq!(policy.delay(3, 0.5), Duration::from_secs(6));
        assert_eq!(policy.delay(30, 0.0), cap);
    }
}
