//! A namespace of its own on the shared server, what was put into it, and checks of it.

use std::sync::Arc;

use outlast_core::{
    Broker, Defect, Finding, Inspect, NewTask, QueueName, Repair, TaskState, Timestamp, Want,
};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{id, queue, stamp, t};
use outlast_testkit::resp::Reply;
use outlast_testkit::server::RedisServer;

/// When checks are made: later than anything that was enqueued.
pub(crate) const NOW: i64 = 1000;

/// Where one test lives.
pub(crate) struct Space {
    server: &'static RedisServer,
    namespace: String,
    pub(crate) broker: RedisBroker,
}

impl Space {
    /// None where there is no server to be had.
    pub(crate) fn new() -> Option<Self> {
        let server = RedisServer::or_skip(RedisServer::shared())?;
        let namespace = format!("t{}", uuid::Uuid::new_v4().simple());
        let url = format!("{}/0?namespace={namespace}", server.url());
        let broker = RedisBroker::new(&url, Options::default()).expect("a broker");
        Some(Self { server, namespace, broker })
    }

    /// A key of the default queue.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{{default}}:{name}", self.namespace)
    }

    /// Runs a command; a word that begins with `@` is a key of the default queue.
    pub(crate) fn run(&self, words: &str) -> Reply {
        let key = |word: &str| match word.strip_prefix('@') {
            Some(name) => self.key(name),
            None => word.replace("ROOT", &self.namespace),
        };
        let words: Vec<String> = words.split_whitespace().map(key).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.server.command(&words).expect("the command succeeds")
    }

    pub(crate) async fn enqueue(&self, tasks: Vec<NewTask>) {
        let session = uuid::Uuid::new_v4().as_u128();
        let default = queue("default");
        let sent = self.broker.enqueue(&default, stamp(session, 0, 1), t(0), tasks.into());
        sent.await.expect("the tasks are stored");
    }

    /// Claims everything that is pending.
    pub(crate) async fn claim(&self) {
        let want = Want { tasks_max: 100, ..self.want() };
        let session = uuid::Uuid::new_v4().as_u128();
        let default = queue("default");
        let claimed = self.broker.claim(&default, stamp(session, 0, 1), t(1), &want);
        assert!(!claimed.await.expect("tasks are claimed").claims.is_empty());
    }

    pub(crate) fn want(&self) -> Want {
        Want {
            tasks_max: 10,
            bytes_max: 1024 * 1024,
            lease: std::time::Duration::from_secs(5000),
            token: outlast_core::LeaseToken::new(7).expect("a token"),
            groups: Arc::from([]),
        }
    }

    pub(crate) async fn state(&self, name: &str) -> Option<TaskState> {
        let found = self.broker.task(&queue("default"), &id(name), t(NOW)).await;
        found.expect("it can be read").map(|task| task.state)
    }

    /// A check of the default queue from beginning to end.
    pub(crate) async fn fsck(&self, repair: Repair) -> Vec<Finding> {
        self.fsck_at(&queue("default"), repair, t(NOW)).await
    }

    pub(crate) async fn fsck_at(
        &self,
        queue: &QueueName,
        repair: Repair,
        now: Timestamp,
    ) -> Vec<Finding> {
        let mut check = self.broker.fsck(queue, repair);
        let mut findings = Vec::new();
        while let Some(step) = check.step(now).await.expect("the server answers") {
            assert_eq!(step.undecided, 0);
            findings.extend(step.findings);
        }
        findings
    }

    /// A check finds this and nothing else; so does one that repairs, and then nothing is left.
    pub(crate) async fn finds(&self, defects: &[(Defect, Option<&str>)]) {
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
