//! Every fault of the catalogue that Outlast is tested against, in its numbering, and the test that goes through it: a story of this
//! folder, a test elsewhere, or the reason why there is none.

/// One fault.
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) fault: &'static str,
    pub(crate) by: By,
}

/// Where it is gone through.
pub(crate) enum By {
    /// Tests of this folder: figures are theirs.
    Stories(&'static [&'static str]),
    /// A test in another file, and what it shows.
    Test(&'static str, &'static str, &'static str),
    /// Nowhere, and why.
    Not(&'static str),
}

/// Files with stories.
const STORIES: [&str; 5] = ["connectivity", "network", "refusals", "damage", "workers"];

const SPOOL: &str = "crates/outlast-survive/tests/it/spool.rs";
const OUTBOX: &str = "crates/outlast-survive/tests/it/outbox.rs";
const WRITES: &str = "crates/outlast-survive/tests/it/syscalls.rs";

const SENTINEL: By = By::Not("comes with Sentinel");
const CLUSTER: By = By::Not("comes with Cluster");

const fn told(id: &'static str, fault: &'static str, tests: &'static [&'static str]) -> Row {
    Row { id, fault, by: By::Stories(tests) }
}

const fn other(
    id: &'static str,
    fault: &'static str,
    file: &'static str,
    test: &'static str,
    verdict: &'static str,
) -> Row {
    Row { id, fault, by: By::Test(file, test, verdict) }
}

const fn not(id: &'static str, fault: &'static str, by: By) -> Row {
    Row { id, fault, by }
}

impl Row {
    /// Its tests, and the files that they are in.
    pub(crate) fn tests(&self) -> Vec<(String, &'static str)> {
        match self.by {
            By::Stories(tests) => tests.iter().map(|test| (file_of(test), *test)).collect(),
            By::Test(file, test, _) => vec![(file.to_owned(), test)],
            By::Not(_) => Vec::new(),
        }
    }
}

/// The file of this folder that has the test; the last one if none has it, where it will be missed.
fn file_of(test: &str) -> String {
    let paths = STORIES.map(|name| format!("crates/outlast/tests/outage/{name}.rs"));
    let has = |path: &String| {
        let file = format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(file).is_ok_and(|code| code.contains(&format!("fn {test}(")))
    };
    paths.iter().find(|path| has(path)).unwrap_or(&paths[STORIES.len() - 1]).clone()
}

