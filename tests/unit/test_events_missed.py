"""Tasks of which no event came, told by the counters in the workers' heartbeats."""

from __future__ import annotations

import random

import pytest

from djcelery.snapshot.missed import Account, Known, Missed

HOST = "w1@host"


class Worker:
    """A worker with its own count of what it ran, and what of its events comes to the camera."""

    def __init__(self, missed, hostname=HOST, pid=7):
        self.missed, self.hostname, self.pid = missed, hostname, pid
        self.processed, self.clock, self.numbers = 0, 0, 0
        self.active = []

    def send(self, type_, comes=True, **fields):
        self.clock += 1
        event = {"type": type_, "hostname": self.hostname, "pid": self.pid, "clock": self.clock, **fields}
        if comes:
            self.missed.event(event, 1.0)
        return event

    def start(self, comes=True):
        self.numbers += 1
        uuid = f"{self.pid}-{self.numbers}"
        self.processed += 1
        self.active.append(uuid)
        self.send("task-started", comes, uuid=uuid)
        return uuid

    def end(self, uuid, comes=True, kind="succeeded"):
        self.active.remove(uuid)
        self.send(f"task-{kind}", comes, uuid=uuid)

    def run(self, count=1, comes=True):
        for _ in range(count):
            self.end(self.start(comes), comes)

    def beat(self, times=1, type_="worker-heartbeat"):
        for _ in range(times):
            self.send(type_, processed=self.processed, active=len(self.active))


@pytest.fixture
def missed():
    return Missed()


def account(missed, hostname=HOST):
    missed.give_back({hostname: Account(None, None, 0)})
    return missed.take()[hostname]


def test_nothing_is_missed_when_every_event_comes(missed):
    worker = Worker(missed)
    worker.beat(type_="worker-online")
    for _ in range(20):
        worker.run(7)
        worker.beat()
    assert missed.total == 0
    assert account(missed) == Account(7, 140, 0)


