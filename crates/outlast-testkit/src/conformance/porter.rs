//! Moving tasks to another broker: nothing is lost, nothing is there twice, whoever stops in between.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::sync::Arc;

use bytes::Bytes;
use outlast_core::porter::{
    Batch, Concluded, Conclusion, Counts, Delivered, Found, Load, MOVED_STATES, OnceKey, Order,
    Parcel, Porter, PutVerdict,
};
use outlast_core::{
    Action, Controlled, EnqueueVerdict, Epoch, Kind, NewTask, PageRequest, QueueControl,
    QueueStats, SessionId, TaskRecord, TaskState, TaskType, Timestamp,
};

use super::case::Case;
use super::words::{
    archive, done, done_with, due, front, grouped, id, ids_of, ids_of_group, is_accepted, kept,
    keyed, locking, once, policy, retry, secs, stamp, t, task, tasks, unique, with,
};

/// The case's broker and another one of its kind.
struct Ends {
    source: Arc<dyn Porter>,
    target: Arc<dyn Porter>,
    there: Case,
    order: Order,
}

impl Ends {
    async fn new(c: &Case) -> Option<Self> {
        let source = c.unless_skipped(c.fixture.porter())?;
        let there = Case::new(c.unless_skipped(c.fixture.other())?);
        let target = there.unless_skipped(there.fixture.porter())?;
        let home = there.broker.home(&there.queue);
        let health = there.broker.health(&home, t(0)).await.expect("the target is well");
        let order = Order {
            target: Some(health.epoch),
            session: SessionId(77),
            tasks_max: 256,
            bytes_max: 1 << 20,
            except: Vec::new(),
        };
        Some(Self { source, target, there, order })
    }

    async fn try_take(&self, c: &Case, now: Timestamp) -> Option<Batch> {
        self.source.take(&c.queue, &self.order, now).await.expect("the take is answered")
    }

    async fn take(&self, c: &Case, now: Timestamp) -> Batch {
        self.try_take(c, now).await.expect("there is something to move")
    }

    async fn put(&self, batch: &Batch, now: Timestamp) -> Delivered {
        let queue = &self.there.queue;
        let put = self.target.put(queue, batch.stamp, now, &batch.load).await;
        put.expect("the put is answered")
    }

    async fn conclude(&self, c: &Case, batch: &Batch, refused: &[&str]) {
        let ids = names(batch).into_iter().filter(|name| !refused.contains(name)).map(id);
        let end = Conclusion::Stored { ids: ids.collect() };
        self.end(c, batch, &end).await;
    }

    async fn end(&self, c: &Case, batch: &Batch, end: &Conclusion) {
        assert_eq!(self.try_end(c, batch, end).await, Concluded::Ended);
    }

    async fn try_end(&self, c: &Case, batch: &Batch, end: &Conclusion) -> Concluded {
        let concluded = self.source.conclude(&c.queue, batch.stamp, t(3), end).await;
        concluded.expect("the conclusion is answered")
    }

    /// Moves all that there is, of which nothing may be refused.
    async fn move_all(&self, c: &Case, now: Timestamp) -> Vec<Parcel> {
        let mut moved = Vec::new();
        while let Some(batch) = self.try_take(c, now).await {
            let delivered = self.put(&batch, now).await;
            assert!(delivered.verdicts.iter().all(|verdict| *verdict == PutVerdict::Stored));
            assert_eq!(batch.unreadable, []);
            self.conclude(c, &batch, &[]).await;
            moved.extend(batch.load.parcels);
        }
        moved
    }

    /// The same ends the other way round.
    async fn back(self, c: &Case) -> Self {
        let health = c.broker.health(&c.broker.home(&c.queue), t(0)).await.expect("is well");
        let order = Order { target: Some(health.epoch), session: SessionId(78), ..self.order };
        Self { source: self.target, target: self.source, order, there: self.there }
    }
}

fn names(batch: &Batch) -> Vec<&str> {
    batch.load.parcels.iter().map(|parcel| parcel.task.id.as_str()).collect()
}

