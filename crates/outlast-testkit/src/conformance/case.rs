//! A [`Case`] stamps, claims, settles and looks, so that a case reads as the sentence in its name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use outlast_core::{
    Acted, Action, Broker, Claim, ClaimedGroup, ClaimedTask, Claims, Cursor, EnqueueVerdict,
    GroupPolicy, Inspect, Lease, LeaseToken, NewTask, Outcome, PageRequest, QueueName, QueueStats,
    Refusal, Selector, SettleVerdict, Settlement, Stamp, SweepBudget, Swept, TaskRecord, TaskState,
    Timestamp, Want,
};
use tokio::sync::OnceCell;

use super::fixture::{Differences, Fixture, Skip, TtlClock};
use super::words::{LEASE, beat, budget, id, is_accepted, secs, stamp, t, tasks_of, worker};

/// One case on one fixture. Calls without a queue are about [`Case::queue`].
pub struct Case {
    /// What the case runs on.
    pub fixture: Box<dyn Fixture>,
    /// Its broker.
    pub broker: Arc<dyn Broker>,
    /// Its other side.
    pub inspect: Arc<dyn Inspect>,
    /// The queue of the case.
    pub queue: QueueName,
    seqs: Mutex<BTreeMap<(QueueName, i64), u64>>,
    tokens: [OnceCell<LeaseToken>; 2],
}

impl Case {
    /// A case on a fresh fixture.
    #[must_use]
    pub fn new(fixture: Box<dyn Fixture>) -> Self {
        Self {
            broker: fixture.broker(),
            inspect: fixture.inspect(),
            fixture,
            queue: QueueName::default_queue(),
            seqs: Mutex::default(),
            tokens: [OnceCell::new(), OnceCell::new()],
        }
    }

    /// How the broker differs.
    #[must_use]
    pub fn differences(&self) -> Differences {
        self.fixture.differences()
    }

    /// What the fixture gave, or `None` after saying why the case is skipped.
    pub fn unless_skipped<T>(&self, given: Result<T, Skip>) -> Option<T> {
        given.inspect_err(|Skip(why)| println!("skipped: {why}")).ok()
    }

    /// True, after saying so, if times to live cannot be made to end here.
    #[must_use]
    pub fn is_ttl_out_of_reach(&self) -> bool {
        let server = self.differences().ttl_clock == TtlClock::Server;
        if server {
            println!("skipped: the server counts times to live, the case would have to wait");
        }
        server
    }

    /// The token of the worker that claims in this case; handed out by a beat, as in life.
    pub async fn token(&self) -> LeaseToken {
        *self.tokens[0].get_or_init(|| self.new_token("the-worker")).await
    }

    /// The token of another worker.
    pub async fn other_token(&self) -> LeaseToken {
        *self.tokens[1].get_or_init(|| self.new_token("the-other-worker")).await
    }

    async fn new_token(&self, name: &str) -> LeaseToken {
        // Cases run up to a few months ahead; the worker lives through all of them.
        let beat = beat(worker(name), None, 1000 * 86_400);
        let reply = self.broker.beat(t(0), &beat).await.expect("the first beat is answered");
        reply.token.expect("a worker's first beat hands out a token")
    }

    /// The next stamp of the case's own session: one per queue and day, because brokers forget a session
    /// a day after its last batch, and some cases jump over days.
    fn stamp(&self, queue: &QueueName, now: Timestamp) -> Stamp {
        let mut seqs = self.seqs.lock().expect("nobody panics while counting");
        let seq = seqs.entry((queue.clone(), now.as_days())).or_insert(0);
        *seq += 1;
        let name = format!("{queue}/{}", now.as_days());
        let session = name.bytes().fold(7, |hash: u128, b| hash.wrapping_mul(257) ^ u128::from(b));
        stamp(session, 0, *seq)
    }

    /// A claim that found nothing leaves no record: its number is used again.
    fn unused(&self, queue: &QueueName, now: Timestamp) {
        let mut seqs = self.seqs.lock().expect("nobody panics while counting");
        seqs.entry((queue.clone(), now.as_days())).and_modify(|seq| *seq -= 1);
    }

