//! The laws find what is broken, and find nothing where nothing is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use outlast_core::{
    Action, Broker, Claim, ClaimedTask, EnqueueVerdict, Extended, Hold, Inspect, Lease, LeaseToken,
    NewTask, Outcome, PageRequest, QueueName, Selector, SettleVerdict, Settlement, Swept, TaskId,
    TaskRecord, TaskState, Timestamp, Want,
};
use outlast_testkit::conformance::words::{archive, budget, done, id, retry, secs, stamp, t, task};
use outlast_testkit::fault::{Dice, FaultBroker};
use outlast_testkit::laws::{Event, History, Recorded, Violation};
use outlast_testkit::model::ModelBroker;

fn queue() -> QueueName {
    QueueName::default_queue()
}

fn token(number: u32) -> LeaseToken {
    LeaseToken::new(number).expect("a valid token")
}

fn lease(name: &str, holder: u32, until: i64) -> Lease {
    Lease { id: id(name), token: token(holder), until: t(until) }
}

/// Events of one made-up history, each with a stamp of its own.
#[derive(Default)]
struct Story {
    history: History,
    seq: u64,
}

impl Story {
    fn tell(mut self, event: impl FnOnce(u64) -> Event) -> Self {
        self.seq += 1;
        self.history.push(&queue(), event(self.seq));
        self
    }

    fn accepted(self, name: &str) -> Self {
        let tasks: Arc<[NewTask]> = [task(name)].into();
        let verdicts = vec![EnqueueVerdict::Accepted { level: Default::default() }];
        self.tell(|seq| Event::Enqueue { stamp: stamp(1, 0, seq), tasks, verdicts })
    }

    fn claimed(self, name: &str, holder: u32, until: i64) -> Self {
        let new = task(name);
        let record = TaskRecord::new(queue(), new.id, new.task_type, new.payload);
        let lease = lease(name, holder, until);
        let claims = vec![Claim::Task(Box::new(ClaimedTask { task: record, lease }))];
        self.tell(|seq| Event::Claim { stamp: stamp(1, 0, seq), claims })
    }

    fn settled(self, name: &str, holder: u32, outcome: Outcome) -> Self {
        self.settled_moving(name, holder, outcome, vec![])
    }

    fn settled_moving(
        self,
        name: &str,
        holder: u32,
        outcome: Outcome,
        moves: Vec<(Option<TaskState>, Option<TaskState>)>,
    ) -> Self {
        let settlement = Settlement { lease: lease(name, holder, 0), outcome };
        let settlements: Arc<[Settlement]> = [settlement].into();
        let verdicts = vec![SettleVerdict::Applied];
        self.tell(|seq| Event::Settle { stamp: stamp(1, 0, seq), settlements, verdicts, moves })
    }

    fn recovered(self, now: i64) -> Self {
        let swept = Swept { recovered: 1, ..Swept::default() };
        self.tell(|_| Event::Sweep { now: t(now), swept })
    }

    fn broken(&self, left: &[&str]) -> Vec<&'static str> {
        let left: BTreeSet<TaskId> = left.iter().map(|name| id(name)).collect();
        let violations = self.history.violations(&BTreeMap::from([(queue(), left)]));
        violations.iter().map(|Violation { law, .. }| *law).collect()
    }
}

#[test]
fn a_whole_life_breaks_no_law() {
    let story = Story::default()
        .accepted("a")
        .claimed("a", 1, 30)
        .settled("a", 1, retry(t(50)))
        .claimed("a", 2, 80)
        .recovered(80)
        .claimed("a", 1, 120)
        .settled("a", 1, done());
    assert!(story.broken(&[]).is_empty());
}

#[test]
fn an_accepted_task_that_is_nowhere_breaks_l1() {
    assert_eq!(Story::default().accepted("a").accepted("b").broken(&["b"]), ["L1"]);
    let archived = Story::default().accepted("a").claimed("a", 1, 30).settled("a", 1, archive());
    assert_eq!(archived.broken(&[]), ["L1"]);
    assert!(archived.broken(&["a"]).is_empty());
    let swept = Swept { deleted: 1, ..Swept::default() };
    let expired = archived.tell(|_| Event::Sweep { now: t(99), swept });
    assert!(expired.broken(&[]).is_empty());
}

#[test]
fn a_task_that_somebody_deleted_is_not_lost() {
    let deleted = |_| Event::ByHand { id: id("a"), action: Action::Delete };
    assert!(Story::default().accepted("a").tell(deleted).broken(&[]).is_empty());
}

#[test]
fn a_finished_task_that_is_claimed_again_breaks_l2() {
    let story = || Story::default().accepted("a").claimed("a", 1, 30).settled("a", 1, done());
    assert_eq!(story().claimed("a", 2, 60).broken(&["a"]), ["L2"]);
    let run = |_| Event::ByHand { id: id("a"), action: Action::Run };
    assert!(story().tell(run).claimed("a", 2, 60).broken(&["a"]).is_empty());
    assert!(story().accepted("a").claimed("a", 2, 60).broken(&["a"]).is_empty());
}

#[test]
fn two_holders_at_a_time_break_l3() {
    let story = || Story::default().accepted("a").claimed("a", 1, 30);
    assert_eq!(story().claimed("a", 2, 60).broken(&["a"]), ["L3"]);
    assert_eq!(story().recovered(29).claimed("a", 2, 60).broken(&["a"]), ["L3"], "too early");
    let holds: Arc<[Hold]> = [Hold { lease: lease("a", 1, 30), result: None }].into();
    let extended = vec![Extended::Until(t(90))];
    let longer = story().tell(|_| Event::Extend { holds, extended });
    assert_eq!(longer.recovered(40).claimed("a", 2, 60).broken(&["a"]), ["L3"], "it was extended");
}