/// The queue in numbers, but for the bytes, which are an estimate.
async fn counts(c: &Case, now: Timestamp) -> QueueStats {
    QueueStats { bytes: None, ..c.stats(now).await }
}

/// The task with every option that has no state of its own.
fn laden(task: NewTask) -> NewTask {
    with(task, |task| {
        task.headers =
            [("trace".to_owned(), "0af7".to_owned()), ("é".to_owned(), String::new())].into();
        task.max_retry = 7;
        task.timeout = Some(secs(90));
        task.deadline = Some(t(86_400));
        task.retention = secs(3600);
    })
}

/// A task in every state but active, each named by its state.
async fn one_in_every_state(c: &Case) {
    let run = async |name: &str, outcome| {
        let running = c.running(t(0), laden(unique(name, name, 5000))).await;
        c.finish(t(1), &running, outcome).await;
    };
    run("completed", done_with("the result")).await;
    run("archived", archive()).await;
    run("retry", retry(t(500))).await;
    let rest = [
        laden(locking(due("scheduled", t(600)), "scheduled", 5000)),
        laden(locking(grouped("aggregating", "g"), "aggregating", 5000)),
        with(due("later", t(700)), |task| task.group = grouped("x", "later").group),
        laden(unique("pending", "pending", 5000)),
    ];
    c.accept(t(2), rest).await;
}

pub async fn what_was_taken_is_out_of_everybodys_reach(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    one_in_every_state(c).await;
    let batch = ends.take(c, t(3)).await;
    assert_eq!(batch.load.parcels.len(), 7);
    assert!(c.claim(t(10_000), 10).await.is_empty());
    assert!(c.claim_group(t(10_000), &policy("*", 1)).await.is_none());
    assert_eq!(c.sweep(t(10_000)).await.due, 0);
    assert_eq!(c.stats(t(4)).await.size(), 0);
    for state in MOVED_STATES {
        assert_eq!(c.ids(state).await, [""; 0], "{state}");
    }
    assert_eq!(c.find("pending", t(4)).await, None);
    for action in [Action::Run, Action::Delete, Action::Archive] {
        assert!(c.act_on(&action, "archived", t(4)).await.is_err(), "{action:?}");
    }
}

pub async fn ids_and_locks_stay_taken_while_a_batch_is_on_its_way(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [unique("a", "d", 5000)]).await;
    let batch = ends.take(c, t(1)).await;
    assert_eq!(c.enqueue(t(2), [task("a")]).await, [EnqueueVerdict::IdConflict]);
    let second = EnqueueVerdict::Duplicate { of: Some(id("a")) };
    assert_eq!(c.enqueue(t(2), [unique("b", "d", 5000)]).await, [second]);
    ends.conclude(c, &batch, &[]).await;
    c.accept(t(3), [task("a"), unique("b", "d", 5000)]).await;
}

pub async fn a_take_repeated_answers_the_same_batch(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    one_in_every_state(c).await;
    let first = ends.take(c, t(3)).await;
    c.accept(t(4), [task("new")]).await;
    let second = ends.take(c, t(5)).await;
    assert_eq!((second.stamp, names(&second)), (first.stamp, names(&first)));
    assert_eq!(second.taken_at, first.taken_at);
    ends.conclude(c, &first, &[]).await;
    let third = ends.take(c, t(5)).await;
    assert_eq!(names(&third), ["new"]);
    assert_eq!(third.previous, first.stamp.seq);
    assert_eq!(third.stamp.session, first.stamp.session);
}

pub async fn a_take_for_another_target_is_refused_while_a_batch_is_on_its_way(c: &Case) {
    let Some(mut ends) = Ends::new(c).await else { return };
    c.accept(t(0), tasks(&["a", "b"])).await;
    ends.order.tasks_max = 1;
    let batch = ends.take(c, t(1)).await;
    let mut elsewhere = ends.order.clone();
    elsewhere.target = Some(Epoch("another".into()));
    let refused = ends.source.take(&c.queue, &elsewhere, t(2)).await.expect_err("is refused");
    assert_eq!(refused.kind(), Kind::Rejected);
    let target = ends.order.target.clone().expect("is named");
    assert!(refused.to_string().contains(&target.0), "{refused}");
    let wherever = Order { target: None, ..ends.order.clone() };
    let same = ends.source.take(&c.queue, &wherever, t(2)).await.expect("is answered");
    assert_eq!(same.map(|same| same.stamp), Some(batch.stamp));
    ends.conclude(c, &batch, &["a"]).await;
    assert_eq!(ends.source.take(&c.queue, &wherever, t(3)).await.expect("is answered"), None);
    let other = ends.source.take(&c.queue, &elsewhere, t(3)).await.expect("is answered");
    assert_eq!(other.map(|batch| batch.previous), Some(0), "a session of its own");
}

