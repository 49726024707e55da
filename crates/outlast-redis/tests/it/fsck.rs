//! Checking a server that is in use: each way in which data can be wrong is made with plain commands, found,
//! repaired, and gone; and a system in which nothing is wrong is never accused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use outlast_core::porter::{Conclusion, Order};
use outlast_core::{
    Broker, Claim, Defect, Epoch, Finding, Inspect, NewTask, Porter, QueueName, Repair, SessionId,
    Settlement, TaskState, Timestamp, Want,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    done, due, grouped, id, kept, queue, retry, secs, stamp, t, task, tasks, unique, with,
};
use outlast_testkit::resp::Reply;

use crate::kit::{Place, shared, want};

const SET: &str = "g:g:0b1f7d3e-0000-4000-8000-000000000001";

/// When checks are made: later than anything that was enqueued.
const NOW: i64 = 1000;

/// A place, what was put into it, and checks of it.
struct Space {
    place: Place,
    broker: RedisBroker,
}

impl Space {
    /// None where there is no server to be had.
    fn new() -> Option<Self> {
        let server = shared()?;
        let place = Place::new(server);
        let broker = place.broker(&server.url());
        Some(Self { place, broker })
    }

    fn key(&self, name: &str) -> String {
        self.place.key(name)
    }

    /// Runs a command; a word that begins with `@` is a key of the default queue.
    fn run(&self, words: &str) -> Reply {
        let key = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.key(name),
            None => word.replace("ROOT", &self.place.namespace),
        };
        let words: Vec<String> = words.split_whitespace().map(key).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.place.raw(&words)
    }

    async fn enqueue(&self, tasks: Vec<NewTask>) {
        self.place.accept(&self.broker, tasks).await;
    }

    /// Claims everything that is pending.
    async fn claim(&self) {
        let want = Want { tasks_max: 100, ..self.want() };
        let session = uuid::Uuid::new_v4().as_u128();
        let default = queue("default");
        let claimed = self.broker.claim(&default, stamp(session, 0, 1), t(1), &want);
        assert!(!claimed.await.expect("tasks are claimed").claims.is_empty());
    }

    fn want(&self) -> Want {
        Want { lease: secs(5000), ..want(10) }
    }

    async fn state(&self, name: &str) -> Option<TaskState> {
        let found = self.broker.task(&queue("default"), &id(name), t(NOW)).await;
        found.expect("it can be read").map(|task| task.state)
    }

    /// A check of the default queue from beginning to end.
    async fn fsck(&self, repair: Repair) -> Vec<Finding> {
        self.fsck_at(&queue("default"), repair, t(NOW)).await
    }

    async fn fsck_at(&self, queue: &QueueName, repair: Repair, now: Timestamp) -> Vec<Finding> {
        let mut check = self.broker.fsck(queue, repair);
        let mut findings = Vec::new();
        while let Some(step) = check.step(now).await.expect("the server answers") {
            assert_eq!(step.undecided, 0);
            findings.extend(step.findings);
        }
        findings
    }

    /// A check finds this and nothing else; so does one that repairs, and then nothing is left.
    async fn finds(&self, defects: &[(Defect, Option<&str>)]) {
        for (repair, left) in [(Repair::No, true), (Repair::Yes, true), (Repair::Yes, false)] {
            let found = self.fsck(repair).await;
            let expected = if left { defects } else { &[] };
            let mut seen: Vec<_> = found
                .iter()
                .map(|finding| (finding.defect, finding.id.as_ref().map(|id| id.as_str())))
                .collect();
            let mut expected = expected.to_vec();
            seen.sort_by_key(|(defect, id)| (defect.as_str(), *id));
            expected.sort_by_key(|(defect, id)| (defect.as_str(), *id));
            assert_eq!(seen, expected, "{repair:?}: {found:?}");
            assert!(found.iter().all(|finding| finding.repaired == (repair == Repair::Yes)));
        }
    }
}

#[tokio::test]
async fn a_healthy_queue_is_clean() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["running"])).await;
    space.claim().await;
    space
        .enqueue(vec![task("a"), due("b", t(5000)), grouped("c", "g"), unique("d", "x", 900)])
        .await;
    space.finds(&[]).await;
}

