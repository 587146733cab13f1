"""Every command that a page of the manual types is one that its program takes, and what pages point to exists."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest
from celery.bin.celery import celery
from django.core.management import CommandError, get_commands, load_command_class

from tests.docs import pages

#: Their lines are free-form: what is typed behind the name is Celery's.
UMBRELLAS = {"celery", "celeryctl", "camqadm", "celeryd_multi"}


def parsed(name: str, arguments: list[str]) -> argparse.Namespace:
    """Parse the line of a management command by its own parser; fail if that doesn't take it."""
    assert name in get_commands(), f"there is no command {name}"
    parser = load_command_class(get_commands()[name], name).create_parser("manage.py", name)
    try:
        return parser.parse_args(arguments)
    except (SystemExit, CommandError):
        pytest.fail(f"manage.py {name} {shlex.join(arguments)} is refused")


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_every_command_line_of_a_page_is_taken(page):
    for name, arguments in pages.commands(page.read_text()):
        # What a reader puts a name for, and prompts of output.
        if name in UMBRELLAS or name.isupper() or {"NAME", "FILE", "…", "..."} & set(arguments):
            assert name.isupper() or name in get_commands()
            continue
        # The alias is the reader's.
        aliases = [place + 1 for place, word in enumerate(arguments) if word == "--database"]
        parsed(name, ["default" if place in aliases else word for place, word in enumerate(arguments)])


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_every_program_of_celery_that_a_page_starts_exists(page):
    for line in re.findall(r"celery -A \w+ ([a-z]+)\b", page.read_text()):
        assert line in celery.commands


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_checks_that_a_page_names_are_in_the_reference(page):
    known = re.findall(r"^``(djcelery\.[EIW]\d+)``", pages.read("reference/checks"), re.MULTILINE)
    assert set(re.findall(r"``(djcelery\.[EIW]\d+)``", page.read_text())) <= set(known)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_permissions_that_a_page_names_are_in_the_reference(page):
    known = pages.first_cells(pages.read("reference/permissions"))
    known += [f"djcelery.{kind}_{name.lower()}" for kind in ("add", "change", "delete", "view") for name in known]
    named = re.findall(r"``(djcelery\.[a-z]+_(?:taskstate|workerstate|taskmeta|periodictask))``", page.read_text())
    assert set(named) <= set(known)


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_settings_that_a_page_names_are_in_the_reference(page):
    known = pages.read("reference/settings")
    named = set(re.findall(r"\b(DJCELERY_[A-Z_]+[A-Z])\b", page.read_text()))
    assert [name for name in named if f"``{name}`` (default" not in known] == []


def test_the_words_that_answers_quote_are_those_of_the_messages():
    from kombu import serialization

    from djcelery.picklefield.refused import refused

    with pytest.raises(serialization.ContentDisallowed) as old_message:
        serialization.loads(b"", "application/x-python-serialize", "binary", accept={"application/json"})
    with pytest.raises(serialization.EncodeError) as no_json:
        serialization.dumps(object(), "json")
    answers = pages.read("faq")
    for quoted, message in [
        ("Refusing to deserialize", old_message.value),
        ("is not on the list of what may be loaded", refused("shop.Order")()),
        ("not JSON serializable", no_json.value),
    ]:
        assert f"``{quoted}``" in answers
        assert quoted in str(message)


def test_the_zone_of_crontabs_is_that_of_the_project(celery_app, settings):
    assert str(celery_app.timezone) == settings.TIME_ZONE


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.NAMES)
def test_pages_point_to_each_other_by_links(page):
    named = re.findall(r"``[\w/-]+\.rst``", page.read_text())
    assert named == [], "write :doc:`name`"


def test_every_answer_points_to_a_page():
    answers = pages.sections(pages.read("faq"), "~")
    assert len(answers) > 20
    for question, answer in answers.items():
        assert ":doc:" in answer, question
        assert len(answer.splitlines()) <= 14, question
