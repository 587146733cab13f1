"""The two threads of celerycam, with a writer that does what the test wants; no database, no broker."""

from __future__ import annotations

import logging
import os
import signal
import threading
from types import SimpleNamespace

import pytest
from celery import Celery
from django.db import OperationalError

from djcelery.exceptions import CameraError
from djcelery.snapshot import program as module
from djcelery.snapshot.news import Malformed, WorkerNews
from djcelery.snapshot.program import Program, node_name
from djcelery.snapshot.receiver import Mark
from djcelery.snapshot.switch import Switch
from tests.checking import said
from tests.services import wait_until

STARTED = {"type": "task-started", "uuid": "a", "hostname": "w@h", "timestamp": 1_770_000_000.0, "clock": 1, "pid": 2}


class Writer:
    """Notes what is written; *errors* are raised first, one per call."""

    def __init__(self):
        self.errors, self.batches, self.notes, self.stops, self.failing = [], [], {}, 0, False
        self.written = threading.Event()

    def note(self, **fields):
        self.notes.update(fields)

    def write(self, batch):
        if self.failing or self.errors:
            raise self.errors.pop(0) if self.errors else OperationalError("away")
        if not batch.is_empty:
            self.batches.append(batch)
            self.written.set()

    def stop(self):
        self.stops += 1


class Receiver:
    """Stands in for the broker's side: it hands on what the test puts in."""

    def __init__(self, program):
        self.program, self.inbox, self.acknowledged, self.tag = program, [], [], 0
        self.acknowledges, self.is_half_full, self.trouble, self.queue_name, self.errors = True, False, None, "q", ()
        self.gate = threading.Event()

    def receive(self, body):
        self.program._take(body, 1_770_000_001.0)
        self.tag += 1

    def run(self):
        wait_until(lambda: self.program._should_stop, 60, "the signal")

    def mark(self):
        return Mark(1, self.tag)

    def committed(self, mark):
        self.acknowledged.append(mark.tag)

    def keep_alive(self):
        pass

    def close(self):
        pass


@pytest.fixture
def program(monkeypatch):
    app = Celery("cam", broker="memory://", set_as_current=False)
    upkeep = SimpleNamespace(steps=0, gaps=0)
    upkeep.step = lambda now=None: setattr(upkeep, "steps", upkeep.steps + 1)
    upkeep.note_gap = lambda now=None: setattr(upkeep, "gaps", upkeep.gaps + 1)
    writer = Writer()
    monkeypatch.setattr(module, "Writer", lambda *args: writer)
    monkeypatch.setattr(module, "Upkeep", lambda *args: upkeep)
    monkeypatch.setattr(module, "connections", SimpleNamespace(all=lambda **kw: [], close_all=lambda: None))
    monkeypatch.setattr(Program, "_load_workers", lambda self: None)
    made = Program(app, "cam@test", frequency_s=0.01)
    made.receiver.close()
    made.receiver = Receiver(made)
    yield made
    app.close()


def running(program):
    """Run *program* in a thread; return a function that stops it and raises what it raised."""
    errors = []

    def run():
        try:
            program.run()
        except Exception as exc:  # noqa: BLE001 - raised by stop()
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()

    def stop():
        program._should_stop = True
        thread.join(90)
        assert not thread.is_alive()
        if errors:
            raise errors[0]

    return stop


def test_what_was_received_is_written_and_then_acknowledged(program):
    stop = running(program)
    program.receiver.receive([STARTED, dict(STARTED, uuid="b")])
    assert program.writer.written.wait(60)
    wait_until(lambda: 1 in program.receiver.acknowledged, 60, "the acknowledgement")
    stop()
    assert sorted(news.task_id for batch in program.writer.batches for news in batch.tasks) == ["a", "b"]
    assert program.writer.stops == 1
    assert program.writer.notes["events"] == 2
    assert program.upkeep.steps > 0


def test_one_event_and_a_list_of_events_are_taken_one_by_one(program):
    program.receiver.receive(STARTED)
    program.receiver.receive([dict(STARTED, uuid="b"), "x", {"type": "other-thing"}])
    counts = program.dirty.counts
    assert (counts.events, counts.malformed, counts.ignored) == (4, 1, 1)
    assert [news.task_id for news in program.dirty.take(10).tasks] == ["a", "b"]


def test_what_cannot_be_written_waits_and_is_not_acknowledged(program, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger=module.__name__)
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.01)
    program.writer.errors = [OperationalError("away"), OperationalError("away"), OperationalError("other")]
    program.receiver.receive(STARTED)
    stop = running(program)
    assert program.writer.written.wait(60)
    wait_until(lambda: program.receiver.acknowledged, 60, "the acknowledgement")
    stop()
    assert [news.task_id for news in program.writer.batches[0].tasks] == ["a"]
    messages = [record.getMessage() for record in said(caplog)]
    assert len(messages) == 3
    assert "The database can't be written: away." in messages[0]
    assert "other" in messages[1]
    assert "written again" in messages[2]
    assert program.upkeep.gaps == 1


def test_many_waiting_tasks_are_written_before_the_time_has_come(program, monkeypatch):
    monkeypatch.setattr(module, "MANY_ROWS", 3)
    program.frequency_s = 600
    stop = running(program)
    program.receiver.receive([dict(STARTED, uuid=str(n)) for n in range(3)])
    assert program.writer.written.wait(60)
    stop()