#[tokio::test]
async fn tasks_on_their_way_to_another_broker_are_no_orphans() {
    let Some(space) = Space::new() else { return };
    let all = vec![task("a"), due("b", t(5000)), grouped("c", "g"), unique("d", "x", 900)];
    space.enqueue(all).await;
    let order = Order {
        target: Some(Epoch("elsewhere".into())),
        session: SessionId(1),
        tasks_max: 256,
        bytes_max: 1 << 20,
        except: Vec::new(),
    };
    let default = queue("default");
    let batch = space.broker.take(&default, &order, t(1)).await.expect("is answered");
    let batch = batch.expect("there are tasks");
    assert_eq!(batch.load.parcels.len(), 4);
    space.finds(&[]).await;
    let end = Conclusion::GivenBack;
    space.broker.conclude(&default, batch.stamp, t(2), &end).await.expect("is concluded");
    space.finds(&[]).await;
    assert_eq!(space.state("c").await, Some(TaskState::Aggregating));
}

#[tokio::test]
async fn a_task_that_says_it_is_on_its_way_and_is_not_is_put_away() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("a")]).await;
    space.run("HSET @t:a state outgoing");
    space.run("DEL @pending");
    space.finds(&[(Defect::Orphan, Some("a"))]).await;
    assert_eq!(space.state("a").await, Some(TaskState::Archived));
}

/// It was archived as unreadable while it was on its way, and was in two places when it came back.
#[tokio::test]
async fn a_task_that_is_on_its_way_and_cannot_be_read_is_left_alone() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("a")]).await;
    space.run("HSET @t:a state outgoing msg nonsense");
    space.run("DEL @pending");
    space.run("HSET @outlast:outgoing a 1=pending=-");
    space.finds(&[]).await;
    assert_eq!(space.state("a").await, None);
}

#[tokio::test]
async fn ids_without_a_task_are_taken_out_of_every_collection() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("a"), grouped("g1", "g")]).await;
    for place in ["pending", "active"] {
        space.run(&format!("LPUSH @{place} {place}-ghost"));
    }
    for place in ["lease", "scheduled", "retry", "archived", "completed", "g:g"] {
        space.run(&format!("ZADD @{place} 5000000000 {place}-ghost"));
    }
    let ghost = |id| (Defect::Ghost, Some(id));
    space
        .finds(&[
            ghost("pending-ghost"),
            ghost("active-ghost"),
            ghost("lease-ghost"),
            ghost("scheduled-ghost"),
            ghost("retry-ghost"),
            ghost("archived-ghost"),
            ghost("completed-ghost"),
            ghost("g:g-ghost"),
        ])
        .await;
    assert_eq!(space.state("a").await, Some(TaskState::Pending));
}

#[tokio::test]
async fn a_task_in_no_collection_is_put_where_its_state_says() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("run")]).await;
    space.claim().await;
    space.enqueue(vec![task("a"), task("ok"), due("b", t(5000)), grouped("c", "g")]).await;
    space.enqueue(tasks(&["r", "x", "k"])).await;
    for (id, state) in [("r", "retry"), ("x", "archived"), ("k", "completed")] {
        space.run(&format!("HSET @t:{id} state {state}"));
        space.run(&format!("LREM @pending 0 {id}"));
    }
    space.run("LREM @pending 0 a");
    space.run("ZREM @scheduled b");
    space.run("ZREM @g:g c");
    space.run("SREM @groups g");
    space.run("DEL @active");
    space.run("DEL @lease");
    let orphans = ["a", "b", "c", "k", "r", "run", "x"].map(|id| (Defect::Orphan, Some(id)));
    space.finds(&orphans).await;
    for (id, state) in [
        ("a", TaskState::Pending),
        ("b", TaskState::Scheduled),
        ("c", TaskState::Aggregating),
        ("k", TaskState::Completed),
        ("r", TaskState::Retry),
        ("run", TaskState::Retry),
        ("x", TaskState::Archived),
    ] {
        assert_eq!(space.state(id).await, Some(state), "{id}");
    }
    // At the end of the line, behind what waited.
    assert_eq!(space.run("LINDEX @pending 0").text().as_deref(), Some("a"));
    assert_eq!(space.run("HGET @t:run o:lost").int(), Some(1));
    assert_eq!(space.run("ZSCORE @scheduled b").int(), Some(t(NOW).as_seconds()));
}

