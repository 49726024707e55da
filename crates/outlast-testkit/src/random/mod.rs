//! The second oracle at work: random sequences of verbs, done to the model and to a broker at once, with
//! every verdict and the whole listing compared after each.
//!
//! What brokers may choose is kept out of the way or out of the comparison:
//! - the order of equal due times: tasks that tie are run by hand, in the order of their ids, as soon as
//!   they tie; archived, completed and grouped tasks are compared without their order;
//! - whether a claim makes all due tasks pending or only those it takes: every step ends with a sweep;
//! - set ids, tokens, cursors, texts of rejections, and when exactly a task became pending.
//!
//! A test is one line: `outlast_testkit::random::check(64, || async { MyFixture::new() })`. The sequences
//! are the same in every run; `OUTLAST_SEED` (a number, or `fresh`) and `OUTLAST_CASES` try others. A
//! failure prints its seed and the smallest sequence that still fails.

mod listing;
mod ops;
mod run;

use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

pub use ops::{How, NewSeed, Op, Reach, ops};

use crate::conformance::Fixture;
use crate::model::ModelBroker;

/// Where the broker and the model went apart: after which step, and how.
#[derive(Clone, Debug)]
pub struct Apart(pub String);

/// Does the same operations to the model and to the fixture's broker, and compares after each.
///
/// # Errors
/// [`Apart`] at the first difference.
pub async fn compare(
    model: Arc<ModelBroker>,
    fixture: &dyn Fixture,
    ops: &[Op],
) -> Result<(), Apart> {
    let mut run = run::Run::new(model, fixture).await;
    for (step, op) in ops.iter().enumerate() {
        run.step(op).await.map_err(|how| Apart(format!("after step {step}, {op:?}:\n{how}")))?;
    }
    Ok(())
}

/// Compares `cases` random sequences, each on a fresh fixture.
///
/// # Panics
/// If broker and model differ: with the seed, the smallest sequence, and the difference.
pub fn check<F, Making>(cases: u32, make: impl Fn() -> Making)
where
    F: Fixture,
    Making: Future<Output = F>,
{
    let cases = number("OUTLAST_CASES").and_then(|n| u32::try_from(n).ok()).unwrap_or(cases);
    let seed = seed();
    // Persisted failures would be files beside the sources; the seed says as much.
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
    let bytes: Vec<u8> = (0..4).flat_map(|n: u64| (seed ^ n).to_le_bytes()).collect();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let checked = TestRunner::new_with_rng(config, rng).run(&ops(), |ops| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime for one thread");
        runtime.block_on(async {
            let fixture = make().await;
            let model = Arc::new(ModelBroker::new(fixture.differences().archive_max));
            let compared = compare(model, &fixture, &ops).await;
            compared.map_err(|Apart(how)| TestCaseError::fail(how))
        })
    });
    if let Err(error) = checked {
        panic!("OUTLAST_SEED={seed}\n{error}");
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    if std::env::var("OUTLAST_SEED").is_ok_and(|text| text == "fresh") {
        // The standard library's hasher is keyed at random, and no other source is at hand.
        return std::hash::RandomState::new().build_hasher().finish();
    }
    number("OUTLAST_SEED").unwrap_or(1)
}
