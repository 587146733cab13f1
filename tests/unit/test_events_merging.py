"""How news of one task become one, and what counts in the history."""

from __future__ import annotations

import copy
from collections import Counter
from datetime import datetime, timezone
from itertools import combinations, pairwise, permutations

import pytest
from celery import states
from hypothesis import given
from hypothesis import strategies as st

from djcelery.snapshot import intake
from djcelery.snapshot.merging import LOST, STORED, before, increments, join, join_worker, tries
from djcelery.snapshot.news import TaskNews, WorkerNews
from tests.strategies import quick

NOW = 1_790_000_000.0
OUTCOMES = ("result", "exception", "traceback")
TEXTS = ("args", "kwargs", "expires", "root_id", "parent_id", "client", "queue", "routing_key", "progress")
KINDS = {
    "PENDING": "sent",
    "RECEIVED": "received",
    "STARTED": "started",
    "SUCCESS": "succeeded",
    "FAILURE": "failed",
    "RETRY": "retried",
    "REVOKED": "revoked",
    "REJECTED": "rejected",
}
FINAL = ("SUCCESS", "FAILURE", "REVOKED", "REJECTED")


def told(subject, at, **fields):
    """What an event says that came *at* so many seconds."""
    event = {"type": f"task-{subject}", "uuid": "t1", "hostname": "w1", "timestamp": NOW + at, "pid": 1, **fields}
    if subject in ("received", "sent"):
        event = {"name": "shop.add", "args": "()", "kwargs": "{}", "retries": 0, **event}
    news = intake.read(event, NOW + 1000)
    assert isinstance(news, TaskNews)
    return news


def in_state(state, at):
    return told(KINDS[state], at)


def as_read(merged):
    """What a camera knows that reads the row of *merged*: of wide columns only whether they have a value."""
    row = copy.copy(merged)
    for name in TEXTS:
        if getattr(row, name) is not None:
            setattr(row, name, STORED)
    if any(getattr(row, name) is not None for name in OUTCOMES):
        row.result = row.exception = row.traceback = STORED
    row.retries, row.retries_at = tries(merged), merged.timestamp
    row.is_retry_owed = merged.state == "RECEIVED" and tries(merged) > 0
    row.first_retries, row.unplaced_retries, row.seen_retries = None, (), 0
    row.first_received_at, row.progress_at, row.runtime = None, 0.0, None
    return row


class Table:
    """One row, and the history, without a database."""

    def __init__(self):
        self.row = None
        self.counts = Counter()
        self.writes = 0

    def write(self, news):
        if self.row is None:
            self.row, stored = copy.copy(news), None
        else:
            read = as_read(self.row)
            stored = before(read)
            known = join(read, news)
            for name in (*TEXTS, *OUTCOMES):
                if getattr(known, name) is STORED:
                    setattr(known, name, getattr(self.row, name))
            known.runtime = known.runtime if known.runtime is not None else self.row.runtime
            self.row = known
        for increment in increments(stored, self.row):
            self.counts[increment.state] += increment.times

    def shutters(self, *batches):
        for batch in batches:
            news = copy.copy(batch[0])
            for one in batch[1:]:
                join(news, one)
            self.write(news)
        return self


def shown(table):
    names = ("state", "timestamp", "is_final", "worker", "name", "eta", "received_at", "started_at", "finished_at")
    return {name: getattr(table.row, name) for name in (*names, *OUTCOMES)} | {"retries": tries(table.row)}


# -- the state rule ----------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [*KINDS, LOST])
@pytest.mark.parametrize("state", KINDS)
@pytest.mark.parametrize("later", [True, False])
def test_which_state_replaces_which(stored, state, later):
    known = in_state("STARTED" if stored == LOST else stored, 10)
    known.state = stored
    news = in_state(state, 20 if later else 5)
    known = as_read(known)
    join(known, news)
    if stored == "SUCCESS":
        wins = False
    elif state in FINAL:
        wins = stored not in FINAL or state == "SUCCESS" or later
    elif stored in FINAL or state == "PENDING":
        # A second task-sent makes no difference.
        wins = False
    elif stored == "PENDING":
        wins = True
    elif (stored, state) == ("STARTED", "RECEIVED"):
        wins = False
    elif (stored, state) == ("RECEIVED", "STARTED"):
        wins = True
    else:
        wins = later
    assert (known.state, known.timestamp) == ((state, news.timestamp) if wins else (stored, NOW + 10))


@pytest.mark.parametrize("state", KINDS)
def test_the_same_event_again_changes_nothing(state):
    table = Table().shutters([in_state(state, 1)])
    first, counts = shown(table), Counter(table.counts)
    table.shutters([in_state(state, 1)], [in_state(state, 1), in_state(state, 1)])
    assert shown(table) == first
    assert table.counts == counts


