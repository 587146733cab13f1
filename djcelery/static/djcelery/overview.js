/* Keeps the overview fresh: fetches its figures every few seconds and puts in what has changed. */
(function () {
    "use strict";

    const page = document.getElementById("djcelery-monitor");
    const figures = document.getElementById("djcelery-figures");
    if (!page || !figures || !window.fetch) {
        return;
    }
    const note = document.getElementById("djcelery-updated");
    const text = document.getElementById("djcelery-updated-text");
    const time = document.getElementById("djcelery-updated-time");
    const button = document.getElementById("djcelery-pause");
    const said = document.getElementById("djcelery-said");
    const every = 1000 * Number(page.dataset.every);
    let kinds = document.getElementById("djcelery-status").dataset.kinds;
    let timer = null;
    let isPaused = false;
    let isAsking = false;

    function show(name, isStale) {
        text.textContent = page.dataset[name];
        note.classList.toggle("is-stale", isStale);
        note.classList.toggle("is-live", !isStale && !isPaused);
    }

    /* Leaves what is the same in place, and with it focus, hover and scrolling. */
    function put(markup) {
        const fresh = document.createElement("div");
        fresh.innerHTML = markup;
        const status = fresh.querySelector("#djcelery-status");
        if (!status) {
            return false;
        }
        const same = fresh.querySelectorAll("section").length === figures.querySelectorAll("section").length;
        if (!same) {
            figures.replaceChildren(...fresh.childNodes);
        }
        fresh.querySelectorAll("section[id]").forEach(function (section) {
            const shown = document.getElementById(section.id);
            if (!shown || shown.isEqualNode(section)) {
                return;
            }
            const focused = shown.contains(document.activeElement) ? focusable(shown).indexOf(document.activeElement) : -1;
            const scrolled = Array.from(shown.querySelectorAll(".djcelery-scroll"), (box) => box.scrollLeft);
            shown.replaceWith(section);
            section.querySelectorAll(".djcelery-scroll").forEach(function (box, number) {
                box.scrollLeft = scrolled[number] || 0;
            });
            if (focused >= 0 && focusable(section)[focused]) {
                focusable(section)[focused].focus({ preventScroll: true });
            }
        });
        time.textContent = status.dataset.updated;
        if (kinds !== status.dataset.kinds) {
            said.textContent = status.dataset.said;
        }
        kinds = status.dataset.kinds;
        return true;
    }

    function focusable(section) {
        return Array.from(section.querySelectorAll("a[href], [tabindex]"));
    }

    async function refresh() {
        if (isAsking || isPaused || document.hidden) {
            return;
        }
        isAsking = true;
        const stop = new AbortController();
        const limit = setTimeout(() => stop.abort(), every);
        try {
            const answer = await fetch(page.dataset.url, { credentials: "same-origin", signal: stop.signal });
            const isOurs = answer.ok && !answer.redirected && put(await answer.text());
            if (isOurs) {
                show("fresh", false);
            } else {
                show(answer.redirected || answer.status === 403 ? "out" : "away", true);
            }
        } catch (error) {
            show("away", true);
        } finally {
            clearTimeout(limit);
            isAsking = false;
        }
    }

    function start() {
        clearInterval(timer);
        timer = isPaused || document.hidden ? null : setInterval(refresh, every);
    }

    button.addEventListener("click", function () {
        isPaused = !isPaused;
        button.textContent = page.dataset[isPaused ? "resume" : "pause"];
        show(isPaused ? "paused" : "fresh", false);
        start();
        refresh();
    });
    document.addEventListener("visibilitychange", function () {
        start();
        refresh();
    });
    button.hidden = false;
    show("fresh", false);
    start();
})();
