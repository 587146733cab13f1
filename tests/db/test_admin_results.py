"""The pages of stored results: read-only, cheap lists, and values that can't hurt the reader."""

from __future__ import annotations

import base64
import pickle
import re
from datetime import datetime, timezone

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery.admin import finding, values
from djcelery.models import Chord, ChordPart, TaskMeta, TaskSetMeta
from djcelery.picklefield import PickledObject

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/taskmeta/"
GROUPS = "/admin/djcelery/tasksetmeta/"
CHORDS = "/admin/djcelery/chord/"
XSS = "<script>alert(1)</script>"


def make(task_id="id-1", **fields):
    return TaskMeta.objects.create(**{"task_id": task_id, "status": "SUCCESS", **fields})


def detail(client, row):
    response = client.get(f"/admin/djcelery/{row._meta.model_name}/{row.pk}/change/")
    assert response.status_code == 200
    return response.content.decode()


def pickled(value):
    return PickledObject(base64.b64encode(pickle.dumps(value, 2)).decode())


class Evil:
    def __reduce__(self):
        return eval, ("1/0",)


class BadRepr:
    def __repr__(self):
        raise RuntimeError("no text")


def test_results_can_be_seen_but_neither_added_nor_changed_nor_deleted(admin_client):
    task = make()
    for row, page in (
        (task, PAGE),
        (TaskSetMeta.objects.create(taskset_id="g", result=[]), GROUPS),
        (Chord.objects.create(group_id="g", changed_at=task.date_done), CHORDS),
    ):
        assert admin_client.get(page).status_code == 200
        assert admin_client.get(f"{page}add/").status_code == 403
        assert admin_client.post(f"{page}{row.pk}/change/", {}).status_code == 403
        assert admin_client.post(f"{page}{row.pk}/delete/", {"post": "yes"}).status_code == 403
        type(row).objects.get()


def test_who_may_not_view_results_is_refused(client, django_user_model):
    user = django_user_model.objects.create_user("person", is_staff=True)
    client.force_login(user)
    row = make()
    assert client.get(PAGE).status_code == 403
    assert client.get(f"{PAGE}{row.pk}/change/").status_code == 403
    user.user_permissions.add(Permission.objects.get(codename="view_taskmeta"))
    assert client.get(f"{PAGE}{row.pk}/change/").status_code == 200


def found(client, **params):
    return [row.task_id for row in client.get(PAGE, params).context["cl"].result_list]


def test_the_list_decodes_no_value_and_needs_the_same_few_queries_for_any_number_of_rows(admin_client):
    wide = {"result": "x", "traceback": "y", "args": [1], "kwargs": {"a": 1}, "progress": {"done": 1}}
    make("id-0", **wide)
    admin_client.get(PAGE)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(PAGE)
    for number in range(1, 30):
        make(f"id-{number}", meta={"children": []}, name="shop.tasks.add", worker="w1", runtime=0.5, **wide)
    with CaptureQueriesContext(connection) as many:
        admin_client.get(PAGE)
    # Session, person, the names and the workers to filter by, the rows.
    assert len(many) == len(few) == 5
    assert not [query["sql"] for query in many if "DISTINCT" in query["sql"]]
    rows = many.captured_queries[-1]["sql"].replace("`", '"')
    assert '"date_done"' in rows
    for column in (*wide, "meta"):
        assert f'"{column}"' not in rows


def test_the_list_shows_what_ran_where_and_for_how_long(admin_client):
    make(name="shop.orders.very.long.package.name.tasks.charge", worker="celery@one", runtime=1.25)
    text = admin_client.get(PAGE).content.decode()
    assert "celery@one" in text
    assert "1.250 s" in text
    assert 'title="shop.orders.very.long.package.name.tasks.charge"' in text
    assert ">shop.orders.very.long.package.name.tasks.charge<" not in text


def test_the_newest_result_comes_first(admin_client):
    make("aaa-1")
    make("bbb-2")
    assert found(admin_client) == ["bbb-2", "aaa-1"]


def test_a_task_is_found_by_the_beginning_of_its_id_or_of_its_name(admin_client):
    make("aaa-1", name="shop.tasks.add")
    make("bbb-2", name="shop.tasks.charge")
    make("ccc-3", name="blog.tasks.add")
    make("d%d-4")
    assert found(admin_client, q=" aaa ") == ["aaa-1"]
    assert found(admin_client, q="shop.tasks.add") == ["aaa-1"]
    assert found(admin_client, q="shop.") == ["bbb-2", "aaa-1"]
    assert found(admin_client, q="d%") == ["d%d-4"]
    assert found(admin_client, q="%") == found(admin_client, q="tasks") == found(admin_client, q="-1") == []
    assert len(found(admin_client, q=" ")) == 4


def test_a_whole_id_finds_its_row_alone(admin_client):
    make("aaa")
    make("aaa-1")
    assert found(admin_client, q="aaa") == ["aaa"]
    with CaptureQueriesContext(connection) as queries:
        found(admin_client, q="aaa")
    assert len(queries) == 6


