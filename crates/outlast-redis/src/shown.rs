//! What Go's programs see of our workers and schedules, and what we see of theirs: views to asynq's
//! messages and back (contract §2.2 … §2.5, §2.8).

use std::time::Duration;

use outlast_core::inspect::{
    PriorityName, RunningTask, ScheduleOptions, ScheduleState, TickRecord, WorkerStatus,
};
use outlast_core::limits::{BEAT_PAYLOAD_MAX, BEAT_RUNNING_MAX};
use outlast_core::{
    GroupName, QueueName, ScheduleName, ScheduleView, TaskId, TaskType, Timestamp, WorkerView,
};

use crate::proto::options::{GoDuration, TaskOption};
use crate::proto::{SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo};

/// The zone that Go's schedulers use where a specification names none.
const UTC: &str = "UTC";

/// What a specification begins with that names its zone (contract §2.4).
const ZONE_PREFIXES: [&str; 2] = ["CRON_TZ=", "TZ="];

/// The worker's name as asynq has it: ours are `host:pid:<uuid>`, its are the last part of that.
pub(crate) fn server_id(view: &WorkerView) -> &str {
    let own = view.id.strip_prefix(&format!("{}:{}:", view.host, view.pid));
    own.filter(|rest| !rest.is_empty()).unwrap_or(&view.id)
}

/// What the names of all keys of a worker end with.
pub(crate) fn tag(view: &WorkerView) -> String {
    format!("{}:{}:{}", view.host, view.pid, server_id(view))
}

fn small(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// A worker as Go's programs list it.
pub(crate) fn server_info(view: &WorkerView) -> ServerInfo {
    let status = match view.status {
        WorkerStatus::Running => "active",
        WorkerStatus::Quiet => "stopped",
        WorkerStatus::Draining | WorkerStatus::Gone => "closed",
    };
    let queues = view.queues.iter().map(|(queue, weight)| (queue.to_string(), small(*weight)));
    ServerInfo {
        host: view.host.clone(),
        pid: small(view.pid),
        server_id: server_id(view).to_owned(),
        concurrency: small(view.slots),
        queues: queues.collect(),
        strict_priority: view.priority == PriorityName::Strict,
        status: status.to_owned(),
        start_time: view.started_at.into(),
        active_worker_count: small(view.active),
    }
}

/// The worker's running tasks as Go's programs list them.
pub(crate) fn worker_infos(view: &WorkerView) -> impl Iterator<Item = WorkerInfo> {
    view.running.iter().take(BEAT_RUNNING_MAX).map(|task| WorkerInfo {
        host: view.host.clone(),
        pid: small(view.pid),
        server_id: server_id(view).to_owned(),
        task_id: task.id.to_string(),
        task_type: task.task_type.to_string(),
        task_payload: task.payload.clone(),
        queue: task.queue.to_string(),
        start_time: task.started_at.into(),
        deadline: task.deadline.into(),
    })
}

/// A Go worker as we list it: its queues by weight, its tasks by age.
pub(crate) fn worker_view(info: ServerInfo, tasks: &[WorkerInfo]) -> WorkerView {
    let weight = |number: i32| u32::try_from(number).unwrap_or(0);
    let mut queues: Vec<_> = info.queues.into_iter().collect();
    queues.sort_by_key(|(_, weight)| -i64::from(*weight));
    let mut running: Vec<RunningTask> = tasks.iter().map(running_task).collect();
    running.sort_by(|one, two| (one.started_at, &one.id).cmp(&(two.started_at, &two.id)));
    running.truncate(BEAT_RUNNING_MAX);
    WorkerView {
        id: info.server_id,
        host: info.host,
        pid: weight(info.pid),
        started_at: info.start_time.moment().unwrap_or_default(),
        status: match info.status.as_str() {
            "stopped" => WorkerStatus::Quiet,
            "closed" => WorkerStatus::Draining,
            _ => WorkerStatus::Running,
        },
        slots: weight(info.concurrency),
        queues: queues.iter().map(|(name, n)| (QueueName::stored(name), weight(*n))).collect(),
        priority: match info.strict_priority {
            true => PriorityName::Strict,
            false => PriorityName::Weighted,
        },
        active: weight(info.active_worker_count),
        running,
    }
}

fn running_task(info: &WorkerInfo) -> RunningTask {
    let is_short = info.task_payload.len() <= BEAT_PAYLOAD_MAX;
    RunningTask {
        queue: QueueName::stored(&info.queue),
        id: TaskId::stored(&info.task_id),
        task_type: TaskType::stored(&info.task_type),
        started_at: info.start_time.moment().unwrap_or_default(),
        deadline: info.deadline.moment().unwrap_or(Timestamp::MAX),
        payload: if is_short { info.task_payload.clone() } else { bytes::Bytes::new() },
    }
}

/// A schedule as Go's programs list it; its id there is its name.
pub(crate) fn scheduler_entry(view: &ScheduleView, last: Option<Timestamp>) -> SchedulerEntry {
    let names_zone = ZONE_PREFIXES.iter().any(|prefix| view.cron.starts_with(prefix));
    let spec = match names_zone || view.timezone == UTC || view.timezone.is_empty() {
        true => view.cron.clone(),
        false => format!("CRON_TZ={} {}", view.timezone, view.cron),
    };
    SchedulerEntry {
        id: view.name.to_string(),
        spec,
        task_type: view.task_type.to_string(),
        task_payload: view.payload.clone(),
        enqueue_options: options_of(view).iter().map(ToString::to_string).collect(),
        next_enqueue_time: view.next_at.into(),
        prev_enqueue_time: last.into(),
    }
}

fn options_of(view: &ScheduleView) -> Vec<TaskOption> {
    let ScheduleOptions { max_retry, timeout_s, retention_s, unique_s, group, headers } =
        &view.options;
    let span = |seconds: u64| GoDuration::from(Duration::from_secs(seconds));
    let mut options = vec![
        TaskOption::Queue(view.queue.to_string()),
        TaskOption::MaxRetry(i64::from(*max_retry)),
    ];
    options.extend(timeout_s.map(span).map(TaskOption::Timeout));
    options.extend(unique_s.map(span).map(TaskOption::Unique));
    options.extend(retention_s.map(span).map(TaskOption::Retention));
    options.extend(group.as_ref().map(|group| TaskOption::Group(group.to_string())));
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.clone()));
    options.extend(headers.map(|(name, value)| TaskOption::Header(name, value)));
    options
}

