//! What the whole life of a task costs the server: the time of the scripts that enqueue, claim and settle it. On both
//! sides one call is made after the other, so that nobody else keeps the server's processor busy meanwhile.

use super::Outcome;
use super::asynq::Asynq;
use super::bare::Bare;
use super::gauge::Gauge;
use super::ours::Ours;
use super::plan::Plan;
use super::site::Site;
use super::tally::Sample;
use crate::bench::load::Others;

/// The figures, each with its tasks in a batch. Asynq's are always one by one.
const BATCHES: [(&str, usize, &str); 3] = [
    ("redis.cpu_per_task.batch1", 1, "µs of script time, batches of 1"),
    ("redis.cpu_per_task.batch10", 10, "µs of script time, batches of 10"),
    ("redis.cpu_per_task", 100, "µs of script time, batches of 100"),
];

/// Of ours, in batches of several sizes.
pub(super) async fn ours(ours: &mut Ours, gauge: &mut Gauge, plan: Plan) -> Outcome<Vec<Sample>> {
    let mut samples = Vec::new();
    for (figure, batch, unit) in BATCHES {
        let bare = Bare::new(&ours.connection, &ours.site.queue).await?;
        let before = gauge.script_micros().await?;
        let all = bare.lives(plan.lives, batch).await?;
        let micros = gauge.script_micros().await?.saturating_sub(before);
        bare.end().await?;
        let sample = Sample::new(figure, micros as f64 / plan.lives as f64, unit);
        samples.push(sample.exact(all && ours.site.is_drained(0).await?));
    }
    Ok(samples)
}

/// Of asynq's, beside each of ours.
pub(super) async fn asynqs(
    asynq: &Asynq,
    site: &mut Site,
    gauge: &mut Gauge,
    plan: Plan,
) -> Outcome<Vec<Sample>> {
    let before = gauge.script_micros().await?;
    asynq.enqueue(site, 1, plan.lives).await?;
    let done = asynq.drain(site, 1, plan.lives, Others::default()).await?;
    let micros = gauge.script_micros().await?.saturating_sub(before);
    let exact = done.exact && site.is_drained(0).await?;
    let value = micros as f64 / plan.lives as f64;
    Ok(BATCHES.map(|(figure, _, unit)| Sample::new(figure, value, unit).exact(exact)).to_vec())
}