pub async fn a_batch_is_bounded_in_tasks_and_in_bytes(c: &Case) {
    let Some(mut ends) = Ends::new(c).await else { return };
    c.accept(t(0), tasks(&["a", "b", "c", "d", "e"])).await;
    ends.order.tasks_max = 2;
    let batch = ends.take(c, t(1)).await;
    assert_eq!(names(&batch), ["a", "b"]);
    ends.conclude(c, &batch, &[]).await;
    (ends.order.tasks_max, ends.order.bytes_max) = (256, 1);
    let batch = ends.take(c, t(2)).await;
    assert_eq!(names(&batch), ["c"], "the first one whatever its size");
    let too_many = Order { tasks_max: 257, ..ends.order };
    let refused = ends.source.take(&c.queue, &too_many, t(2)).await.expect_err("is refused");
    assert_eq!(refused.kind(), Kind::Rejected);
}

pub async fn a_put_repeated_stores_nothing_and_answers_as_the_first_time(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [task("a"), unique("b", "d", 5000), task("c")]).await;
    ends.there.accept(t(0), [task("a"), unique("x", "d", 5000)]).await;
    let batch = ends.take(c, t(1)).await;
    let first = ends.put(&batch, t(1)).await;
    let duplicate = PutVerdict::Duplicate { of: id("x") };
    assert_eq!(first.verdicts, [PutVerdict::IdConflict, duplicate, PutVerdict::Stored]);
    assert!(!first.is_repeat);
    ends.there.act_on(&Action::Delete, "x", t(2)).await.expect("is deleted");
    let second = ends.put(&batch, t(3)).await;
    assert_eq!(second.verdicts, first.verdicts);
    assert!(second.is_repeat);
    assert_eq!(ends.there.ids(TaskState::Pending).await, ["a", "c"]);
}

pub async fn a_put_repeated_after_its_task_ran_does_not_bring_it_back(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [task("a")]).await;
    let batch = ends.take(c, t(1)).await;
    ends.put(&batch, t(1)).await;
    let running = ends.there.claim_one(t(2)).await;
    ends.there.finish(t(3), &running, done()).await;
    let again = ends.take(c, t(86_400 * 30)).await;
    assert_eq!(again.stamp, batch.stamp);
    assert_eq!(ends.put(&again, t(86_400 * 30)).await.verdicts, [PutVerdict::Stored]);
    assert_eq!(ends.there.find("a", t(4)).await, None);
    ends.conclude(c, &again, &[]).await;
    assert_eq!(c.find("a", t(4)).await, None);
    assert!(ends.try_take(c, t(5)).await.is_none());
}

pub async fn what_is_refused_goes_back_to_where_it_was(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    one_in_every_state(c).await;
    c.accept(t(2), tasks(&["p1", "p2", "p3"])).await;
    let ids = ["pending", "p1", "p2", "p3"];
    let mut before = Vec::new();
    for state in MOVED_STATES {
        before.extend(c.ids(state).await);
    }
    let stats = counts(c, t(3)).await;
    let batch = ends.take(c, t(3)).await;
    assert_eq!(names(&batch)[..4], ids);
    let parcels = batch.load.parcels.clone();
    let all: Vec<&str> = names(&batch);
    ends.conclude(c, &batch, &all).await;
    let mut after = Vec::new();
    for state in MOVED_STATES {
        after.extend(c.ids(state).await);
    }
    assert_eq!(after, before);
    assert_eq!(counts(c, t(3)).await, stats);
    let named: Vec<_> = all.iter().map(|name| id(name)).collect();
    let found = ends.source.parcels(&c.queue, &named, t(3)).await.expect("is answered");
    for (was, is) in parcels.iter().zip(found) {
        let is = is.parcel().expect("is there again");
        assert_eq!(was.difference(&is), None, "{}", was.task.id);
        assert!(!was.has_gone_on(&is), "{}", was.task.id);
    }
    let group = c.claim_group(t(60), &policy("g", 1)).await.expect("the group is ready again");
    assert_eq!(ids_of_group(&group), ["aggregating"]);
    assert_eq!(ids_of(&c.claim(t(60), 10).await), ids);
}

