"""What must come out of Celery's integration suite, and why some of it need not.

Of 324 tests in Celery 5.7, 312 count for a backend that isn't Redis: 3 are switched off by the suite
itself, 1 expects to fail with a Redis broker, 8 look into Redis or are for key/value stores.
"""

_CANVAS, _TASKS = "t/integration/test_canvas.py::", "t/integration/test_tasks.py::"

#: Tests that must pass, by Celery's version; for another version every test must that isn't named here.
PASSES = {"5.7.0": 311}

#: Tests of Redis itself, which no other backend can pass.
NOT_FOR_US = {
    _CANVAS + "test_chord::test_chord_on_error": "looks for the keys of the Redis backend",
    _CANVAS + "test_chord::test_redis_subscribed_channels_leak": "counts channels of Redis",
    _TASKS + "test_task_redis_result_backend::test_ignoring_result_no_subscriptions": "the same",
    _TASKS + "test_task_redis_result_backend::test_asyncresult_forget_cancels_subscription": "the same",
    _TASKS + "test_task_redis_result_backend::test_asyncresult_get_cancels_subscription": "the same",
}

#: Tests that the suite skips by itself.
SKIPPED = {
    _CANVAS + "test_result_set::test_join_native_timeout_zero_gives_up_on_pending_results": "for key/value stores",
    _CANVAS + "test_result_set::test_join_native_timeout_zero_returns_results_that_are_ready": "for key/value stores",
    _CANVAS + "test_chord::test_simple_chord_with_a_delay_in_group_save": "for key/value stores",
    _TASKS + "test_tasks::test_multiprocess_producer": "switched off by Celery: broken",
    _TASKS + "test_tasks::test_multithread_producer": "switched off by Celery: broken",
    _TASKS + "test_tasks::test_task_accepted": "switched off by Celery: fails at random",
}

#: Tests that may fail, and why.
MAY_FAIL = {
    _CANVAS + "test_chord::test_error_propagates_from_chord": "fails with Redis too: celery issue 6437",
}

#: The selection of ``--short``, as pytest's ``-k``: what a backend that counts badly fails.
SHORT = (
    "nested_group_chord or reapplying or add_to_chord or add_chord_to_chord or empty_header or test_chord_order "
    "or test_generator[3] or parallel_chords or chord_in_chords or chain_chord_chain or error_propagates_to_chord "
    "or error_propagates_from_chord2 or replaced_nested_chord or test_group_chains"
)
