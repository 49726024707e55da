//! The same messages by prost, a codec that others wrote: what we write it reads, and the reverse.

use std::collections::BTreeMap;

use proptest::prelude::*;
use prost::Message;

use super::TaskMessage;
use super::fleet;

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits = text
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).expect("the vectors are ASCII"));
    digits.map(|pair| u8::from_str_radix(pair, 16).expect("the vectors are hex")).collect()
}

#[derive(Clone, PartialEq, Message)]
struct OracleTask {
    #[prost(string, tag = "1")]
    task_type: String,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
    #[prost(string, tag = "3")]
    id: String,
    #[prost(string, tag = "4")]
    queue: String,
    #[prost(int32, tag = "5")]
    retry: i32,
    #[prost(int32, tag = "6")]
    retried: i32,
    #[prost(string, tag = "7")]
    error_msg: String,
    #[prost(int64, tag = "8")]
    timeout: i64,
    #[prost(int64, tag = "9")]
    deadline: i64,
    #[prost(string, tag = "10")]
    unique_key: String,
    #[prost(int64, tag = "11")]
    last_failed_at: i64,
    #[prost(int64, tag = "12")]
    retention: i64,
    #[prost(int64, tag = "13")]
    completed_at: i64,
    #[prost(string, tag = "14")]
    group_key: String,
    #[prost(btree_map = "string, string", tag = "15")]
    headers: BTreeMap<String, String>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct OracleTime {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OracleServer {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(int32, tag = "2")]
    pid: i32,
    #[prost(string, tag = "3")]
    server_id: String,
    #[prost(int32, tag = "4")]
    concurrency: i32,
    #[prost(btree_map = "string, int32", tag = "5")]
    queues: BTreeMap<String, i32>,
    #[prost(bool, tag = "6")]
    strict_priority: bool,
    #[prost(string, tag = "7")]
    status: String,
    #[prost(message, optional, tag = "8")]
    start_time: Option<OracleTime>,
    #[prost(int32, tag = "9")]
    active_worker_count: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OracleWorker {
    #[prost(string, tag = "1")]
    host: String,
    #[prost(int32, tag = "2")]
    pid: i32,
    #[prost(string, tag = "3")]
    server_id: String,
    #[prost(string, tag = "4")]
    task_id: String,
    #[prost(string, tag = "5")]
    task_type: String,
    #[prost(bytes = "vec", tag = "6")]
    task_payload: Vec<u8>,
    #[prost(string, tag = "7")]
    queue: String,
    #[prost(message, optional, tag = "8")]
    start_time: Option<OracleTime>,
    #[prost(message, optional, tag = "9")]
    deadline: Option<OracleTime>,
}

fn time((seconds, nanos): (i64, i32)) -> (fleet::Timestamp, Option<OracleTime>) {
    (fleet::Timestamp { seconds, nanos }, Some(OracleTime { seconds, nanos }))
}

proptest! {
    #[test]
    fn prost_and_we_write_and_read_the_same_tasks(
        texts in proptest::array::uniform6(any::<String>()),
        payload in any::<Vec<u8>>(),
        counts in any::<(i32, i32)>(),
        times in any::<[i64; 5]>(),
        headers in any::<BTreeMap<String, String>>(),
    ) {
        let [task_type, id, queue, error_msg, unique_key, group_key] = texts;
        let (retry, retried) = counts;
        let [timeout, deadline, last_failed_at, retention, completed_at] = times;
        let ours = TaskMessage {
            task_type: task_type.clone(), payload: payload.clone().into(), id: id.clone(),
            queue: queue.clone(), retry, retried, error_msg: error_msg.clone(), timeout, deadline,
            unique_key: unique_key.clone(), last_failed_at, retention, completed_at,
            group_key: group_key.clone(), headers: headers.clone(), unknown: Vec::new(),
        };
        let theirs = OracleTask {
            task_type, payload, id, queue, retry, retried, error_msg, timeout, deadline, unique_key,
            last_failed_at, retention, completed_at, group_key, headers,
        };
        prop_assert_eq!(OracleTask::decode(&ours.encode()[..]).expect("prost reads it"), theirs.clone());
        prop_assert_eq!(TaskMessage::decode(&theirs.encode_to_vec()), Ok(ours));
    }

    #[test]
    fn prost_and_we_write_and_read_the_same_servers(
        (host, server_id, status) in any::<(String, String, String)>(),
        (pid, concurrency, active_worker_count) in any::<(i32, i32, i32)>(),
        queues in any::<BTreeMap<String, i32>>(),
        (strict_priority, start) in any::<(bool, (i64, i32))>(),
    ) {
        let (start_time, oracle_start) = time(start);
        let ours = fleet::ServerInfo {
            host: host.clone(), pid, server_id: server_id.clone(), concurrency,
            queues: queues.clone(), strict_priority, status: status.clone(), start_time,
            active_worker_count,
        };
        let theirs = OracleServer {
            host, pid, server_id, concurrency, queues, strict_priority, status,
            start_time: oracle_start, active_worker_count,
        };
        prop_assert_eq!(OracleServer::decode(&ours.encode()[..]).expect("prost reads it"), theirs.clone());
        prop_assert_eq!(fleet::ServerInfo::decode(&theirs.encode_to_vec()), Ok(ours));
    }

    #[test]
    fn prost_and_we_write_the_same_bytes_for_a_running_task(
        texts in proptest::array::uniform5(any::<String>()),
        task_payload in any::<Vec<u8>>(),
        (pid, start, end) in any::<(i32, (i64, i32), (i64, i32))>(),
    ) {
        let [host, server_id, task_id, task_type, queue] = texts;
        let ((start_time, oracle_start), (deadline, oracle_end)) = (time(start), time(end));
        let ours = fleet::WorkerInfo {
            host: host.clone(), pid, server_id: server_id.clone(), task_id: task_id.clone(),
            task_type: task_type.clone(), task_payload: task_payload.clone().into(),
            queue: queue.clone(), start_time, deadline,
        };
        let theirs = OracleWorker {
            host, pid, server_id, task_id, task_type, task_payload, queue,
            start_time: oracle_start, deadline: oracle_end,
        };
        prop_assert_eq!(hex(&ours.encode()), hex(&theirs.encode_to_vec()));
        prop_assert_eq!(fleet::WorkerInfo::decode(&theirs.encode_to_vec()), Ok(ours));
    }
}
