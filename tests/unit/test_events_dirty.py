"""What waits to be written: merged, bounded, and given back when it can't be."""

from __future__ import annotations

import threading

import pytest

from djcelery.snapshot import intake
from djcelery.snapshot.clocks import Clock
from djcelery.snapshot.dirty import MAX_WORKERS, Dirty
from djcelery.snapshot.news import Malformed, WorkerNews
from djcelery.snapshot.processes import Processes

NOW = 1_790_000_000.0


def read(kind, task_id="t1", at=0.0, came=None, **fields):
    event = {"type": kind, "hostname": "w1", "timestamp": NOW + at, "pid": 1, **fields}
    if kind.startswith("task"):
        event["uuid"] = task_id
    return intake.read(event, NOW + (at if came is None else came))


def received(task_id, at=0.0, **fields):
    return read("task-received", task_id, at, **{"name": "x", "args": "()", "kwargs": "{}", "retries": 0, **fields})


@pytest.fixture
def dirty():
    return Dirty(100)


def test_events_of_one_task_are_one_record(dirty):
    for news in (received("t1"), read("task-started", at=1), read("task-succeeded", at=2, result="1", runtime=1)):
        assert dirty.add(news)
    assert dirty.waiting == 1
    (task,) = dirty.take(10).tasks
    assert (task.state, task.name, task.result, task.started_at) == ("SUCCESS", "x", "1", NOW + 1)
    assert dirty.take(10).is_empty
    assert dirty.counts.events == 3


def test_a_process_is_as_old_as_the_first_of_what_is_heard_of_it(dirty):
    def first_at():
        (news,) = dirty.take(10).workers
        return news.pid, news.first_at - NOW

    dirty.add(read("task-started", "a", at=1, pid=2))
    dirty.add(read("worker-heartbeat", at=5, pid=2, processed=1))
    dirty.add(read("task-started", "b", at=9, pid=2))
    assert first_at() == (2, 1)
    # The process before says good-bye, and what it says goes back and forth with what the new one does.
    dirty.add(read("worker-offline", at=10, pid=1))
    assert first_at() == (1, 10)
    dirty.add(read("worker-heartbeat", at=11, pid=2, processed=2))
    assert first_at() == (2, 1)
    # Delivered again.
    dirty.add(read("worker-heartbeat", at=5, pid=2, processed=1))
    assert first_at() == (2, 1)
    # In a container the number is the same.
    dirty.add(read("task-started", "c", at=12, pid=2))
    dirty.add(read("worker-heartbeat", at=13, pid=2, processed=1))
    assert first_at() == (2, 12)


def test_processes_of_more_workers_than_there_may_be_are_not_remembered():
    processes = Processes(2)
    for number in range(5):
        processes.hear(f"w{number}", 1, NOW, NOW)
    assert [processes.first_at(f"w{number}", 1) for number in range(5)] == [NOW, NOW, None, None, None]
    processes.hear("w1", 1, NOW, NOW + 3599)
    processes.hear("new", 1, NOW + 3601, NOW + 3601)
    assert [processes.first_at(name, 1) for name in ("w0", "w1", "new")] == [None, NOW, NOW + 3601]
    for pid in range(10):
        processes.hear("w1", pid, NOW + pid, NOW)
    assert [processes.first_at("w1", pid) for pid in range(10)] == [None] * 7 + [NOW + 7, NOW + 8, NOW + 9]


def test_what_waits_longest_is_taken_first_and_keeps_its_place(dirty):
    for task_id in ("a", "b", "c"):
        dirty.add(received(task_id))
    dirty.add(read("task-started", "a", 1))
    first = dirty.take(2)
    assert [task.task_id for task in first.tasks] == ["a", "b"]
    dirty.add(received("d"))
    dirty.give_back(first)
    assert [task.task_id for task in dirty.take(10).tasks] == ["a", "b", "c", "d"]


def test_what_is_given_back_goes_under_what_came_since(dirty):
    dirty.add(received("t1"))
    batch = dirty.take(10)
    dirty.add(read("task-succeeded", at=5, result="1", runtime=1))
    dirty.add(read("worker-heartbeat", at=5, processed=9))
    dirty.give_back(batch)
    again = dirty.take(10)
    (task,) = again.tasks
    assert (task.state, task.name, task.result) == ("SUCCESS", "x", "1")
    (worker,) = again.workers
    assert (worker.processed, worker.last_heartbeat) == (9, NOW + 5)


def test_beyond_the_limit_new_tasks_are_dropped_and_counted_and_known_ones_merged():
    dirty = Dirty(2)
    assert [dirty.add(received(task_id)) for task_id in ("a", "b", "c", "d")] == [True, True, False, False]
    assert dirty.add(read("task-started", "a", 1))
    assert (dirty.counts.dropped, dirty.counts.events, dirty.waiting) == (2, 5, 2)
    assert [task.state for task in dirty.take(10).tasks] == ["STARTED", "RECEIVED"]
    assert dirty.add(received("c"))