def test_the_rate_of_shutters_has_a_limit_but_not_the_last_one(program):
    program.bucket = SimpleNamespace(can_consume=lambda: False)
    stop = running(program)
    program.receiver.receive(STARTED)
    assert not program.writer.written.wait(0.3)
    stop()
    assert [news.task_id for news in program.writer.batches[0].tasks] == ["a"]


def test_an_event_that_breaks_the_code_is_kept_apart(program, monkeypatch, caplog):
    read = module.intake.read

    def broken(event, at):
        if event["uuid"] == "b":
            raise ZeroDivisionError
        return read(event, at)

    monkeypatch.setattr(module.intake, "read", broken)
    program.receiver.receive([STARTED, dict(STARTED, uuid="b"), dict(STARTED, uuid="c")])
    batch = program.dirty.take(10)
    assert sorted(news.task_id for news in batch.tasks) == ["a", "c"]
    assert [type(news) for news in batch.malformed] == [Malformed]
    assert "can't be taken apart" in caplog.text


def test_an_error_in_the_program_ends_it(program):
    program.writer.errors = [ZeroDivisionError("a bug")]
    stop = running(program)
    wait_until(lambda: program._should_stop, 60, "the end")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        stop()


@pytest.mark.parametrize("acknowledges", [True, False])
def test_the_last_shutter_is_tried_for_a_time(program, monkeypatch, acknowledges, caplog):
    monkeypatch.setattr(module, "LAST_TRIES_S", 0.1)
    program.receiver.acknowledges = acknowledges
    program.writer.failing = True
    program.receiver.receive(STARTED)
    stop = running(program)
    if acknowledges:
        stop()
        assert "delivers its events to the next camera" in caplog.text
    else:
        with pytest.raises(CameraError, match="of 1 tasks is lost"):
            stop()
    assert program.receiver.acknowledged == []


def test_a_signal_ends_it_and_the_second_one_finds_the_system_default(program, monkeypatch):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        os.kill(os.getpid(), signal.SIGTERM)
        wait_until(lambda: program._should_stop, 60, "the signal")
        seen.append((signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)))

    monkeypatch.setattr(program.receiver, "run", run)
    program.run()
    assert seen[0][0] == signal.SIG_DFL
    assert callable(seen[0][1])
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_accounts_of_workers_are_written_with_the_events_of_their_tasks(program):
    heartbeat = {"type": "worker-heartbeat", "hostname": "w@h", "pid": 2, "timestamp": 1_770_000_000.0, "freq": 2}
    program.receiver.receive(dict(heartbeat, processed=0, active=0, clock=0))
    program.receiver.receive(STARTED)
    program._write(program.dirty.waiting)
    (news,) = program.writer.batches[0].workers
    assert (news.hostname, news.seen, news.missed) == ("w@h", 1, 0)


def test_node_names(monkeypatch):
    monkeypatch.setattr(module, "gethostname", lambda: "box.example.com")
    assert node_name(None) == "celerycam@box.example.com"
    assert node_name("cam1") == "cam1"
    assert node_name("cam1@%h").startswith("cam1@")
    for bad in ("", "x" * 201):
        with pytest.raises(CameraError, match="1 to 200 characters"):
            node_name(bad)


# switching events on


class Control:
    def __init__(self):
        self.told, self.errors = [], []

    def send(self, destination):
        if self.errors:
            raise self.errors.pop()
        self.told.append(destination)


@pytest.fixture
def switch():
    switch = Switch(SimpleNamespace(control=Control()))
    switch._send = switch.app.control.send
    return switch


def step(switch):
    switch.step()
    if switch._thread is not None:
        switch._thread.join(60)


def heartbeat(switch, hostname="w@h", pid=1, event="heartbeat"):
    switch.saw(WorkerNews(hostname, event, 0.0, 0.0, pid=pid))


def test_events_are_switched_on_at_the_start_and_when_a_worker_appears(switch):
    step(switch)
    step(switch)
    assert switch.app.control.told == [None]
    heartbeat(switch, event="online")
    step(switch)
    assert switch.app.control.told == [None]
    for _ in range(5):
        heartbeat(switch)
        step(switch)
    # Twice: at its first heartbeat a worker may not listen yet.
    assert switch.app.control.told == [None, ["w@h"], ["w@h"]]
    heartbeat(switch, pid=2)
    step(switch)
    assert switch.app.control.told[3:] == [["w@h"]]


def test_a_broker_that_is_away_is_tried_again(switch, caplog):
    switch.app.control.errors = [OSError("away")]
    heartbeat(switch)
    step(switch)
    step(switch)
    assert switch.app.control.told == []
    assert caplog.text.count("away") == 1
    switch._not_before_mono = 0.0
    step(switch)
    assert switch.app.control.told == [None]


def test_the_writer_waits_for_no_broker(switch):
    goes_on = threading.Event()
    send, switch._send = switch._send, lambda destination: goes_on.wait(60) and send(destination)
    switch.step()
    heartbeat(switch)
    # The first is still under way, and one is enough.
    switch.step()
    assert switch.app.control.told == []
    goes_on.set()
    step(switch)
    step(switch)
    assert switch.app.control.told == [None, ["w@h"]]


def test_more_workers_than_can_be_named_are_told_all_together(switch, monkeypatch):
    monkeypatch.setattr("djcelery.snapshot.switch._MOST_WORKERS", 3)
    step(switch)
    for number in range(5):
        heartbeat(switch, hostname=f"w{number}")
    assert len(switch._tell) <= 3
    step(switch)
    step(switch)
    assert switch.app.control.told == [None, None]