@pytest.mark.parametrize("field", ["task_id", "name"])
def test_an_index_serves_the_search(field):
    TaskMeta.objects.bulk_create(
        TaskMeta(task_id=f"{number:05}", name=f"shop.tasks.t{number:05}", status="SUCCESS") for number in range(3000)
    )
    # MySQL looks into the index itself, and would end the test's transaction.
    if connection.vendor != "mysql":
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE celery_taskmeta")
    text = {"task_id": "0012", "name": "shop.tasks.t0012"}[field]
    rows = TaskMeta.objects.filter(finding.begins_with(connection.vendor, field, text)).only("pk")
    plan = rows.explain()
    assert len(rows) == 10
    assert {"sqlite": "USING", "postgresql": "Index", "mysql": "range"}[connection.vendor] in plan
    assert "djcelery_taskmeta_name_" in plan or field == "task_id"
    assert "Seq Scan" not in plan
    assert "SCAN celery_taskmeta" not in plan


def test_states_are_filtered_and_all_that_are_not_celerys_together(admin_client):
    make("ok")
    make("bad", status="FAILURE")
    make("running", status="PROGRESS")
    assert found(admin_client, status__exact="FAILURE") == ["bad"]
    assert found(admin_client, status__exact="other") == ["running"]
    assert found(admin_client, status__exact="PROGRESS") == ["running"]


def test_the_page_of_a_result_shows_value_traceback_and_children(admin_client):
    child = make("child-1", status="FAILURE")
    children = [[["child-1", None], None], [["group-1", None], [[["child-2", None], None]]]]
    row = make(result={"total": 3}, traceback="Traceback: boom", meta={"children": children})
    text = detail(admin_client, row)
    assert escape("{'total': 3}") in text
    assert "Traceback: boom" in text
    assert f'<a href="{PAGE}{child.pk}/change/">child-1</a> <b class="djcelery-red">FAILURE' in text
    assert "<li>child-2</li>" in text


def test_the_page_of_a_result_shows_the_whole_life_of_its_task(admin_client):
    make("parent-1")
    at = datetime(2024, 5, 1, 12, 0, 0, 123000, tzinfo=timezone.utc)
    row = make(
        name="shop.tasks.charge", args=[1, "é"], kwargs={"email": "x" * 200}, worker="celery@one", queue="payments",
        periodic_task="nightly", retries=2, root_id="id-1", parent_id="parent-1", group_id="group-1", created=at,
        started=at, finished=at, runtime=1234.5, progress={"percent": 30},
        flags="args_cut result_redacted new_word",
    )  # fmt: skip
    text = detail(admin_client, row)
    for shown in (
        "shop.tasks.charge", escape('[1, "é"]'), escape('{\n  "email": "xxx'), "celery@one", "payments", "nightly",
        "this task", "parent-1</a>", "group-1", "2024-05-01 ", ":00.123", "1234.500 s", escape('{"percent": 30}'),
        "<li>Arguments: too long; only a part is stored.</li>",
        "<li>Result: hidden, by the sender or by DJCELERY_REDACT.</li>", "<li>new_word</li>",
    ):  # fmt: skip
        assert shown in text, shown


def test_the_page_of_a_result_needs_a_query_for_each_kind_of_relative_that_it_has(admin_client):
    plain = make("plain", root_id="plain")
    children = [[[f"c-{number}", None], None] for number in range(50)]
    related = make("related", root_id="plain", parent_id="plain", group_id="g", meta={"children": children})
    TaskSetMeta.objects.create(taskset_id="g", result=[])
    detail(admin_client, plain)
    counts = []
    for row in (plain, related):
        with CaptureQueriesContext(connection) as queries:
            detail(admin_client, row)
        counts.append(len(queries))
    # Session, user, row and what the camera saw; then root, parent, group, chord and children.
    assert counts == [4, 9]


def test_a_group_is_linked_where_it_is_stored(admin_client):
    row = make(group_id="g-1")
    assert '<div class="readonly">g-1 </div>' in detail(admin_client, row)
    group = TaskSetMeta.objects.create(taskset_id="g-1", result=[])
    chord = Chord.objects.create(group_id="g-1", changed_at=row.date_done)
    text = detail(admin_client, row)
    assert f'{GROUPS}{group.pk}/change/">saved group result</a>' in text
    assert f'{CHORDS}{chord.pk}/change/">chord</a>' in text


def fields(text):
    """Return the names of the fields on the page of a row."""
    return re.findall(r'class="form-row field-(\w+)"', text)


def test_a_row_of_django_celery_shows_what_it_has_and_no_empty_fields(admin_client):
    text = detail(admin_client, make(result=pickled(5)))
    assert fields(text) == ["task_id", "state", "value", "encoding", "written"]
    assert "pickle of django-celery" in text
    assert "Related tasks" not in text


