//! What time moves: due tasks, expired leases, ended retention, abandoned sets; and what other programs
//! left behind.

use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::limits::{ARCHIVE_AGE, LOSSES_MAX, SWEEP_MAX, check_count};
use outlast_core::{BrokerError, Held, QueueName, SweepBudget, Swept, Timestamp};
use redis::Value;

use crate::answer;
use crate::broker::Inner;
use crate::claim::{seconds_with_fraction, size};
use crate::conn::Call;
use crate::record::{fraction_text, moment_of_score, nanos_text, seconds_text, token_of};
use crate::scripts::SWEEP;
use crate::settle::{LEASE_LOST, failure};

/// How long the lease of a Go worker is left alone after its end: asynq's own allowance for clocks that
/// differ (contract §3.0).
const FOREIGN_ALLOWANCE: Duration = Duration::from_secs(30);

impl Inner {
    pub(crate) async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        check_count("moves_max", budget.moves_max, SWEEP_MAX)?;
        if let Some(swept) = self.calm_sweep(queue, now).await {
            return Ok(swept);
        }
        let swept = self.really_sweep(queue, now, budget).await?;
        let found = swept.due + swept.recovered + swept.reclaimed + swept.deleted;
        // While it is in use here, the next sweep will find other keys anyway.
        if found == 0 && !self.hub.was_used(queue) {
            self.look_for_calm(queue, now).await;
        }
        Ok(swept)
    }

    async fn really_sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        let keys = self.root.queue(queue);
        let names = [
            "pending",
            "active",
            "lease",
            "scheduled",
            "retry",
            "archived",
            "completed",
            "groups",
            "aggregation_sets",
            "outlast:groups",
        ];
        let mut call = Call::new(&SWEEP, names.iter().map(|name| keys.key(name)).collect());
        call.text(keys.prefix()).text(seconds_with_fraction(now)).text(nanos_text(now));
        call.int(size(budget.moves_max));
        call.fixed(if budget.recovery == Recovery::Allowed { "1" } else { "" });
        call.int(i64::from(LOSSES_MAX)).bytes(failure(LEASE_LOST, now));
        call.text(FOREIGN_ALLOWANCE.as_secs().to_string());
        call.int(size(self.options.archive_max)).text(ARCHIVE_AGE.as_secs().to_string());
        call.text(self.root.queues()).text(queue.as_str());
        call.text(format!("{:.6}", rand::random::<f64>()));
        match budget.vanished {
            Some(Held { token, until }) => {
                call.text(fraction_text(token)).text(seconds_text(until))
            }
            None => call.fixed("").fixed(""),
        };
        let mut counts = answer::list(self.consume.script(&call).await?)?.into_iter();
        let mut next = || counts.next().unwrap_or_default();
        let mut count = || Ok(usize::try_from(answer::int(next())?).unwrap_or(0));
        let mut swept = Swept {
            due: count()?,
            recovered: count()?,
            given_up: count()?,
            reclaimed: count()?,
            deleted: count()?,
            ..Swept::default()
        };
        let healed: usize = count()?;
        if healed > 0 {
            tracing::warn!(%queue, healed, "what other programs left behind was put right");
        }
        let moved = [swept.due, swept.recovered, swept.reclaimed, swept.deleted];
        swept.more = moved.into_iter().any(|moved| moved >= budget.moves_max);
        let seconds = answer::text(next())?.parse().ok();
        swept.next_due = seconds.map(moment_of_score);
        swept.more |= answer::int(next())? == 1;
        swept.held = Some(answer::list(next())?.into_iter().filter_map(held).collect());
        Ok(swept)
    }
}

/// Whose lease it is that has this score, and when it ends.
fn held(score: Value) -> Option<Held> {
    let score: f64 = answer::text(score).ok()?.parse().ok()?;
    Some(Held { token: token_of(score)?, until: moment_of_score(score) })
}
