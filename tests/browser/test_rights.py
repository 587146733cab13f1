"""Who may not do something is not offered it, and is refused when they ask all the same."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import WORKER

pytestmark = [pytest.mark.integration, pytest.mark.browser, pytest.mark.long]

ACTIONS = {
    "taskstate": ("revoke_tasks", "terminate_tasks", "kill_tasks", "rate_limit_tasks", "retry_tasks"),
    "workerstate": (
        *("shutdown_nodes", "enable_events", "disable_events", "grow_pool", "shrink_pool"),
        *("add_consumer", "cancel_consumer", "set_time_limit"),
    ),
    "periodictask": ("run_tasks", "enable_tasks", "disable_tasks"),
}
#: What the pages that ask would send.
ANSWERS = {"post": "yes", "rate_limit": "1/h", "n": "1", "queue": "other", "task_name": "x"}
LISTS = (
    *("overview", "taskstate", "taskmeta", "tasksetmeta", "chord", "workerstate", "periodictask", "periodicrun"),
    *("intervalschedule", "crontabschedule", "solarschedule", "clockedschedule"),
)


@pytest.fixture(scope="module")
def secret(stack):
    """The pages of a failed and of a scheduled task whose arguments say "sesame"."""
    failed, later = stack.send("shop.tasks.fail", "sesame-1"), stack.send("shop.tasks.add", "sesame", 2, countdown=600)
    return stack.task(failed, "FAILURE"), stack.task(later, "RECEIVED")


def live(worker):
    return worker.replace("change", "live")


def everything(stack):
    """Return what would change if anything had been done."""
    return [
        stack.count("django_admin_log"),
        stack.count("djcelery_periodictask WHERE enabled"),
        stack.count("djcelery_taskstate WHERE state = 'REVOKED' OR retried_as IS NOT NULL"),
        stack.count("djcelery_workerstate WHERE offline_at IS NULL"),
    ]


def test_a_viewer_is_offered_no_action_and_every_one_is_refused(browser, stack, secret):
    browser.log_in("viewer")
    before = everything(stack)
    entry, worker = stack.entry("nightly clean-up"), stack.worker(WORKER)
    for page in (secret[1], worker, entry):
        model, key, _change, _end = page.split("/")
        browser.open(f"{model}/")
        assert browser.all("#result_list tbody tr")
        assert browser.actions() == set()
        assert browser.all("input.action-select, .addlink, #content a[href*='/add/']") == []
        browser.open(page)
        assert browser.all("#content select[name=action], #content input[type=submit], [data-djcelery-into]") == []
        for action in ACTIONS[model]:
            chosen = {"action": action, "_selected_action": key, "index": "0"}
            assert browser.ask(f"{model}/", chosen).status == 403, action
            assert browser.ask(f"{model}/", {**chosen, **ANSWERS}).status == 403, action
    for path in (live(worker), "workerstate/add/", "periodictask/add/", "periodictask/registered/"):
        assert browser.ask(path).status == 403, path
    for path in (entry, entry.replace("change", "delete"), worker, worker.replace("change", "delete")):
        assert browser.ask(path, {"enabled": "", "hostname": "x", "post": "yes"}).status == 403, path
    assert everything(stack) == before


def test_who_may_one_thing_is_offered_that_alone(browser, stack, secret):
    browser.log_in("operator")
    before = everything(stack)
    browser.open("taskstate/")
    assert browser.actions() == {"revoke_tasks"}
    browser.open(secret[1])
    assert browser.actions() == {"revoke_tasks"}
    for action in set(ACTIONS["taskstate"]) - {"revoke_tasks"}:
        chosen = {"action": action, "_selected_action": secret[1].split("/")[1], "index": "0", **ANSWERS}
        assert browser.ask("taskstate/", chosen).status == 403
    assert everything(stack) == before
    browser.open(stack.worker(WORKER))
    browser.ask_worker("Tasks it knows")


def test_who_may_not_see_arguments_sees_none_and_finds_nothing_by_them(browser, stack, secret):
    browser.log_in("operator")
    failed, later = secret
    ((result,),) = stack.programs.rows("SELECT id FROM celery_taskmeta WHERE result LIKE '%sesame%'")
    worker = stack.worker(WORKER)
    lists = ("overview/", "taskstate/", "taskmeta/")
    for page in (*lists, failed, later, f"taskmeta/{result}/change/", worker, live(worker)):
        browser.open(page)
        assert "sesame" not in browser.source, page
    browser.open(failed)
    # What looks like the exception is not shown again as the value.
    for field in ("raised", "error", "arguments"):
        browser.see("(hidden)", f".field-{field}")
    browser.open("taskstate/?q=args:sesame")
    assert browser.all("#result_list tbody tr") == []
    browser.find(".djcelery-problem")


def test_who_may_see_nothing_sees_nothing(browser):
    browser.log_in("stranger")
    for name in LISTS:
        assert browser.ask(f"{name}/").status == 403, name
    assert browser.ask("overview/figures/").status == 403
    browser.open("../")
    assert "djcelery" not in browser.source.lower()


def test_who_is_not_logged_in_is_asked_to_log_in(browser):
    browser.open("overview/")
    browser.find("#id_username")
    for path in (*(f"{name}/" for name in LISTS), "overview/figures/", "periodictask/registered/"):
        for data in (None, {"action": "revoke_tasks", "_selected_action": 1, "post": "yes"}):
            answer = browser.ask(path, data)
            assert answer.status == 302, path
            assert re.match(r"/admin/login/\?next=/admin/djcelery/", answer.place), answer.place


def test_an_action_without_the_token_of_a_page_is_refused(admin, stack, secret):
    chosen = {"action": "revoke_tasks", "_selected_action": secret[1].split("/")[1], "index": "0", "post": "yes"}
    before = everything(stack)
    assert admin.ask("taskstate/", {**chosen, "csrfmiddlewaretoken": "b" * 32}).status == 403
    assert everything(stack) == before