    /// Offers tasks.
    pub async fn enqueue(
        &self,
        now: Timestamp,
        tasks: impl IntoIterator<Item = NewTask>,
    ) -> Vec<EnqueueVerdict> {
        self.enqueue_in(&self.queue, now, tasks).await
    }

    /// Offers tasks to another queue.
    pub async fn enqueue_in(
        &self,
        queue: &QueueName,
        now: Timestamp,
        tasks: impl IntoIterator<Item = NewTask>,
    ) -> Vec<EnqueueVerdict> {
        let (stamp, tasks): (_, Arc<[_]>) = (self.stamp(queue, now), tasks.into_iter().collect());
        let answer = self.broker.enqueue(queue, stamp, now, tasks.clone()).await;
        let answer = answer.expect("the batch is answered");
        assert_eq!(answer.lost, None, "nothing was forgotten");
        assert_eq!(answer.verdicts.len(), tasks.len(), "one verdict per task");
        answer.verdicts
    }

    /// Enqueues tasks that must all be accepted.
    pub async fn accept(&self, now: Timestamp, tasks: impl IntoIterator<Item = NewTask>) {
        for verdict in self.enqueue(now, tasks).await {
            assert!(is_accepted(&verdict), "{verdict:?}");
        }
    }

    /// A claim for up to `tasks_max` tasks, without groups.
    pub async fn want(&self, tasks_max: usize) -> Want {
        Want {
            token: self.token().await,
            tasks_max,
            bytes_max: 64 * 1024 * 1024,
            lease: secs(LEASE.unsigned_abs()),
            groups: Arc::new([]),
        }
    }

    /// Claims what is wanted.
    pub async fn claims(&self, now: Timestamp, want: &Want) -> Claims {
        let claims = self.broker.claim(&self.queue, self.stamp(&self.queue, now), now, want).await;
        let claims = claims.expect("the claim is answered");
        assert_eq!(claims.lost, None, "nothing was forgotten");
        if claims.claims.is_empty() {
            self.unused(&self.queue, now);
        }
        claims
    }

    /// Claims up to `tasks_max` tasks.
    pub async fn claim(&self, now: Timestamp, tasks_max: usize) -> Vec<ClaimedTask> {
        let claims = self.claims(now, &self.want(tasks_max).await).await;
        tasks_of(claims)
    }

    /// Claims the next task, which must be there.
    pub async fn claim_one(&self, now: Timestamp) -> ClaimedTask {
        self.claim(now, 1).await.pop().expect("a task is there to be claimed")
    }

    /// Enqueues a task and claims it.
    pub async fn running(&self, now: Timestamp, task: NewTask) -> ClaimedTask {
        self.accept(now, [task]).await;
        self.claim_one(now).await
    }

    /// Claims a group by this policy, if one is ready.
    pub async fn claim_group(&self, now: Timestamp, policy: &GroupPolicy) -> Option<ClaimedGroup> {
        let mut want = self.want(1).await;
        want.groups = Arc::new([policy.clone()]);
        match self.claims(now, &want).await.claims.pop()? {
            Claim::Group(group) => Some(group),
            other => panic!("a group was expected, not {other:?}"),
        }
    }

    /// Reports one outcome.
    pub async fn settle(&self, now: Timestamp, lease: &Lease, outcome: Outcome) -> SettleVerdict {
        let mut verdicts = self.settle_all(now, [(lease, outcome)]).await;
        verdicts.pop().expect("one verdict per settlement")
    }

    /// Reports outcomes in one batch.
    pub async fn settle_all<'a>(
        &self,
        now: Timestamp,
        settlements: impl IntoIterator<Item = (&'a Lease, Outcome)>,
    ) -> Vec<SettleVerdict> {
        let settlement =
            |(lease, outcome): (&Lease, _)| Settlement { lease: lease.clone(), outcome };
        let batch: Arc<[_]> = settlements.into_iter().map(settlement).collect();
        let answer =
            self.broker.settle(&self.queue, self.stamp(&self.queue, now), now, batch.clone()).await;
        let answer = answer.expect("the settlement is answered");
        assert_eq!(answer.lost, None, "nothing was forgotten");
        assert_eq!(answer.verdicts.len(), batch.len(), "one verdict per settlement");
        answer.verdicts
    }

