from __future__ import annotations

from types import SimpleNamespace

from django.utils.safestring import SafeString

from djcelery import admin_utils
from djcelery.admin_utils import fixedwidth


def show(value, **options):
    return fixedwidth("args", **options)(SimpleNamespace(args=value))


def test_attrs_sets_attributes_of_the_function_itself():
    def fun():
        return 1

    assert admin_utils.attrs(a=1, b=2)(fun) is fun
    assert (fun.a, fun.b) == (1, 2)


def test_display_field_makes_a_column_and_ignores_allow_tags():
    @admin_utils.display_field("Header", "name", allow_tags=True, boolean=True)
    def column(row):
        return row

    assert (column.short_description, column.admin_order_field, column.boolean) == ("Header", "name", True)
    assert not hasattr(column, "allow_tags")


def test_action_labels_an_action_and_can_name_its_permission():
    @admin_utils.action("Do it", allowed_permissions=["change"])
    def do_it(modeladmin, request, queryset):
        pass

    assert (do_it.short_description, do_it.allowed_permissions) == ("Do it", ["change"])


def test_fixedwidth_sorts_by_its_field_and_is_headed_by_its_name():
    assert fixedwidth("task_id", name="UUID").short_description == "UUID"
    assert fixedwidth("task_id").short_description == "task_id"
    assert fixedwidth("task_id").admin_order_field == "task_id"


def test_fixedwidth_writes_the_legacy_markup():
    assert show("abc", pt=8) == ('<span title="abc" style="font-size: 8pt; font-family: Menlo, Courier; ">abc</span> ')


def test_fixedwidth_breaks_lines_after_commas():
    assert ">(1,<br/> 2)</span>" in show("(1, 2)", pretty=True)


def test_fixedwidth_escapes_the_value_in_text_and_tooltip():
    shown = show('"><script>alert(1)</script>', pretty=True)
    assert isinstance(shown, SafeString)
    assert "<script>" not in shown
    assert shown.count("&quot;&gt;&lt;script&gt;") == 2


def test_fixedwidth_cuts_text_and_tooltip():
    shown = show("x" * 10_000)
    assert f">{'x' * 64}...</span>" in shown
    assert f'title="{"x" * 255}"' in shown


def test_fixedwidth_counts_a_line_break_as_five_characters():
    assert ">a,<br/>b...</span>" in show("a,bcdef", maxlen=8)


def test_fixedwidth_strips_the_quotes_that_python_2_sent():
    assert ">(1,)</span>".replace(",", ",<br/>") in show("u'(1,)'", pretty=True)


def test_fixedwidth_shows_other_values_as_python_writes_them():
    assert ">[1,<br/> 2]</span>" in show([1, 2], pretty=True)


def test_fixedwidth_of_none_is_the_word_if_pretty_and_empty_otherwise():
    assert ">None</span>" in show(None, pretty=True)
    assert show(None) is None
