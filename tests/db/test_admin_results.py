"""The pages of stored results: read-only, cheap lists, and values that can't hurt the reader."""

from __future__ import annotations

import base64
import pickle

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.html import escape

from djcelery.admin import results
from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.picklefield import PickledObject

pytestmark = pytest.mark.django_db

PAGE = "/admin/djcelery/taskmeta/"
GROUPS = "/admin/djcelery/tasksetmeta/"
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
    for row, page in ((make(), PAGE), (TaskSetMeta.objects.create(taskset_id="g", result=[]), GROUPS)):
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


def test_the_list_decodes_no_value_and_needs_the_same_few_queries_for_any_number_of_rows(admin_client):
    make("id-0", result="x", traceback="y")
    admin_client.get(PAGE)
    with CaptureQueriesContext(connection) as few:
        admin_client.get(PAGE)
    for number in range(1, 30):
        make(f"id-{number}", result="x", traceback="y", meta={"children": []})
    with CaptureQueriesContext(connection) as many:
        admin_client.get(PAGE)
    assert len(many) == len(few) == 4
    rows = many.captured_queries[-1]["sql"]
    assert "date_done" in rows
    for column in ("result", "traceback", "meta"):
        assert f'"{column}"' not in rows
        assert f"`{column}`" not in rows


def test_the_newest_result_comes_first_and_an_id_is_found_from_its_start(admin_client):
    make("aaa-1")
    make("bbb-2")
    assert [row.task_id for row in admin_client.get(PAGE).context["cl"].result_list] == ["bbb-2", "aaa-1"]
    assert [row.task_id for row in admin_client.get(PAGE, {"q": "aaa"}).context["cl"].result_list] == ["aaa-1"]
    assert not admin_client.get(PAGE, {"q": "-1"}).context["cl"].result_list


def test_the_page_of_a_result_shows_value_traceback_and_children(admin_client):
    children = [[["child-1", None], None], [["group-1", None], [[["child-2", None], None]]]]
    row = make(result={"total": 3}, traceback="Traceback: boom", meta={"children": children})
    text = detail(admin_client, row)
    assert escape("{'total': 3}") in text
    assert "Traceback: boom" in text
    assert f'<a href="{PAGE}?q=child-1">child-1</a>' in text
    assert f'<a href="{PAGE}?q=child-2">child-2</a>' in text


def test_the_page_of_a_result_without_anything_is_empty_and_not_none(admin_client):
    text = detail(admin_client, make())
    assert "<pre" in text  # the result is None, and says so
    assert text.count('<div class="readonly">-</div>') == 2


def test_values_are_escaped(admin_client):
    row = make(XSS, result={XSS: XSS}, traceback=XSS, meta={"children": [[[XSS, None], None]]})
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
    assert results.value_text([BadRepr()]).startswith("[<Unrepresentable")


@pytest.mark.parametrize("value", ["x" * 50_000, list(range(50_000)), {"a": {"b": "x" * 50_000}}])
def test_long_values_are_cut_with_a_note(admin_client, value):
    text = detail(admin_client, make(result=value, traceback="y" * 50_000))
    assert len(text) < 60_000
    assert text.count("Cut: only about the first 10000 characters are shown.") == 2


def test_short_values_have_no_note(admin_client):
    assert "Cut:" not in detail(admin_client, make(result="x" * 5000, traceback="y"))


def test_deeply_nested_values_are_shown(admin_client):
    value = []
    for _ in range(400):
        value = [value]
    assert "[[[" in detail(admin_client, make(result=value))


def test_a_group_shows_the_tasks_in_it_whatever_form_it_is_stored_in(admin_client):
    from celery.result import AsyncResult, GroupResult

    group = GroupResult("g", [AsyncResult("t-1"), AsyncResult("t-2")])
    stored = TaskSetMeta.objects.create(taskset_id="new", result=group.as_tuple())
    for shown in (detail(admin_client, stored), results.task_links(group)):
        assert f'<a href="{PAGE}?q=t-1">t-1</a>' in shown
        assert f'<a href="{PAGE}?q=t-2">t-2</a>' in shown


def test_many_children_are_counted_instead_of_listed():
    links = results.task_links([[[f"t-{number}", None], None] for number in range(250)])
    assert links.count("<a ") == 200
    assert "and 50 more" in links


@pytest.mark.parametrize("stored", [None, "text", 5, {}, {"id": "x"}, [], [1, [2]], [["x"]]])
def test_what_is_no_list_of_results_gives_no_links(stored):
    assert results.task_links(stored) is None


def test_the_pages_work_without_use_tz(admin_client, settings):
    settings.USE_TZ = False
    row = make()
    assert admin_client.get(PAGE).status_code == 200
    detail(admin_client, row)
