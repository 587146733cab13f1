"""The metrics: who gets them, that Prometheus reads them, and that no counter ever goes back."""

from __future__ import annotations

import builtins
import sys

import pytest
from django.contrib.auth.models import AnonymousUser, Permission
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djcelery import metrics, queues, utils
from djcelery.models import BeatLease, TaskHistory
from tests.db.history import add, camera, histogram, minute, total, worker

prometheus = pytest.importorskip("prometheus_client")
pytestmark = pytest.mark.django_db

TOKEN = "s3cret-token"
XSS = '<script>"\n\\'


@pytest.fixture(autouse=True)
def _broker(broker_said):
    broker_said.append(queues.Broker((queues.Queue("celery", 7, None, 1.5), queues.Queue("mail", 0, 2))))


@pytest.fixture
def token(settings):
    settings.DJCELERY_METRICS_TOKEN = TOKEN
    return {"HTTP_AUTHORIZATION": f"Bearer {TOKEN}"}


@pytest.fixture
def scrape(rf, token, celery_app):
    """A function that returns the values by name and labels, as Prometheus' own parser reads them."""
    from prometheus_client.parser import text_string_to_metric_families

    def read():
        response = metrics.metrics_view(rf.get("/", **token))
        assert response.status_code == 200
        families = text_string_to_metric_families(response.content.decode())
        return {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    return read


def tasks(values):
    return {key[1:]: value for key, value in values.items() if key[0] == "djcelery_tasks_total"}


def of(metric, /, **labels):
    return (metric, *sorted(labels.items()))


# -- who gets them ---------------------------------------------------------------------------------


def test_the_token_opens_the_metrics_without_a_login(rf, token, celery_app):
    response = metrics.metrics_view(rf.get("/", **token))
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer \xe9",
    ],
)
def test_nothing_but_the_token_opens_them(rf, token, header):
    assert metrics.metrics_view(rf.get("/", HTTP_AUTHORIZATION=header)).status_code == 403


@pytest.mark.parametrize("setting", [None])
def test_without_a_token_in_the_settings_no_token_opens_them(rf, settings, setting):
    settings.DJCELERY_METRICS_TOKEN = setting
    for header in ("Bearer", "Bearer ", "Bearer None", f"Bearer {TOKEN}"):
        assert metrics.metrics_view(rf.get("/", HTTP_AUTHORIZATION=header)).status_code == 403


