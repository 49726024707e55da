//! Lines that are too long to be searched, made short: what is longer than 50 ids counts as one.

use outlast_core::Timestamp;
use outlast_testkit::server::RedisServer;
use redis::Value;

use super::*;
use crate::Options;

const NOW: Timestamp = Timestamp::from_seconds(1_795_522_600);

/// A line of so many tasks.
const TASKS: usize = 1200;

struct Line {
    broker: RedisBroker,
    queue: QueueName,
}

impl Line {
    async fn new() -> Option<Self> {
        let server = RedisServer::or_skip(RedisServer::shared())?;
        let url = format!("{}/0?namespace=t{}", server.url(), uuid::Uuid::new_v4().simple());
        let broker = RedisBroker::new(&url, Options::default()).expect("a broker");
        let line = Self { broker, queue: QueueName::default_queue() };
        for nth in 0..TASKS {
            line.run(&["LPUSH", "@pending", &format!("n{nth}")]).await;
            let key = format!("@t:n{nth}");
            // A message of a type alone.
            let fields =
                ["msg", "\n\u{1}t", "state", "pending", "pending_since", "1795521600000000000"];
            line.run(&[&["HSET", &key], &fields[..]].concat()).await;
        }
        line.run(&["SADD", &line.broker.inner.root.queues(), line.queue.as_str()]).await;
        Some(line)
    }

    /// A command; a word that begins with `@` is a key of the queue.
    async fn run(&self, words: &[&str]) -> Value {
        let keys = self.broker.inner.root.queue(&self.queue);
        let mut command = redis::Cmd::new();
        for word in words {
            match word.strip_prefix('@') {
                Some(name) => command.arg(keys.key(name)),
                None => command.arg(*word),
            };
        }
        self.broker.inner.admin.run(&command).await.expect("the command succeeds")
    }

    /// What a check finds, and how much it leaves undecided; `meanwhile` happens between the walks and the rest.
    async fn check(&self, repair: Repair, meanwhile: &[&[&str]]) -> (Vec<(Defect, String)>, u64) {
        let mut check = Check::new(&self.broker.inner, &self.queue, repair);
        check.line_max = 50;
        let (mut found, mut undecided, mut meanwhile) = (Vec::new(), 0, Some(meanwhile));
        while let Some(step) = check.step(NOW).await.expect("the server answers") {
            undecided += step.undecided;
            let id = |finding: Finding| finding.id.map_or(String::new(), |id| id.to_string());
            found.extend(step.findings.into_iter().map(|one| (one.defect, id(one))));
            if check.walked.contains_key("active") || check.walked.contains_key("pending") {
                for words in meanwhile.take().into_iter().flatten() {
                    self.run(words).await;
                }
            }
        }
        (found, undecided)
    }
}

/// What was missing from a line of more than 100,000 tasks was left undecided, though it is in such lines that something
/// gets lost.
#[tokio::test]
async fn in_a_line_that_is_too_long_to_be_searched_tasks_are_decided_by_the_walk() {
    let Some(line) = Line::new().await else { return };
    line.run(&["LREM", "@pending", "1", "n600"]).await;
    line.run(&["DEL", "@t:n500"]).await;
    let defects = vec![(Defect::Ghost, "n500".to_owned()), (Defect::Orphan, "n600".to_owned())];
    assert_eq!(line.check(Repair::No, &[]).await, (defects.clone(), 0));
    assert_eq!(line.check(Repair::Yes, &[]).await, (defects, 0));
    assert_eq!(line.check(Repair::Yes, &[]).await, (vec![], 0));
    assert_eq!(line.run(&["LPOS", "@pending", "n600"]).await, Value::Int(0), "it waits again");
    assert_eq!(line.run(&["LLEN", "@pending"]).await, Value::Int(1199));
}

/// A task that is run by hand comes into the line without a time: only its place says that it came in after the walk.
#[tokio::test]
async fn what_came_into_a_long_line_after_the_walk_is_not_taken_for_lost() {
    let Some(line) = Line::new().await else { return };
    line.run(&["LREM", "@pending", "1", "n600"]).await;
    line.run(&["HDEL", "@t:n600", "pending_since"]).await;
    let back: [&[&str]; 1] = [&["LPUSH", "@pending", "n600"]];
    assert_eq!(line.check(Repair::Yes, &back).await, (vec![], 0));
    // So many have come in since that nobody can tell.
    line.run(&["LREM", "@pending", "1", "n600"]).await;
    let others: Vec<String> = (0..60).map(|nth| format!("n{nth}")).collect();
    let mut many: Vec<&str> = vec!["LPUSH", "@pending", "n600"];
    many.extend(others.iter().map(String::as_str));
    let (found, undecided) = line.check(Repair::Yes, &[&many]).await;
    assert_eq!((found, undecided), (vec![], 1));
}