/// An entry of a Go scheduler as we list it. Options that cannot be read, and those that stand for one
/// task only, are left out, as Go's own inspector does.
pub(crate) fn schedule_view(entry: SchedulerEntry) -> (ScheduleView, ScheduleState) {
    let name = ScheduleName::stored(&entry.id);
    let (next_at, last_tick) = (entry.next_enqueue_time.moment(), entry.prev_enqueue_time.moment());
    let zone = ZONE_PREFIXES.iter().find_map(|prefix| entry.spec.strip_prefix(prefix));
    let zone = zone.and_then(|rest| rest.split_whitespace().next()).unwrap_or(UTC);
    let mut view = ScheduleView {
        name: name.clone(),
        timezone: zone.to_owned(),
        cron: entry.spec,
        task_type: TaskType::stored(&entry.task_type),
        payload: entry.task_payload,
        queue: QueueName::default_queue(),
        missed: "skip".to_owned(),
        next_at,
        options: ScheduleOptions::default(),
    };
    for option in entry.enqueue_options.iter().filter_map(|text| TaskOption::parse(text)) {
        set_option(&mut view, option);
    }
    (view, ScheduleState { name, paused_since: None, last_tick })
}

fn set_option(view: &mut ScheduleView, option: TaskOption) {
    // Half a second is not none: it is shown as a whole one.
    let seconds = |span: GoDuration| {
        u64::try_from(span.nanos).ok().filter(|n| *n > 0).map(|n| n.div_ceil(1_000_000_000))
    };
    let options = &mut view.options;
    match option {
        TaskOption::MaxRetry(count) => options.max_retry = u32::try_from(count).unwrap_or(u32::MAX),
        TaskOption::Queue(name) => view.queue = QueueName::stored(&name),
        TaskOption::Group(name) => options.group = Some(GroupName::stored(&name)),
        TaskOption::Timeout(span) => options.timeout_s = seconds(span),
        TaskOption::Unique(span) => options.unique_s = seconds(span),
        TaskOption::Retention(span) => options.retention_s = seconds(span),
        TaskOption::Header(name, value) => {
            options.headers.insert(name, value);
        }
        TaskOption::TaskId(_)
        | TaskOption::Deadline(_)
        | TaskOption::ProcessAt(_)
        | TaskOption::ProcessIn(_) => {}
    }
}

/// A tick as Go's programs list it; `None` if it was skipped.
pub(crate) fn enqueue_event(tick: &TickRecord) -> Option<SchedulerEnqueueEvent> {
    let task_id = tick.task.as_ref()?.to_string();
    Some(SchedulerEnqueueEvent { task_id, enqueue_time: tick.enqueued_at.into() })
}

