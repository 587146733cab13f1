"""Charts: what is drawn for which numbers, that nothing can break out of it, and that a strict CSP lets it pass."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest
from django.utils import translation

from djcelery.admin import charts
from djcelery.admin.charts import Series

XSS = "\"><script>alert('x')</script>"


def parsed(markup):
    """Return *markup* as XML, which it must be."""
    return ElementTree.fromstring(markup)


def percent(text):
    assert text.endswith("%")
    return float(text[:-1])


def columns(markup):
    return [group for group in parsed(markup).findall("g") if group.get("class") != "grid"]


def parts(group):
    """Return (paint, y, height) of the parts of one bar."""
    rects = [rect for rect in group.findall("rect") if rect.get("class") != "hit"]
    return [
        (rect.get("class") or rect.get("fill"), percent(rect.get("y")), percent(rect.get("height"))) for rect in rects
    ]


def draw(*values, level=None, **options):
    stacks = [Series(key, key.title(), numbers) for key, numbers in zip(("SUCCESS", "FAILURE"), values, strict=False)]
    labels = [f"12:{place:02}" for place in range(len(values[0]))]
    return charts.bars("t", "Title", "Text", labels, stacks, level, **options)


@pytest.mark.parametrize(
    ("highest", "lines"),
    [
        (0, [0, 1]),
        (1, [0, 1]),
        (3, [0, 1, 2, 3]),
        (4, [0, 1, 2, 3, 4]),
        (5, [0, 2, 4, 6]),
        (10, [0, 5, 10]),
        (120, [0, 50, 100, 150]),
        (100, [0, 25, 50, 75, 100]),
        (9_999_999, [0, 2_500_000, 5_000_000, 7_500_000, 10_000_000]),
    ],
)
def test_the_lines_of_a_chart_are_round_and_whole(highest, lines):
    assert charts.scale(highest) == lines


def test_a_low_chart_has_fewer_lines():
    assert charts.scale(20, ticks=2) == [0, 10, 20]
    assert charts.scale(5, ticks=2) == [0, 5]


def test_no_scale_has_too_many_lines_or_ends_below_what_it_shows():
    for highest in (*range(2, 3000), 10**9 + 1, 7 * 10**12):
        lines = charts.scale(highest)
        assert lines[-1] >= highest
        assert 2 <= len(lines) <= 6
        assert all(line == int(line) for line in lines)


def test_parts_are_stacked_from_the_bottom_up():
    success, failure = parts(columns(draw([30], [10]))[0])
    assert success == ("SUCCESS", 25.0, 75.0)
    assert failure == ("url(#t-FAILURE)", 0.0, 25.0)


def test_one_failure_among_very_many_is_seen():
    _success, failure = parts(columns(draw([1_000_000], [1]))[0])
    assert failure[2] >= 1


def test_nothing_stands_above_the_chart():
    shown = parts(columns(draw([1_000_000, 5], [1, 1]))[0])
    assert all(y >= 0 and y + high <= 100.01 for _paint, y, high in shown)


def test_an_empty_bin_has_a_tooltip_and_no_bar():
    group = columns(draw([0, 3]))[0]
    assert parts(group) == []
    assert group.find("title").text == "12:00: 0"


def test_each_bar_says_its_numbers():
    level = Series("RECEIVED", "Received", [1234])
    assert columns(draw([1200], [34], level=level))[0].find("title").text == (
        "12:00: Success 1,200, Failure 34, Received 1,234"
    )


def test_the_last_bin_is_marked_as_open():
    assert [group.get("class") for group in columns(draw([1, 2, 3]))] == [None, None, "now"]
    assert [group.get("class") for group in columns(draw([1, 2], is_open=False))] == [None, None]


def test_a_chart_is_named_and_described_for_screen_readers():
    chart = parsed(draw([1]))
    ids = chart.get("aria-labelledby").split()
    assert [chart.find(f"*[@id='{name}']").text for name in ids] == ["Title", "Text"]
    assert chart.get("role") == "img"


def test_states_differ_in_more_than_colour():
    tiles = parsed(charts.bars("t", "", "", ["a"], [Series(key, key, [1]) for key in charts.PATTERNS])).find("defs")
    looks = {ElementTree.tostring(tile[1]) + tile.get("patternTransform").encode() for tile in tiles}
    assert len(looks) == len(charts.PATTERNS) == len(list(tiles))


@pytest.mark.parametrize(
    "markup",
    [
        charts.bars(XSS, XSS, XSS, [XSS], [Series(XSS, XSS, [1])], Series(XSS, XSS, [1])),
        charts.sparkline([1, 2], XSS),
        charts.share([(XSS, 1)], XSS, XSS),
        charts.swatch(XSS, XSS),
        charts.swatch(XSS, XSS, is_line=True),
    ],
)
def test_nothing_breaks_out_of_a_chart(markup):
    assert "<script" not in markup
    parsed(markup)


def test_no_chart_has_styles_or_scripts_or_names_another_host():
    drawn = (
        draw([3, 4], [1, 0], level=Series("RECEIVED", "Received", [5, 6])),
        charts.sparkline([1, 2, 3], "x"),
        charts.share([("SUCCESS", 9), ("FAILURE", 1)], "x", "t"),
        charts.swatch("t", "FAILURE"),
    )
    for markup in drawn:
        for element in parsed(markup).iter():
            assert element.tag not in ("style", "script", "image", "foreignObject", "use", "a")
            assert not [name for name in element.attrib if name == "style" or name.startswith("on") or "href" in name]
        assert "//" not in markup


def test_decimal_commas_stay_out_of_the_svg():
    with translation.override("de"):
        markup = draw([1, 2, 4], [0, 1, 1])
        assert charts.number(1234.5) == "1.234" or charts.number(1234.5) == "1.235"
    attributes = [value for element in parsed(markup).iter() for name, value in element.attrib.items() if name != "id"]
    assert not [value for value in attributes if "," in value]


def test_a_chart_of_nothing_is_drawn():
    assert columns(draw([])) == []
    assert parsed(charts.sparkline([], "none")).find("path") is not None
    assert list(parsed(charts.share([], "none", "t"))) == []


def test_a_share_fills_its_bar_and_shows_the_smallest_part():
    rects = list(parsed(charts.share([("SUCCESS", 9999), ("FAILURE", 1)], "x", "t")))
    failure = rects[1]
    assert percent(failure.get("width")) >= 3
    assert percent(failure.get("x")) + percent(failure.get("width")) <= 100.01


def test_numbers_are_written_as_people_do():
    assert [charts.number(value) for value in (0, 3, 3.14, 31.4, 1234567)] == ["0", "3", "3.1", "31", "1,234,567"]