def user_with(django_user_model, *codenames, **fields):
    user = django_user_model.objects.create_user("person", **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def test_who_may_see_tasks_gets_them(rf, django_user_model, celery_app):
    request = rf.get("/")
    request.user = user_with(django_user_model, "view_taskstate")
    assert metrics.metrics_view(request).status_code == 200


def test_others_do_not(rf, django_user_model):
    request = rf.get("/")
    request.user = user_with(django_user_model, "view_workerstate", is_staff=True)
    assert metrics.metrics_view(request).status_code == 403
    request.user = AnonymousUser()
    assert metrics.metrics_view(request).status_code == 403


def test_who_was_dismissed_gets_them_no_more(rf, django_user_model):
    request = rf.get("/")
    request.user = user_with(django_user_model, "view_taskstate", is_active=False)
    assert metrics.metrics_view(request).status_code == 403


def test_a_wrong_token_is_refused_though_the_person_is_logged_in(rf, token, django_user_model):
    request = rf.get("/", HTTP_AUTHORIZATION="Bearer wrong")
    request.user = user_with(django_user_model, "view_taskstate")
    assert metrics.metrics_view(request).status_code == 403


def test_posting_is_not_allowed(rf, token):
    assert metrics.metrics_view(rf.post("/", **token)).status_code == 405


def test_a_refusal_costs_no_query_and_asks_no_broker(rf, token, monkeypatch, django_assert_num_queries):
    monkeypatch.setattr(queues, "look", pytest.fail)
    with django_assert_num_queries(0):
        metrics.metrics_view(rf.get("/"))


def test_without_prometheus_client_the_error_names_the_extra(rf, token, monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImproperlyConfigured, match=r"djcelery\[metrics\]"):
        metrics.metrics_view(rf.get("/", **token))


def test_nothing_is_registered_in_the_global_registry(rf, token, celery_app):
    before = set(prometheus.REGISTRY._names_to_collectors)
    metrics.metrics_view(rf.get("/", **token))
    assert set(prometheus.REGISTRY._names_to_collectors) == before
    assert "prometheus_client" in sys.modules


# -- what they say ---------------------------------------------------------------------------------


def test_counts_are_those_since_the_beginning(scrape):
    total(name="a", count=10)
    total(name="a", state="FAILURE", count=2)
    add(minute(1), name="a", count=1000)
    assert tasks(scrape()) == {
        (("name", "a"), ("state", "SUCCESS")): 10,
        (("name", "a"), ("state", "FAILURE")): 2,
    }


def test_lengths_are_histograms_over_all_states(scrape):
    total(name="a", count=2, runtime=(0.02, 0.3), waiting=(7200.0,))
    total(name="a", state="FAILURE", count=1, runtime=(0.02,))
    values = scrape()
    runtime = "djcelery_task_runtime_seconds"
    assert values[of(f"{runtime}_bucket", name="a", le="0.01")] == 0
    assert values[of(f"{runtime}_bucket", name="a", le="0.025")] == 2
    assert values[of(f"{runtime}_bucket", name="a", le="0.5")] == 3
    assert values[of(f"{runtime}_bucket", name="a", le="+Inf")] == 3
    assert values[of(f"{runtime}_count", name="a")] == 3
    assert values[of(f"{runtime}_sum", name="a")] == pytest.approx(0.34)
    waiting = "djcelery_task_waiting_seconds"
    assert values[of(f"{waiting}_bucket", name="a", le="3600")] == 0
    assert values[of(f"{waiting}_bucket", name="a", le="+Inf")] == 1


def test_buckets_never_shrink_from_one_to_the_next(scrape):
    total(name="a", count=5, runtime=(0.0, 0.001, 0.7, 100.0, 10_000.0))
    buckets = [value for key, value in scrape().items() if key[0] == "djcelery_task_runtime_seconds_bucket"]
    assert len(buckets) == 21
    assert buckets == sorted(buckets)


def test_a_task_without_a_name_is_counted(scrape):
    total(name="", count=3)
    assert tasks(scrape()) == {(("name", "(unknown)"), ("state", "SUCCESS")): 3}


def test_names_of_tasks_can_hold_anything(scrape):
    total(name=XSS, count=3)
    assert tasks(scrape()) == {(("name", XSS), ("state", "SUCCESS")): 3}


def test_names_beyond_the_limit_are_counted_together_and_no_name_ever_changes_sides(scrape, monkeypatch):
    monkeypatch.setattr(metrics, "MAX_NAMES", 2)
    for name in ("z", "y", "x", "w"):
        total(name=name, count=1, runtime=(0.02,))
    first = scrape()
    assert {key[0][1] for key in tasks(first)} == {"z", "y", "(other)"}
    assert first[of("djcelery_tasks_total", name="(other)", state="SUCCESS")] == 2
    assert first[of("djcelery_task_runtime_seconds_count", name="(other)")] == 2
    # "x" becomes the most frequent of all, and a known name gets another state.
    TaskHistory.objects.filter(name="x").update(count=1000)
    total(name="z", state="FAILURE", count=5)
    second = scrape()
    assert second[of("djcelery_tasks_total", name="(other)", state="SUCCESS")] == 1001
    assert second[of("djcelery_tasks_total", name="z", state="FAILURE")] == 5
    assert all(second[key] >= value for key, value in first.items() if key[0].endswith(("_total", "_bucket", "_count")))


def test_deleting_old_rows_resets_no_counter(scrape):
    total(name="a", count=10)
    add(minute(1), name="a", count=10)
    before = tasks(scrape())
    TaskHistory.objects.exclude(period="total").delete()
    assert tasks(scrape()) == before


def test_workers_are_counted_by_state(scrape):
    worker("a@h", active=2)
    worker("b@h", active=3)
    worker("c@h", ago_s=900, active=9)
    values = scrape()
    assert values[of("djcelery_workers", state="online")] == 2
    assert values[of("djcelery_workers", state="offline")] == 1
    assert values[of("djcelery_running_tasks")] == 5


def test_queues_say_what_the_broker_tells_and_no_more(scrape):
    values = scrape()
    assert values[of("djcelery_broker_up")] == 1
    assert values[of("djcelery_queue_messages", queue="celery")] == 7
    assert values[of("djcelery_queue_oldest_seconds", queue="celery")] == 1.5
    assert of("djcelery_queue_consumers", queue="celery") not in values
    assert values[of("djcelery_queue_consumers", queue="mail")] == 2
    assert of("djcelery_queue_oldest_seconds", queue="mail") not in values


def test_a_broker_that_is_away_is_said_to_be_down(scrape, broker_said):
    broker_said.append(queues.Broker(problem="refused"))
    values = scrape()
    assert values[of("djcelery_broker_up")] == 0
    assert not [key for key in values if key[0].startswith("djcelery_queue")]


def test_the_lease_of_beat_is_told(scrape, settings):
    # A length that no busy machine takes to get here.
    settings.DJCELERY_BEAT_LEASE_S = 1000
    now = utils.now()
    BeatLease.objects.create(
        name="default", holder="h:1:a", token=1, expires_at=now + utils.as_timedelta(700), acquired_at=now
    )
    values = scrape()
    assert values[of("djcelery_beat_leads", lease="default")] == 1
    assert 300 <= values[of("djcelery_beat_lease_age_seconds", lease="default")] < 400
    assert values[of("djcelery_schedule_overdue")] == 0


def test_the_counters_of_cameras_are_told(scrape):
    camera(name="c@h", events=12, malformed=3, missed=2, dropped=1, refused=4)
    values = scrape()
    wanted = {"events": 12, "malformed": 3, "missed": 2, "dropped": 1, "refused": 4}
    assert {name: values[of(f"djcelery_camera_{name}_total", camera="c@h")] for name in wanted} == wanted
    assert values[of("djcelery_camera_shutter_age_seconds", camera="c@h")] < 60


def test_the_number_of_queries_does_not_depend_on_the_number_of_names(scrape):
    def count():
        with CaptureQueriesContext(connection) as captured:
            scrape()
        return len(captured)

    few = count()
    TaskHistory.objects.bulk_create(
        [
            TaskHistory(
                period="total",
                start=minute().replace(year=1970, month=1, day=1, hour=0, minute=0),
                name=f"n{n}",
                state="SUCCESS",
                count=1,
                runtime_count=1,
                runtime_histogram=histogram(0.1),
            )
            for n in range(600)
        ]
    )
    for number in range(20):
        worker(f"w{number}@h")
        camera(name=f"c{number}")
    assert count() == few <= 11
    assert len({key[0] for key in tasks(scrape())}) == metrics.MAX_NAMES + 1