#[tokio::test]
async fn a_result_without_a_task_is_deleted() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["a"])).await;
    space.run("HSET @t:late result 42");
    space.finds(&[(Defect::ResultOnly, Some("late"))]).await;
    assert_eq!(space.run("EXISTS @t:late").int(), Some(0));
}

/// What Go's dequeue makes of an id whose task is gone was called unreadable, and archived: an empty task without a type
/// was listed, and nobody could enqueue its id again.
#[tokio::test]
async fn a_state_without_a_task_is_deleted_wherever_it_is() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["whole"])).await;
    space.run("LPUSH @pending trimmed");
    space.run("HSET @t:trimmed state pending");
    space.run("LPUSH @active dequeued");
    space.run("ZADD @lease 5000000000 dequeued");
    space.run("HSET @t:dequeued state active");
    space.run("HSET @t:nowhere state archived o:why lost");
    let (ghost, rest) = (|id| (Defect::Ghost, Some(id)), |id| (Defect::ResultOnly, Some(id)));
    let twice = ghost("dequeued");
    space
        .finds(&[
            ghost("trimmed"),
            twice,
            twice,
            rest("trimmed"),
            rest("dequeued"),
            rest("nowhere"),
        ])
        .await;
    assert_eq!(space.run("ZCARD @archived").int(), Some(0));
    space.enqueue(tasks(&["trimmed", "dequeued", "nowhere"])).await;
}

#[tokio::test]
async fn active_list_and_leases_are_made_to_agree() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["a", "b", "c"])).await;
    space.claim().await;
    space.run("ZREM @lease a");
    space.run("LREM @active 0 b");
    space.finds(&[(Defect::NoLease, Some("a")), (Defect::NotActive, Some("b"))]).await;
    assert_eq!(space.state("a").await, Some(TaskState::Retry));
    assert_eq!(space.state("b").await, Some(TaskState::Active));
    assert_eq!(space.run("LLEN @active").int(), Some(2));
}

#[tokio::test]
async fn an_id_that_is_in_a_place_too_often_is_there_once() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("a"), task("b"), due("s", t(5000))]).await;
    space.run("LPUSH @pending a");
    space.run("ZADD @retry 1 b");
    space.run("ZADD @completed 1 s");
    let twice = |id| (Defect::Twice, Some(id));
    space.finds(&[twice("a"), twice("b"), twice("s")]).await;
    assert_eq!(space.run("LLEN @pending").int(), Some(2));
    assert_eq!(space.run("ZCARD @scheduled").int(), Some(1));
}

/// Contract §5.4, case 6: an archiving that stopped half-way leaves the state behind.
#[tokio::test]
async fn a_task_that_is_in_one_place_and_says_another_says_where_it_is() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["a", "b"])).await;
    space.claim().await;
    space.run("LREM @active 0 a");
    space.run("ZREM @lease a");
    space.run("ZADD @archived 1795521600 a");
    space.finds(&[(Defect::Misplaced, Some("a"))]).await;
    assert_eq!(space.state("a").await, Some(TaskState::Archived));
}

#[tokio::test]
async fn what_is_among_the_completed_by_mistake_is_not_lost() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["a"])).await;
    space.run("DEL @pending");
    space.run("ZADD @completed 1 a");
    space.finds(&[(Defect::Orphan, Some("a"))]).await;
    assert_eq!(space.state("a").await, Some(TaskState::Pending));
    assert_eq!(space.run("ZCARD @completed").int(), Some(0));
}