/// In the order of the catalogue.
pub(crate) const ROWS: &[Row] = &[
    told("F01", "server dead, port closed", &["f01_a_server_that_is_killed_and_restarted"]),
    told("F02", "fast restart, three times", &["f02_a_server_that_is_restarted_again_and_again"]),
    told(
        "F03",
        "host gone: nothing answers, not even to a SYN",
        &[
            "f03_a_host_that_is_gone_and_answers_nothing",
            "f03_a_host_that_comes_back_just_before_the_breakers_open",
        ],
    ),
    told(
        "F04",
        "half-open connections",
        &[
            "f04_connections_that_are_open_on_one_side_only",
            "f04_a_network_that_swallows_everything",
        ],
    ),
    told(
        "F05",
        "one way lost: requests arrive, replies do not",
        &["f05_requests_that_arrive_and_replies_that_do_not"],
    ),
    told(
        "F06",
        "connections closed: by an operator, a balancer, a firewall, for idleness",
        &[
            "f06_connections_that_an_operator_kills_one_after_the_other",
            "f06_a_balancer_that_resets_connections",
            "f06_a_firewall_that_resets_every_connection",
            "f06_a_server_that_closes_what_is_idle_for_a_second",
        ],
    ),
    told("F07", "ICMP unreachable", &["f07_a_network_that_says_that_the_host_is_unreachable"]),
    told(
        "F08",
        "latency: 300 ms, 2 s",
        &["f08_a_line_that_is_slower_than_producers_wait", "f08_answers_that_take_two_seconds"],
    ),
    told(
        "F09",
        "packets lost: 3 %, 20 %",
        &[
            "f09_a_network_that_loses_a_packet_now_and_then",
            "f09_a_network_that_loses_every_fifth_packet",
        ],
    ),
    told("F10", "reply truncated, then closed", &["f10_replies_that_end_in_their_middle"]),
    told(
        "F12",
        "name leads to another server, the old one lives and is demoted",
        &["f12_a_name_that_leads_to_another_server_while_the_old_one_goes_on"],
    ),
    told("F13", "`maxclients` reached", &["f13_a_server_that_has_no_room_for_connections"]),
    told(
        "F14",
        "password rotated, user deleted",
        &[
            "f14_a_password_that_nobody_has_told_us",
            "f14_a_server_that_does_not_know_its_user_any_more_is_left_in_peace",
        ],
    ),
    told("F15", "ACL denies", &["f15_permissions_that_are_taken_away_and_given_back"]),
    told("F16", "protected mode", &["f16_a_server_that_protects_itself_from_other_hosts"]),
    other(
        "F17",
        "errors rewritten by a proxy",
        "crates/outlast-redis/src/error.rs",
        "every_answer_of_a_server_has_its_kind",
        "told apart by the code, wherever it stands",
    ),
    told("F18", "LOADING after a restart", &["f18_a_server_that_loads_its_data"]),
    told("F19", "BUSY with a script", &["f19_a_server_that_is_busy_with_a_script"]),
    told(
        "F20",
        "OOM, `noeviction`",
        &[
            "f20_a_server_without_memory_is_drained_by_its_workers_and_left_in_peace_by_its_producers",
        ],
    ),
    other(
        "F21",
        "eviction",
        "crates/outlast-redis/tests/it/memory.rs",
        "a_server_that_evicts_tasks_is_warned_of_once_with_the_remedy",
        "such a server loses tasks whoever uses it: a warning with the remedy when it is first used",
    ),
    told("F22", "snapshot cannot be saved", &["f22_a_server_that_cannot_save_its_snapshot"]),
    told(
        "F23",
        "disk full for the append-only file",
        &["f23_a_disk_that_is_full_for_the_append_only_file"],
    ),
    told("F25", "too few replicas", &["f25_a_server_that_misses_its_replicas_is_left_in_peace"]),
    told(
        "F26",
        "CLIENT PAUSE",
        &["f26_writes_that_are_paused_for_a_failover", "f26_everything_is_paused"],
    ),
    told("F27", "frozen", &["f27_a_server_that_is_frozen_and_runs_later_what_it_was_sent"]),
    told(
        "F30",
        "a task larger than the server takes",
        &["f30_a_task_that_is_larger_than_the_server_takes_holds_up_no_other"],
    ),
    told("F31", "script cache emptied", &["f31_scripts_that_are_forgotten_again_and_again"]),
    told("F32", "demoted under its clients", &["f32_a_server_that_was_demoted_is_left_in_peace"]),
    not("F33", "Sentinel failover, master killed", SENTINEL),
    not("F34", "Sentinel failover, master hung", SENTINEL),
    not("F35", "split brain, client on the losing side", SENTINEL),
    not("F36", "replication behind at a promotion", SENTINEL),
    not("F37", "planned FAILOVER", SENTINEL),
    not(
        "F38",
        "blocking pop during a demotion",
        By::Not("no blocking pops are used: workers are woken by client tracking"),
    ),
    not("F40", "empty master wipes its replicas", SENTINEL),
    not("F41", "Cluster master killed", CLUSTER),
    not("F42", "Cluster replica never in sync", CLUSTER),
    other(
        "F44",
        "keys in other slots",
        "crates/outlast-redis/tests/it/unfit.rs",
        "a_node_of_a_cluster_is_refused",
        "a node of a cluster is refused by name until Cluster comes",
    ),
    not("F45", "SELECT in a cluster", CLUSTER),
    other(
        "F46",
        "record lost, id queued",
        "crates/outlast-redis/tests/it/fsck.rs",
        "ids_without_a_task_are_taken_out_of_every_collection",
        "the id goes, the others run",
    ),
    other(
        "F47",
        "lease entry lost",
        "crates/outlast-redis/tests/it/fsck.rs",
        "active_list_and_leases_are_made_to_agree",
        "found and run again",
    ),
    other(
        "F48",
        "error in the middle of a script",
        "crates/outlast-redis/tests/it/foreign.rs",
        "an_enqueue_that_meets_a_foreign_key_stores_nothing",
        "checked first, written after: nothing is half done",
    ),
    other(
        "F49",
        "undecodable record",
        "crates/outlast-redis/tests/it/fsck.rs",
        "a_record_that_cannot_be_read_is_archived_with_the_reason",
        "archived with the reason, the others run",
    ),
    told(
        "F50, F51, F52",
        "reply lost to an enqueue, a claim, a settlement",
        &["f50_f51_f52_replies_that_are_lost_again_and_again"],
    ),
    told(
        "F53",
        "outage between a run and its report",
        &["f53_a_blip_between_the_end_of_a_run_and_its_report"],
    ),
    told(
        "F54",
        "outage longer than the lease",
        &["f54_an_outage_that_is_longer_than_the_lease_of_what_runs"],
    ),
    other(
        "F55",
        "ghost writes",
        "crates/outlast-redis/tests/it/lost.rs",
        "a_batch_that_arrives_after_the_next_one_is_a_ghost_and_changes_nothing",
        "they change nothing; see F27 too",
    ),
    other(
        "F56",
        "unique lock of nobody",
        "crates/outlast-redis/tests/it/fsck.rs",
        "a_lock_does_not_outlive_its_task",
        "given back",
    ),
    told("F58", "kill -9 without persistence", &["f58_a_server_that_keeps_nothing_and_is_killed"]),
    told(
        "F59",
        "kill -9, synced every second",
        &["f59_a_server_that_syncs_once_a_second_and_is_killed"],
    ),
    told(
        "F60",
        "power loss: the tail of the file is gone",
        &["f60_a_server_whose_last_writes_are_gone"],
    ),
    told(
        "F62",
        "FLUSHALL, other data behind the name",
        &["f62_a_server_that_is_flushed_under_its_producers"],
    ),
    other(
        "F63",
        "memory growth",
        "crates/outlast-testkit/src/conformance/sweep.rs",
        "a_completed_task_is_deleted_when_its_retention_is_over",
        "what is kept has an end, and is swept",
    ),
    told(
        "F64",
        "storm on error replies",
        &["f64_a_queue_whose_key_is_of_another_kind_costs_its_server_no_storm"],
    ),
    told(
        "F65",
        "stampede of twelve processes at the recovery",
        &["f65_many_processes_that_find_their_server_again_do_not_stampede"],
    ),
    other(
        "F67",
        "outcomes starve behind steady failures",
        "crates/outlast-survive/tests/it/drain.rs",
        "an_outcome_that_is_journaled_while_a_backlog_is_delivered_does_not_wait_for_its_end",
        "applied beside everything else",
    ),
    other(
        "F68",
        "worker frozen beyond its lease",
        "crates/outlast-testkit/src/conformance/lease.rs",
        "a_late_success_is_not_adopted_once_another_worker_runs_the_task",
        "its outcome is fenced",
    ),
    other(
        "F69",
        "clocks that differ",
        "crates/outlast/tests/it/clocks.rs",
        "a_worker_whose_clock_is_ahead_takes_no_task_of_a_living_one",
        "no live task is taken",
    ),
    other(
        "F70",
        "worker killed",
        "crates/outlast-cli/tests/it/kill.rs",
        "killed_workers_lose_nothing_and_repeat_only_what_they_were_running",
        "only what it was running is repeated",
    ),
    other(
        "F71",
        "poison task kills its worker",
        "crates/outlast-testkit/src/conformance/lease.rs",
        "a_task_that_loses_too_many_leases_is_archived",
        "archived after so many losses",
    ),
    told(
        "F72, F73",
        "ticks of two schedulers during an outage",
        &["f72_ticks_of_schedules_while_the_server_is_away"],
    ),
    other(
        "F74",
        "cancellation lost",
        "crates/outlast-testkit/src/conformance/beat.rs",
        "a_cancel_reaches_the_worker_that_holds_the_lease",
        "told with the next beat at the latest",
    ),
    told(
        "F76",
        "start before the server",
        &["f76_a_producer_and_a_worker_that_start_before_their_server"],
    ),
    told(
        "F77",
        "SIGTERM in a black hole",
        &["f77_a_worker_that_is_asked_to_end_while_the_network_swallows_everything"],
    ),
    other(
        "F78",
        "our disk: full",
        SPOOL,
        "a_full_disk_is_a_typed_error_and_the_spool_takes_tasks_again_when_there_is_room",
        "refused with a typed error",
    ),
    other(
        "F78",
        "our disk: torn tail",
        SPOOL,
        "a_log_whose_tail_is_torn_is_cut_at_the_last_whole_commit",
        "nothing that was acknowledged is lost",
    ),
    other(
        "F78",
        "our disk: bit flip",
        SPOOL,
        "a_record_whose_bits_have_flipped_goes_into_quarantine_and_the_others_are_delivered",
        "quarantined, the others delivered",
    ),
    other(
        "F78",
        "our disk: killed at any write",
        WRITES,
        "a_process_that_is_killed_at_any_of_its_writes_has_stored_what_it_said",
        "all that was acknowledged is there, in order",
    ),
    other(
        "F78",
        "our disk: a sync fails",
        WRITES,
        "a_sync_that_fails_is_a_typed_error_and_takes_nothing_that_was_acknowledged",
        "refused with a typed error, the next is taken",
    ),
    other(
        "F78",
        "our clock: set back or forth",
        OUTBOX,
        "a_clock_that_is_set_loses_nothing_that_waits",
        "delivered, or in quarantine with the reason",
    ),
    other(
        "F79",
        "outbox full",
        OUTBOX,
        "a_full_outbox_refuses_with_the_brokers_kind_and_its_own_reason",
        "refused with both reasons",
    ),
    other(
        "F79",
        "deadline passed on the disk",
        OUTBOX,
        "a_task_whose_deadline_passed_in_the_outbox_is_told_and_kept_but_not_delivered",
        "quarantined, with an event",
    ),
];
