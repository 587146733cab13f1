"""Pauses between looks, by a clock that the test turns; no database."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from celery import states
from celery.exceptions import TimeoutError

from djcelery.backends import waiting
from djcelery.backends.waiting import Pauses, WaitingMixin


class Clock:
    """Stands in for the module ``time``: sleeping is what lets it go on."""

    def __init__(self):
        self.now = 100.0
        self.pauses = []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        assert seconds > 0
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(waiting, "time", made)
    return made


class Backend(WaitingMixin):
    """Results that become ready at the instants given, in seconds from now."""

    READY_STATES = states.READY_STATES

    def __init__(self, clock, **ready_at):
        self.clock = clock
        self.ready_at = {task_id: clock.now + seconds for task_id, seconds in ready_at.items()}
        self.states = dict.fromkeys(ready_at, "SUCCESS")
        self.looks = []
        self.first_pauses = 0
        self._cache = {}

    def _ensure_not_eager(self):
        pass

    def is_cached(self, task_id):
        return task_id in self._cache

    def get_task_meta(self, task_id):
        self.looks.append([task_id])
        ready = self.clock.now >= self.ready_at[task_id]
        return {"task_id": task_id, "status": self.states[task_id] if ready else "STARTED"}

    def get_metas(self, task_ids):
        looks, self.looks = self.looks, []
        metas = [self.get_task_meta(task_id) for task_id in task_ids]
        self.looks = [*looks, task_ids]
        return metas

    def on_first_pause(self):
        self.first_pauses += 1


def test_pauses_are_a_tenth_of_the_time_waited_between_5_ms_and_the_interval(clock):
    pauses = Pauses(None, 0.5)
    for _ in range(100):
        waited = clock.now - 100
        pauses.wait()
        assert clock.pauses[-1] == pytest.approx(min(max(0.005, waited / 10), 0.5))
    assert clock.pauses[0] == 0.005
    assert clock.pauses[-1] == 0.5


@pytest.mark.parametrize("seconds", [0.001, 0.04, 0.3, 2, 4.9])
def test_a_result_is_seen_late_by_no_more_than_a_tenth_of_its_time(clock, seconds):
    backend = Backend(clock, a=seconds)
    backend.wait_for("a")
    assert clock.now - 100 - seconds <= max(0.005, seconds / 10) + 1e-9


@pytest.mark.parametrize(("seconds", "most"), [(0.05, 12), (1, 45), (5, 62), (60, 175), (600, 1255)])
def test_waiting_is_no_storm_of_statements(clock, seconds, most):
    backend = Backend(clock, a=seconds)
    backend.wait_for("a")
    assert len(backend.looks) <= most


def test_the_interval_is_the_longest_pause(clock):
    backend = Backend(clock, a=20)
    backend.wait_for("a", interval=0.1)
    assert max(clock.pauses) == pytest.approx(0.1)


def test_a_long_interval_does_not_make_quick_tasks_slow(clock):
    Backend(clock, a=0.02).wait_for("a", interval=30)
    assert clock.now - 100 < 0.03


@pytest.mark.parametrize("interval", [0, 0.0001])
def test_an_interval_of_nothing_is_no_storm_either(clock, interval):
    backend = Backend(clock, a=1)
    backend.wait_for("a", interval=interval)
    assert len(backend.looks) <= 202


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_timeout_of_0_looks_once(clock, timeout):
    backend = Backend(clock, a=5)
    with pytest.raises(TimeoutError, match=r"The operation timed out\."):
        backend.wait_for("a", timeout=timeout)
    assert (backend.looks, clock.pauses) == ([["a"]], [])
    assert Backend(clock, a=0).wait_for("a", timeout=timeout)["status"] == "SUCCESS"


@pytest.mark.parametrize("timeout", [0.001, 0.1, 3])
def test_a_timeout_is_kept_to_and_ends_with_a_look(clock, timeout):
    backend = Backend(clock, a=99)
    with pytest.raises(TimeoutError):
        backend.wait_for("a", timeout=timeout)
    assert clock.now - 100 == pytest.approx(timeout)
    assert len(backend.looks) == len(clock.pauses) + 1


def test_a_result_that_comes_with_the_end_of_the_time_is_returned(clock):
    assert Backend(clock, a=3).wait_for("a", timeout=3)["status"] == "SUCCESS"


def test_a_ready_result_is_one_look_without_a_pause(clock):
    backend = Backend(clock, a=0)
    backend.wait_for("a")
    assert (len(backend.looks), clock.pauses, backend.first_pauses) == (1, [], 0)


def test_what_makes_waiting_vain_is_asked_once(clock):
    backend = Backend(clock, a=1)
    backend.wait_for("a")
    assert backend.first_pauses == 1


def test_on_interval_is_called_between_looks_but_not_before_a_success(clock):
    backend, calls = Backend(clock, a=0.012), []
    backend.wait_for("a", on_interval=lambda: calls.append(len(backend.looks)))
    assert calls == [1, 2, 3]
    assert len(backend.looks) == 4


@pytest.mark.parametrize("state", ["FAILURE", "REVOKED"])
def test_a_parents_error_comes_before_that_of_the_task(clock, state):
    backend = Backend(clock, a=0)
    backend.states["a"] = state

    def parent_failed():
        raise KeyError("parent")

    with pytest.raises(KeyError, match="parent"):
        backend.wait_for("a", on_interval=parent_failed)


# many at once


def test_many_results_are_asked_for_together(clock):
    backend = Backend(clock, **{f"t{n:03}": n / 100 for n in range(500)})
    found = dict(backend.get_many(backend.ready_at))
    assert set(found) == set(backend.ready_at)
    assert len(backend.looks) <= 62
    assert len(backend.looks[0]) == 500
    # What is ready is not asked for again.
    assert len(backend.looks[-1]) < 60


def test_each_result_is_given_when_it_is_ready(clock):
    backend, seen = Backend(clock, b=1, a=0, c=0.5), []
    for task_id, _ in backend.get_many(["a", "b", "c"]):
        seen.append((task_id, clock.now - 100))
    assert seen == [("a", 0), ("c", pytest.approx(0.525, abs=0.025)), ("b", pytest.approx(1.05, abs=0.05))]


def test_results_that_are_known_are_not_asked_for(clock):
    backend = Backend(clock, a=0, b=0)
    backend._cache["a"] = {"task_id": "a", "status": "SUCCESS"}
    assert sorted(dict(backend.get_many(["a", "b"]))) == ["a", "b"]
    assert backend.looks == [["b"]]
    assert sorted(dict(backend.get_many(["a", "b"]))) == ["a", "b"]
    assert backend.looks == [["b"]]


@pytest.mark.parametrize("state", ["FAILURE", "REVOKED", "SUCCESS"])
def test_every_ready_state_ends_the_waiting_for_many(clock, state):
    backend, told = Backend(clock, a=0), []
    backend.states["a"] = state
    assert [meta["status"] for _, meta in backend.get_many(["a"], on_message=told.append)] == [state]
    assert [meta["task_id"] for meta in told] == ["a"]


def test_waiting_for_many_ends_with_its_time(clock):
    backend, calls = Backend(clock, a=0, b=99), []
    results = backend.get_many(["a", "b"], timeout=1, on_interval=lambda: calls.append(1))
    assert next(results)[0] == "a"
    with pytest.raises(TimeoutError):
        next(results)
    assert clock.now - 100 == pytest.approx(1)
    assert len(calls) == len(clock.pauses) + 1


def test_waiting_for_many_ends_after_so_many_looks(clock):
    backend = Backend(clock, a=0, b=99)
    assert [task_id for task_id, _ in backend.get_many(["a", "b"], max_iterations=3)] == ["a"]
    assert len(backend.looks) == 3


def test_waiting_for_nothing_looks_for_nothing(clock):
    backend = Backend(clock)
    assert list(backend.get_many([])) == []
    assert backend.looks == []


def test_an_id_that_differs_in_case_alone_is_another_task(clock):
    backend = Backend(clock, a=0)
    backend.get_metas = lambda task_ids: [{"task_id": "A", "status": "SUCCESS"}, {"task_id": "a", "status": "SUCCESS"}]
    assert [task_id for task_id, _ in backend.get_many(["a"])] == ["a"]


def test_waiting_stops_a_thread_by_sleeping_alone():
    """So gevent and eventlet, which replace sleep, let other greenlets run."""
    tree = ast.parse(Path(waiting.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert imported == {"time"}
