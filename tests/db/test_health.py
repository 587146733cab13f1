"""The probes of ``celery_health``: what counts as alive, and that none of them hangs."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from io import StringIO

import pytest
from celery import Celery
from django.core.management import CommandError, call_command

from djcelery import utils
from djcelery.management import health
from djcelery.management.health import Answer, Wanted
from djcelery.models import BeatLease
from tests.db.history import camera, worker

pytestmark = pytest.mark.django_db


def lease(left_s, holder="web1:4711:abcd"):
    now = utils.now()
    expires_at = now + timedelta(seconds=left_s)
    return BeatLease.objects.create(name="default", holder=holder, token=1, expires_at=expires_at, acquired_at=now)


def test_a_line_can_be_read_by_a_program():
    answer = Answer("beat", True, {"leader": "web1:4711", "age": 3.14, "hostname": None, "reason": 'so "it" is'})
    assert str(answer) == "ok beat leader=web1:4711 age=3.1s reason=\"so 'it' is\""
    assert str(Answer("broker", False, {"reason": "a\nb", "url": ""})) == 'fail broker reason="a b" url=""'


def test_the_database_answers():
    assert health.database(Wanted()).is_ok


def test_the_broker_answers():
    answer = health.broker(Wanted(app=Celery("x", broker="memory://", set_as_current=False)))
    assert answer.is_ok
    assert answer.details["messages"] == 0


def test_a_broker_that_refuses_is_not_alive():
    answer = health.broker(Wanted(app=Celery("x", broker="redis://:secret@127.0.0.1:1/0", set_as_current=False)))
    assert not answer.is_ok
    assert answer.details["reason"]
    assert "secret" not in str(answer)


def test_a_worker_is_alive_by_its_own_interval_or_by_the_age_that_is_given():
    worker("celery@a", ago_s=100, frequency=60.0)
    assert health.worker(Wanted()).is_ok
    assert health.worker(Wanted(max_age_s=200)).is_ok
    assert not health.worker(Wanted(max_age_s=50)).is_ok


def test_only_the_worker_that_is_asked_for_counts():
    worker("celery@a")
    worker("mail@a", ago_s=900)
    assert health.worker(Wanted(hostname="a")).is_ok
    assert health.worker(Wanted(hostname="celery@a")).is_ok
    assert not health.worker(Wanted(hostname="mail@a", max_age_s=60)).is_ok
    assert not health.worker(Wanted(hostname="celery@b")).is_ok


def test_a_worker_that_said_goodbye_is_not_alive():
    worker(offline_at=utils.now())
    for wanted in (Wanted(), Wanted(max_age_s=60)):
        answer = health.worker(wanted)
        assert not answer.is_ok
        assert answer.details["reason"].startswith("said good-bye")


def test_a_silent_worker_may_be_the_fault_of_the_camera():
    worker(ago_s=900)
    assert "no camera is running" in health.worker(Wanted()).details["reason"]
    camera()
    assert health.worker(Wanted()).details["reason"] == "no recent heartbeat"


def test_beat_is_alive_while_somebody_leads(settings):
    # A length that no busy machine takes to get here; its age is what has passed of it.
    settings.DJCELERY_BEAT_LEASE_S = 1000
    assert health.beat(Wanted()).details["reason"] == "no beat has ever run here"
    held = lease(left_s=650)
    answer = health.beat(Wanted())
    assert str(answer).startswith("ok beat leader=web1:4711 age=3")
    assert 340 <= answer.details["age"] < 400
    assert not health.beat(Wanted(max_age_s=100)).is_ok
    assert health.beat(Wanted(max_age_s=600)).is_ok
    held.delete()
    lease(left_s=-5)
    assert health.beat(Wanted()).details["reason"] == "nobody leads"


def test_a_beat_can_be_asked_for_by_its_host():
    lease(left_s=700)
    assert health.beat(Wanted(hostname="web1")).is_ok
    assert not health.beat(Wanted(hostname="web")).is_ok


def test_a_camera_is_alive_by_its_own_interval_or_by_the_age_that_is_given():
    assert not health.camera(Wanted()).is_ok
    row = camera(name="c@a", hostname="a", shutter_at=utils.now() - timedelta(seconds=100), frequency=60)
    assert health.camera(Wanted()).is_ok
    assert not health.camera(Wanted(max_age_s=60)).is_ok
    assert health.camera(Wanted(hostname="a")).is_ok
    assert health.camera(Wanted(hostname="c@a")).is_ok
    assert not health.camera(Wanted(hostname="b")).is_ok
    row.stopped_at = utils.now()
    row.save()
    assert health.camera(Wanted()).details["reason"] == "stopped"


def test_a_probe_that_hangs_or_fails_does_not_keep_the_others(monkeypatch):
    release = threading.Event()

    def hang(wanted):
        release.wait(120)

    def fail(wanted):
        raise OSError("no such host")

    def answer(wanted):
        return Answer("quick", True)

    monkeypatch.setattr(health, "PROBES", {"hang": hang, "fail": fail, "quick": answer})
    started = time.monotonic()
    lines = [str(each) for each in health.run(("hang", "fail", "quick"), Wanted(timeout_s=2.0))]
    release.set()
    assert time.monotonic() - started < 30
    assert lines == ['fail hang reason="no answer within 2 s"', 'fail fail reason="no such host"', "ok quick"]


def test_the_command_prints_a_line_per_probe_and_fails_if_one_does(monkeypatch):
    answers = {"beat": Answer("beat", True, {"age": 1.0}), "camera": Answer("camera", False, {"reason": "stopped"})}
    monkeypatch.setattr(health, "run", lambda names, wanted: [answers[name] for name in names])
    out = StringIO()
    call_command("celery_health", "beat", stdout=out)
    assert out.getvalue() == "ok beat age=1.0s\n"
    with pytest.raises(CommandError, match="Not alive: camera"):
        call_command("celery_health", "beat", "camera", stdout=out)
    assert out.getvalue().endswith("fail camera reason=stopped\n")


def test_the_options_reach_the_probes(monkeypatch):
    seen = {}
    monkeypatch.setattr(health, "run", lambda names, wanted: seen.update(names=names, wanted=wanted) or [])
    call_command("celery_health", "worker", "worker", max_age=3.0, hostname="a", timeout=2.0)
    assert seen["names"] == ["worker"]
    assert (seen["wanted"].max_age_s, seen["wanted"].hostname, seen["wanted"].timeout_s) == (3.0, "a", 2.0)
    call_command("celery_health")
    assert seen["names"] == list(health.PROBES)


@pytest.mark.parametrize("words", [["nobody"], ["--max-age", "0"], ["--max-age", "soon"], ["--timeout", "-1"]])
def test_wrong_words_are_refused(words):
    with pytest.raises(CommandError):
        call_command("celery_health", *words)