#[test]
fn a_settlement_of_whoever_does_not_hold_the_task_breaks_l3() {
    let story = Story::default().accepted("a").claimed("a", 1, 30).recovered(30);
    let story = story.claimed("a", 2, 60).settled("a", 1, done());
    assert_eq!(story.broken(&["a"]), ["L3"]);
    assert_eq!(Story::default().accepted("a").settled("a", 1, done()).broken(&["a"]), ["L3"]);
}

#[test]
fn two_answers_to_one_stamp_break_l3() {
    let tasks: Arc<[NewTask]> = [task("a")].into();
    let answer = |verdicts: Vec<EnqueueVerdict>| {
        let tasks = tasks.clone();
        move |_| Event::Enqueue { stamp: stamp(7, 0, 1), tasks, verdicts }
    };
    let accepted = vec![EnqueueVerdict::Accepted { level: Default::default() }];
    let story = Story::default().tell(answer(accepted.clone()));
    let story = story.tell(answer(accepted));
    assert!(story.broken(&["a"]).is_empty());
    let story = story.tell(answer(vec![EnqueueVerdict::IdConflict]));
    assert_eq!(story.broken(&["a"]), ["L3"]);
}

#[test]
fn a_move_that_is_not_in_the_table_breaks_l5() {
    use TaskState::{Active, Completed, Pending, Retry};
    let story = |before, after| {
        let story = Story::default().accepted("a").claimed("a", 1, 30);
        story.settled_moving("a", 1, done(), vec![(Some(before), after)])
    };
    assert!(story(Active, None).broken(&[]).is_empty());
    assert!(story(Active, Some(Completed)).broken(&["a"]).is_empty());
    assert_eq!(story(Active, Some(Retry)).broken(&["a"]), ["L5"]);
    assert_eq!(story(Pending, None).broken(&[]), ["L5"]);
    assert_eq!(story(Retry, None).broken(&[]), ["L5"], "that would be adopted, not applied");
}

#[test]
fn an_archived_task_that_is_claimed_breaks_l5() {
    let story = Story::default().accepted("a").claimed("a", 1, 30).settled("a", 1, archive());
    assert_eq!(story.claimed("a", 1, 60).broken(&["a"]), ["L5"]);
}

/// One call, again and again with the same stamp until it is answered: what the layers above do.
async fn until_answered<T, E>(mut call: impl AsyncFnMut() -> Result<T, E>) -> T {
    loop {
        if let Ok(answer) = call().await {
            return answer;
        }
    }
}

#[tokio::test]
async fn the_model_breaks_no_law_while_answers_are_lost() {
    for seed in 0..20 {
        let model = Arc::new(ModelBroker::new(100));
        let history = Arc::new(History::default());
        let recorded = Recorded::new(model.clone(), history.clone()).watching(model.clone());
        let faulty = FaultBroker::new(Arc::new(recorded));
        faulty.roll(Dice { seed, per_mille: 300 });
        let finished = run_to_the_end(&faulty).await;
        assert_eq!(finished, 60, "seed {seed}: every task ran to its end once");
        let left = BTreeMap::from([(queue(), stored(&*model).await)]);
        assert_eq!(history.violations(&left), [], "seed {seed}");
    }
}

/// Sixty tasks through three workers, of whom one forgets every fifth task. How many were settled.
async fn run_to_the_end(broker: &dyn Broker) -> u64 {
    let (mut now, mut finished) = (0, 0);
    for batch in 0..6 {
        let tasks: Arc<[NewTask]> = (0..10).map(|n| task(&format!("{batch}-{n}"))).collect();
        let stamp = stamp(1, 0, batch + 1);
        until_answered(async || broker.enqueue(&queue(), stamp, t(0), tasks.clone()).await).await;
    }
    for round in 1..200 {
        now += 7;
        let worker = u32::try_from(round % 3).expect("three") + 1;
        let want = Want {
            token: token(worker),
            tasks_max: 5,
            bytes_max: 1000,
            lease: secs(10),
            groups: Arc::new([]),
        };
        let stamp = stamp(2, 0, round);
        let claims =
            until_answered(async || broker.claim(&queue(), stamp, t(now), &want).await).await;
        finished += settle_some(broker, round, t(now), claims.claims).await;
        until_answered(async || broker.sweep(&queue(), t(now), budget(100)).await).await;
    }
    finished
}

async fn settle_some(broker: &dyn Broker, round: u64, now: Timestamp, claims: Vec<Claim>) -> u64 {
    let mut batch = Vec::new();
    for (n, claim) in (0..).zip(claims) {
        let Claim::Task(claimed) = claim else { panic!("nothing is grouped: {claim:?}") };
        let outcome = match (round + n) % 5 {
            0 => continue,
            1 => retry(now.plus(secs(3))),
            _ => done(),
        };
        batch.push(Settlement { lease: claimed.lease, outcome });
    }
    let done = |settlement: &&Settlement| matches!(settlement.outcome, Outcome::Done { .. });
    let count = batch.iter().filter(done).count() as u64;
    let batch: Arc<[Settlement]> = batch.into();
    let stamp = stamp(3, 0, round);
    let settled =
        until_answered(async || broker.settle(&queue(), stamp, now, batch.clone()).await).await;
    assert!(settled.verdicts.iter().all(|verdict| *verdict == SettleVerdict::Applied));
    count
}

async fn stored(inspect: &dyn Inspect) -> BTreeSet<TaskId> {
    let mut ids = BTreeSet::new();
    for state in TaskState::ALL {
        let page = PageRequest::first(1000);
        let tasks = inspect.tasks(&queue(), &Selector::state(state), &page, t(0)).await;
        ids.extend(tasks.expect("answered").items.into_iter().map(|task| task.id));
    }
    ids
}