def test_a_later_success_counts_more_than_a_failure_and_never_less():
    table = Table().shutters([told("failed", 1, exception="E()")], [told("succeeded", 2, result="1", runtime=1)])
    assert (table.row.state, table.row.result, table.row.exception) == ("SUCCESS", "1", None)
    table.shutters([told("failed", 3, exception="E()")])
    assert (table.row.state, table.row.result, table.row.exception) == ("SUCCESS", "1", None)


@pytest.mark.parametrize("late", ["received", "started", "retried", "sent", "cancelled", "progress"])
def test_a_late_event_neither_reopens_a_finished_task_nor_wipes_its_result(late):
    table = Table().shutters([told("succeeded", 5, result="'ok'", runtime=0.5)], [told(late, 9, exception="late")])
    assert (table.row.state, table.row.result, table.row.runtime) == ("SUCCESS", "'ok'", 0.5)
    assert table.row.finished_at == NOW + 5


def test_a_late_event_fills_what_is_not_known():
    table = Table().shutters([told("succeeded", 5, result="1", runtime=1)])
    table.shutters([told("received", 1, eta="2030-01-01T00:00:00")], [told("started", 2)], [told("sent", 0, queue="q")])
    row = table.row
    assert (row.name, row.args, row.queue, row.eta.year) == ("shop.add", "()", "q", 2030)
    assert (row.sent_at, row.received_at, row.started_at) == (NOW, NOW + 1, NOW + 2)


def test_a_started_task_is_not_received_again_in_the_same_try():
    table = Table().shutters([told("received", 1)], [told("started", 2)], [told("received", 3, hostname="w2")])
    assert (table.row.state, table.row.worker) == ("STARTED", "w1")
    table.shutters([told("started", 4, hostname="w2")])
    assert (table.row.state, table.row.worker, table.row.started_at) == ("STARTED", "w2", NOW + 4)


def test_a_requeued_task_begins_anew_and_a_rejected_one_has_ended():
    begun = [told("received", 1), told("started", 2)]
    table = Table().shutters(begun, [told("rejected", 3, requeue=True)])
    assert (table.row.state, table.row.is_final) == ("REJECTED", False)
    table.shutters([told("received", 4, hostname="w2")])
    assert (table.row.state, table.row.worker) == ("RECEIVED", "w2")
    table.shutters([told("started", 5), told("succeeded", 6, result="1", runtime=1)])
    assert table.counts == {"RECEIVED": 1, "SUCCESS": 1}
    assert Table().shutters(begun, [told("rejected", 3, requeue=False)]).counts == {"RECEIVED": 1, "REJECTED": 1}


def test_whatever_is_new_of_a_lost_task_replaces_that_and_nothing_old_does():
    table = Table().shutters([told("received", 1), told("started", 2)])
    table.row.state = LOST
    table.shutters([told("received", 1)], [told("started", 2)], [told("received", 1), told("started", 2)])
    assert table.row.state == LOST
    for news in (told("received", 3), told("started", 3), told("retried", 3), told("succeeded", 1.5, result="1")):
        again = copy.deepcopy(table).shutters([news])
        assert again.row.state == news.state


def test_an_unknown_state_of_an_old_row_is_one_of_a_task_that_runs():
    row = as_read(told("started", 5))
    row.state = "PROGRESS"
    assert join(copy.copy(row), told("received", 1)).state == "PROGRESS"
    assert join(copy.copy(row), told("retried", 6)).state == "RETRY"
    assert join(copy.copy(row), told("failed", 6)).state == "FAILURE"


def test_success_leaves_no_trace_of_the_retry_before():
    table = Table().shutters(
        [told("received", 1), told("started", 2), told("retried", 3, exception="E()", traceback="tb")],
        [told("received", 4, retries=1), told("started", 5)],
    )
    assert (table.row.state, table.row.exception, table.row.traceback) == ("STARTED", "E()", "tb")
    table.shutters([told("succeeded", 6, result="1", runtime=1)])
    assert (table.row.exception, table.row.traceback, table.row.result) == (None, None, "1")


def test_a_name_that_never_came_counts_as_unknown_and_once():
    table = Table().shutters([told("failed", 1, exception="E()")], [told("failed", 1, exception="E()")])
    assert table.row.name is None
    assert table.counts == {"FAILURE": 1}
    (increment,) = increments(None, told("failed", 1))
    assert increment.name == ""


def test_progress_is_the_latest_and_stays_with_the_end():
    table = Table().shutters([told("started", 1)], [told("progress", 3, n=2), told("progress", 2, n=1)])
    assert '"n": 2' in table.row.progress
    assert table.row.state == "STARTED"
    table.shutters([told("succeeded", 5, result="1")], [told("progress", 4, n=9)])
    assert '"n": 2' in table.row.progress


