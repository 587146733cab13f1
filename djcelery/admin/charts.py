"""Charts as inline SVG: numbers in, safe markup out. Pure; no style attribute, so a strict CSP lets it pass.

Called by ``overview``. Positions are percentages, so a chart is as wide as its place and its text is never stretched;
colours come from ``overview.css`` by the class of each part, and a pattern per state says the same without colour.
Next: ``docs/monitor.rst``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from django.utils.formats import number_format
from django.utils.html import escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

#: What is drawn over the colour of a state: the marks of a tile of 6 by 6 pixels, and how the tiles are turned.
PATTERNS: dict[str, tuple[str, str]] = {
    "FAILURE": ('<rect class="mark" width="2" height="6"/>', "rotate(45)"),
    "RETRY": ('<rect class="mark" width="6" height="1.5"/>', "rotate(0)"),
    "REVOKED": ('<circle class="mark" cx="3" cy="3" r="1.4"/>', "rotate(45)"),
    "REJECTED": ('<rect class="mark" width="1.5" height="6"/>', "rotate(0)"),
    "LOST": ('<path class="mark" d="M0 0h6v1.5h-4.5v4.5h-1.5z"/>', "rotate(45)"),
}
#: The lowest part of a bar, in percent of the chart: one failure among thousands must be seen.
_LEAST = 1.2
#: The part of its place that a bar takes.
_WIDE = 0.82
_STEPS = (1, 2, 2.5, 5, 10)
TICKS = 4


@dataclass(frozen=True)
class Series:
    """Numbers of one kind, one per bin; ``key`` is the class of its parts, and a state if it has a pattern."""

    key: str
    label: str
    values: Sequence[float]


def number(value: float, decimals: int | None = None) -> str:
    """Return *value* as people write it in their language; None: one decimal if it is below ten and not whole."""
    if not decimals and value == int(value) and 0 <= value < 1000:
        # What a chart has most of needs no rules of a language.
        return str(int(value))
    if decimals is None:
        decimals = 0 if value == int(value) or abs(value) >= 10 else 1
    return str(number_format(value, decimals, use_l10n=True, force_grouping=True))


def scale(highest: float, ticks: int = TICKS) -> list[float]:
    """Return the values of about *ticks* lines, from 0 to one that is not below *highest*; at least 0 and 1."""
    if highest <= 1:
        return [0, 1]
    rough = highest / ticks
    power = 10 ** (len(str(int(rough))) - 1) if rough >= 1 else 1
    # Tasks are counted in whole numbers.
    step = next(power * step for step in _STEPS if power * step >= rough and power * step == int(power * step))
    lines = [0.0]
    while lines[-1] < highest:
        lines.append(lines[-1] + step)
    return lines


def bars(
    ident: str,
    title: str,
    description: str,
    labels: Sequence[str],
    stacks: Sequence[Series],
    level: Series | None = None,
    is_open: bool = True,
    ticks: int = TICKS,
) -> SafeString:
    """Return stacked bars, one per bin, with a tooltip each.

    Args:
        ident: Unique on the page; the ids of the parts begin with it.
        title: What the chart shows, for screen readers.
        description: What is to be seen in it, in a sentence.
        labels: The name of each bin, for its tooltip.
        stacks: From the bottom up.
        level: Drawn as a line across each bar.
        is_open: The last bin is not over yet.
        ticks: About how many lines it has; a low chart has room for few.
    """
    totals = [sum(column) for column in zip(*(series.values for series in stacks), strict=True)]
    lines = scale(max([*totals, *(level.values if level else ())], default=0), ticks)
    paints = [_paint(ident, series.key) for series in stacks]
    wide = 100 / max(len(labels), 1)
    columns = [_column(paints, place, label, stacks, level, lines[-1], wide) for place, label in enumerate(labels)]
    groups = [f"<g>{column}</g>" for column in columns]
    if groups and is_open:
        groups[-1] = f'<g class="now">{columns[-1]}</g>'
    return format_html(
        '<svg class="djcelery-chart" role="img" aria-labelledby="{0}-title {0}-desc">'
        '<title id="{0}-title">{1}</title><desc id="{0}-desc">{2}</desc>{3}{4}{5}{6}</svg>',
        ident,
        title,
        description,
        definitions(ident, [series.key for series in stacks]),
        _grid(lines, '<line x1="0" x2="100%" y1="{0}" y2="{0}"/>'),
        mark_safe("".join(groups)),  # noqa: S308 - see _column()
        # To the left of the chart, where the page leaves room.
        _grid(lines, '<text x="-6" y="{0}" dy="0.35em">{1}</text>'),
    )


def table(caption: str, heads: Sequence[str], lines: Iterable[tuple[str, Sequence[float]]]) -> SafeString:
    """Return the numbers of a chart as a table that only screen readers see."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{number(value)}</td>" for value in values)}</tr>'
        for label, values in lines
    )
    return format_html(
        # A table alone would take the room that its cells need.
        '<div class="visually-hidden"><table><caption>{}</caption><thead><tr>{}</tr></thead>'
        "<tbody>{}</tbody></table></div>",
        caption,
        mark_safe(head),  # noqa: S308 - escaped above
        mark_safe(body),  # noqa: S308 - escaped above
    )