def test_executions_without_any_event_are_counted_once(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run(10)
    worker.run(4, comes=False)
    worker.run(10)
    worker.beat(5)
    assert missed.total == 4
    worker.beat(5)
    assert missed.total == 4
    worker.run(2, comes=False)
    worker.beat(5)
    assert missed.total == 6
    assert account(missed) == Account(7, 26, 6)


def test_one_event_of_an_execution_is_enough(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run()
    worker.end(worker.start(comes=False))
    worker.end(worker.start(), comes=False)
    worker.end(worker.start(comes=False), kind="failed")
    worker.beat(6)
    assert missed.total == 0


def test_a_retry_is_an_execution_of_its_own(missed):
    worker = Worker(missed)
    worker.beat()
    for _ in range(3):
        worker.processed += 1
        worker.send("task-started", uuid="same")
        worker.send("task-retried", uuid="same")
    worker.processed += 1
    worker.beat(6)
    assert missed.total == 1


def test_a_heartbeat_may_overtake_events_that_still_wait_in_the_worker(missed):
    worker = Worker(missed)
    worker.beat()
    for _ in range(10):
        waiting = []
        for _ in range(20):
            worker.processed += 1
            worker.numbers += 1
            waiting.append(worker.send("task-started", comes=False, uuid=str(worker.numbers)))
            waiting.append(worker.send("task-succeeded", comes=False, uuid=str(worker.numbers)))
        worker.beat()
        for event in waiting:
            missed.event(event, 1.0)
    worker.beat(6)
    assert missed.total == 0
    assert account(missed).seen == 200


def test_a_camera_that_starts_in_the_middle_counts_from_the_first_heartbeat(missed):
    worker = Worker(Missed())
    worker.run(1000)
    running = [worker.start() for _ in range(3)]
    worker.missed = missed
    worker.run(2)
    worker.beat()
    for uuid in running:
        worker.end(uuid)
    worker.run(5)
    worker.beat(6)
    assert missed.total == 0
    worker.run(2, comes=False)
    worker.beat(6)
    assert missed.total == 2


def test_what_ran_unseen_when_the_camera_came_is_missed_only_if_its_end_does_not_come(missed):
    worker = Worker(Missed())
    first, second = worker.start(), worker.start()
    worker.missed = missed
    worker.beat(2)
    worker.end(first)
    worker.run(3)
    worker.beat(6)
    assert missed.total == 0
    worker.end(second, comes=False)
    worker.beat(6)
    assert missed.total == 1


def test_a_worker_that_sends_no_events_of_tasks_has_missed_none(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run(50, comes=False)
    worker.beat(6)
    assert missed.total == 0
    assert account(missed) == Account(7, None, 0)
    # "celery control enable_events"
    worker.run(3)
    worker.beat(6)
    worker.run(1, comes=False)
    worker.beat(6)
    assert missed.total == 1


def test_a_new_process_of_a_watched_worker_is_counted_from_its_beginning(missed):
    old = Worker(missed)
    old.beat()
    old.run(5)
    old.beat(4)
    new = Worker(missed, pid=8)
    new.run(6, comes=False)
    new.run(2)
    new.beat(6)
    assert missed.total == 6
    assert account(missed) == Account(8, 8, 6)


def test_what_the_last_heartbeat_of_a_process_tells_counts_when_the_next_process_comes(missed):
    old = Worker(missed)
    old.beat()
    old.run(5)
    old.run(2, comes=False)
    old.beat()
    Worker(missed, pid=8).beat(type_="worker-online")
    assert missed.total == 2


def test_a_counter_that_goes_back_is_another_process_with_the_same_number(missed):
    worker = Worker(missed, pid=1)
    worker.beat()
    worker.run(9)
    worker.beat(4)
    again = Worker(missed, pid=1)
    again.beat(type_="worker-online")
    again.run(4)
    again.run(1, comes=False)
    again.beat(6)
    assert missed.total == 1
    assert account(missed) == Account(1, 5, 1)


def test_two_processes_that_share_a_name_are_counted_apart(missed):
    one, two = Worker(missed, pid=1), Worker(missed, pid=2)
    for _ in range(8):
        one.beat()
        two.beat()
        one.run(3)
        two.run(4)
    assert missed.total == 0


def restarted(missed, processed, running=()):
    """Return what a new camera makes of the rows that the old one has written."""
    return Missed({HOST: Known(account(missed), processed, tuple(running))})


def test_a_camera_that_was_restarted_goes_on_where_it_stopped(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run(10)
    worker.run(2, comes=False)
    worker.beat(6)
    worker.run(5)
    running = worker.start()
    worker.missed = again = restarted(missed, 12, [running])
    worker.run(3, comes=False)
    worker.end(running)
    worker.run(1)
    worker.beat(6)
    assert again.total == 3
    assert account(again) == Account(7, 22, 5)


def test_events_that_are_delivered_again_after_a_restart_hide_nothing_for_long(missed):
    worker = Worker(missed)
    worker.beat()
    events = [worker.send("task-started", uuid=str(n)) for n in range(50)]
    worker.processed = 50
    worker.missed = again = restarted(missed, 0)
    for event in events:
        again.event(event, 1.0)
    worker.beat(8)
    assert again.total == 0
    assert account(again).seen == 50
    worker.run(2, comes=False)
    worker.beat(6)
    assert again.total == 2


def test_a_worker_that_was_restarted_while_no_camera_ran_is_counted_from_its_beginning(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run(10)
    worker.beat(6)
    again = restarted(missed, 10)
    other = Worker(again, pid=9)
    other.run(4, comes=False)
    other.run(1)
    other.beat(6)
    assert again.total == 4


def test_a_restarted_process_with_the_same_number_is_known_by_its_counter(missed):
    worker = Worker(missed, pid=1)
    worker.beat()
    worker.run(10)
    worker.beat(6)
    again = restarted(missed, 10)
    other = Worker(again, pid=1)
    other.run(2, comes=False)
    other.run(3)
    other.beat(6)
    assert again.total == 2


def test_a_worker_that_was_forgotten_begins_anew_and_keeps_its_count(missed):
    worker = Worker(missed)
    worker.beat()
    worker.run(3)
    worker.run(2, comes=False)
    worker.beat(6)
    missed.take()
    missed.forget(2.0)
    worker.run(100, comes=False)
    worker.beat(6)
    assert missed.total == 2
    assert account(missed).missed == 2


def test_what_was_taken_and_not_written_is_given_back(missed):
    worker = Worker(missed)
    worker.beat(2)
    worker.run()
    taken = missed.take()
    assert set(taken) == {HOST}
    assert missed.take() == {}
    missed.give_back(taken)
    assert set(missed.take()) == {HOST}


def test_tasks_that_end_without_an_event_are_not_kept_for_ever(missed):
    worker = Worker(missed)
    worker.beat()
    for _ in range(3):
        worker.end(worker.start(), comes=False)
    worker.beat(2)
    assert not missed._workers[HOST].by_pid[7].running


@pytest.mark.parametrize(
    "event",
    [
        None,
        "worker-heartbeat",
        {},
        {"type": 3, "hostname": HOST},
        {"type": "task-started", "hostname": HOST},
        {"type": "task-started", "hostname": None, "uuid": "a"},
        {"type": "task-started", "hostname": "h" * 256, "uuid": "a"},
        {"type": "worker-heartbeat", "hostname": HOST, "processed": "many"},
        {"type": "worker-heartbeat", "hostname": HOST, "processed": -1},
        {"type": "worker-heartbeat", "hostname": HOST},
        {"type": "task-sent", "hostname": HOST, "uuid": "a"},
    ],
)
def test_an_event_that_says_nothing_of_it_changes_nothing(missed, event):
    missed.event(event, 1.0)
    assert missed.take() == {}
    assert missed.total == 0


def test_odd_numbers_are_taken_as_not_given(missed):
    missed.event({"type": "task-started", "hostname": HOST, "uuid": "a", "pid": "x", "clock": None}, 1.0)
    for _ in range(5):
        missed.event({"type": "worker-heartbeat", "hostname": HOST, "processed": 1, "active": [], "clock": 2**80}, 1.0)
    assert missed.total == 0


@pytest.mark.parametrize("seed", range(30))
def test_at_rest_the_count_is_exact_whatever_was_lost(missed, seed):
    rng = random.Random(seed)
    worker = Worker(missed)
    worker.beat(type_="worker-online")
    worker.run(1)
    lost, before, running = 0, 0, {}
    for _ in range(300):
        action = rng.random()
        if action < 0.45 and len(running) < 4:
            running_is_seen = rng.random() < 0.8
            running[worker.start(running_is_seen)] = running_is_seen
        elif action < 0.9 and running:
            uuid = rng.choice(sorted(running))
            end_is_seen = rng.random() < 0.8
            lost += not (running.pop(uuid) or end_is_seen)
            worker.end(uuid, end_is_seen, rng.choice(("succeeded", "failed", "retried")))
        else:
            worker.beat()
            assert missed.total >= before
            before = missed.total
            assert before <= lost + len(running)
    for uuid, is_seen in running.items():
        lost += not is_seen
        worker.end(uuid, comes=False)
    worker.beat(8)
    assert missed.total == lost


@pytest.mark.parametrize("processed", [2**63 - 1, 2**62, 10**10])
def test_what_no_worker_can_have_run_is_not_missed(missed, processed):
    liars = [Worker(missed, hostname=f"liar{number}") for number in range(3)]
    honest = Worker(missed)
    for worker in (*liars, honest):
        worker.beat()
        worker.run()
    honest.run(2, comes=False)
    for liar in liars:
        liar.processed = processed
        liar.beat(5)
    honest.beat(5)
    assert missed.total == 2
    for liar in liars:
        assert account(missed, liar.hostname).missed == 0
        # It is listened to from there on.
        liar.run(3, comes=False)
        liar.beat(5)
    assert missed.total == 2 + (0 if processed == 2**63 - 1 else 9)


def test_sums_end_where_the_column_does(missed, monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.missed._MOST_AT_ONCE", 2**63)
    for number in range(3):
        worker = Worker(missed, hostname=f"w{number}")
        worker.beat()
        worker.run()
        worker.processed = 2**63 - 1
        worker.beat(5)
        found = account(missed, f"w{number}")
        assert (found.seen <= 2**63 - 1, found.missed <= 2**63 - 1) == (True, True)
        worker.run(2)
        assert account(missed, f"w{number}").seen <= 2**63 - 1
    assert missed.total == 2**63 - 1


def test_workers_beyond_the_limit_are_dropped_and_counted(monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.missed.MAX_WORKERS", 3)
    missed = Missed({f"known{number}": Known(Account(1, 1, 1)) for number in range(9)})
    for at in (1.0, 2.0):
        for number in range(5):
            heartbeat = {"type": "worker-heartbeat", "hostname": f"w{number}", "processed": 1}
            missed.event(heartbeat, at)
            missed.event({"type": "task-started", "uuid": "t", "hostname": f"w{number}"}, at)
    assert set(missed.take()) == {"w0", "w1", "w2"}
    assert missed.dropped == 8
    # One that was silent for an hour makes room.
    missed.event({"type": "worker-heartbeat", "hostname": "w0", "processed": 1}, 3000.0)
    missed.event({"type": "worker-heartbeat", "hostname": "new", "processed": 1}, 3700.0)
    assert set(missed.take()) == {"w0", "new"}
    assert missed.dropped == 8


def test_of_workers_that_are_gone_no_more_are_remembered_than_of_others(monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.missed.MAX_WORKERS", 3)
    missed = Missed()
    for number in range(9):
        worker = Worker(missed, hostname=f"w{number}")
        worker.beat()
        worker.run()
        worker.run(2, comes=False)
        worker.beat(5)
        missed.forget(2.0)
    assert missed.total == 18
    assert list(missed._known) == ["w6", "w7", "w8"]
    Worker(missed, hostname="w8").beat()
    assert account(missed, "w8").missed == 2