#[tokio::test]
async fn groups_are_listed_when_they_have_members_and_only_then() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![grouped("a", "g"), grouped("b", "h")]).await;
    space.run("SREM @groups g");
    space.run("SADD @groups nobody");
    let key = space.key(SET);
    space.run(&format!("ZADD @aggregation_sets 5000000000 {key}"));
    let none = |defect| (defect, None);
    space
        .finds(&[none(Defect::UnlistedGroup), none(Defect::EmptyGroup), none(Defect::EmptySet)])
        .await;
    assert_eq!(space.run("SCARD @groups").int(), Some(2));
}

#[tokio::test]
async fn members_that_nobody_aggregates_wait_in_their_group_again() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![grouped("a", "g"), grouped("b", "g"), task("p")]).await;
    space.run(&format!("RENAME @g:g @{SET}"));
    space.run("SREM @groups g");
    let found = space.fsck(Repair::Yes).await;
    assert!(found.iter().any(|finding| finding.defect == Defect::StraySet), "{found:?}");
    space.finds(&[]).await;
    assert_eq!(space.run("ZCARD @g:g").int(), Some(2));
    assert_eq!(space.run("SISMEMBER @groups g").int(), Some(1));
}

#[tokio::test]
async fn a_lock_does_not_outlive_its_task() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![unique("a", "x", 900), unique("b", "y", 900), task("c")]).await;
    space.run("LREM @pending 0 a");
    space.run("DEL @t:a");
    space.run("SET @unique:t:other c EX 900");
    space.finds(&[(Defect::StaleLock, Some("a")), (Defect::StaleLock, Some("c"))]).await;
    space.enqueue(vec![unique("again", "x", 900)]).await;
    assert_eq!(space.state("again").await, Some(TaskState::Pending));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_archived_with_the_reason() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("a"), grouped("c", "g")]).await;
    space.run("HSET @t:a msg \u{1}garbage");
    space.run("HSET @t:c msg \u{1}garbage");
    let unreadable = |id| (Defect::Unreadable, Some(id));
    space.finds(&[unreadable("a"), unreadable("c")]).await;
    assert_eq!(space.run("ZCARD @archived").int(), Some(2));
    assert_eq!(space.run("LLEN @pending").int(), Some(0));
    assert_eq!(space.run("HEXISTS @t:a o:why").int(), Some(1));
}

#[tokio::test]
async fn sessions_expire_and_queues_with_tasks_are_listed() {
    let Some(space) = Space::new() else { return };
    space.enqueue(tasks(&["a"])).await;
    space.run("HSET @outlast:s:00000000000000000000000000000007 0 3");
    space.run("SREM ROOT:queues default");
    let queues = space.broker.fsck_queues().await.expect("the server answers");
    assert_eq!(queues, [queue("default")]);
    space.finds(&[(Defect::NoExpiry, None), (Defect::UnlistedQueue, None)]).await;
}

#[tokio::test]
async fn a_collection_of_another_kind_is_told_and_left_alone() {
    let Some(space) = Space::new() else { return };
    space.run("SET @pending text");
    let found = space.fsck(Repair::Yes).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].defect, found[0].repaired), (Defect::ForeignKey, false));
    assert_eq!(space.run("GET @pending").text().as_deref(), Some("text"));
}

#[tokio::test]
async fn names_with_the_signs_of_patterns_are_names() {
    let Some(space) = Space::new() else { return };
    let odd = queue("a*[b]?\\c");
    let sent = space.broker.enqueue(&odd, stamp(1, 0, 1), t(0), tasks(&["x"]).into());
    sent.await.expect("the task is stored");
    space.enqueue(tasks(&["y"])).await;
    space.run("LREM @pending 0 y");
    assert_eq!(space.fsck_at(&odd, Repair::No, t(NOW)).await, []);
    assert_eq!(space.fsck(Repair::No).await.len(), 1);
}

/// A producer and two workers on one namespace, until they are told to stop.
struct Load {
    space: Arc<Space>,
    clock: Arc<AtomicU64>,
    waiting: Arc<AtomicI64>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    fn now(&self) -> Timestamp {
        t(i64::try_from(self.clock.fetch_add(1, Ordering::SeqCst) / 20).expect("a small number"))
    }

