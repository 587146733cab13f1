"""The catalogs hold the texts of the sources, every language says all of them, and the compiled files are current.

Needs no gettext tools; how to make the files is on top of each ``django.po``.
"""

from __future__ import annotations

import ast
import gettext
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from django.utils import translation
from django.utils.translation.template import templatize

import djcelery
from djcelery import humanize
from djcelery.models import PeriodicTask

PACKAGE = Path(djcelery.__file__).resolve().parent
LANGUAGES = ["en", "es"]
#: English is the language of the sources; its catalog says nothing.
TRANSLATED = ["es"]

#: What the first arguments of Django's functions are.
ARGUMENTS = {
    "gettext": ("msgid",),
    "ngettext": ("msgid", "plural"),
    "pgettext": ("context", "msgid"),
    "npgettext": ("context", "msgid", "plural"),
}
LITERAL = r"""u?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
CALL_IN_TEMPLATE = re.compile(rf"\b(\w*gettext|_)\(\s*({LITERAL}(?:,\s*{LITERAL})*)")
PLACEHOLDER = re.compile(r"%\(\w+\)[a-z]|%[a-z]|\{\w*\}")


class Text(NamedTuple):
    """A text to translate; ``""`` stands for what it hasn't."""

    msgid: str
    plural: str = ""
    context: str = ""


@dataclass
class Entry:
    """One text of a .po file, and what is said for it: one form, or one for each plural form."""

    text: Text
    forms: list[str]

    def __str__(self) -> str:
        return self.text.msgid

    def compiled(self) -> dict[str | tuple[str, int], str]:
        """Return what the .mo holds of it: nothing, if nothing is said."""
        msgid = f"{self.text.context}\x04{self.text.msgid}" if self.text.context else self.text.msgid
        if not self.forms[0]:
            return {}
        return {(msgid, n): form for n, form in enumerate(self.forms)} if self.text.plural else {msgid: self.forms[0]}


def path(language: str, suffix: str) -> Path:
    return PACKAGE / "locale" / language / "LC_MESSAGES" / f"django{suffix}"


def read_po(language: str) -> tuple[str, list[Entry]]:
    """Return the header of a .po file and its entries."""
    blocks = path(language, ".po").read_text(encoding="utf-8").strip().split("\n\n")
    header, *entries = map(read_entry, blocks)
    assert header.text == Text("")
    return header.forms[0], entries


def read_entry(block: str) -> Entry:
    values: dict[str, str] = {}
    keyword = ""
    for line in block.splitlines():
        if line.startswith("#"):
            assert not line.startswith("#~"), f"a text that is no longer in the sources: {line}"
            continue
        if not line.startswith('"'):
            keyword, line = line.split(" ", 1)
        # What xgettext escapes, Python escapes likewise.
        values[keyword] = values.get(keyword, "") + ast.literal_eval(line)
    text = Text(values["msgid"], values.get("msgid_plural", ""), values.get("msgctxt", ""))
    return Entry(text, [values[name] for name in sorted(values) if name.startswith("msgstr")])


