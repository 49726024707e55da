//! A queue that Go has filled, moved to an embedded broker and back: Go finds it as it was, and goes on.

use outlast::migration::{Migration, Step};
use outlast::{Connection, QueueName, TaskState};
use serde_json::Value;

use super::states::STATES;
use super::world::World;

async fn move_all(from: &Connection, to: &Connection) -> u64 {
    let migration = Migration::new(from, to).await.unwrap();
    let mut lane = migration.queue(&QueueName::new("q").unwrap());
    let mut stored = 0;
    while let Step::Batch(moved) = lane.step().await.unwrap() {
        assert_eq!((&moved.refused, moved.mismatched), (&vec![], 0));
        stored += moved.stored();
    }
    stored
}

/// What Go's inspector says of every task but the active one; when a pending one is next is always now.
async fn as_go_sees(world: &World) -> Vec<Value> {
    let mut all = Vec::new();
    for (state, id) in STATES.into_iter().filter(|(state, _)| *state != TaskState::Active) {
        let mut task = world.go_task("q", id).await;
        if state == TaskState::Pending {
            task["NextProcessAt"] = Value::Null;
        }
        all.push(task);
    }
    all
}

#[tokio::test]
async fn what_go_has_filled_is_the_same_for_go_after_a_move_there_and_back() {
    let Some(world) = World::start().await else { return };
    let busy = world.go_fills().await;
    let before = as_go_sees(&world).await;
    assert!(before.iter().all(|task| task["ID"].is_string()), "{before:?}");
    let redis = Connection::without_spool(&world.redis.url()).await.unwrap();
    let embedded = Connection::without_spool("sqlite::memory:").await.unwrap();
    assert_eq!(move_all(&redis, &embedded).await, 6);
    let numbers = world.go_queue("q").await;
    assert_eq!((&numbers["Active"], &numbers["Size"]), (&1.into(), &1.into()), "{numbers}");
    assert_eq!(move_all(&embedded, &redis).await, 6);
    assert_eq!(as_go_sees(&world).await, before);
    let other = world.go_works(&["-queues", "q=1"]).await;
    world.in_state("q", "pending", TaskState::Completed).await;
    drop((busy, other));
}
