"""What can be measured of how a page looks: what sticks out of the window, and what can't be read."""

from __future__ import annotations

from tests.browser.pages import Browser
from tests.services import wait_until

# Of elements wider than the window, the innermost that no box with a scroll bar of its own holds.
STICKS_OUT = """
const limit = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth <= limit) { return []; }
const scrolls = (each) => each && each !== document.body && each !== document.documentElement &&
    (["auto", "scroll", "hidden"].includes(getComputedStyle(each).overflowX) || scrolls(each.parentElement));
return [...document.body.querySelectorAll("*")]
    .filter((each) => each.getBoundingClientRect().right > limit + 1 && !scrolls(each))
    .map((each) => `${each.tagName}.${each.className} ${Math.round(each.getBoundingClientRect().right)}`).slice(-5)
    .concat([`${document.documentElement.scrollWidth} > ${limit}`]);
"""

FINISH = """
document.getAnimations().forEach((each) => each.finish());
return document.getAnimations().length === 0;
"""

# Contrast as WCAG 2 computes it: 4.5 for text, 3 for large text. Pictures and what is hidden or off are left out, and
# Django's links to "#", which were visited: scripts are not told their colours.
PALE = """
const parse = (text) => {
    const found = text.match(/[\\d.]+/g).map(Number);
    return text.startsWith("color(srgb") ? found.map((each, i) => i < 3 ? each * 255 : each) : found;
};
const over = (top, below) => {
    const alpha = top.length > 3 ? top[3] : 1;
    return [0, 1, 2].map((i) => top[i] * alpha + below[i] * (1 - alpha));
};
const behind = (each) => {
    if (!each) { return [255, 255, 255]; }
    const color = parse(getComputedStyle(each).backgroundColor);
    return color.length > 3 && color[3] < 1 ? over(color, behind(each.parentElement)) : color.slice(0, 3);
};
const light = (color) => {
    const [r, g, b] = color.map((each) => each / 255)
        .map((each) => each <= 0.03928 ? each / 12.92 : Math.pow((each + 0.055) / 1.055, 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = new Map();
const walker = document.createTreeWalker(document.querySelector("#content"), NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), each = walker.currentNode.parentElement;
    const style = getComputedStyle(each), box = each.getBoundingClientRect();
    const isOff = each.closest("svg, script, style, option, [disabled], [href='#'], .visually-hidden") ||
        each.closest(".select2-hidden-accessible");
    if (!text || isOff || style.visibility === "hidden" || box.width < 2 || box.height < 2) { continue; }
    const background = behind(each), color = over(parse(style.color), background);
    const [high, low] = [light(color), light(background)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05), size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (isLarge ? 3 : 4.5)) {
        const name = `${each.tagName}.${each.className} in ${each.parentElement.className}`;
        found.set(name, `${name}: ${ratio.toFixed(2)} ${text.slice(0, 30)}`);
    }
}
return [...found.values()];
"""


def sticking_out(browser: Browser) -> list[str]:
    """Return what is wider than the window."""
    return browser.run(STICKS_OUT)


def pale(browser: Browser) -> list[str]:
    """Return which texts have too little contrast."""
    # Links take a moment to change their colours.
    wait_until(lambda: browser.run(FINISH), 10, "the end of transitions")
    return browser.run(PALE)