def texts_of_module(source: str) -> set[Text]:
    """Return the constants that are given to gettext and its siblings, whatever the module calls these."""
    tree = ast.parse(source)
    names = {
        alias.asname or alias.name: alias.name.removesuffix("_lazy").removesuffix("_noop")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "django.utils.translation"
        for alias in node.names
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            function = node.func.attr.removesuffix("_lazy").removesuffix("_noop")
        else:
            function = names.get(getattr(node.func, "id", ""), "")
        keys = ARGUMENTS.get(function, ())
        values = [arg.value for arg in node.args[: len(keys)] if isinstance(arg, ast.Constant)]
        if keys and len(values) == len(keys):
            found.add(Text(**dict(zip(keys, values, strict=True))))
    return found


def texts_of_template(source: str) -> set[Text]:
    """Return the texts of the translation tags, as Django finds them."""
    return {
        Text(**dict(zip(ARGUMENTS[name.replace("_", "gettext")], ast.literal_eval(f"[{literals}]"), strict=True)))
        for name, literals in CALL_IN_TEMPLATE.findall(templatize(source))
    }


def texts_of_sources() -> set[Text]:
    readers = {".py": texts_of_module, ".html": texts_of_template, ".txt": texts_of_template}
    files = [file for file in PACKAGE.rglob("*") if file.suffix in readers]
    return {text for file in files for text in readers[file.suffix](file.read_text(encoding="utf-8"))}


def test_the_search_finds_every_kind_of_text():
    module = """
from django.utils import translation
from django.utils.translation import gettext as _, ngettext_lazy as many, pgettext
_("one " "text"); many("row", "rows", "n"); pgettext("menu", "open"); translation.gettext_lazy("late")
_(variable); gettext("not Django's")
"""
    assert texts_of_module(module) == {
        Text("one text"),
        Text("row", "rows"),
        Text("open", context="menu"),
        Text("late"),
    }
    template = """
{% translate "it's" %} {% translate "open" context "menu" %} {{ _("value") }}
{% blocktranslate count n=n trimmed %}
  {{ n }} row
{% plural %}
  {{ n }} rows
{% endblocktranslate %}
"""
    assert texts_of_template(template) == {
        Text("it's"),
        Text("open", context="menu"),
        Text("value"),
        Text("%(n)s row", "%(n)s rows"),
    }


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_catalog_holds_the_texts_of_the_sources_and_no_others(language):
    in_catalog, in_sources = {entry.text for entry in read_po(language)[1]}, texts_of_sources()
    assert {"missing": in_sources - in_catalog, "left over": in_catalog - in_sources} == {
        "missing": set(),
        "left over": set(),
    }
    assert len(in_sources) > 100


@pytest.mark.parametrize("language", TRANSLATED)
def test_every_text_is_translated_in_all_plural_forms(language):
    header, entries = read_po(language)
    forms = int(re.search(r"nplurals=(\d+)", header)[1])
    assert [str(e) for e in entries if not all(e.forms) or len(e.forms) != (forms if e.text.plural else 1)] == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_translation_is_a_guess_of_the_tools(language):
    lines = path(language, ".po").read_text(encoding="utf-8").splitlines()
    assert [number for number, line in enumerate(lines, 1) if line.startswith("#,") and "fuzzy" in line] == []


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_has_the_placeholders_of_its_text(language):
    for entry in read_po(language)[1]:
        for number, form in enumerate(entry.forms):
            # In these languages the first form is that of one, and of nothing else.
            original = entry.text.plural if number else entry.text.msgid
            assert set(PLACEHOLDER.findall(form)) == set(PLACEHOLDER.findall(original)), form


@pytest.mark.parametrize("language", TRANSLATED)
def test_a_translation_begins_and_ends_as_its_text_does(language):
    marks = re.compile(r"[.:?]?\s*$")
    for entry in read_po(language)[1]:
        for form in entry.forms:
            assert marks.search(form)[0] == marks.search(entry.text.msgid)[0], form
            assert form[:1].isspace() == entry.text.msgid[:1].isspace(), form


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_compiled_file_says_what_the_catalog_says(language):
    header, entries = read_po(language)
    with path(language, ".mo").open("rb") as compiled:
        found = gettext.GNUTranslations(compiled)._catalog
    expected = {"": header}
    for entry in entries:
        expected.update(entry.compiled())
    assert found == expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_header_has_no_date_that_changes_with_every_run_of_makemessages(language):
    header, _entries = read_po(language)
    assert "Date" not in header
    assert f"Project-Id-Version: djcelery {'.'.join(map(str, djcelery.VERSION[:2]))}\n" in header
    assert f"Language: {language}\n" in header


def test_labels_are_in_the_active_language():
    with translation.override("es"):
        assert str(PeriodicTask._meta.verbose_name) == "tarea periódica"
        assert str(PeriodicTask._meta.get_field("queue").verbose_name) == "cola"
    with translation.override("en"):
        assert str(PeriodicTask._meta.verbose_name) == "periodic task"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "hace 0 días"), (1, "hace 1 día"), (2, "hace 2 días"), (1_000_000, "hace 1000000 de días")],
)
def test_counts_choose_the_plural_form_of_the_language(count, text):
    with translation.override("es"):
        assert humanize.pluralize_day(count) == text