def definitions(ident: str, keys: Iterable[str]) -> SafeString:
    """Return the patterns of the states *keys*, as ``url(#ident-STATE)``."""
    tiles = (
        (ident, key, PATTERNS[key][1], key, mark_safe(PATTERNS[key][0]))  # noqa: S308 - a constant of this module
        for key in keys
        if key in PATTERNS
    )
    tile = (
        '<pattern id="{}-{}" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="{}">'
        '<rect class="{}" width="6" height="6"/>{}</pattern>'
    )
    return format_html("<defs>{}</defs>", format_html_join("", tile, tiles))


def swatch(ident: str, key: str, is_line: bool = False) -> SafeString:
    """Return the sign of a series for the legend, with the patterns of the chart *ident*."""
    if is_line:
        inside = format_html('<line class="level {}" x1="0" x2="100%" y1="50%" y2="50%"/>', key)
    else:
        inside = format_html('<rect{} width="100%" height="100%"/>', _paint(ident, key))
    return format_html('<svg class="djcelery-swatch" aria-hidden="true">{}</svg>', inside)


def sparkline(values: Sequence[float], title: str) -> SafeString:
    """Return a small area without axes; *title* says what it is."""
    highest = max(values, default=0) or 1
    count = max(len(values), 1)
    # Steps, since counts belong to a bin as a whole; half a unit is left for the line at the top.
    points = "".join(
        f"V{19.5 - 18.5 * value / highest:.4g}H{100 * (place + 1) / count:.4g}" for place, value in enumerate(values)
    )
    return format_html(
        '<svg class="djcelery-spark" viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path d="M0 20{}V20z"/></svg>',
        title,
        points,
    )


def share(parts: Sequence[tuple[str, float]], title: str, ident: str) -> SafeString:
    """Return one bar across, divided by *parts* (state and number), with the patterns of the chart *ident*."""
    total = sum(value for _key, value in parts) or 1
    left, rects = 0.0, []
    for key, value in parts:
        if value:
            wide = max(100 * value / total, 3.0 if key != "SUCCESS" else 0.0)
            left = min(left, 100 - wide)
            rects.append((_paint(ident, key), _percent(left), _percent(wide)))
            left += wide
    return format_html(
        '<svg class="djcelery-share" role="img" aria-label="{}">{}</svg>',
        title,
        format_html_join("", '<rect{} x="{}" y="0" width="{}" height="100%"/>', rects),
    )


def _column(
    paints: Sequence[str],
    place: int,
    label: str,
    stacks: Sequence[Series],
    level: Series | None,
    top: float,
    wide: float,
) -> str:
    """Return one bar; all that is put in is a number or escaped, so it is safe."""
    left, width = _percent(wide * place + wide * (1 - _WIDE) / 2), _percent(wide * _WIDE)
    bottom, drawn, told = 100.0, [], []
    for series, paint in zip(stacks, paints, strict=True):
        value = series.values[place]
        if value:
            high = max(100 * value / top, _LEAST)
            # What is lifted to be seen must not stand above the chart.
            bottom = max(bottom - high, 0.0)
            drawn.append(f'<rect{paint} x="{left}" y="{_percent(bottom)}" width="{width}" height="{_percent(high)}"/>')
            told.append(f"{series.label} {number(value)}")
    start, end = _percent(wide * place), _percent(wide * (place + 1))
    if level is not None and (value := level.values[place]):
        high_at = _percent(100 - 100 * value / top)
        line = f'x1="{start}" x2="{end}" y1="{high_at}" y2="{high_at}"'
        drawn.append(f'<line class="level {escape(level.key)}" {line}/>')
        told.append(f"{level.label} {number(value)}")
    return (
        f"<title>{escape(label)}: {escape(', '.join(told) or '0')}</title>"
        f'<rect class="hit" x="{start}" y="0" width="{_percent(wide)}" height="100%"/>{"".join(drawn)}'
    )


def _grid(lines: Sequence[float], mark: str) -> SafeString:
    rows = ((_percent(100 - 100 * line / lines[-1]), number(line)) for line in lines[1:])
    return format_html('<g class="grid" aria-hidden="true">{}</g>', format_html_join("", mark, rows))


def _paint(ident: str, key: str) -> SafeString:
    # A class would win over the pattern, so it is one or the other.
    return format_html(' fill="url(#{}-{})"', ident, key) if key in PATTERNS else format_html(' class="{}"', key)


def _percent(value: float) -> str:
    # Not number_format: an SVG knows no decimal comma.
    return f"{value:.2f}".rstrip("0").rstrip(".") + "%"
