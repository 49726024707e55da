//! The counts that are kept beside the tasks are those that counting finds, whatever was done.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{
    Action, Attempt, Broker, Claim, GroupName, GroupPolicy, Inspect, Lease, NewTask, Outcome,
    PageRequest, QueueControl, Selector, Settlement, TaskState, Timestamp, Unique,
};
use outlast_sqlite::SqliteBroker;
use proptest::prelude::*;
use rusqlite::Connection;

use crate::kit::*;

#[derive(Clone, Debug)]
enum Op {
    Enqueue { ids: Vec<u8>, due: Option<u8>, group: bool, unique: bool },
    Claim { max: usize, groups: bool },
    Settle { which: u8, how: u8 },
    Sweep { later: u8 },
    Act { state: usize, how: u8 },
    Remove,
}

fn op() -> impl Strategy<Value = Op> {
    let ids = proptest::collection::vec(0_u8..40, 1..6);
    prop_oneof![
        4 => (ids, proptest::option::of(0_u8..60), any::<bool>(), any::<bool>())
            .prop_map(|(ids, due, group, unique)| Op::Enqueue { ids, due, group, unique }),
        3 => (1_usize..6, any::<bool>()).prop_map(|(max, groups)| Op::Claim { max, groups }),
        4 => (any::<u8>(), 0_u8..8).prop_map(|(which, how)| Op::Settle { which, how }),
        2 => (0_u8..90).prop_map(|later| Op::Sweep { later }),
        1 => (0_usize..7, 0_u8..3).prop_map(|(state, how)| Op::Act { state, how }),
        1 => Just(Op::Remove),
    ]
}

/// Two brokers on one file take turns, so that nothing one remembers can be relied on.
struct Run {
    brokers: [SqliteBroker; 2],
    turn: usize,
    now: Timestamp,
    leases: Vec<Lease>,
}

impl Run {
    fn broker(&mut self) -> SqliteBroker {
        self.turn = 1 - self.turn;
        self.brokers[self.turn].clone()
    }

    async fn step(&mut self, op: &Op) {
        let (broker, q, now) = (self.broker(), queue("q"), self.now);
        match op {
            Op::Enqueue { ids, due, group, unique } => {
                let new = |id: &u8| self.make(*id, *due, *group, *unique);
                let batch: Arc<[NewTask]> = ids.iter().map(new).collect();
                broker.enqueue(&q, stamp(), now, batch).await.expect("enqueues");
            }
            Op::Claim { max, groups } => self.claim(&broker, *max, *groups).await,
            Op::Settle { which, how } => self.settle(&broker, *which, *how).await,
            Op::Sweep { later } => {
                self.now = now.plus(Duration::from_secs(u64::from(*later)));
                sweep(&broker, "q", self.now).await;
            }
            Op::Act { state, how } => {
                let action =
                    [Action::Run, Action::Archive, Action::Delete][usize::from(*how)].clone();
                let select = Selector::state(TaskState::ALL[*state]);
                let page = PageRequest::first(3);
                broker.act(&q, &action, &select, &page, now).await.expect("acts");
            }
            Op::Remove => {
                broker.control(&q, QueueControl::RemoveWithTasks, now).await.expect("answers");
            }
        }
    }

    fn make(&self, id: u8, due: Option<u8>, group: bool, unique: bool) -> NewTask {
        let mut new = task(&id.to_string());
        new.due = due.map(|due| self.now.plus(Duration::from_secs(due.into())));
        new.group = group.then(|| GroupName::new("g").expect("a valid name"));
        let ttl = Duration::from_secs(30);
        new.unique = unique.then(|| Unique { digest: (id % 7).to_string(), ttl });
        new.retention = Duration::from_secs(u64::from(id % 2) * 20);
        new
    }

