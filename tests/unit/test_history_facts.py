"""What django-celery's change history says about behaviour holds, or the manual says why it doesn't.

One line per statement: the version, the statement, and either the ids of tests, or words of ``docs/compatibility.rst``.
Rules that had no test yet are tested below, and in ``tests/db/test_history_facts.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from celery import signals
from django.contrib.staticfiles import finders
from django.core.management import get_commands, load_command_class

import djcelery
from djcelery import db, models
from djcelery.schedulers import DatabaseScheduler
from djcelery.utils import is_database_scheduler
from tests import named
from tests.unit.test_loaders import run_python

HERE = "unit/test_history_facts.py::test_"
DB = "db/test_history_facts.py::test_"
LOADERS = "unit/test_loaders.py::test_"
API = "unit/test_api_behaviour.py::test_"
DB_API = "db/test_api_behaviour.py::test_"
SURFACE = "unit/test_api_surface.py::test_"
RESULTS = "db/test_results.py::test_"
BEAT = "db/test_schedulers.py::test_"
ENTRIES = "db/test_settings_entries.py::test_"
TASKS = "db/test_admin_tasks.py::test_"
ACTIONS = "db/test_task_actions.py::test_"
SCHEDULE = "db/test_admin_schedule.py::test_"
LIST = "db/test_admin_schedule_list.py::test_"
FORMS = "db/test_forms.py::test_"
CAMERA = "db/test_snapshot.py::test_"
CONNECTIONS = "unit/test_db.py::test_"
OPTIONS = "unit/test_commands_options.py::test_"
WORKER = "integration/test_commands_worker.py::test_"
OTHERS = "integration/test_commands_others.py::test_"
ADOPTION = "migrations/test_adoption.py::test_"
VIEWS = "db/test_views.py::test_"
MON = "unit/test_mon.py::test_"
RUNNER = "db/test_test_runner.py::test_"


class Fact(NamedTuple):
    """A statement of the change history."""

    version: str
    text: str
    #: Test ids.
    proof: tuple[str, ...] = ()
    #: Words of the manual that say why it is otherwise, or no longer matters.
    reason: str = ""


def fact(version: str, text: str, *proof: str, reason: str = "") -> Fact:
    return Fact(version, text, proof, reason)


FACTS = (
    fact(
        "2.0.0",
        "provides backends, loader, views, URLs and the commands camqadm, celerybeat, celeryd, celeryev, celerymon",
        f"{HERE}every_command_of_django_celery_is_there",
        f"{SURFACE}a_class_is_there_with_its_base_and_can_be_derived_from",
        f"{SURFACE}a_function_takes_what_it_took",
    ),
    fact(
        "2.0.2",
        "setup_loader() sets the loader, whether a model was imported or not",
        f"{HERE}setup_loader_needs_no_models",
    ),
    fact("2.0.2", "the tasks URL lists the known tasks as JSON", f"{VIEWS}the_list_of_tasks_has_all_registered_names"),
    fact(
        "2.1.0",
        "a schedule is stored in rows and edited in the admin; beat uses it with -S",
        "integration/test_starting.py::test_the_legacy_way_runs_tasks_schedule_and_monitor",
        f"{SCHEDULE}a_task_is_added_and_changed_through_its_form",
    ),
    fact(
        "2.1.0",
        "monitors of tasks and workers appear once events come and celerycam runs",
        "integration/test_camera.py::test_tasks_and_workers_show_and_the_camera_says_how_it_does",
    ),
    fact(
        "2.1.0",
        "celerycam takes snapshots with a frequency",
        f"{OTHERS}celerycam_takes_a_snapshot_every_two_seconds_with_its_own_camera",
        reason="A number is the frequency, as in 2.1",
    ),
    fact(
        "2.1.0",
        "asking twice under REPEATABLE-READ is warned of",
        f"{RESULTS}polling_inside_a_repeatable_read_transaction_is_warned_of",
    ),
    fact("2.1.0", "asking for an unknown task writes nothing", f"{RESULTS}an_unknown_id_is_pending_and_writes_nothing"),
    fact(
        "2.1.1",
        "snapshots lose no events",
        "integration/test_flood.py::test_the_history_agrees_with_what_ran_when_camera_and_database_are_killed",
        "integration/test_camera.py::test_a_camera_that_is_killed_in_the_middle_loses_and_doubles_nothing",
    ),
    fact(
        "2.1.1",
        "writes of heartbeats are rate-limited",
        f"{CAMERA}heartbeats_are_written_once_a_second_at_most",
        reason="WORKER_UPDATE_FREQ was 60 seconds, though the change history says one",
    ),
    fact("2.1.1", "the camera commits every 100 updates", reason="commit_every is taken and ignored"),
    fact(
        "2.1.1",
        "states expire after 1, 3 and 5 days; None disables",
        f"{CAMERA}rows_expire_by_their_state",
        f"{CAMERA}an_expiry_of_none_keeps_rows_for_ever",
    ),
    fact(
        "2.1.1",
        "args and kwargs of a task state take more than 200 characters",
        "db/test_camera_writer.py::test_a_batch_of_long_texts_is_written",
    ),
    fact(
        "2.2.0",
        "the admin can terminate and kill tasks",
        f"{ACTIONS}who_has_the_permission_is_offered_the_action_and_may_run_it",
        f"{ACTIONS}every_action_asks_first",
    ),
    fact(
        "2.2.0",
        "expiring does not load the rows",
        "db/test_camera_upkeep.py::test_many_rows_are_deleted_in_bounded_statements",
        reason="task states are deleted in batches by key, without loading them",
    ),
    fact("2.2.0", "the djcelerymon command has stdout and stderr", f"{HERE}every_command_has_streams_and_one_no_color"),
    fact(
        "2.2.0",
        "an embedded beat closes inherited connections",
        f"{HERE}an_embedded_beat_forgets_the_connections_of_its_parent",
        f"{CONNECTIONS}a_forked_process_never_uses_its_parents_connection",
        "integration/test_starting.py::test_an_embedded_beat_sends_the_schedule",
    ),
    fact(
        "2.2.2",
        "the admin of periodic tasks works without CELERYBEAT_SCHEDULE",
        f"{LIST}there_is_a_warning_if_nothing_is_configured",
        f"{SCHEDULE}a_task_is_added_and_changed_through_its_form",
    ),
    fact("2.2.2", "starting beat again makes no more intervals", f"{DB}starting_beat_again_makes_no_more_intervals"),
    fact(
        "2.2.2",
        "templates of the admin are distributed",
        "unit/test_packaging.py::test_package_data_names_every_file_that_is_no_python",
        "unit/test_packaging.py::test_wheel_and_sdist_hold_the_folder",
    ),
    fact(
        "2.2.3",
        "a disabled task stays off after a restart of beat",
        f"{DB}a_disabled_entry_of_the_settings_stays_off_when_beat_starts_again",
        f"{BEAT}a_disabled_task_is_never_due",
    ),
    fact("2.2.3", "expiring works on PostgreSQL", f"{RESULTS}cleanup_deletes_old_and_hidden_rows_in_batches"),
    fact(
        "2.2.4",
        "under REPEATABLE-READ beat sees what other transactions change",
        f"{DB}beat_sees_what_other_sessions_change_under_repeatable_read",
    ),
    fact(
        "2.3.1",
        "migrate makes the tables of results",
        "migrations/test_fresh.py::test_0001_makes_the_tables_that_djangos_own_operations_make",
        f"{ADOPTION}missing_result_tables_are_created_with_and_without_fake_initial",
    ),
    fact("2.3.2", "the database backend can be imported first", f"{HERE}the_database_backend_can_be_imported_first"),
    fact(
        "2.4.0",
        "the test runner is a class; tasks run eagerly and their exceptions propagate",
        f"{RUNNER}manage_py_test_takes_the_runner",
        f"{RUNNER}tasks_run_at_once_and_their_exceptions_reach_the_caller",
    ),
    fact(
        "2.4.0",
        "South's 0001 reproduces the schema of 2.3.3",
        f"{ADOPTION}a_database_of_any_release_is_adopted_value_by_value",
        reason="South, syncdb",
    ),
    fact("2.4.1", "commands take Celery's options", f"{OPTIONS}every_option_of_celery_is_offered"),
    fact(
        "2.4.1",
        "-b and --broker choose the broker of every command",
        f"{OPTIONS}settings_broker_and_python_path_reach_children",
        reason="In all spellings, anywhere on the line",
    ),
    fact(
        "2.4.1",
        "South's 0001 tolerates tables that exist",
        f"{ADOPTION}missing_result_tables_are_created_with_and_without_fake_initial",
        f"{ADOPTION}fake_initial_is_not_needed_for_djcelerys_own_tables",
    ),
    fact(
        "2.5.0",
        "results can be hidden; expiry hides, then deletes",
        f"{RESULTS}cleanup_deletes_old_and_hidden_rows_in_batches",
        reason="Hiding is how projects mark rows for deletion",
    ),
    fact(
        "2.5.0",
        "a periodic task has a description, which may be empty",
        f"{HERE}columns_that_came_later_have_the_defaults_that_the_history_names",
        f"{FORMS}the_description_can_be_edited",
    ),
    fact(
        "2.5.0",
        "task modules that were found are known to the loader",
        f"{LOADERS}a_broken_task_module_is_reported_and_does_not_hide_the_others",
    ),
    fact(
        "2.5.0",
        "beat survives errors of the database while it looks for changes",
        f"{BEAT}a_database_error_while_looking_for_changes_keeps_the_schedule",
        f"{BEAT}without_the_database_nothing_is_sent_and_one_line_says_so",
    ),
    fact("2.5.0", "the schedule of an entry may be an int or a timedelta", f"{BEAT}periods_are_stored_without_loss"),
    fact("2.5.0", "closing a closed connection raises nothing", f"{DB}closing_a_closed_connection_raises_nothing"),
    fact(
        "2.5.0",
        "djcelerymon starts without a config module of Celery",
        f"{MON}without_a_project_django_and_celery_are_configured_and_no_check_complains",
    ),
    fact(
        "2.5.0",
        "with USE_TZ stored times are aware",
        f"{CAMERA}times_are_right_with_use_tz_on_and_off",
        f"{BEAT}last_runs_survive_use_tz_on_and_off",
    ),
    fact(
        "2.5.0",
        "celeryd_multi hands --settings to its nodes",
        f"{WORKER}multi_starts_restarts_and_stops_nodes_with_its_settings",
        f"{OPTIONS}multi_starts_nodes_through_manage_py_with_files_in_the_working_directory",
    ),
    fact(
        "2.5.0",
        "the age of results may be an int",
        f"{DB_API}expired_results_are_found_and_deleted",
        "unit/test_conf.py::test_ages_are_timedeltas_seconds_or_never",
    ),
    fact("2.5.1", "USE_I18N causes no recursive import", f"{API}utils_loads_no_translation"),
    fact(
        "2.5.1",
        "CELERY_DB_REUSE_MAX is obeyed",
        f"{CONNECTIONS}connections_are_closed_every_so_many_tasks_if_the_project_says_so",
    ),
    fact(
        "2.5.1",
        "djcelerymon runs without DEBUG unless DJCELERYMON_DEBUG says so",
        f"{MON}debug_is_off_unless_the_environment_says_otherwise",
    ),
    fact(
        "2.5.1",
        "greenlets do not trip Django's check of threads",
        f"{WORKER}greenlets_run_tasks_side_by_side_and_end_warm",
        reason="The thread check under eventlet and gevent needs no patch",
    ),
    fact("2.5.2", "the list of periodic tasks shows enabled", f"{LIST}enabled_tasks_come_first_then_by_name"),
    fact(
        "2.5.2",
        "columns of the task list escape HTML",
        f"{TASKS}what_a_task_sent_is_escaped_wherever_it_is_shown",
        "unit/test_admin_utils.py::test_fixedwidth_escapes_the_value_in_text_and_tooltip",
    ),
    fact(
        "2.5.2",
        "a periodic task needs one schedule and only one",
        "db/test_schedule_models.py::test_exactly_one_schedule_must_be_set",
        f"{FORMS}a_schedule_must_be_set_and_only_one",
    ),
    fact("2.5.2", "eager tasks do not close the connection", f"{DB}an_eager_task_leaves_the_connection_open"),
    fact(
        "2.5.2",
        "djcelerymon works as a command",
        "integration/test_mon.py::test_manage_py_serves_the_project_and_takes_its_snapshots",
    ),
    fact(
        "2.5.4",
        "entries keep queue, exchange and routing_key",
        f"{ENTRIES}entries_become_rows_with_all_that_has_a_column",
        f"{BEAT}entries_carry_the_options_of_the_row",
    ),
    fact(
        "2.5.5",
        "task modules of INSTALLED_APPS are imported in the worker",
        f"{LOADERS}autodiscovery_without_arguments_finds_the_tasks_of_installed_apps",
    ),
    fact(
        "3.0.0",
        "django-picklefield is not needed; stored values are not copied",
        reason="django-picklefield is needed again",
    ),
    fact(
        "3.0.0",
        "manage.py celery runs sub-commands; the old commands still work",
        f"{OPTIONS}umbrella_without_a_sub_command_shows_them_and_is_64",
        f"{WORKER}what_celery_dropped_is_accepted_after_the_sub_command",
        f"{HERE}every_command_of_django_celery_is_there",
    ),
    fact("3.0.0", "disabling a task resets its last run", f"{BEAT}disabling_a_task_forgets_its_last_run"),
    fact(
        "3.0.0",
        "sync tries again what the database refused",
        f"{BEAT}what_was_sent_and_could_not_be_marked_is_marked_later_and_not_sent_again",
        f"{DB}runs_that_could_not_be_written_are_written_by_the_next_sync",
    ),
    fact("3.0.0", "results keep the ids of child tasks", f"{RESULTS}children_are_kept"),
    fact(
        "3.0.1",
        "the ETA of a task state is an instant in UTC",
        f"{CAMERA}times_are_right_with_use_tz_on_and_off",
        "db/test_camera_writer.py::test_times_read_back_are_the_times_written",
    ),
    fact(
        "3.0.1",
        "crontabs have day_of_month and month_of_year; results have meta",
        f"{HERE}columns_that_came_later_have_the_defaults_that_the_history_names",
    ),
    fact("3.0.4", "CELERY_ENABLE_UTC is off on Django before 1.4", reason="CELERY_ENABLE_UTC on Django before 1.4"),
    fact(
        "3.0.4",
        "a later event without arguments does not erase them",
        f"{CAMERA}a_later_event_without_arguments_does_not_erase_them",
    ),
    fact(
        "3.0.4",
        "respect_language and respects_language",
        f"{API}a_block_runs_in_a_language_and_gives_the_old_one_back",
        f"{API}a_task_runs_in_the_language_it_is_given_and_never_sees_it",
    ),
    fact("3.0.6", "naive datetimes are in UTC", f"{API}values_are_aware_or_naive_as_use_tz_says"),
    fact(
        "3.0.6",
        "a fork leaves the connections of the parent usable",
        f"{CONNECTIONS}a_forked_process_never_uses_its_parents_connection",
        reason="are neither used nor closed in a forked process",
    ),
    fact(
        "3.0.9",
        "drivers without fileno are no problem",
        f"{CONNECTIONS}a_forked_process_never_uses_its_parents_connection",
        reason="are neither used nor closed in a forked process",
    ),
    fact("3.0.9", "closing a closed connection raises nothing", f"{DB}closing_a_closed_connection_raises_nothing"),
    fact("3.0.9", "the test runner that stores results", f"{RUNNER}a_result_has_the_columns_that_a_worker_writes"),
    fact("3.0.9", "after the upgrade last_run_at should be NULL", reason="Set last_run_at to NULL after the upgrade"),
    fact(
        "3.0.10",
        "the form lists tasks of CELERY_IMPORTS and CELERY_INCLUDE",
        f"{FORMS}task_modules_are_imported_before_the_choices_are_listed",
    ),
    fact("3.0.10", "DEBUG is warned of once per worker", f"{LOADERS}debug_is_warned_of_once_a_worker_is_ready"),
    fact("3.0.10", "the form lists no celery.* tasks", f"{FORMS}celery_s_own_tasks_are_no_choice"),
    fact(
        "3.0.17",
        "celeryd_multi works with --workdir",
        f"{WORKER}multi_starts_restarts_and_stops_nodes_with_its_settings",
        f"{WORKER}detached_worker_has_a_pid_file_and_stops_on_sigterm",
    ),
    fact("3.0.17", "without USE_TZ dates are naive local time", f"{API}values_are_aware_or_naive_as_use_tz_says"),
    fact("3.0.17", "aware times are not converted twice", f"{API}values_are_aware_or_naive_as_use_tz_says"),
    fact(
        "3.0.17", "tracebacks are monospaced, with their line breaks", f"{HERE}tracebacks_are_shown_as_they_are_written"
    ),
    fact(
        "3.0.17",
        "a task disabled for wrong JSON is logged",
        f"{BEAT}one_broken_row_does_not_stop_the_others_and_says_what_is_wrong",
        reason="A task with broken JSON was disabled",
    ),
    fact(
        "3.0.17",
        "marking and deleting results is one transaction",
        "db/test_retention.py::test_each_batch_is_committed_by_itself_and_holds_no_lock_afterwards",
        reason="It deletes in batches, each a transaction of its own",
    ),
    fact(
        "3.0.21",
        "the cache backend works with Django's caches",
        "db/test_cache_backend.py::test_results_are_stored_and_fetched",
    ),
    fact(
        "3.0.23",
        "the form validates args and kwargs as JSON",
        f"{FORMS}text_that_is_no_json_is_refused_with_line_and_column",
        f"{FORMS}json_that_is_no_argument_list_is_refused",
    ),
    fact("3.0.23", "intervals and crontabs have an order", f"{HERE}schedules_have_a_natural_order"),
    fact("3.0.23", "change_view takes extra_context", f"{TASKS}a_caller_s_own_title_is_kept"),
    fact(
        "3.0.23",
        "the storing test runner uses aware times",
        f"{RUNNER}a_result_has_the_columns_that_a_worker_writes",
        "db/test_task_rows.py::test_instants_are_the_same_whatever_the_zone_and_use_tz",
    ),
    fact("3.1.0", "importing djcelery does not set the loader", f"{HERE}importing_the_package_sets_no_loader"),
    fact(
        "3.1.0", "celeryctl, celeryev and camqadm are gone", reason="celeryctl, celeryev and camqadm were gone in 3.1"
    ),
    fact(
        "3.1.0",
        "CELERYBEAT_SCHEDULER may name a subclass",
        f"{HERE}a_subclass_of_the_scheduler_is_one_on_the_database",
        f"{LIST}there_is_no_warning_if_beat_reads_the_database",
    ),
    fact("3.1.1", "the camera cleans up if an age is None", f"{CAMERA}an_expiry_of_none_keeps_rows_for_ever"),
    fact(
        "3.1.1",
        "a task whose schedule row is gone does not stop beat",
        f"{BEAT}a_row_whose_schedule_was_removed_is_held_out",
        reason="A task whose schedule row is gone ended beat",
    ),
    fact("3.1.1", "the eager settings are set on Celery's app", f"{RUNNER}set_eager_can_be_undone"),
    fact("3.1.1", "the storing runner writes TaskMeta", f"{RUNNER}a_result_has_the_columns_that_a_worker_writes"),
    fact(
        "3.1.1",
        "eta and expires of events keep their zone",
        "db/test_camera_writer.py::test_times_read_back_are_the_times_written",
        f"{CAMERA}times_are_right_with_use_tz_on_and_off",
    ),
    fact(
        "3.1.1",
        "an app that cannot be imported is a warning",
        f"{LOADERS}find_related_module_tells_missing_from_broken",
        reason="autodiscover() and find_related_module() raise as before",
    ),
    fact(
        "3.1.9",
        "no transaction is managed by hand; each write commits",
        f"{RESULTS}storing_a_result_is_one_statement",
        "db/test_retention.py::test_each_batch_is_committed_by_itself_and_holds_no_lock_afterwards",
    ),
    fact("3.1.9", "the celery command validates models", reason="Model validation of the celery command"),
    fact("3.1.9", "celery worker extra is a usage error", f"{OPTIONS}wrong_lines_end_with_status_2"),
    fact(
        "3.1.9",
        "the database backend works on Python 3",
        f"{RESULTS}json_values_come_back_as_they_were",
        "legacy/test_values.py::test_a_result_of_many_types_comes_back_whole",
    ),
    fact("3.1.10", "forms declare their fields", f"{SCHEDULE}every_column_that_a_person_may_edit_is_on_the_page"),
    fact("3.1.10", "get_query_set is an alias of get_queryset", f"{DB_API}managers_have_their_legacy_names"),
    fact(
        "3.1.10",
        "the test runners derive from DiscoverRunner",
        f"{SURFACE}a_class_is_there_with_its_base_and_can_be_derived_from",
    ),
    fact(
        "3.1.15",
        "commands keep Django's --no-color and have streams",
        f"{HERE}every_command_has_streams_and_one_no_color",
    ),
    fact(
        "3.1.15", "is_alive() is right with USE_TZ", f"{DB_API}a_heartbeat_is_the_same_instant_with_and_without_use_tz"
    ),
    fact("3.1.15", "commands run no validation of models", reason="Model validation of the celery command"),
    fact(
        "3.1.16",
        "commands do not hang with djcelery in INSTALLED_APPS",
        f"{WORKER}worker_answers_then_ends_warm_when_its_task_has_finished",
        f"{OTHERS}camqadm_runs_one_command_or_a_script",
    ),
    fact("3.1.17", "there are migrations for Django", "migrations/test_drift.py::test_released_names_never_change"),
    fact("3.1.17", "setup_loader works on Python 3", f"{LOADERS}setup_loader_keeps_a_loader_that_is_named_already"),
    fact(
        "3.2.0",
        "makemigrations finds no changes",
        "migrations/test_drift.py::test_makemigrations_finds_nothing_to_do",
        "migrations/test_drift.py::test_no_language_or_time_zone_setting_makes_a_migration",
    ),
    fact("3.2.0", "purging removes related objects", reason="No model of djcelery refers to a task state"),
    fact(
        "3.2.0",
        "update_or_create returns the row and whether it is new",
        f"{DB_API}update_or_create_returns_the_row_and_whether_it_is_new",
    ),
    fact(
        "3.2.0",
        "beat and commands work on the Django of today",
        "integration/test_starting.py::test_the_legacy_way_runs_tasks_schedule_and_monitor",
        f"{OPTIONS}legacy_line_becomes_the_line_of_today",
    ),
    fact("3.2.0", "breadcrumbs have the name of the app", f"{DB}breadcrumbs_of_lists_have_the_name_of_the_app"),
    fact(
        "3.2.0",
        "camera and admin convert times to the project's zone",
        f"{CAMERA}times_are_right_with_use_tz_on_and_off",
        f"{TASKS}the_eta_is_told_in_the_project_s_time_zone",
    ),
    fact(
        "3.2.0",
        "create_or_update_task() and delete_task()",
        f"{BEAT}create_or_update_task_leaves_alone_what_it_is_not_given",
        f"{BEAT}delete_task",
    ),
    fact(
        "3.2.0",
        "the list of periodic tasks: columns, search, order, and actions that beat notices",
        f"{LIST}enabled_tasks_come_first_then_by_name",
        f"{LIST}the_list_finds_tasks_by_name_and_task",
        f"{SCHEDULE}tasks_are_switched_and_beat_is_told_of_each",
        reason="The list of periodic tasks had the columns",
    ),
    fact(
        "3.2.1",
        "beat closes a broken connection",
        "integration/test_connections.py::test_beat_and_camera_replace_a_connection_that_the_server_ended",
    ),
    fact(
        "3.2.2",
        "a new kind of schedule clears the other",
        f"{BEAT}switching_an_entry_from_interval_to_crontab_clears_the_other",
    ),
    fact("3.3.0", "periodic tasks have natural keys", f"{DB_API}a_periodic_task_is_dumped_and_loaded_by_its_name"),
    fact(
        "3.3.1",
        "the level of isolation is read on new MySQL",
        f"{RESULTS}polling_inside_a_repeatable_read_transaction_is_warned_of",
    ),
    fact(
        "3.3.0",
        "columns of the admin are safe strings",
        f"{TASKS}a_task_s_state_has_its_legacy_colour",
        "unit/test_admin_utils.py::test_fixedwidth_writes_the_legacy_markup",
    ),
    fact("3.3.1", "max_interval falls back on None alone", f"{BEAT}a_falsy_max_interval_is_five_seconds"),
    fact("3.3.1", "requires Celery 3.1 and Django 1.11 or 2", reason="Requirements of each release"),
)


@pytest.mark.parametrize("said", FACTS, ids=lambda said: f"{said.version} {said.text}")
def test_a_statement_has_a_test_or_a_reason(said):
    assert said.proof or said.reason
    assert named.missing(said.proof) == []
    assert said.reason in named.page_text().replace("*", "")


def test_no_statement_is_listed_twice():
    seen = [(said.version, said.text) for said in FACTS]
    assert len(seen) == len(set(seen))


# rules of the history that no other test is about

COMMANDS = (
    *("camqadm", "celery", "celerybeat", "celerycam", "celeryctl", "celeryd", "celeryd_detach", "celeryd_multi"),
    *("celeryev", "celerymon", "djcelerymon"),
)


def test_every_command_of_django_celery_is_there():
    ours = {name for name, app in get_commands().items() if app == "djcelery"}
    assert set(COMMANDS) <= ours


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_streams_and_one_no_color(name, monkeypatch):
    monkeypatch.setenv("CELERY_LOADER", djcelery.LOADER)
    command = load_command_class("djcelery", name)
    assert command.stdout is not None
    assert command.stderr is not None
    options = command.create_parser("manage.py", name).parse_args(["--no-color"])
    assert options.no_color is True


def test_setup_loader_needs_no_models():
    out = run_python(
        """
        import sys, djcelery; djcelery.setup_loader(); djcelery.setup_loader()
        import celery
        print(type(celery.Celery('x').loader).__module__, 'djcelery.models' in sys.modules)
        """
    )
    assert out == "djcelery.loaders False"


def test_importing_the_package_sets_no_loader():
    assert run_python("import os, djcelery; print('CELERY_LOADER' in os.environ)") == "False"


def test_the_database_backend_can_be_imported_first():
    out = run_python("from djcelery.backends.database import DatabaseBackend; print(DatabaseBackend.__name__)")
    assert out == "DatabaseBackend"


def test_an_embedded_beat_forgets_the_connections_of_its_parent():
    receivers = [reference() for _, reference in signals.beat_embedded_init.receivers if callable(reference)]
    assert db.after_fork in receivers


def test_tracebacks_are_shown_as_they_are_written():
    text = Path(finders.find("djcelery/style.css")).read_text()
    selector, _, rules = text.partition("{")
    assert ".form-row.field-traceback p" in selector
    assert "monospace" in rules.partition("}")[0]
    assert "white-space: pre-wrap" in rules.partition("}")[0]


def test_schedules_have_a_natural_order():
    assert models.IntervalSchedule._meta.ordering == ("period", "every")
    fields = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute")
    assert models.CrontabSchedule._meta.ordering == fields


def test_columns_that_came_later_have_the_defaults_that_the_history_names():
    assert (models.CrontabSchedule().day_of_month, models.CrontabSchedule().month_of_year) == ("*", "*")
    assert models.PeriodicTask().description == ""
    assert models.TaskMeta().meta is None
    assert models.TaskMeta().hidden is models.TaskSetMeta().hidden is False


class OwnScheduler(DatabaseScheduler):
    """A project's own."""


def test_a_subclass_of_the_scheduler_is_one_on_the_database():
    assert is_database_scheduler(f"{__name__}.OwnScheduler")
    assert is_database_scheduler(f"{__name__}:OwnScheduler")
    assert not is_database_scheduler(f"{__name__}:Fact")
