"""Every public name of django-celery 2.0 to 3.3, and what djcelery makes of it. Data of ``test_api_surface``.

A name is ``module:attribute``. What it must do is proved by the tests that the row names, by their ids; a row without
any is proved by the row itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Row(NamedTuple):
    """One name. Of the rest, *kind* tells what counts."""

    name: str
    #: "value", "class", "function" (methods, too), "old" (warns), "gone" (an error names what is instead), "absent"
    #: (a private attribute that is no more; the manual says so) or "module".
    kind: str
    #: value: a type, or the value itself. class: a base, as a name. function: its legacy parameters.
    what: Any = None
    #: Test ids.
    proof: tuple[str, ...] = ()
    #: old, gone, absent: a part of the message and of the manual.
    instead: str = ""


def value(name: str, what: Any, *proof: str) -> Row:
    return Row(name, "value", what, proof)


def cls(name: str, base: str = "builtins:object", *proof: str) -> Row:
    return Row(name, "class", base, proof)


def fun(name: str, parameters: str, *proof: str) -> Row:
    return Row(name, "function", parameters, proof)


def members(of: str, proof: tuple[str, ...], **parameters: str) -> list[Row]:
    """Return a row per method of the class *of*."""
    return [Row(f"{of}.{name}", "function", text, proof) for name, text in parameters.items()]


def old(name: str, instead: str, what: Any = None) -> Row:
    return Row(name, "old", what, (), instead)


def gone(name: str, instead: str) -> Row:
    return Row(name, "gone", None, (), instead)


def absent(name: str, instead: str) -> Row:
    return Row(name, "absent", None, (), instead)


def module(name: str, *proof: str) -> Row:
    return Row(name, "module", None, proof)


LOADERS = "unit/test_loaders.py::test_"
API = "unit/test_api_behaviour.py::test_"
DB_API = "db/test_api_behaviour.py::test_"
RESULTS = "db/test_results.py::test_"
CACHE = "db/test_cache_backend.py::test_"
BEAT = "db/test_schedulers.py::test_"
ENTRIES = "db/test_settings_entries.py::test_"
TASKS = "db/test_admin_tasks.py::test_"
WORKERS = "db/test_admin_workers.py::test_"
SCHEDULE = "db/test_admin_schedule.py::test_"
LIST = "db/test_admin_schedule_list.py::test_"
FORMS = "db/test_forms.py::test_"
MODELS = "db/test_schedule_models.py::test_"
CAMERA = "db/test_snapshot.py::test_"
PICKLES = "unit/test_picklefield.py::test_"
HUMANIZE = "unit/test_humanize.py::test_"
COLUMNS = "unit/test_admin_utils.py::test_"
COMMANDS = "unit/test_commands_options.py::test_"
VIEW = "db/test_views.py::test_"
MON = "unit/test_mon.py::test_"
RUNNER = "db/test_test_runner.py::test_"

PACKAGE = [
    value("djcelery:VERSION", (4, 0, 0)),
    value("djcelery:__version__", "4.0.0"),
    value("djcelery:__author__", str),
    value("djcelery:__docformat__", "restructuredtext"),
    value("djcelery:__license__", "BSD (3 clause)"),
    gone("djcelery:__contact__", "importlib.metadata"),
    gone("djcelery:__homepage__", "importlib.metadata"),
    fun("djcelery:setup_loader", "", f"{LOADERS}setup_loader_keeps_a_loader_that_is_named_already"),
    value("djcelery:celery", object, f"{LOADERS}the_default_app_reads_django_settings_with_the_namespace"),
    old("djcelery:is_stable_release", "djcelery.VERSION"),
    old("djcelery:version_with_meta", "djcelery.__version__"),
    value("djcelery.app:app", object, f"{LOADERS}the_default_app_reads_django_settings_with_the_namespace"),
    gone("djcelery.transport:", "RabbitMQ or Redis"),
    gone("djcelery.south_migrations:", "djcelery.migrations"),
]

_LOADER = "djcelery.loaders:DjangoLoader"
LOADER = [
    cls(_LOADER, "celery.loaders.base:BaseLoader", f"{LOADERS}two_apps_in_one_process_have_a_loader_and_a_fixup_each"),
    value(f"{_LOADER}.override_backends", dict, f"{LOADERS}legacy_backend_names_mean_our_backends"),
    *members(_LOADER, (f"{API}the_loader_tells_the_time",), now="utc=False"),
    *members(_LOADER, (f"{LOADERS}the_default_app_reads_django_settings_with_the_namespace",), read_configuration=""),
    *members(
        _LOADER,
        (f"{API}the_loader_closes_connections_and_caches",),
        close_database="**kwargs",
        _close_database="",
        close_cache="",
    ),
    *members(
        _LOADER,
        (
            f"{API}hooks_of_the_loader_can_be_called_and_overridden",
            "unit/test_db.py::test_without_that_setting_django_decides_around_each_task",
        ),
        on_process_cleanup="",
        on_task_init="task_id, task",
        on_worker_init="",
        on_worker_process_init="",
    ),
    *members(_LOADER, (f"{LOADERS}debug_is_warned_of_once_a_worker_is_ready",), warn_if_debug="**kwargs"),
    *members(
        _LOADER,
        (f"{LOADERS}autodiscovery_without_arguments_finds_the_tasks_of_installed_apps",),
        import_default_modules="",
        autodiscover="",
    ),
    *members(_LOADER, (f"{API}the_loader_sends_mail_to_the_admins",), mail_admins="subject, body, fail_silently=False"),
    absent(f"{_LOADER}._db_reuse", "Celery's Django fix-up counts"),
    fun("djcelery.loaders:autodiscover", "", f"{LOADERS}autodiscover_is_not_entered_twice"),
    fun(
        "djcelery.loaders:find_related_module",
        "app, related_name",
        f"{LOADERS}find_related_module_tells_missing_from_broken",
        f"{API}a_plain_module_has_no_related_module",
    ),
]

_AWARENESS = f"{API}values_are_aware_or_naive_as_use_tz_says"
HELPERS = [
    value("djcelery.utils:DATABASE_ERRORS", tuple, f"{DB_API}database_errors_of_every_driver_are_caught"),
    fun("djcelery.utils:make_aware", "value", _AWARENESS),
    fun("djcelery.utils:make_naive", "value", _AWARENESS, f"{API}a_naive_value_cannot_be_made_naive_under_use_tz"),
    fun("djcelery.utils:now", "", _AWARENESS),
    fun("djcelery.utils:correct_awareness", "value", _AWARENESS),
    fun("djcelery.utils:fromtimestamp", "value", _AWARENESS),
    fun("djcelery.utils:is_database_scheduler", "scheduler", f"{API}schedulers_on_the_database_are_known_by_path"),
    old("djcelery.utils:maybe_make_aware", "djcelery.utils.correct_awareness"),
    old("djcelery.utils:is_aware", "django.utils.timezone.is_aware"),
    fun("djcelery.common:respect_language", "language", f"{API}a_block_runs_in_a_language_and_gives_the_old_one_back"),
    fun("djcelery.common:respects_language", "fun", f"{API}a_task_runs_in_the_language_it_is_given_and_never_sees_it"),
    fun("djcelery.db:get_queryset", "manager", f"{DB_API}names_for_transactions_work"),
    fun("djcelery.db:commit_on_success", "using=None", f"{DB_API}names_for_transactions_work"),
    fun("djcelery.db:commit_unless_managed", "*args", f"{DB_API}names_for_transactions_work"),
    fun("djcelery.db:rollback_unless_managed", "*args", f"{DB_API}names_for_transactions_work"),
    fun("djcelery.db:atomic", "using=None", f"{DB_API}names_for_transactions_work"),
    value("djcelery.compat:PY2", False),
    value("djcelery.compat:PY3", True),
    value("djcelery.compat:unicode", str),
    fun("djcelery.compat:python_2_unicode_compatible", "cls", f"{API}a_class_with_a_text_has_unicode_too"),
    fun("djcelery.compat:itervalues", "d", f"{API}names_for_two_pythons_work"),
    fun("djcelery.compat:setenv", "k, v", f"{API}names_for_two_pythons_work"),
    fun("djcelery.compat:bytes_to_str", "s", f"{API}names_for_two_pythons_work"),
    fun("djcelery.compat:str_to_bytes", "s", f"{API}names_for_two_pythons_work"),
    fun(
        "djcelery.humanize:naturaldate",
        "date, include_seconds=False",
        f"{HUMANIZE}ages_are_said_in_the_unit_a_person_would_use",
        f"{HUMANIZE}seconds_are_counted_on_request_only",
        f"{HUMANIZE}the_future_is_just_now",
    ),
    *(
        fun(
            f"djcelery.humanize:pluralize_{unit}",
            "n",
            f"{HUMANIZE}the_legacy_names_give_a_text_that_may_be_formatted_again",
        )
        for unit in ("year", "month", "week", "day")
    ),
    value(
        "djcelery.humanize:OLDER_CHUNKS", tuple, f"{HUMANIZE}the_legacy_names_give_a_text_that_may_be_formatted_again"
    ),
    fun("djcelery.humanize:_un", "singular__plural, n", f"{API}texts_of_ages_are_translated_in_all_their_forms"),
    *(
        old(f"djcelery.humanize:{name}", "djcelery.humanize.naturaldate")
        for name in (
            *("JUST_NOW", "SECONDS_AGO", "MINUTES_AGO", "HOURS_AGO", "YESTERDAY_AT"),
            *("OLDER_YEAR", "OLDER_MONTH", "OLDER_WEEK", "OLDER_DAY"),
        )
    ),
    gone("djcelery.humanize:OLDER_AGO", "pluralize_year"),
]

_MANAGERS = "djcelery.managers"
MANAGERS = [
    cls(
        f"{_MANAGERS}:TxIsolationWarning",
        "builtins:UserWarning",
        f"{RESULTS}polling_inside_a_repeatable_read_transaction_is_warned_of",
    ),
    fun(f"{_MANAGERS}:transaction_retry", "max_retries=1", f"{RESULTS}transaction_retry_tries_as_often_as_it_is_told"),
    fun(f"{_MANAGERS}:update_model_with_dict", "obj, fields", f"{DB_API}a_row_is_updated_from_a_dictionary"),
    cls(f"{_MANAGERS}:ExtendedQuerySet", "django.db.models:QuerySet"),
    *members(
        f"{_MANAGERS}:ExtendedQuerySet",
        (f"{DB_API}update_or_create_returns_the_row_and_whether_it_is_new",),
        update_or_create="**kwargs",
    ),
    cls(f"{_MANAGERS}:ExtendedManager", "django.db.models:Manager"),
    *members(
        f"{_MANAGERS}:ExtendedManager",
        (f"{DB_API}managers_have_their_legacy_names",),
        get_queryset="",
        get_query_set="",
        connection_for_write="",
        connection_for_read="",
        current_engine="",
    ),
    *members(
        f"{_MANAGERS}:ExtendedManager",
        (f"{DB_API}update_or_create_returns_the_row_and_whether_it_is_new",),
        update_or_create="**kwargs",
    ),
    cls(f"{_MANAGERS}:ResultManager", f"{_MANAGERS}:ExtendedManager"),
    *members(
        f"{_MANAGERS}:ResultManager",
        (f"{RESULTS}cleanup_deletes_old_and_hidden_rows_in_batches", f"{DB_API}expired_results_are_found_and_deleted"),
        get_all_expired="expires",
        delete_expired="expires",
    ),
    cls(f"{_MANAGERS}:PeriodicTaskManager", f"{_MANAGERS}:ExtendedManager"),
    *members(
        f"{_MANAGERS}:PeriodicTaskManager",
        (f"{DB_API}periodic_tasks_are_found_by_name_and_by_being_enabled",),
        enabled="",
        get_by_natural_key="name",
    ),
    cls(f"{_MANAGERS}:TaskManager", f"{_MANAGERS}:ResultManager"),
    *members(f"{_MANAGERS}:TaskManager", (f"{DB_API}an_unknown_task_is_an_unsaved_pending_row",), get_task="task_id"),
    *members(
        f"{_MANAGERS}:TaskManager",
        (f"{RESULTS}the_legacy_manager_method_returns_the_row_and_whether_it_is_new",),
        store_result="task_id, result, status, traceback=None, children=None",
    ),
    *members(
        f"{_MANAGERS}:TaskManager",
        (
            f"{RESULTS}polling_inside_a_repeatable_read_transaction_is_warned_of",
            "db/test_waiting.py::test_polling_inside_a_transaction_that_sees_nothing_new_is_warned_of_once",
        ),
        warn_if_repeatable_read="",
    ),
    absent(f"{_MANAGERS}:TaskManager._get_server_version_info_for_mysql", "connection.mysql_version"),
    cls(f"{_MANAGERS}:TaskSetManager", f"{_MANAGERS}:ResultManager"),
    *members(
        f"{_MANAGERS}:TaskSetManager",
        (f"{RESULTS}the_legacy_methods_of_groups",),
        restore_taskset="taskset_id",
        delete_taskset="taskset_id",
        store_result="taskset_id, result",
    ),
    cls(f"{_MANAGERS}:TaskStateManager", f"{_MANAGERS}:ExtendedManager"),
    *members(
        f"{_MANAGERS}:TaskStateManager",
        (
            "db/test_camera_upkeep.py::test_old_names_of_the_manager_still_hide_and_purge",
            f"{DB_API}task_states_are_hidden_by_state_and_age_and_then_purged",
        ),
        active="",
        expired="states, expires, nowfun=None",
        expire_by_states="states, expires",
        purge="",
    ),
]

_MODELS = "djcelery.models"
_TEXTS = f"{BEAT}the_texts_of_legacy_models"
MODEL = [
    value(
        f"{_MODELS}:ALL_STATES", sorted(("PENDING", "RECEIVED", "STARTED", "SUCCESS", "FAILURE", "RETRY", "REVOKED"))
    ),
    value(f"{_MODELS}:TASK_STATE_CHOICES", list),
    value(f"{_MODELS}:PERIOD_CHOICES", tuple),
    old(f"{_MODELS}:HEARTBEAT_EXPIRE", "WorkerState.is_alive()", 150),
    old(f"{_MODELS}:TASK_STATUS_PENDING", "celery.states.PENDING", "PENDING"),
    old(f"{_MODELS}:TASK_STATUS_RETRY", "celery.states.RETRY", "RETRY"),
    old(f"{_MODELS}:TASK_STATUS_FAILURE", "celery.states.FAILURE", "FAILURE"),
    old(f"{_MODELS}:TASK_STATUS_DONE", "celery.states.SUCCESS", "SUCCESS"),
    old(f"{_MODELS}:TASK_STATUSES", "djcelery.models.ALL_STATES"),
    old(f"{_MODELS}:TASK_STATUSES_CHOICES", "djcelery.models.TASK_STATE_CHOICES"),
    gone(f"{_MODELS}:PeriodicTaskMeta", "PeriodicTask"),
    fun(f"{_MODELS}:cronexp", "field", f"{API}a_field_of_a_crontab_is_text_without_spaces"),
    cls(f"{_MODELS}:TaskMeta", "django.db.models:Model", f"{DB_API}results_have_their_legacy_texts_and_dictionaries"),
    fun(f"{_MODELS}:TaskMeta.to_dict", "", f"{DB_API}results_have_their_legacy_texts_and_dictionaries"),
    cls(
        f"{_MODELS}:TaskSetMeta", "django.db.models:Model", f"{DB_API}results_have_their_legacy_texts_and_dictionaries"
    ),
    fun(f"{_MODELS}:TaskSetMeta.to_dict", "", f"{DB_API}results_have_their_legacy_texts_and_dictionaries"),
    cls(f"{_MODELS}:IntervalSchedule", "django.db.models:Model", _TEXTS),
    value(f"{_MODELS}:IntervalSchedule.schedule", property, f"{BEAT}periods_are_stored_without_loss"),
    value(
        f"{_MODELS}:IntervalSchedule.period_singular", property, f"{DB_API}an_interval_knows_its_unit_in_the_singular"
    ),
    fun(
        f"{_MODELS}:IntervalSchedule.from_schedule",
        "schedule, period='seconds'",
        f"{BEAT}equal_schedule_rows_are_neither_multiplied_nor_deleted",
    ),
    cls(f"{_MODELS}:CrontabSchedule", "django.db.models:Model", _TEXTS),
    value(f"{_MODELS}:CrontabSchedule.schedule", property, _TEXTS),
    fun(
        f"{_MODELS}:CrontabSchedule.from_schedule",
        "schedule",
        f"{BEAT}equal_schedule_rows_are_neither_multiplied_nor_deleted",
    ),
    cls(f"{_MODELS}:PeriodicTasks", "django.db.models:Model"),
    fun(
        f"{_MODELS}:PeriodicTasks.changed",
        "instance, **kwargs",
        "db/test_schedule_notes.py::test_changed_notes_a_task_or_everything",
        f"{DB_API}a_project_may_connect_the_receiver_of_changes_itself",
    ),
    fun(
        f"{_MODELS}:PeriodicTasks.last_change",
        "",
        "db/test_schedule_notes.py::test_the_last_change_is_the_legacy_mark_or_the_latest_note",
    ),
    cls(f"{_MODELS}:PeriodicTask", "django.db.models:Model", _TEXTS),
    value(
        f"{_MODELS}:PeriodicTask.no_changes",
        False,
        "db/test_schedule_notes.py::test_an_instance_with_no_changes_is_not_noted",
    ),
    fun(f"{_MODELS}:PeriodicTask.validate_unique", "*args, **kwargs", f"{MODELS}exactly_one_schedule_must_be_set"),
    fun(f"{_MODELS}:PeriodicTask.save", "*args, **kwargs", f"{BEAT}disabling_a_task_forgets_its_last_run"),
    value(f"{_MODELS}:PeriodicTask.schedule", property, f"{BEAT}a_row_whose_schedule_was_removed_is_held_out"),
    fun(
        f"{_MODELS}:PeriodicTask.natural_key",
        "",
        f"{DB_API}periodic_tasks_are_found_by_name_and_by_being_enabled",
        f"{DB_API}a_periodic_task_is_dumped_and_loaded_by_its_name",
    ),
    cls(f"{_MODELS}:WorkerState", "django.db.models:Model", f"{DB_API}states_of_the_monitor_have_their_legacy_texts"),
    value(
        f"{_MODELS}:WorkerState.heartbeat_timestamp",
        property,
        f"{DB_API}a_heartbeat_is_the_same_instant_with_and_without_use_tz",
    ),
    fun(
        f"{_MODELS}:WorkerState.is_alive",
        "",
        f"{WORKERS}a_worker_is_online_while_its_heartbeat_is_recent",
        f"{DB_API}a_heartbeat_is_the_same_instant_with_and_without_use_tz",
    ),
    cls(f"{_MODELS}:TaskState", "django.db.models:Model", f"{DB_API}states_of_the_monitor_have_their_legacy_texts"),
    *(
        fun(f"{_MODELS}:{name}.__unicode__", "", f"{DB_API}models_have_the_text_that_python_2_asked_for")
        for name in (
            *("TaskMeta", "TaskSetMeta", "IntervalSchedule", "CrontabSchedule"),
            *("PeriodicTask", "WorkerState", "TaskState"),
        )
    ),
]

_DATABASE = "djcelery.backends.database:DatabaseBackend"
_CACHE = "djcelery.backends.cache:CacheBackend"
BACKENDS = [
    cls(_DATABASE, "celery.backends.base:BaseDictBackend", f"{DB_API}a_backend_of_ones_own_may_have_other_tables"),
    value(f"{_DATABASE}.TaskModel", type, f"{DB_API}a_backend_of_ones_own_may_have_other_tables"),
    value(f"{_DATABASE}.TaskSetModel", type, f"{DB_API}a_backend_of_ones_own_may_have_other_tables"),
    value(f"{_DATABASE}.create_django_tables", True),
    value(f"{_DATABASE}.subpolling_interval", 0.5),
    absent(f"{_DATABASE}.expires", "app.backend.expires"),
    *members(
        _DATABASE,
        (f"{DB_API}the_methods_of_the_backend_take_what_they_took",),
        _store_result="task_id, result, status, traceback=None, request=None",
        _get_task_meta_for="task_id",
        _forget="task_id",
        cleanup="",
    ),
    *members(
        _DATABASE,
        (f"{RESULTS}groups_are_saved_restored_and_deleted",),
        _save_group="group_id, result",
        _restore_group="group_id",
        _delete_group="group_id",
    ),
    absent(f"{_DATABASE}._save_taskset", "_save_group"),
    absent(f"{_DATABASE}._restore_taskset", "_restore_group"),
    absent(f"{_DATABASE}._delete_taskset", "_delete_group"),
    cls(_CACHE, "celery.backends.base:KeyValueStoreBackend", f"{CACHE}results_are_stored_and_fetched"),
    fun(_CACHE, "app, expires=None", f"{CACHE}expiry_is_seconds_or_a_timedelta_and_zero_is_never"),
    *members(_CACHE, (f"{CACHE}results_are_stored_and_fetched",), get="key", set="key, value", delete="key"),
    old("djcelery.backends.cache:cache", "django.core.cache.caches"),
    old("djcelery.backends.cache:DjangoMemcacheWrapper", "the cache itself"),
]

_ENTRY = "djcelery.schedulers:ModelEntry"
_SCHEDULER = "djcelery.schedulers:DatabaseScheduler"
SCHEDULERS = [
    value("djcelery.schedulers:DEFAULT_MAX_INTERVAL", 5),
    value("djcelery.schedulers:ADD_ENTRY_ERROR", str, f"{ENTRIES}a_bad_entry_is_logged_and_the_others_are_written"),
    cls(_ENTRY, "celery.beat:ScheduleEntry", f"{BEAT}a_subclass_may_have_entries_of_its_own"),
    fun(_ENTRY, "model", f"{BEAT}entries_carry_the_options_of_the_row"),
    value(f"{_ENTRY}.model_schedules", tuple, f"{BEAT}periods_are_stored_without_loss"),
    value(f"{_ENTRY}.save_fields", tuple, f"{BEAT}last_runs_survive_use_tz_on_and_off"),
    *members(_ENTRY, (f"{BEAT}a_disabled_task_is_never_due",), is_due=""),
    *members(_ENTRY, (f"{BEAT}last_runs_survive_use_tz_on_and_off",), __next__="", next="", save="", _default_now=""),
    *members(_ENTRY, (f"{BEAT}what_is_no_schedule_is_refused",), to_model_schedule="schedule"),
    *members(
        _ENTRY,
        (
            f"{BEAT}switching_an_entry_from_interval_to_crontab_clears_the_other",
            f"{DB_API}an_entry_may_leave_keys_out",
        ),
        from_entry="name, skip_fields=('relative', 'options'), **entry",
    ),
    fun(f"{_ENTRY}.__repr__", "", f"{DB_API}an_entry_shows_its_call_and_schedule"),
    cls(_SCHEDULER, "celery.beat:Scheduler", f"{BEAT}a_subclass_that_says_the_schedule_has_changed_is_believed"),
    value(f"{_SCHEDULER}.Entry", type, f"{BEAT}a_subclass_may_have_entries_of_its_own"),
    value(f"{_SCHEDULER}.Model", type),
    value(f"{_SCHEDULER}.Changes", type),
    value(f"{_SCHEDULER}.max_interval", 5, f"{BEAT}a_falsy_max_interval_is_five_seconds"),
    *members(_SCHEDULER, (f"{ENTRIES}only_the_beat_that_leads_writes",), setup_schedule=""),
    *members(
        _SCHEDULER,
        (f"{ENTRIES}the_cleanup_entry_is_installed_once_and_stays_as_edited",),
        install_default_entries="data",
    ),
    *members(_SCHEDULER, (f"{ENTRIES}entries_become_rows_with_all_that_has_a_column",), update_from_dict="d"),
    *members(
        _SCHEDULER, (f"{BEAT}one_broken_row_does_not_stop_the_others_and_says_what_is_wrong",), all_as_schedule=""
    ),
    *members(
        _SCHEDULER,
        (
            f"{BEAT}schedule_changed_tells_of_changes_since_the_last_call",
            f"{BEAT}a_database_error_while_looking_for_changes_keeps_the_schedule",
        ),
        schedule_changed="",
    ),
    value(f"{_SCHEDULER}.schedule", property, f"{BEAT}the_schedule_is_a_mapping_of_entries_by_name"),
    *members(_SCHEDULER, (f"{DB_API}the_schedule_has_its_older_name",), get_schedule=""),
    *members(
        _SCHEDULER, (f"{BEAT}code_that_reserves_entries_itself_has_their_runs_written",), reserve="entry", sync=""
    ),
    *members(
        _SCHEDULER,
        (f"{BEAT}create_or_update_task_leaves_alone_what_it_is_not_given",),
        create_or_update_task="name, **schedule_dict",
    ),
    *members(_SCHEDULER, (f"{BEAT}delete_task",), delete_task="name"),
]

_CAMERA = "djcelery.snapshot:Camera"
SNAPSHOT = [
    value("djcelery.snapshot:WORKER_UPDATE_FREQ", 1, f"{CAMERA}heartbeats_are_written_once_a_second_at_most"),
    value("djcelery.snapshot:SUCCESS_STATES", frozenset({"SUCCESS"})),
    value("djcelery.snapshot:NOT_SAVED_ATTRIBUTES", frozenset({"name", "args", "kwargs", "eta"})),
    fun("djcelery.snapshot:aware_tstamp", "secs", f"{CAMERA}names_of_django_celery_are_there"),
    *(
        old(f"djcelery.snapshot:EXPIRE_{what}", f"the setting CELERYCAM_EXPIRE_{what}")
        for what in ("SUCCESS", "ERROR", "PENDING")
    ),
    cls(_CAMERA, "celery.events.snapshot:Polaroid", f"{CAMERA}a_camera_with_methods_of_its_own_is_asked_for_each_row"),
    value(f"{_CAMERA}.TaskState", type),
    value(f"{_CAMERA}.WorkerState", type),
    value(f"{_CAMERA}.clear_after", True, f"{CAMERA}finished_tasks_are_forgotten_and_unfinished_ones_kept_in_memory"),
    value(f"{_CAMERA}.worker_update_freq", 1, f"{CAMERA}heartbeats_are_written_once_a_second_at_most"),
    value(f"{_CAMERA}.expire_states", dict, f"{CAMERA}ages_of_a_camera_of_ones_own_count"),
    *members(
        _CAMERA,
        (f"{CAMERA}the_methods_that_legacy_cameras_had_write_one_row",),
        get_heartbeat="worker",
        handle_worker="hostname_worker",
        handle_task="uuid_task, worker=None",
    ),
    *members(
        _CAMERA,
        (f"{CAMERA}update_task_writes_what_it_is_given_and_nothing_without_a_name",),
        update_task="state, **kwargs",
    ),
    *members(_CAMERA, (f"{CAMERA}a_whole_life_is_one_row",), on_shutter="state, commit_every=100"),
    *members(_CAMERA, (f"{CAMERA}rows_expire_by_their_state",), on_cleanup=""),
]

VIEWS = [
    fun(
        "djcelery.views:JsonResponse",
        "response",
        f"{VIEW}the_legacy_response_takes_any_value",
        f"{VIEW}the_legacy_response_raises_for_what_json_has_not",
    ),
    fun(
        "djcelery.views:task_view",
        "task",
        f"{VIEW}a_form_sends_the_task_with_its_fields",
        f"{VIEW}what_the_url_captures_wins_over_the_form",
    ),
    fun(
        "djcelery.views:apply",
        "request, task_name",
        f"{VIEW}apply_sends_only_what_is_on_the_list",
        f"{VIEW}an_unknown_task_is_404",
    ),
    fun("djcelery.views:is_task_successful", "request, task_id", f"{VIEW}executed_says_whether_the_task_has_succeeded"),
    fun(
        "djcelery.views:task_status",
        "request, task_id",
        f"{VIEW}a_result_is_given_as_it_is",
        f"{VIEW}an_error_has_its_class_and_its_traceback",
        f"{VIEW}an_unknown_task_is_pending",
    ),
    fun("djcelery.views:registered_tasks", "request", f"{VIEW}the_list_of_tasks_has_all_registered_names"),
    fun(
        "djcelery.views:task_webhook",
        "fun",
        f"{VIEW}a_receiver_answers_what_its_function_returned",
        f"{VIEW}a_receiver_that_raises_answers_its_reason",
    ),
    value("djcelery.urls:task_pattern", str, f"{VIEW}the_pattern_of_ids_is_there_for_urls_of_projects"),
    value("djcelery.urls:urlpatterns", list, f"{VIEW}the_names_of_django_celery_are_reversed_to_its_paths"),
]

_ADMIN = "djcelery.admin"
_OWN_ADMIN = f"{DB_API}pages_that_a_project_derived_from_ours_work"
_OWN_FORM = f"{DB_API}a_form_that_a_project_derived_from_ours_may_leave_fields_out"
ADMIN = [
    *(
        cls(f"{_ADMIN}:{name}", f"{_MODELS}:{name}")
        for name in ("TaskState", "WorkerState", "IntervalSchedule", "CrontabSchedule", "PeriodicTask")
    ),
    value(f"{_ADMIN}:TASK_STATE_COLORS", dict, f"{TASKS}a_task_s_state_has_its_legacy_colour"),
    value(f"{_ADMIN}:NODE_STATE_COLORS", {"ONLINE": "green", "OFFLINE": "gray"}),
    fun(f"{_ADMIN}:colored_state", "task", f"{TASKS}a_task_s_state_has_its_legacy_colour"),
    fun(f"{_ADMIN}:node_state", "node", f"{WORKERS}a_worker_is_online_while_its_heartbeat_is_recent"),
    fun(f"{_ADMIN}:eta", "task", f"{TASKS}the_eta_is_told_in_the_project_s_time_zone"),
    fun(f"{_ADMIN}:tstamp", "task", f"{TASKS}when_is_an_age_with_the_time_in_the_tooltip"),
    fun(f"{_ADMIN}:name", "task", f"{TASKS}a_long_name_is_abbreviated_with_all_of_it_in_the_tooltip"),
    cls(f"{_ADMIN}:MonitorList", "django.contrib.admin.views.main:ChangeList", _OWN_ADMIN),
    cls(f"{_ADMIN}:ModelMonitor", "django.contrib.admin:ModelAdmin", _OWN_ADMIN),
    value(f"{_ADMIN}:ModelMonitor.can_add", False),
    value(f"{_ADMIN}:ModelMonitor.can_delete", False),
    value(f"{_ADMIN}:ModelMonitor.list_page_title", object, f"{TASKS}the_pages_have_their_legacy_titles"),
    value(f"{_ADMIN}:ModelMonitor.detail_title", object, f"{TASKS}the_pages_have_their_legacy_titles"),
    *members(
        f"{_ADMIN}:ModelMonitor",
        (f"{TASKS}a_caller_s_own_title_is_kept", f"{TASKS}tasks_can_be_neither_added_nor_changed_nor_deleted"),
        get_changelist="request, **kwargs",
        change_view="request, object_id, extra_context=None",
        has_delete_permission="request, obj=None",
        has_add_permission="request",
    ),
    cls(f"{_ADMIN}:TaskMonitor", f"{_ADMIN}:ModelMonitor", _OWN_ADMIN),
    *members(
        f"{_ADMIN}:TaskMonitor",
        ("db/test_task_actions.py::test_revoking_sends_the_ids_in_one_broadcast_and_says_how_many",),
        revoke_tasks="request, queryset",
        terminate_tasks="request, queryset",
        kill_tasks="request, queryset",
    ),
    *members(
        f"{_ADMIN}:TaskMonitor",
        ("db/test_task_actions.py::test_a_rate_limit_is_asked_for_and_sent_once_per_name",),
        rate_limit_tasks="request, queryset",
    ),
    cls(f"{_ADMIN}:WorkerMonitor", f"{_ADMIN}:ModelMonitor"),
    *members(
        f"{_ADMIN}:WorkerMonitor",
        (f"{WORKERS}every_action_asks_first_and_goes_to_the_chosen_workers_alone",),
        shutdown_nodes="request, queryset",
        enable_events="request, queryset",
        disable_events="request, queryset",
    ),
    cls(f"{_ADMIN}:PeriodicTaskAdmin", "django.contrib.admin:ModelAdmin", _OWN_ADMIN),
    *members(
        f"{_ADMIN}:PeriodicTaskAdmin",
        (f"{SCHEDULE}tasks_are_switched_and_beat_is_told_of_each",),
        enable_tasks="request, queryset",
        disable_tasks="request, queryset",
    ),
    *members(
        f"{_ADMIN}:PeriodicTaskAdmin",
        (f"{LIST}there_is_a_warning_if_it_does_not_or_cannot_be_imported",),
        changelist_view="request, extra_context=None",
    ),
    cls(
        f"{_ADMIN}:PeriodicTaskForm",
        "django.forms:ModelForm",
        _OWN_FORM,
        f"{FORMS}the_chosen_task_overrides_the_written_one",
    ),
    cls(f"{_ADMIN}:LaxChoiceField", "django.forms:ChoiceField", f"{FORMS}a_lax_choice_field_takes_what_is_no_choice"),
    cls(
        f"{_ADMIN}:TaskChoiceField", "django.forms:ChoiceField", f"{FORMS}an_unknown_task_is_accepted_chosen_or_written"
    ),
    cls(
        f"{_ADMIN}:TaskSelectWidget",
        "django.forms:Select",
        f"{FORMS}the_choices_are_looked_up_when_the_widget_is_shown_and_not_before",
    ),
    fun("djcelery.admin_utils:attrs", "**kwargs", f"{COLUMNS}attrs_sets_attributes_of_the_function_itself"),
    fun(
        "djcelery.admin_utils:display_field",
        "short_description, admin_order_field, allow_tags=True, **kwargs",
        f"{COLUMNS}display_field_makes_a_column_and_ignores_allow_tags",
    ),
    fun(
        "djcelery.admin_utils:action",
        "short_description, **kwargs",
        f"{COLUMNS}action_labels_an_action_and_can_name_its_permission",
    ),
    fun(
        "djcelery.admin_utils:fixedwidth",
        "field, name=None, pt=6, width=16, maxlen=64, pretty=False",
        f"{COLUMNS}fixedwidth_writes_the_legacy_markup",
        f"{COLUMNS}fixedwidth_escapes_the_value_in_text_and_tooltip",
    ),
    value("djcelery.admin_utils:FIXEDWIDTH_STYLE", str, f"{COLUMNS}fixedwidth_writes_the_legacy_markup"),
]

_PICKLES = "djcelery.picklefield"
PICKLEFIELD = [
    value(f"{_PICKLES}:DEFAULT_PROTOCOL", 2),
    value(f"{_PICKLES}:NO_DECOMPRESS_HEADER", bytes, f"{PICKLES}a_value_behind_the_old_header_is_not_inflated"),
    cls(f"{_PICKLES}:PickledObject", "builtins:str"),
    fun(
        f"{_PICKLES}:maybe_compress",
        "value, do_compress=False",
        f"{PICKLES}the_bytes_of_an_encoded_value_are_those_of_the_legacy_field",
    ),
    fun(
        f"{_PICKLES}:maybe_decompress",
        "value, do_decompress=False",
        f"{PICKLES}a_value_behind_the_old_header_is_not_inflated",
    ),
    fun(
        f"{_PICKLES}:encode",
        "value, compress_object=False, pickle_protocol=2",
        f"{PICKLES}the_bytes_of_an_encoded_value_are_those_of_the_legacy_field",
    ),
    fun(f"{_PICKLES}:decode", "value, compress_object=False", f"{PICKLES}every_value_type_comes_back_as_itself"),
    cls(
        f"{_PICKLES}:PickledObjectField",
        "django.db.models:Field",
        f"{PICKLES}a_pickled_field_gives_back_what_it_stored",
        f"{PICKLES}neither_field_says_how_it_compresses_in_a_migration",
    ),
    fun(
        f"{_PICKLES}:PickledObjectField",
        "*args, compress=False, protocol=2",
        f"{API}the_field_of_pickles_takes_what_it_took",
    ),
    *members(
        f"{_PICKLES}:PickledObjectField",
        (f"{API}the_field_of_pickles_takes_what_it_took",),
        get_default="",
        to_python="value",
        from_db_value="value, expression, connection",
        get_db_prep_value="value, connection, prepared=False",
        value_to_string="obj",
        get_internal_type="",
    ),
]

_RUNNER = "djcelery.contrib.test_runner"
OTHERS = [
    value(f"{_RUNNER}:USAGE", str, f"{RUNNER}the_names_of_the_legacy_module_are_there"),
    fun(f"{_RUNNER}:_set_eager", "", f"{RUNNER}set_eager_can_be_undone"),
    cls(
        f"{_RUNNER}:CeleryTestSuiteRunner",
        "django.test.runner:DiscoverRunner",
        f"{RUNNER}tasks_run_at_once_and_their_exceptions_reach_the_caller",
        f"{RUNNER}the_first_runner_stores_nothing",
        f"{RUNNER}everything_is_as_before",
        f"{RUNNER}manage_py_test_takes_the_runner",
    ),
    cls(
        f"{_RUNNER}:CeleryTestSuiteRunnerStoringResult",
        "django.test.runner:DiscoverRunner",
        f"{RUNNER}a_result_has_the_columns_that_a_worker_writes",
        f"{RUNNER}a_run_of_tests_is_eager_and_leaves_nothing_behind",
    ),
    gone(f"{_RUNNER}:run_tests", "CeleryTestSuiteRunner"),
    value("djcelery.mon:DEFAULT_APPS", tuple, f"{MON}the_settings_are_those_of_the_legacy_monitor"),
    value("djcelery.mon:DEFAULTS", dict, f"{MON}the_settings_are_those_of_the_legacy_monitor"),
    fun("djcelery.mon:default_settings", "name", f"{MON}settings_of_one_call_do_not_reach_the_next"),
    fun(
        "djcelery.mon:configure",
        "",
        f"{MON}without_a_project_django_and_celery_are_configured_and_no_check_complains",
        f"{MON}settings_of_a_project_stay",
    ),
    fun("djcelery.mon:run_monitor", "argv", f"{MON}it_makes_files_tables_and_login_and_runs_the_command"),
    fun("djcelery.mon:main", "argv=()", f"{MON}it_makes_files_tables_and_login_and_runs_the_command"),
    value("djcelery.monproj.urls:urlpatterns", list, f"{MON}the_documentation_pages_are_there_if_docutils_is"),
    value("djcelery.management.base:DB_SHARED_THREAD", str),
    fun("djcelery.management.base:patch_thread_ident", "", f"{API}patching_threads_any_number_of_times_does_nothing"),
    cls(
        "djcelery.management.base:CeleryCommand",
        "django.core.management.base:BaseCommand",
        f"{COMMANDS}version_names_both_packages",
        f"{COMMANDS}settings_broker_and_python_path_reach_children",
    ),
    value(
        "djcelery.management.base:CeleryCommand.keep_base_opts",
        False,
        f"{COMMANDS}handle_default_options_returns_the_rest_of_the_line",
    ),
    fun("djcelery.management.base:CeleryCommand.get_version", "", f"{COMMANDS}version_names_both_packages"),
    fun("djcelery.management.base:CeleryCommand.run_from_argv", "argv", f"{COMMANDS}wrong_lines_end_with_status_2"),
    fun(
        "djcelery.management.base:CeleryCommand.handle_default_options",
        "argv",
        f"{COMMANDS}handle_default_options_returns_the_rest_of_the_line",
    ),
    fun("djcelery.management.base:CeleryCommand.die", "msg", f"{API}a_command_that_dies_says_so_by_its_status"),
    absent("djcelery.management.base:CeleryCommand.option_list", "add_arguments"),
]

ROWS: tuple[Row, ...] = (
    *PACKAGE,
    *LOADER,
    *HELPERS,
    *MANAGERS,
    *MODEL,
    *BACKENDS,
    *SCHEDULERS,
    *SNAPSHOT,
    *VIEWS,
    *ADMIN,
    *PICKLEFIELD,
    *OTHERS,
)