pub async fn some_of_a_batch_are_refused_and_the_line_keeps_its_order(c: &Case) {
    let Some(mut ends) = Ends::new(c).await else { return };
    c.accept(t(0), tasks(&["a", "b", "c", "d", "e"])).await;
    ends.there.accept(t(0), tasks(&["b", "d"])).await;
    ends.order.tasks_max = 4;
    let batch = ends.take(c, t(1)).await;
    let verdicts = ends.put(&batch, t(1)).await.verdicts;
    let stored = verdicts.iter().map(|verdict| *verdict == PutVerdict::Stored);
    assert_eq!(stored.collect::<Vec<_>>(), [true, false, true, false]);
    ends.conclude(c, &batch, &["b", "d"]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["b", "d", "e"]);
    ends.order.except = vec![id("b"), id("d")];
    let batch = ends.take(c, t(2)).await;
    assert_eq!(names(&batch), ["e"], "those that were refused are passed over");
    ends.put(&batch, t(2)).await;
    ends.conclude(c, &batch, &[]).await;
    assert!(ends.try_take(c, t(3)).await.is_none());
    assert_eq!(ids_of(&c.claim(t(4), 10).await), ["b", "d"]);
}

pub async fn a_conclusion_repeated_or_too_late_does_nothing(c: &Case) {
    let Some(mut ends) = Ends::new(c).await else { return };
    ends.order.tasks_max = 1;
    c.accept(t(0), tasks(&["a", "b"])).await;
    let first = ends.take(c, t(1)).await;
    ends.conclude(c, &first, &["a"]).await;
    let late = Conclusion::Stored { ids: vec![id("a")] };
    assert_eq!(ends.try_end(c, &first, &late).await, Concluded::NotOnItsWay);
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "b"]);
    let second = ends.take(c, t(1)).await;
    assert!(second.stamp.seq > first.stamp.seq, "a number is given once");
    assert_eq!(ends.try_end(c, &first, &late).await, Concluded::NotOnItsWay);
    assert_eq!(names(&ends.take(c, t(2)).await), ["a"], "is still on its way");
}

pub async fn an_overtaken_put_is_a_ghost(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [task("a")]).await;
    let first = ends.take(c, t(1)).await;
    assert_eq!(ends.put(&first, t(1)).await.known, 0);
    ends.conclude(c, &first, &[]).await;
    c.accept(t(2), [task("b")]).await;
    let second = ends.take(c, t(3)).await;
    assert_eq!(ends.put(&second, t(3)).await.known, first.stamp.seq);
    let late = ends.target.put(&c.queue, first.stamp, t(4), &first.load).await;
    assert_eq!(late.expect_err("is refused").kind(), Kind::Superseded);
}

pub async fn a_round_trip_keeps_everything(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    one_in_every_state(c).await;
    let before = counts(c, t(3)).await;
    let there = ends.move_all(c, t(3)).await;
    assert_eq!(there.len(), 7);
    assert_eq!(c.stats(t(3)).await.size(), 0);
    let arrived = ends.there.stats(t(3)).await;
    for state in MOVED_STATES {
        assert_eq!(arrived.count(state), before.count(state), "{state}");
    }
    assert_eq!(arrived.processed_total, before.processed_total);
    let ends = ends.back(c).await;
    let back = ends.move_all(&ends.there, t(4)).await;
    let named: Vec<_> = there.iter().map(|parcel| parcel.task.id.clone()).collect();
    let found = ends.target.parcels(&c.queue, &named, t(4)).await.expect("is answered");
    for (was, is) in there.iter().zip(found) {
        let is = is.parcel().expect("is there again");
        assert_eq!(was.difference(&is), None, "{}", was.task.id);
        assert!(!was.has_gone_on(&is), "{}", was.task.id);
        assert_eq!(was.joins_group, is.joins_group);
        let held = |parcel: &Parcel| parcel.lock.as_ref().map(|lock| lock.held_until.is_some());
        assert_eq!(held(was), held(&is), "{}", was.task.id);
    }
    assert_eq!(back.len(), there.len());
    assert_eq!(counts(c, t(3)).await, before);
}

