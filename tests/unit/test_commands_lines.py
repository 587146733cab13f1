"""Free-form command lines: which options are found and moved, and what legacy sub-commands become."""

from __future__ import annotations

import pytest
from django.core.management.base import CommandError

from djcelery.management import amqp, lines


@pytest.mark.parametrize(
    ("words", "found", "rest"),
    [
        (["--settings=a.b", "x"], {"--settings": "a.b"}, ["x"]),
        (["x", "--settings", "a.b", "y"], {"--settings": "a.b"}, ["x", "y"]),
        (["-b", "amqp://h/?a=b", "x"], {"-b": "amqp://h/?a=b"}, ["x"]),
        (["-bamqp://h", "x"], {"-b": "amqp://h"}, ["x"]),
        (["--broker=redis://h/?a=b=c"], {"--broker": "redis://h/?a=b=c"}, []),
        (["-q", "x"], {"-q": True}, ["x"]),
        (["x", "--", "--settings=a"], {}, ["x", "--", "--settings=a"]),
        (["--settings=a", "--settings=b"], {"--settings": "b"}, []),
        (["--settingsfile=a", "--quiet=1"], {}, ["--settingsfile=a", "--quiet=1"]),
    ],
)
def test_options_are_taken_in_every_spelling(words, found, rest):
    names = {"--settings": True, "-b": True, "--broker": True, "-q": False, "--quiet": False}
    assert lines.take(words, names) == (found, rest)


def test_an_option_without_its_value_is_named():
    with pytest.raises(CommandError, match="--settings needs a value"):
        lines.take(["x", "--settings"], {"--settings": True})


@pytest.mark.parametrize(
    ("words", "general", "rest"),
    [
        (["status", "-b", "URL", "-t", "5"], ["-bURL"], ["status", "-t", "5"]),
        (["status", "--broker=URL", "-C", "-q"], ["--broker=URL", "-C", "-q"], ["status"]),
        (["call", "add", "-A", "proj", "--workdir", "/x"], ["-Aproj", "--workdir=/x"], ["call", "add"]),
        (["report", "--settings", "x", "-v", "2", "--traceback", "--force-color"], [], ["report"]),
        (["result", "ID", "--traceback"], [], ["result", "ID", "--traceback"]),
        (["list", "bindings", "-b", "URL"], ["-bURL"], ["list", "bindings"]),
    ],
)
def test_general_options_are_moved_unless_the_sub_command_has_them_itself(words, general, rest):
    assert lines.split(words) == (general, rest)


@pytest.mark.parametrize(
    ("legacy", "today"),
    [
        ("apply shop.add -a [1]", "call shop.add -a [1]"),
        ("inspect registered_tasks", "inspect registered"),
        ("inspect -t 5 enable_events", "control -t 5 enable_events"),
        ("inspect disable_events -d w1", "control disable_events -d w1"),
        ("inspect add_consumer q", "control add_consumer q"),
        ("inspect cancel_consumer q", "control cancel_consumer q"),
        ("inspect active", "inspect active"),
        ("shell -P", "shell --python"),
        ("help", "--help"),
        ("help inspect", "inspect --help"),
    ],
)
def test_legacy_sub_commands_become_those_of_today(legacy, today):
    assert lines.modern(legacy.split()) == today.split()


@pytest.mark.parametrize(
    ("legacy", "always", "today"),
    [
        ("queue.declare q no yes no yes", True, "queue.declare q no yes yes"),
        ("queue.declare q no yes off", True, "queue.declare q no yes"),
        ("queue.declare q no yes yes", False, "queue.declare q no yes yes"),
        ("queue.declare q no yes 0 yes", False, "queue.declare q no yes yes"),
        ("exchange.declare e direct no yes no no", True, "exchange.declare e direct no yes no"),
        ("exchange.declare e direct", True, "exchange.declare e direct"),
        ("queue.purge q", True, "queue.purge q"),
    ],
)
def test_camqadm_takes_the_arguments_of_old_in_their_order(legacy, always, today):
    assert amqp.legacy_words(legacy.split(), always) == today.split()


@pytest.mark.parametrize(
    ("line", "name"), [("queue.declare q no no yes", "exclusive"), ("exchange.declare e topic 0 0 0 1", "internal")]
)
def test_camqadm_names_an_argument_without_counterpart(line, name):
    with pytest.raises(CommandError, match=f"{name}=.* has no counterpart in Celery 5"):
        amqp.legacy_words(line.split(), True)
