"""A stored value survives saving its row, ``dumpdata`` and ``loaddata``, whether or not it can be read."""

from __future__ import annotations

import base64
import datetime
import io
import json
import pickle
from decimal import Decimal

import pytest
from django.core.management import call_command
from django.db import connection

from djcelery.models import TaskMeta, TaskSetMeta
from djcelery.picklefield import Refused, Unreadable, encode

pytestmark = pytest.mark.django_db

REFUSED = "gAJjc2hvcC50YXNrcwpCYXNrZXQKcQEpgXECfXEDVQVpdGVtc3EEXXEFKFUDdGVhcQZVBG1pbGtxB2VzYi4="
#: Texts that columns hold in the wild: every kind of value, and what no one can read.
TEXTS = {
    "number": "gAJLKi4=",
    "text": encode("42"),
    "set": encode({1, 2}),
    "tuple": encode((1, (2, 3))),
    "exception": encode(KeyError("schlüssel")),
    "date": encode(datetime.datetime(2015, 3, 1, 12, 30)),
    "decimal": encode(Decimal("12.50")),
    "refused": REFUSED,
    "refused inside": base64.b64encode(b"\x80\x02]cos\nsystem\n)Ra.").decode(),
    "broken": "gAJLKg==",
    "json": '{"a": [1, null]}',
    "json text": '"[1]"',
    "yaml": "a: 1\n",
    "no value": None,
}


@pytest.fixture
def rows():
    """A result per text, as the database holds it."""
    for number, (name, text) in enumerate(TEXTS.items(), 1):
        TaskMeta.objects.create(pk=number, task_id=name, status="SUCCESS")
        write(name, text)


def write(task_id, text):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE celery_taskmeta SET result = %s, meta = %s WHERE task_id = %s", [text, text, task_id])


def stored():
    """Return what the columns hold, by task id."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT task_id, result, meta FROM celery_taskmeta")
        return {task_id: (result, meta) for task_id, result, meta in cursor.fetchall()}


def test_saving_a_row_for_another_column_leaves_its_values_as_they_are_stored(rows):
    before = stored()
    for row in TaskMeta.objects.all():
        row.hidden = True
        row.save()
    assert stored() == before
    assert TaskMeta.objects.filter(hidden=True).count() == len(TEXTS)


def test_a_value_that_was_replaced_or_changed_in_place_is_stored_anew(rows):
    row = TaskMeta.objects.get(task_id="set")
    row.result = [1]
    row.save()
    assert stored()["set"] == ("[1]", TEXTS["set"])
    row = TaskMeta.objects.get(task_id="json")
    row.result["a"].append("new")
    row.save()
    assert stored()["json"][0] == '{"a": [1, null, "new"]}'
    row = TaskMeta.objects.get(task_id="number")
    row.result = 42.0
    row.save()
    assert stored()["number"][0] == "42.0"
    row.result = None
    row.save()
    assert stored()["number"][0] is None


def test_a_new_row_with_a_given_key_stores_what_it_was_given(rows):
    TaskMeta(pk=1, task_id="number", status="SUCCESS", result="new").save()
    assert stored()["number"][0] == '"new"'


def test_a_dump_brings_every_value_back(rows):
    before = stored()
    values = {row.task_id: repr(row.result) for row in TaskMeta.objects.all()}
    out = io.StringIO()
    call_command("dumpdata", "djcelery.taskmeta", stdout=out)
    TaskMeta.objects.all().delete()
    load(out.getvalue())
    assert {row.task_id: repr(row.result) for row in TaskMeta.objects.all()} == values
    # Numbers are plain numbers in a dump, everything else is the stored text.
    assert {name: texts for name, texts in stored().items() if name != "number"} == {
        name: texts for name, texts in before.items() if name != "number"
    }


def load(text):
    from django.core import serializers

    for item in serializers.deserialize("json", text):
        item.save()


def test_a_fixture_that_django_celery_dumped_can_be_loaded():
    fields = {"task_id": "a", "status": "SUCCESS", "result": TEXTS["set"], "date_done": "2012-04-19T13:46:05Z",
              "traceback": None, "hidden": False, "meta": None}  # fmt: skip
    load(json.dumps([{"model": "djcelery.taskmeta", "pk": 1, "fields": fields}]))
    assert TaskMeta.objects.get().result == {1, 2}


def test_a_saved_group_survives_too(celery_app):
    data = b"\x80\x02ccelery.result\nGroupResult\nU\x05group](ccelery.result\nAsyncResult\nU\x01a\x85Re\x86R."
    text = base64.b64encode(data).decode()
    TaskSetMeta.objects.create(taskset_id="group", result=None or [])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE celery_tasksetmeta SET result = %s", [text])
    row = TaskSetMeta.objects.get()
    assert [member.id for member in row.result.results] == ["a"]
    row.hidden = True
    row.save()
    with connection.cursor() as cursor:
        cursor.execute("SELECT result FROM celery_tasksetmeta")
        assert cursor.fetchone() == (text,)


def test_values_that_can_not_be_read_never_stop_a_list(rows):
    read = dict(TaskMeta.objects.values_list("task_id", "result"))
    assert isinstance(read["refused"], Refused)
    assert isinstance(read["broken"], Unreadable)
    assert all(str(row.to_dict()) for row in TaskMeta.objects.all())


def test_the_pickle_of_a_dump_is_the_one_that_was_stored(rows):
    out = io.StringIO()
    call_command("dumpdata", "djcelery.taskmeta", stdout=out)
    dumped = {row["fields"]["task_id"]: row["fields"]["result"] for row in json.loads(out.getvalue())}
    assert dumped["refused"] == REFUSED
    assert pickle.loads(base64.b64decode(dumped["exception"])).args == ("schlüssel",)
    assert dumped["number"] == 42