pub async fn the_target_runs_what_it_was_given(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [front("a"), task("c"), front("b"), due("s", t(50))]).await;
    ends.there.accept(t(0), [task("waits already")]).await;
    ends.move_all(c, t(1)).await;
    let there = &ends.there;
    assert_eq!(ids_of(&there.claim(t(2), 10).await), ["waits already", "b", "a", "c"]);
    assert!(there.claim(t(49), 10).await.is_empty());
    let late = there.claim_one(t(51)).await;
    there.finish(t(52), &late, done()).await;
    assert_eq!(there.find("s", t(53)).await, None);
}

pub async fn a_lock_moves_with_its_task(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    let done_already = c.running(t(0), locking(kept("k", 3600), "d", 5000)).await;
    c.finish(t(1), &done_already, done()).await;
    c.accept(t(1), [unique("a", "d", 5000)]).await;
    ends.move_all(c, t(2)).await;
    let there = &ends.there;
    let second = EnqueueVerdict::Duplicate { of: Some(id("a")) };
    assert_eq!(there.enqueue(t(3), [unique("b", "d", 5000)]).await, [second]);
    let running = there.claim_one(t(4)).await;
    there.finish(t(5), &running, done()).await;
    assert!(is_accepted(&there.enqueue(t(6), [unique("b", "d", 5000)]).await[0]));
    assert!(is_accepted(&c.enqueue(t(6), [unique("b", "d", 5000)]).await[0]), "free here");
}

pub async fn members_wait_in_their_group_at_the_target(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [grouped("a", "g"), grouped("b", "h")]).await;
    c.accept(t(5), [grouped("c", "g")]).await;
    ends.there.accept(t(6), [grouped("d", "g")]).await;
    ends.move_all(c, t(7)).await;
    assert!(c.inspect.groups(&c.queue).await.expect("is answered").is_empty());
    let group = ends.there.claim_group(t(20), &policy("g", 10)).await.expect("is ready");
    assert_eq!(ids_of_group(&group), ["a", "c", "d"]);
    let group = ends.there.claim_group(t(20), &policy("h", 10)).await.expect("is ready");
    assert_eq!(ids_of_group(&group), ["b"]);
}

pub async fn active_tasks_and_members_of_a_set_stay(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    let running = c.running(t(0), task("active")).await;
    c.accept(t(0), [grouped("member", "g")]).await;
    let set = c.claim_group(t(9), &policy("g", 1)).await.expect("is ready");
    c.accept(t(10), [grouped("waits", "g")]).await;
    assert_eq!(names(&ends.take(c, t(10)).await), ["waits"]);
    let batch = ends.take(c, t(10)).await;
    ends.put(&batch, t(10)).await;
    ends.conclude(c, &batch, &[]).await;
    assert!(ends.try_take(c, t(11)).await.is_none());
    c.finish(t(12), &running, retry(t(60))).await;
    c.settle(t(12), &set.lease, outlast_core::Outcome::Release).await;
    assert_eq!(names(&ends.take(c, t(13)).await), ["active", "member"]);
}