def test_flags_add_up():
    one, other = told("received", 1, args="\x00"), told("failed", 2, exception="\x00")
    assert join(one, other).flags == ("args_escaped", "exception_escaped")
    assert join(one, other).flags == ("args_escaped", "exception_escaped")


# -- retries -----------------------------------------------------------------------------------


def life(failures, end="succeeded", is_early=False, is_sent=False):
    """The events of a task that is retried so often, and then ends.

    *is_early*: each next try is received before the retry is told, as is usual, since tasks send it while they run.
    *is_sent*: the sending of each next try is told, too.
    """
    events, at = [told("sent", 0)], 1
    for number in range(failures + 1):
        events += [
            told("received", at, retries=number, eta=None if not number else "2030-01-01"),
            told("started", at + 1),
        ]
        at += 3
        if number < failures:
            told_at = at + 0.5 if is_early else at - 1
            retried = told("retried", told_at, exception="Retry()", traceback=str(number))
            events.append(retried)
            if is_sent:
                events.append(told("sent", at - 1.5, retries=number + 1, eta="2030-01-01"))
    if is_early or is_sent:
        events.sort(key=lambda news: news.timestamp)
    return [*events, told(end, at, **({"result": "1", "runtime": 0.5} if end == "succeeded" else {}))]


@pytest.mark.parametrize("failures", [0, 1, 3])
@pytest.mark.parametrize("end", ["succeeded", "failed", "revoked"])
@pytest.mark.parametrize("is_early", [False, True])
@pytest.mark.parametrize("is_sent", [False, True])
def test_retries_are_counted_wherever_shutters_fall(failures, end, is_early, is_sent):
    events = life(failures, end, is_early, is_sent)
    wanted = Table().shutters(events)
    assert tries(wanted.row) == failures
    assert wanted.counts["RETRY"] == failures
    for number in (1, 2):
        for cuts in combinations(range(1, len(events)), number):
            edges = [0, *cuts, len(events)]
            parts = [events[low:high] for low, high in pairwise(edges)]
            table = Table().shutters(*parts)
            assert shown(table) == shown(wanted), cuts
            assert table.counts == wanted.counts, cuts


def test_a_retry_whose_next_reception_was_missed_counts():
    table = Table().shutters([told("received", 1)], [told("started", 2)], [told("retried", 3)], [told("started", 9)])
    table.shutters([told("retried", 10)], [told("retried", 10), told("retried", 3)])
    assert (tries(table.row), table.counts["RETRY"]) == (2, 2)


def test_a_reception_says_how_many_retries_were_missed():
    table = Table().shutters([told("received", 1)], [told("received", 100, retries=4)])
    assert (tries(table.row), table.counts["RETRY"]) == (4, 4)
    # Redelivered, long after.
    table.shutters([told("retried", 50)], [told("received", 60, retries=2)])
    assert (tries(table.row), table.counts["RETRY"]) == (4, 4)


def test_retries_of_before_the_camera_came_do_not_count():
    table = Table().shutters([told("received", 1, retries=7), told("started", 2)])
    assert (tries(table.row), table.counts["RETRY"]) == (7, 0)
    table.shutters([told("retried", 3), told("received", 4, retries=8)])
    assert (tries(table.row), table.counts["RETRY"]) == (8, 1)
    assert Table().shutters([told("retried", 3), told("received", 4, retries=8)]).counts["RETRY"] == 1


def test_retries_that_wait_for_their_number_are_bounded():
    news = told("retried", 0)
    for at in range(1, 1000):
        join(news, told("retried", at))
    assert len(news.unplaced_retries) == 100
    assert tries(join(news, told("received", 2000, retries=1000))) == 1000


# -- disorder, repetition ----------------------------------------------------------------------


def test_four_events_in_any_order_make_the_same_row_and_the_same_counts():
    events = [
        told("sent", 0, queue="q"),
        told("received", 1),
        told("started", 2),
        told("succeeded", 3, result="1", runtime=0.5),
    ]
    wanted = Table().shutters(events)
    assert wanted.counts == {"RECEIVED": 1, "SUCCESS": 1}
    for order in permutations(events):
        for table in (Table().shutters(list(order)), Table().shutters(*([one] for one in order))):
            assert shown(table) == shown(wanted), [news.event for news in order]
            assert table.counts == wanted.counts