    async fn claim(&mut self, broker: &SqliteBroker, max: usize, groups: bool) {
        let mut want = want(3, max);
        let policy = GroupPolicy {
            pattern: "*".into(),
            grace: Duration::from_secs(5),
            max_delay: None,
            max_size: Some(3),
        };
        if groups {
            want.groups = [policy].into();
        }
        let claims = broker.claim(&queue("q"), stamp(), self.now, &want).await.expect("claims");
        for claim in claims.claims {
            match claim {
                Claim::Task(task) => self.leases.push(task.lease),
                Claim::Group(group) => self.leases.push(group.lease),
                Claim::Corrupt { id, why } => panic!("{id} is corrupt: {why}"),
            }
        }
    }

    async fn settle(&mut self, broker: &SqliteBroker, which: u8, how: u8) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases[usize::from(which) % self.leases.len()].clone();
        let later = self.now.plus(Duration::from_secs(9));
        let attempt = if how == 1 { Attempt::Spent } else { Attempt::Kept };
        let outcome = match how {
            0 => Outcome::Done { result: None },
            1 | 2 => Outcome::Retry { at: later, error: "no".into(), attempt },
            3 => Outcome::Snooze { until: later },
            4 => Outcome::Archive { error: "no".into() },
            5 => Outcome::Revoke,
            6 => Outcome::Release,
            _ => Outcome::Aggregated { into: Box::new(self.make(which % 40, None, false, true)) },
        };
        let batch: Arc<[Settlement]> = [Settlement { lease, outcome }].into();
        broker.settle(&queue("q"), stamp(), self.now, batch).await.expect("settles");
    }
}

/// What must be true of the file between any two transactions.
fn check(file: &Path) {
    let conn = Connection::open(file).expect("opens");
    let none = |what: &str, sql: &str| {
        let wrong: i64 = conn.query_row(sql, [], |row| row.get(0)).expect(what);
        assert_eq!(wrong, 0, "{what}");
    };
    for (code, state) in (1..).zip(TaskState::ALL) {
        let sql = format!(
            "SELECT count(*) FROM queue WHERE name IS NOT NULL AND {state} <> \
             (SELECT count(*) FROM task WHERE task.queue = qid AND state = {code})"
        );
        none(&format!("queues whose count of {state} is wrong"), &sql);
    }
    none(
        "groups whose counts are wrong",
        "SELECT count(*) FROM grp WHERE waiting <> (SELECT count(*) FROM task WHERE \
         task.queue = grp.queue AND grp = name AND state = 3 AND set_id IS NULL) OR in_set <> \
         (SELECT count(*) FROM task WHERE task.queue = grp.queue AND grp = name \
          AND state = 3 AND set_id IS NOT NULL) OR waiting + in_set = 0 \
         OR oldest IS NOT (SELECT min(score) FROM task WHERE task.queue = grp.queue \
          AND grp = name AND state = 3 AND set_id IS NULL) \
         OR newest IS NOT (SELECT max(score) FROM task WHERE task.queue = grp.queue \
          AND grp = name AND state = 3 AND set_id IS NULL)",
    );
    none(
        "groups that are missing",
        "SELECT count(*) FROM task WHERE state = 3 AND NOT EXISTS \
         (SELECT 1 FROM grp WHERE grp.queue = task.queue AND name = task.grp)",
    );
    none(
        "locks without a task",
        "SELECT count(*) FROM unique_lock AS l WHERE NOT EXISTS \
         (SELECT 1 FROM task WHERE task.queue = l.queue AND id = owner)",
    );
    none(
        "members of sets that are none",
        "SELECT count(*) FROM task WHERE set_id IS NOT NULL AND (state <> 3 OR NOT EXISTS \
         (SELECT 1 FROM aggregation WHERE sid = set_id))",
    );
    none("rows of removed queues", "SELECT count(*) FROM queue WHERE name IS NULL");
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn counts_are_what_counting_finds(ops in proptest::collection::vec(op(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("tasks.db");
            let brokers = [open(&file), open(&file)];
            let mut run = Run { brokers, turn: 0, now: NOW, leases: Vec::new() };
            for op in &ops {
                run.step(op).await;
                check(&file);
            }
        });
    }
}