pub async fn counters_move_once_and_last(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    for (at, outcome) in [(0, done()), (0, archive()), (86_400, done())] {
        let running = c.running(t(at), task("x")).await;
        c.finish(t(at + 1), &running, outcome).await;
        let _ = c.act_on(&Action::Delete, "x", t(at + 2)).await;
    }
    let there = ends.there.running(t(86_400), task("y")).await;
    ends.there.finish(t(86_400), &there, done()).await;
    c.accept(t(86_400), [task("a")]).await;
    let now = t(86_500);
    let tasks = ends.take(c, now).await;
    assert_eq!(tasks.load.counts, Counts::default(), "tasks first");
    ends.put(&tasks, now).await;
    ends.conclude(c, &tasks, &[]).await;
    let batch = ends.take(c, now).await;
    assert_eq!((batch.load.counts.processed, batch.load.counts.failed), (3, 1));
    assert_eq!(batch.load.parcels, []);
    assert_eq!(c.stats(now).await.processed_total, 0, "they are on their way");
    ends.put(&batch, now).await;
    ends.put(&batch, now).await;
    ends.conclude(c, &batch, &[]).await;
    assert!(ends.try_take(c, now).await.is_none());
    let stats = ends.there.stats(now).await;
    assert_eq!((stats.processed_total, stats.failed_total), (4, 1));
    let history = ends.there.inspect.history(&c.queue, now, 2).await.expect("is answered");
    let days: Vec<_> = history.iter().map(|day| (day.processed, day.failed)).collect();
    assert_eq!(days, [(2, 0), (2, 1)]);
}

pub async fn a_batch_that_is_given_back_leaves_everything_as_it_was(c: &Case) {
    let Some(mut ends) = Ends::new(c).await else { return };
    one_in_every_state(c).await;
    let before = counts(c, t(3)).await;
    let batch = ends.take(c, t(3)).await;
    ends.end(c, &batch, &Conclusion::GivenBack).await;
    assert_eq!(counts(c, t(3)).await, before);
    ends.order.except = batch.load.parcels.iter().map(|one| one.task.id.clone()).collect();
    let counters = ends.take(c, t(3)).await;
    assert_eq!(counters.load.parcels, []);
    assert_eq!(counters.previous, 0, "what was given back was not stored");
    assert!(counters.stamp.seq > batch.stamp.seq, "a number is given once");
    ends.end(c, &counters, &Conclusion::GivenBack).await;
    assert_eq!(counts(c, t(3)).await, before);
    let history = c.inspect.history(&c.queue, t(3), 1).await.expect("is answered");
    assert_eq!((history[0].processed, history[0].failed), (3, 2));
}

pub async fn once_keys_hold_at_both_ends(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [once("a", "key", 5000), keyed(task("b"), "other:key*", 5000)]).await;
    ends.there.accept(t(0), [once("theirs", "key", 9000)]).await;
    let (mut keys, mut cursor): (Vec<OnceKey>, _) = (Vec::new(), None);
    loop {
        let page = ends.source.once_keys(&c.queue, cursor.as_ref(), t(1)).await;
        let page = page.expect("the listing is answered");
        keys.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    keys.sort_by(|one, two| one.key.cmp(&two.key));
    keys.dedup();
    assert_eq!(keys.iter().map(|key| &*key.key).collect::<Vec<_>>(), ["key", "other:key*"]);
    for _ in 0..2 {
        ends.target.hold_once(&c.queue, &keys, t(2)).await.expect("they are held");
    }
    let again = [once("c", "key", 60), once("d", "other:key*", 60)];
    let of = |name| EnqueueVerdict::Duplicate { of: Some(id(name)) };
    assert_eq!(ends.there.enqueue(t(3), again.clone()).await, [of("theirs"), of("b")]);
    assert_eq!(c.enqueue(t(3), again).await, [of("a"), of("b")]);
}

pub async fn a_record_that_cannot_be_read_is_named_and_given_back(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), tasks(&["a", "bad", "c"])).await;
    let corrupted = c.fixture.corrupt(&c.queue, &id("bad")).await;
    if c.unless_skipped(corrupted).is_none() {
        return;
    }
    let batch = ends.take(c, t(1)).await;
    assert_eq!(names(&batch), ["a", "c"]);
    let unreadable: Vec<_> = batch.unreadable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(unreadable, ["bad"]);
    assert!(!batch.unreadable[0].1.is_empty(), "with the reason");
    ends.conclude(c, &batch, &["bad"]).await;
    assert_eq!(c.stats(t(2)).await.pending, 1);
    let found = ends.source.parcels(&c.queue, &[id("bad")], t(2)).await.expect("is answered");
    assert!(matches!(&found[..], [Found::Unreadable(_)]), "it is there: {found:?}");
}