def test_what_is_given_back_is_never_dropped():
    dirty = Dirty(2)
    for task_id in ("a", "b"):
        dirty.add(received(task_id))
    batch = dirty.take(10)
    for task_id in ("c", "d"):
        dirty.add(received(task_id))
    dirty.give_back(batch)
    assert dirty.waiting == 4
    assert dirty.counts.dropped == 0


def test_malformed_events_are_counted_and_the_latest_thousand_kept(dirty):
    for number in range(1500):
        dirty.add(Malformed("why", str(number), NOW))
    batch = dirty.take(10)
    assert (dirty.counts.malformed, len(batch.malformed), batch.malformed[-1].body) == (1500, 1000, "1499")
    dirty.add(Malformed("why", "new", NOW))
    dirty.give_back(batch)
    kept = dirty.take(10).malformed
    assert (len(kept), kept[-1].body) == (1000, "new")


def test_what_is_nothing_for_the_camera_is_counted(dirty):
    assert dirty.add(None)
    assert (dirty.counts.events, dirty.counts.ignored) == (1, 1)
    assert dirty.take(10).is_empty


def test_an_event_of_a_task_is_a_sign_of_life_of_its_worker(dirty):
    dirty.add(read("worker-heartbeat", at=0, processed=3))
    dirty.add(read("task-started", at=4))
    (worker,) = dirty.take(10).workers
    assert (worker.last_heartbeat, worker.processed, worker.event) == (NOW + 4, 3, "heartbeat")
    dirty.add(read("task-succeeded", at=7, result="1"))
    (worker,) = dirty.take(10).workers
    assert (worker.hostname, worker.event, worker.last_heartbeat, worker.pid) == ("w1", "", NOW + 7, 1)


def test_neither_a_client_nor_an_event_of_the_projects_own_is_a_worker(dirty):
    dirty.add(read("task-sent", name="x", hostname="gen1@web"))
    dirty.add(read("task-progress", hostname="gen2@web"))
    assert dirty.take(10).workers == []


def test_workers_are_bounded_too(dirty):
    for number in range(MAX_WORKERS):
        dirty.add(read("worker-heartbeat", hostname=f"w{number}"))
    assert dirty.add(read("worker-heartbeat", hostname="one more")) is False
    assert dirty.counts.dropped == 1
    # Those that are gone make room.
    assert dirty.add(read("worker-heartbeat", hostname="one more", at=4000))


def test_threads_lose_and_double_nothing():
    dirty, taken, done = Dirty(1_000_000), [], threading.Event()

    def empty():
        while True:
            is_last = done.is_set()
            batch = dirty.take(50)
            if len(taken) % 3 == 1:
                dirty.give_back(batch)
                taken.append([])
            else:
                taken.append(batch.tasks)
            if is_last and not dirty.waiting:
                return

    thread = threading.Thread(target=empty)
    thread.start()
    for number in range(3000):
        dirty.add(received(f"t{number}"))
    done.set()
    thread.join()
    ids = [task.task_id for tasks in taken for task in tasks]
    assert sorted(ids) == sorted(f"t{number}" for number in range(3000))


# -- clocks ------------------------------------------------------------------------------------


def heard(*pairs):
    clock = Clock()
    for sent, came in pairs:
        clock.hear(sent, came)
    return clock


def test_a_clock_that_is_right_has_no_skew():
    clock = heard((100, 100.1), (102, 102.3), (104, 104.1))
    assert clock.skew_s == 0
    assert clock.corrected(106, 106.2) == 106


def test_a_clock_ahead_is_known_at_once():
    clock = heard((400, 100))
    assert clock.skew_s == 300
    assert clock.corrected(402, 102.5) == 102


def test_a_clock_behind_is_known_after_some_heartbeats_in_time():
    assert heard((100, 400)).skew_s is None
    assert heard((100, 400), (102, 402)).skew_s is None
    clock = heard((100, 400), (102, 402), (104, 404))
    assert clock.skew_s == -300
    assert clock.corrected(106, 406.5) == 406


def test_what_the_broker_has_kept_for_an_hour_says_nothing_of_the_clock():
    clock = heard(*((100 + 2 * number, 3700 + number / 1000) for number in range(50)))
    assert clock.skew_s is None
    # A worker that died meanwhile does not look alive.
    assert clock.corrected(198, 3700.05) == 198


def test_the_least_delay_tells_most():
    clock = heard((100, 100), (102, 104.9), (104, 106), (106, 106.2), (108, 108.1))
    assert clock.skew_s == 0


def test_skew_corrects_heartbeats_and_good_byes(dirty):
    dirty.add(read("worker-heartbeat", at=300, came=0))
    dirty.add(read("worker-offline", at=302, came=2.5))
    (worker,) = dirty.take(10).workers
    assert isinstance(worker, WorkerNews)
    assert (worker.clock_skew, worker.last_heartbeat, worker.offline_at) == (300, NOW, NOW + 2)