def test_a_field_that_is_zero_or_empty_is_shown(admin_client):
    text = detail(admin_client, make(args=[], kwargs={}, retries=0, runtime=0.0))
    assert {"arguments", "keywords", "retries", "took"} <= set(fields(text))


def test_a_state_that_is_not_celerys_is_shown_too(admin_client):
    text = detail(admin_client, make(status="PROGRESS", progress={"percent": 30}))
    assert "PROGRESS</b>" in text
    assert escape('{"percent": 30}') in text


def test_a_result_that_is_none_says_so(admin_client):
    assert '<pre class="djcelery-text">None</pre>' in detail(admin_client, make())


def test_values_are_escaped(admin_client):
    everywhere = {
        name: XSS
        for name in (
            "traceback",
            "name",
            "worker",
            "queue",
            "periodic_task",
            "root_id",
            "parent_id",
            "group_id",
            "flags",
        )
    }
    row = make(
        XSS, result={XSS: XSS}, meta={"children": [[[XSS, None], None]]}, args=[XSS], kwargs={XSS: 1}, progress=XSS,
        **everywhere,
    )  # fmt: skip
    for text in (detail(admin_client, row), admin_client.get(PAGE).content.decode()):
        assert XSS not in text
        assert escape(XSS) in text


def test_legacy_pickles_are_shown_as_values(admin_client):
    text = detail(admin_client, make(result=pickled({"when": (1, 2)})))
    assert escape("{'when': (1, 2)}") in text


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (pickled(Evil()), "may be loaded"),
        (PickledObject("gAJ9cQAo"), "unreadable"),
        (PickledObject("no json and no pickle"), "no json and no pickle"),
        (PickledObject(""), "&#x27;&#x27;"),
    ],
)
def test_what_cannot_be_decoded_is_shown_as_text_that_says_why(admin_client, stored, shown):
    row = make(result=stored, meta=stored)
    assert shown in detail(admin_client, row)
    assert admin_client.get(PAGE).status_code == 200


def test_a_class_whose_text_fails_does_not_break_the_page():
    assert values.value_text([BadRepr()]).startswith("[<Unrepresentable")


@pytest.mark.parametrize("value", ["x" * 50_000, list(range(50_000)), {"a": {"b": "x" * 50_000}}])
def test_long_values_are_cut_with_a_note(admin_client, value):
    text = detail(admin_client, make(result=value, traceback="y" * 50_000, args=[value]))
    assert len(text) < 80_000
    assert text.count("Cut: only about the first 10000 characters are shown.") == 3


def test_short_values_have_no_note(admin_client):
    assert "Cut:" not in detail(admin_client, make(result="x" * 5000, traceback="y"))


def test_deeply_nested_values_are_shown(admin_client):
    value = []
    for _ in range(400):
        value = [value]
    assert "[[[" in detail(admin_client, make(result=value))


@pytest.mark.parametrize("decode", [True, False])
def test_a_group_shows_the_tasks_in_it_whatever_form_it_is_stored_in(admin_client, decode):
    from celery.result import AsyncResult, GroupResult

    stored = make("t-1")
    group = GroupResult("g", [AsyncResult("t-1"), AsyncResult("t-2")])
    shown = (
        detail(admin_client, TaskSetMeta.objects.create(taskset_id="new", result=group.as_tuple()))
        if decode
        else values.task_links(values.task_ids(group))
    )
    assert f'<a href="{PAGE}{stored.pk}/change/">t-1</a>' in shown
    assert "<li>t-2</li>" in shown


def test_many_children_are_counted_instead_of_listed(django_assert_num_queries):
    with django_assert_num_queries(1):
        links = values.task_links(f"t-{number}" for number in range(250))
    assert links.count("<li>t-") == 200
    assert "and 50 more" in links


@pytest.mark.parametrize("stored", [None, "text", 5, {}, {"id": "x"}, [], [1, [2]], [["x"]]])
def test_what_is_no_list_of_results_gives_no_links(stored, django_assert_num_queries):
    with django_assert_num_queries(0):
        assert values.task_links(values.task_ids(stored)) is None


def test_a_chord_shows_how_far_it_is(admin_client):
    task = make("part-1")
    chord = Chord.objects.create(group_id="g", done=1, header="x" * 50_000, changed_at=task.date_done)
    ChordPart.objects.create(group_id="g", task_id="part-1", state="SUCCESS", position=0)
    assert "1 of ?" in admin_client.get(CHORDS).content.decode()
    assert f'{PAGE}{task.pk}/change/">part-1</a>' in detail(admin_client, chord)
    Chord.objects.update(size=2, added=1, dispatched_at=task.date_done)
    text = detail(admin_client, chord)
    assert "1 of 3" in text
    assert "callback sent" in text
    with CaptureQueriesContext(connection) as queries:
        admin_client.get(CHORDS, {"q": "g"})
    assert len(queries) == 4
    assert not [query["sql"] for query in queries if '"header"' in query["sql"].replace("`", '"')]


def test_the_pages_work_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    row = make()
    assert admin_client.get(PAGE).status_code == 200
    detail(admin_client, row)
