/* Links that ask workers: what they answer goes into the page, and what was entered there stays. */
(function () {
    "use strict";

    if (!window.fetch) {
        return;
    }

    async function load(link, place) {
        const address = new URL(link.href);
        address.searchParams.set("fragment", "1");
        link.setAttribute("aria-busy", "true");
        try {
            const response = await fetch(address, { credentials: "same-origin", redirect: "error" });
            const text = await response.text();
            const isMarkup = (response.headers.get("Content-Type") || "").startsWith("text/html");
            if (!response.ok) {
                link.textContent = isMarkup ? `${response.status} ${response.statusText}` : text;
                return;
            }
            const chosen = place.value;
            place.innerHTML = text;
            if (place.tagName === "SELECT") {
                place.value = chosen;
            }
        } catch (error) {
            link.textContent = String(error);
        } finally {
            link.removeAttribute("aria-busy");
        }
    }

    document.addEventListener("click", function (event) {
        const link = event.target.closest("a[data-djcelery-into]");
        const place = link && document.querySelector(link.dataset.djceleryInto);
        if (!place || event.ctrlKey || event.metaKey || event.shiftKey || event.button) {
            return;
        }
        event.preventDefault();
        load(link, place);
    });
})();