    async fn produce(self) {
        let mut batch = 0_u64;
        while !self.is_over.load(Ordering::SeqCst) {
            // A producer is faster than two workers: the line must not grow without end.
            if self.waiting.load(Ordering::SeqCst) > 500 {
                tokio::task::yield_now().await;
                continue;
            }
            self.waiting.fetch_add(23, Ordering::SeqCst);
            batch += 1;
            let name = |n: u64| format!("{batch}-{n}");
            let (now, at) = (self.now(), queue("default"));
            let mut new: Vec<_> = (0..20).map(|n| task(&name(n))).collect();
            new.push(due(&name(20), now.plus(std::time::Duration::from_secs(2))));
            new.push(grouped(&name(21), &format!("g{}", batch % 3)));
            new.push(unique(&name(22), &name(22), 900));
            new.push(with(kept(&name(23), 5), |task| task.max_retry = 3));
            let sent = self.space.broker.enqueue(&at, stamp(1, 0, batch), now, new.into());
            sent.await.expect("the tasks are stored");
        }
    }

    async fn work(self, session: u128) {
        let mut batch = 0;
        let groups = [outlast_testkit::conformance::words::policy("g*", 1)];
        let want = outlast_core::Want { groups: groups.into(), ..self.space.want() };
        while !self.is_over.load(Ordering::SeqCst) {
            batch += 1;
            let (now, at) = (self.now(), queue("default"));
            let claimed = self.space.broker.claim(&at, stamp(session, 0, batch), now, &want).await;
            let mut ended = Vec::new();
            for (nth, claim) in claimed.expect("an answer").claims.into_iter().enumerate() {
                let Claim::Task(claimed) = claim else { continue };
                let outcome = match nth % 5 {
                    0 => retry(now.plus(std::time::Duration::from_secs(1))),
                    _ => done(),
                };
                if outcome == done() {
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                }
                ended.push(Settlement { lease: claimed.lease, outcome });
            }
            if !ended.is_empty() {
                let settled =
                    self.space.broker.settle(&at, stamp(session, 1, batch), now, ended.into());
                settled.await.expect("an answer");
            }
            let budget = outlast_testkit::conformance::words::budget(100);
            self.space.broker.sweep(&at, now, budget).await.expect("an answer");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn under_load_nothing_that_merely_moves_is_taken_for_wrong() {
    let Some(space) = Space::new() else { return };
    let space = Arc::new(space);
    let (clock, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let waiting = Arc::new(AtomicI64::new(0));
    let load = || Load {
        space: space.clone(),
        clock: clock.clone(),
        waiting: waiting.clone(),
        is_over: is_over.clone(),
    };
    let running = [
        tokio::spawn(load().produce()),
        tokio::spawn(load().work(2)),
        tokio::spawn(load().work(3)),
    ];
    for _ in 0..6 {
        for repair in [Repair::No, Repair::Yes] {
            let now = load().now();
            let found = space.fsck_at(&queue("default"), repair, now).await;
            assert_eq!(found, [], "{repair:?}");
        }
    }
    is_over.store(true, Ordering::SeqCst);
    for task in running {
        task.await.expect("the load ran well");
    }
    space.finds(&[]).await;
}

/// A count of losses that is no number, or a key in the place of a group, failed the step that repaired, over and over: the check
/// never came to its end.
#[tokio::test]
async fn a_check_gets_past_damaged_fields_and_foreign_groups() {
    let Some(space) = Space::new() else { return };
    space.enqueue(vec![task("run")]).await;
    space.claim().await;
    space.enqueue(vec![task("whole"), grouped("m", "g")]).await;
    space.run("HSET @t:run o:lost many");
    space.run("ZREM @lease run");
    space.run("SET @g:g text");
    let found = space.fsck(Repair::Yes).await;
    let defects: Vec<_> = found.iter().map(|finding| finding.defect).collect();
    for defect in [Defect::NoLease, Defect::Orphan, Defect::ForeignKey] {
        assert!(defects.contains(&defect), "{defect:?}: {found:?}");
    }
    assert_eq!(space.state("run").await, Some(TaskState::Retry));
    assert_eq!(space.state("m").await, Some(TaskState::Archived));
    assert_eq!(space.run("GET @g:g").text().as_deref(), Some("text"));
}