@quick
@given(st.data())
def test_whatever_is_delivered_again_counts_nothing_twice(data):
    """As after a crash: what was written, but not acknowledged, comes again, and then the rest."""
    ends = ["succeeded", "failed", "revoked", "started"]
    events = life(data.draw(st.integers(0, 3)), data.draw(st.sampled_from(ends)), data.draw(st.booleans()))
    wanted = Table().shutters(events)
    table, position = Table(), 0
    while position < len(events):
        end = data.draw(st.integers(position + 1, len(events)))
        table.shutters(events[position:end])
        # How far the broker goes back.
        position = data.draw(st.integers(max(0, position), end)) if data.draw(st.booleans()) else end
    again = data.draw(st.integers(0, len(events) - 1))
    table.shutters(events[again:])
    assert shown(table) == shown(wanted)
    assert table.counts == wanted.counts


@quick
@given(st.lists(st.sampled_from([*KINDS.values(), "cancelled", "progress"]), min_size=1, max_size=9), st.data())
def test_no_sequence_of_events_is_more_than_one_end_and_one_reception(kinds, data):
    table = Table()
    for kind in kinds:
        table.shutters([told(kind, data.draw(st.integers(0, 20)), retries=data.draw(st.integers(0, 3)))])
    assert sum(table.counts[state] for state in FINAL) <= 1
    assert table.counts["RECEIVED"] <= 1
    assert table.counts["RETRY"] <= tries(table.row)
    counts = Counter(table.counts)
    table.shutters([copy.copy(table.row)])
    assert table.counts == counts


# -- durations ---------------------------------------------------------------------------------


def the_end(*news):
    merged = copy.copy(news[0])
    for one in news[1:]:
        join(merged, one)
    return increments(None, merged)[-1]


def test_a_task_waits_from_when_it_could_have_begun():
    end = told("succeeded", 30, result="1", runtime=4)
    assert the_end(told("received", 10), told("started", 12), end).waiting == 2
    assert the_end(told("sent", 5), told("received", 10), told("started", 12), end).waiting == 7
    eta = datetime.fromtimestamp(NOW + 11, timezone.utc).isoformat()
    assert the_end(told("sent", 5, eta=eta), told("received", 10), told("started", 12), end).waiting == 1
    past = datetime.fromtimestamp(NOW - 500, timezone.utc).isoformat()
    assert the_end(told("sent", 5, eta=past), told("received", 10), told("started", 12), end).waiting == 7
    # A retry waits since its own reception, or its own ETA.
    again = [
        told("sent", 0),
        told("received", 1),
        told("started", 2),
        told("retried", 3),
        told("received", 9, retries=1),
    ]
    assert the_end(*again, told("started", 12), end).waiting == 3
    # Clocks of two machines.
    assert the_end(told("sent", 13), told("received", 10), told("started", 12), end).waiting == 0
    assert the_end(told("started", 12), end).waiting is None
    assert the_end(told("received", 12), end).waiting is None


def test_how_long_a_task_ran_is_what_the_worker_says_else_what_the_times_say():
    begun = (told("received", 10), told("started", 12))
    assert the_end(*begun, told("succeeded", 30, result="1", runtime=4)).runtime == 4
    assert the_end(*begun, told("succeeded", 30, result="1", runtime=None)).runtime == 18
    assert the_end(*begun, told("failed", 30)).runtime == 18
    assert the_end(*begun, told("revoked", 30)).runtime is None
    assert the_end(told("failed", 30)).runtime is None


def test_each_increment_has_the_time_of_its_event():
    found = increments(None, Table().shutters(life(1)).row)
    assert [(each.state, each.at - NOW, each.name) for each in found] == [
        ("RECEIVED", 1, "shop.add"),
        ("RETRY", 4, "shop.add"),
        ("SUCCESS", 7, "shop.add"),
    ]


def test_a_stale_copy_is_not_changed():
    known, news = told("received", 1), told("started", 2)
    unchanged = copy.copy(news)
    join(known, news)
    assert news == unchanged


# -- workers -----------------------------------------------------------------------------------


def test_of_a_worker_the_latest_counts_and_signs_of_life_only_grow():
    one = WorkerNews("w", "heartbeat", 10, 10, pid=1, last_heartbeat=10, processed=5, active=1, missed=0)
    other = WorkerNews("w", "offline", 12, 12, pid=1, offline_at=12, processed=6)
    known = join_worker(copy.copy(one), other)
    assert (known.event, known.processed, known.active, known.last_heartbeat, known.offline_at) == (
        "offline",
        6,
        1,
        10,
        12,
    )
    known = join_worker(copy.copy(other), one)
    assert (known.event, known.processed, known.active, known.last_heartbeat, known.offline_at) == (
        "offline",
        6,
        1,
        10,
        12,
    )


def test_celerys_states_are_all_known():
    assert set(KINDS) == {*states.ALL_STATES, states.REJECTED}