/// A tick of a Go scheduler as we list it: it knows no other moment than that of the enqueue.
pub(crate) fn tick_record(schedule: &ScheduleName, event: &SchedulerEnqueueEvent) -> TickRecord {
    let at = event.enqueue_time.moment().unwrap_or_default();
    let task = Some(TaskId::stored(&event.task_id));
    TickRecord { schedule: schedule.clone(), tick: at, task, enqueued_at: at }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(cron: &str, timezone: &str) -> ScheduleView {
        let (view, _) = schedule_view(SchedulerEntry { id: "s".into(), ..Default::default() });
        ScheduleView { cron: cron.into(), timezone: timezone.into(), ..view }
    }

    #[test]
    fn a_specification_names_its_zone_once_and_utc_never() {
        for (cron, zone, spec) in [
            ("0 3 * * *", "UTC", "0 3 * * *"),
            ("@every 30s", "UTC", "@every 30s"),
            ("0 3 * * *", "Europe/Berlin", "CRON_TZ=Europe/Berlin 0 3 * * *"),
            ("TZ=Asia/Tokyo 0 3 * * *", "Asia/Tokyo", "TZ=Asia/Tokyo 0 3 * * *"),
            ("CRON_TZ=Asia/Tokyo @daily", "Europe/Berlin", "CRON_TZ=Asia/Tokyo @daily"),
        ] {
            let entry = scheduler_entry(&view(cron, zone), None);
            assert_eq!(entry.spec, spec);
            assert_eq!(entry.prev_enqueue_time, crate::proto::fleet::Timestamp::NEVER);
        }
        let zone_of = |spec: &str| {
            let entry = SchedulerEntry { spec: spec.into(), ..SchedulerEntry::default() };
            schedule_view(entry).0.timezone
        };
        assert_eq!(zone_of("CRON_TZ=Asia/Tokyo @daily"), "Asia/Tokyo");
        assert_eq!((zone_of("TZ="), zone_of("@daily")), ("UTC".to_owned(), "UTC".to_owned()));
    }

    #[test]
    fn options_are_texts_that_go_reads_and_come_back() {
        let mut ours = view("@daily", "UTC");
        ours.queue = QueueName::stored("low");
        ours.options = ScheduleOptions {
            max_retry: 3,
            timeout_s: Some(5400),
            retention_s: Some(86_400),
            unique_s: Some(60),
            group: Some(GroupName::stored("g")),
            headers: [("k".to_owned(), "v".to_owned())].into(),
        };
        let entry = scheduler_entry(&ours, None);
        let texts = [
            "Queue(\"low\")",
            "MaxRetry(3)",
            "Timeout(1h30m0s)",
            "Unique(1m0s)",
            "Retention(24h0m0s)",
            "Group(\"g\")",
            "Header([\"k\",\"v\"])",
        ];
        assert_eq!(entry.enqueue_options, texts);
        assert_eq!(schedule_view(entry).0, ours);
    }

    #[test]
    fn what_go_says_without_sense_is_shown_all_the_same() {
        let info =
            ServerInfo { pid: -1, concurrency: -5, status: "odd".into(), ..Default::default() };
        let view = worker_view(info, &[WorkerInfo::default()]);
        assert_eq!((view.pid, view.slots, view.status), (0, 0, WorkerStatus::Running));
        assert_eq!(view.running[0].deadline, Timestamp::MAX);
        let options = ["Timeout(-5s)", "MaxRetry(x)", "Queue(", "", "Retention(1500ms)"];
        let enqueue_options = options.map(str::to_owned).to_vec();
        let (view, _) = schedule_view(SchedulerEntry { enqueue_options, ..Default::default() });
        let expected = ScheduleOptions { retention_s: Some(2), ..ScheduleOptions::default() };
        assert_eq!(view.options, expected);
    }

    #[test]
    fn a_worker_has_asynqs_name_whatever_its_own_is() {
        let (mut view, uuid) = (worker_view(ServerInfo::default(), &[]), "0b1f-uuid");
        (view.host, view.pid) = ("h".into(), 7);
        for (id, tag_of_it) in
            [("h:7:0b1f-uuid", "h:7:0b1f-uuid"), (uuid, "h:7:0b1f-uuid"), ("h:7:", "h:7:h:7:")]
        {
            view.id = id.into();
            assert_eq!(tag(&view), tag_of_it);
        }
    }
}