pub async fn a_queue_with_a_batch_on_its_way_is_not_removed(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    c.accept(t(0), [task("a")]).await;
    let batch = ends.take(c, t(1)).await;
    for control in [QueueControl::RemoveIfEmpty, QueueControl::RemoveWithTasks] {
        let refused = c.inspect.control(&c.queue, control, t(2)).await.expect("is answered");
        assert!(matches!(refused, Controlled::NotEmpty { tasks: 1.. }), "{control:?}: {refused:?}");
    }
    ends.conclude(c, &batch, &["a"]).await;
    let running = c.claim_one(t(3)).await;
    c.finish(t(4), &running, done()).await;
    let counters = ends.take(c, t(5)).await;
    for control in [QueueControl::RemoveIfEmpty, QueueControl::RemoveWithTasks] {
        let refused = c.inspect.control(&c.queue, control, t(6)).await.expect("is answered");
        assert!(matches!(refused, Controlled::NotEmpty { .. }), "{control:?}: {refused:?}");
    }
    ends.end(c, &counters, &Conclusion::GivenBack).await;
    assert_eq!(c.stats(t(6)).await.processed_total, 1);
}

pub async fn a_queue_that_is_not_there_has_nothing_to_move(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    assert!(ends.try_take(c, t(0)).await.is_none());
    let found = ends.source.parcels(&c.queue, &[id("a")], t(0)).await.expect("is answered");
    assert_eq!(found, [Found::Missing]);
    let page = ends.source.once_keys(&c.queue, None, t(0)).await.expect("is answered");
    assert_eq!(page.items, []);
    let nothing = Load::default();
    assert!(nothing.is_empty());
}

pub async fn what_this_version_does_not_know_of_a_task_is_kept(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    let task_type = TaskType::new("t").expect("a valid type");
    let record = TaskRecord::new(c.queue.clone(), id("a"), task_type, Bytes::from_static(b"p"));
    let mut parcel = Parcel::new(record, t(0));
    // Field 99 of a message, with one byte in it.
    parcel.unknown = Bytes::from_static(&[0x9a, 0x06, 0x01, b'x']);
    let load = Load { parcels: vec![parcel.clone()], counts: Counts::default() };
    let put = ends.source.put(&c.queue, stamp(5, 0, 1), t(1), &load).await;
    assert_eq!(put.expect("is answered").verdicts, [PutVerdict::Stored]);
    let moved = ends.move_all(c, t(2)).await;
    assert_eq!(moved[0].unknown, parcel.unknown);
    let found = ends.target.parcels(&c.queue, &[id("a")], t(3)).await.expect("is answered");
    let found = found.into_iter().find_map(Found::parcel).expect("is there");
    assert_eq!(parcel.difference(&found), None);
    assert!(!parcel.has_gone_on(&found));
    assert_eq!(found.unknown, parcel.unknown);
}

pub async fn the_state_of_a_schedule_is_known_without_its_scheduler(c: &Case) {
    let Some(ends) = Ends::new(c).await else { return };
    let name = outlast_core::ScheduleName::new("nightly").expect("a valid name");
    let tick = outlast_core::inspect::TickRecord {
        schedule: name.clone(),
        tick: t(60),
        task: Some(id("a")),
        enqueued_at: t(61),
    };
    let ticks =
        outlast_core::Beat { ticks: vec![tick.clone()], ttl: secs(1), ..Default::default() };
    c.broker.beat(t(62), &ticks).await.expect("is answered");
    let states = ends.source.schedule_states(t(63)).await.expect("is answered");
    assert_eq!(states.len(), 1);
    assert_eq!((&states[0].name, states[0].last_tick), (&name, Some(t(60))));
    let page = c.inspect.ticks(&name, &PageRequest::first(10)).await.expect("is answered");
    assert_eq!(page.items, [tick]);
}
