//! The one list of cases. A test in this crate checks that it is complete.

/// Runs the whole suite on a broker: `conformance!(expression)`, where the expression makes a fresh
/// [`Fixture`](crate::conformance::Fixture) and may `.await`. The tests are grouped in modules by topic;
/// the crate that invokes it needs tokio with `macros` and `rt`.
#[macro_export]
macro_rules! conformance {
    ($make:expr) => {
        async fn conformance_case() -> $crate::conformance::Case {
            $crate::conformance::Case::new(::std::boxed::Box::new($make))
        }
        $crate::conformance_list! { $crate::conformance_tests }
    };
}

/// Turns the list into tests. Part of [`conformance!`], not to be used alone.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    ($($topic:ident { $($case:ident)* })*) => {
        $(mod $topic {
            $(#[::tokio::test]
            async fn $case() {
                let case = super::conformance_case().await;
                $crate::conformance::$topic::$case(&case).await;
            })*
        })*
    };
}

/// Hands the list to a macro, which gets `topic { case case … } topic { … } …`.
#[macro_export]
macro_rules! conformance_list {
    ($($with:tt)*) => {
        $($with)*! {
            claim {
                tasks_are_claimed_in_the_order_in_which_they_came
                a_claimed_task_is_active_and_shows_its_lease
                a_claimed_task_carries_all_that_was_enqueued
                a_claimed_task_is_not_claimed_again
                a_claim_takes_no_more_than_it_asks_for_and_says_that_there_is_more
                a_claim_that_gets_less_than_it_asks_for_says_that_the_queue_is_empty
                a_queue_that_nobody_knows_is_empty
                a_paused_queue_hands_out_nothing_and_says_so
                tasks_that_are_due_are_claimed_without_a_sweep
                a_retry_that_is_due_is_claimed_without_a_sweep
                tasks_that_become_due_stand_behind_those_that_wait
                claims_at_the_front_and_at_the_back_keep_their_order
                no_task_is_taken_that_would_exceed_the_byte_limit
                the_first_task_is_taken_whatever_its_size
                a_claim_for_no_task_or_too_many_is_rejected
                each_claim_sets_the_length_of_its_leases
                claimers_that_come_together_share_the_tasks_without_overlap
                a_claim_leaves_other_queues_alone
            }
            groups {
                a_group_is_ready_after_a_calm_time
                every_new_member_begins_the_calm_time_again
                a_group_is_ready_when_its_oldest_member_waits_too_long
                a_group_is_ready_at_its_size_and_never_taken_beyond_it
                no_set_is_larger_than_the_limit_of_all_groups
                the_first_policy_that_matches_a_group_counts
                a_group_without_a_policy_waits
                groups_do_not_mix
                a_group_counts_as_one_of_the_tasks_that_are_wanted
                tasks_and_groups_are_claimed_together
                a_set_is_leased_and_its_members_stay_aggregating
                members_that_come_after_the_claim_form_the_next_set
                an_aggregated_set_becomes_one_task_in_one_step
                the_task_that_stands_for_a_set_keeps_its_options
                an_aggregated_set_gives_its_locks_back
                aggregating_counts_no_run
                a_set_whose_new_task_is_refused_stays_as_it_was
                a_released_set_gives_its_members_back_in_their_order
                a_set_can_only_be_aggregated_or_released
                a_set_is_fenced_by_its_token
                a_set_can_be_held_longer
                an_abandoned_set_is_given_back_in_its_order
                a_scheduled_member_joins_its_group_when_it_is_due
                a_member_that_runs_by_hand_runs_alone_and_joins_again_on_retry
                members_of_a_claimed_set_cannot_be_acted_on
                finished_members_still_name_their_group
                groups_are_listed_by_name_with_their_sizes
                members_in_a_claimed_set_are_still_counted
            }
            lease {
                a_lease_is_held_longer_counted_from_now
                extending_again_at_the_same_moment_changes_nothing
                holds_are_answered_one_by_one_in_order
                an_empty_list_of_holds_is_answered
                a_lease_that_ran_out_can_be_held_until_somebody_takes_it_back
                a_lease_that_ran_out_settles_until_somebody_takes_it_back
                a_lease_that_was_taken_back_cannot_be_held
                progress_is_stored_and_shown_while_the_task_runs
                done_without_a_result_keeps_the_progress
                a_result_replaces_the_progress
                progress_outlives_a_retry
                a_lost_lease_is_not_an_attempt
                a_lost_task_runs_again_soon_and_later_after_every_loss
                a_task_that_loses_too_many_leases_is_archived
                losses_are_not_forgotten_when_a_run_fails
                a_late_success_of_a_lost_lease_is_adopted
                a_late_success_without_retention_deletes_the_task
                a_late_success_is_adopted_from_the_archive
                a_late_success_is_not_adopted_twice
                a_late_success_of_another_token_is_not_adopted
                a_late_success_is_not_adopted_once_another_worker_runs_the_task
                a_late_success_is_not_adopted_after_the_task_ran_and_failed_again
                only_a_success_is_adopted
                a_task_that_failed_cannot_be_made_a_success_afterwards
                a_lost_task_that_was_run_by_hand_is_not_adopted
            }
            repeat {
                an_enqueue_repeated_answers_as_the_first_time_and_stores_nothing
                mixed_verdicts_are_repeated_as_they_were
                an_enqueue_repeated_after_its_task_ran_does_not_run_it_again
                an_enqueue_repeated_is_not_its_own_duplicate
                a_batch_older_than_the_last_one_is_a_ghost
                a_gap_is_applied_and_reported_as_a_loss
                a_lane_that_the_broker_does_not_know_is_a_loss_after_zero
                lanes_are_counted_each_for_itself
                sessions_are_counted_each_for_itself
                one_lane_carries_different_verbs_in_turn
                a_claim_repeated_hands_out_the_same_tasks_and_claims_nothing_more
                a_claim_repeated_leaves_out_what_has_been_settled
                a_claim_repeated_leaves_out_what_was_taken_back
                a_claim_that_found_nothing_finds_nothing_when_repeated
                a_claimed_group_is_handed_out_again_when_the_claim_is_repeated
                a_settlement_repeated_answers_as_the_first_time_and_counts_once
                a_settlement_repeated_does_not_touch_the_next_run
                mixed_settlements_are_repeated_as_they_were
                a_rejected_batch_takes_no_number
                a_repeat_is_known_on_every_connection
                removing_a_queue_does_not_look_like_data_loss
            }
            sweep {
                a_sweep_of_nothing_does_nothing
                due_tasks_become_pending_in_the_order_of_their_times
                retries_become_pending_when_they_are_due
                a_sweep_goes_no_further_than_its_budget_and_says_that_there_is_more
                each_kind_of_work_has_a_budget_of_its_own
                a_lease_is_taken_back_at_its_end_and_not_before
                recovery_can_be_withheld
                aggregation_sets_are_withheld_with_the_leases
                many_leases_are_taken_back_step_by_step
                a_completed_task_is_deleted_when_its_retention_is_over
                completed_tasks_are_deleted_step_by_step
                an_archived_task_is_deleted_when_it_is_too_old_and_gives_its_lock_back
                a_full_archive_loses_its_oldest_tasks
                the_next_due_time_is_the_earliest_of_scheduled_and_retry
                a_paused_queue_is_swept_all_the_same
                a_sweep_of_one_queue_leaves_the_others_alone
                a_budget_of_nothing_or_too_much_is_rejected
                a_sweep_repeated_at_the_same_moment_does_nothing_more
            }
            enqueue {
                a_task_is_pending_with_the_defaults_of_asynq
                a_pending_task_runs_next_now
                every_option_of_a_task_is_kept
                a_deadline_alone_leaves_the_timeout_open
                a_second_task_with_the_same_id_is_a_conflict
                an_id_is_taken_in_every_state_and_free_after_the_task_is_gone
                the_same_id_in_another_queue_is_another_task
                the_same_id_twice_in_one_batch_is_stored_once
                a_mixed_batch_is_answered_item_by_item_in_order
                an_empty_batch_is_answered_and_takes_its_number
                a_wrong_task_is_rejected_with_the_option_and_its_value
                a_payload_over_the_limit_is_rejected_and_the_rest_is_stored
                headers_come_back_as_they_were_given
                an_empty_payload_is_an_empty_payload
                a_payload_of_any_bytes_comes_back_unchanged
                a_payload_of_one_mebibyte_comes_back_unchanged
                names_of_all_scripts_and_lengths_are_kept
                ids_that_differ_in_case_only_are_different
                a_task_for_later_is_scheduled
                a_due_time_that_has_come_is_now
                a_task_of_a_group_waits_in_it
                a_scheduled_task_of_a_group_waits_for_its_time_first
                a_task_at_the_front_starts_before_all_that_wait
                the_last_task_put_at_the_front_starts_first
                a_place_at_the_front_means_nothing_to_a_task_for_later
                a_batch_of_the_greatest_length_is_stored_in_order
                batches_that_arrive_together_are_all_stored
            }
            settle {
                done_without_retention_deletes_the_task
                done_with_retention_keeps_the_task_and_its_result
                a_result_of_any_bytes_comes_back_unchanged
                an_empty_result_is_not_no_result
                a_result_over_the_limit_is_rejected_and_the_lease_stays
                a_retry_waits_for_its_time_and_counts_as_a_failure
                a_retry_whose_attempt_is_kept_counts_nothing_and_keeps_its_error
                a_broker_retries_as_often_as_it_is_told
                a_later_error_replaces_an_earlier_one
                a_long_error_is_cut_at_its_limit_between_characters
                a_snoozed_task_is_scheduled_and_nothing_is_counted
                an_archived_task_keeps_its_error_and_its_retries
                a_revoked_task_is_deleted_and_counts_as_processed
                a_released_task_is_next_and_nothing_is_counted
                a_foreign_token_settles_nothing
                a_lease_counts_by_its_token_and_not_by_its_end
                a_task_is_settled_once
                a_task_that_is_gone_settles_as_lost
                a_task_that_waits_cannot_be_settled
                a_batch_of_settlements_is_answered_item_by_item_in_order
                an_empty_batch_of_settlements_is_answered
                a_task_cannot_be_aggregated_alone
            }
            unique {
                a_duplicate_names_the_task_that_holds_the_lock
                another_digest_type_or_queue_is_another_lock
                the_lock_is_of_the_digest_whatever_the_payload
                an_empty_digest_is_a_lock_of_its_own
                two_of_one_digest_in_a_batch_are_stored_once
                the_lock_is_asked_before_the_id
                a_task_refused_for_its_id_leaves_no_lock
                a_task_that_is_wrong_leaves_no_lock_and_no_key
                the_lock_ends_with_its_time_though_the_task_waits
                a_task_whose_lock_ran_out_does_not_release_that_of_another
                the_lock_of_a_scheduled_task_counts_from_its_due_time
                the_lock_is_held_while_the_task_runs
                the_lock_is_released_when_the_task_is_done
                the_lock_is_released_when_the_task_is_done_and_kept
                the_lock_is_released_when_the_task_is_revoked
                the_lock_is_released_when_the_task_is_deleted_by_hand
                the_lock_is_held_through_a_retry
                the_lock_is_held_through_snooze_and_release
                the_lock_is_held_by_an_archived_task_until_it_is_deleted
                the_lock_is_held_when_a_lease_is_lost
                the_lock_goes_with_the_queue_that_is_removed
                a_once_key_is_accepted_once
                a_once_key_outlives_its_task
                a_once_key_is_forgotten_after_its_time
                a_once_key_is_of_its_queue
                a_once_key_twice_in_a_batch_is_used_once
                a_task_refused_for_its_lock_or_id_uses_no_once_key
                a_task_refused_for_its_once_key_leaves_no_lock
                a_kept_task_that_runs_again_by_hand_takes_no_lock
            }
        }
    };
}