    /// Reports an outcome that must be applied.
    pub async fn finish(&self, now: Timestamp, claimed: &ClaimedTask, outcome: Outcome) {
        let verdict = self.settle(now, &claimed.lease, outcome).await;
        assert_eq!(verdict, SettleVerdict::Applied, "{}", claimed.lease.id);
    }

    /// Sweeps until nothing more is to be done; the sum of it.
    pub async fn sweep(&self, now: Timestamp) -> Swept {
        let mut sum = Swept::default();
        for _ in 0..1000 {
            let swept = self.sweep_once(now, budget(1000)).await;
            sum.due += swept.due;
            sum.recovered += swept.recovered;
            sum.given_up += swept.given_up;
            sum.reclaimed += swept.reclaimed;
            sum.deleted += swept.deleted;
            sum.next_due = swept.next_due;
            if !swept.more {
                return sum;
            }
        }
        panic!("a sweep that always has more to do never ends");
    }

    /// One sweep.
    pub async fn sweep_once(&self, now: Timestamp, budget: SweepBudget) -> Swept {
        self.broker.sweep(&self.queue, now, budget).await.expect("the sweep is answered")
    }

    /// A task, if it is stored.
    pub async fn find(&self, name: &str, now: Timestamp) -> Option<TaskRecord> {
        let found = self.inspect.task(&self.queue, &id(name), now).await;
        found.expect("the question is answered")
    }

    /// A task, which must be stored.
    pub async fn record(&self, name: &str, now: Timestamp) -> TaskRecord {
        self.find(name, now).await.unwrap_or_else(|| panic!("task {name} is stored"))
    }

    /// The state of a task, if it is stored.
    pub async fn state(&self, name: &str) -> Option<TaskState> {
        self.find(name, t(0)).await.map(|task| task.state)
    }

    /// The ids of all tasks that a selector matches, in order, by small pages.
    pub async fn select(&self, select: &Selector, now: Timestamp) -> Vec<String> {
        let (mut ids, mut cursor) = (Vec::new(), None);
        loop {
            let request = PageRequest { limit: 7, cursor };
            let page = self.inspect.tasks(&self.queue, select, &request, now).await;
            let page = page.expect("the listing is answered");
            ids.extend(page.items.iter().map(|task| task.id.to_string()));
            cursor = page.next;
            if cursor.is_none() {
                return ids;
            }
        }
    }

    /// The ids of the tasks in a state, in order.
    pub async fn ids(&self, state: TaskState) -> Vec<String> {
        self.select(&Selector::state(state), t(0)).await
    }

    /// The queue in numbers.
    pub async fn stats(&self, now: Timestamp) -> QueueStats {
        let stats = self.inspect.queue(&self.queue, now).await.expect("the question is answered");
        stats.unwrap_or_else(|| QueueStats::empty(self.queue.clone()))
    }

    /// Acts on one task by its id.
    pub async fn act_on(&self, action: &Action, name: &str, now: Timestamp) -> Result<(), Refusal> {
        let acted = self.act(action, &Selector::id(id(name)), now, 10).await;
        match (acted.changed, acted.refused.as_slice()) {
            (1, []) => Ok(()),
            (0, [(refused, why)]) if *refused == id(name) => Err(*why),
            other => panic!("one task was named, and the answer is {other:?}"),
        }
    }

    /// Acts on a selection in steps of `limit` until nothing is left; the sum of it.
    pub async fn act(
        &self,
        action: &Action,
        select: &Selector,
        now: Timestamp,
        limit: usize,
    ) -> Acted {
        let mut sum = Acted::default();
        for _ in 0..1000 {
            let step = self.act_step(action, select, now, limit, sum.next.take()).await;
            assert!(step.changed <= limit as u64, "a step goes no further than its limit");
            sum.changed += step.changed;
            sum.refused.extend(step.refused);
            sum.next = step.next;
            if sum.next.is_none() {
                return sum;
            }
        }
        panic!("a bulk action that always has a next step never ends");
    }

    async fn act_step(
        &self,
        action: &Action,
        select: &Selector,
        now: Timestamp,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Acted {
        let request = PageRequest { limit, cursor };
        let step = self.inspect.act(&self.queue, action, select, &request, now).await;
        step.expect("the action is answered")
    }
}
