"""What a superuser does in a browser, and what worker, beat and camera do of it."""

from __future__ import annotations

import signal

import pytest

from tests.browser.conftest import CAMERA, WORKER
from tests.browser.pages import CSS
from tests.services import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.browser, pytest.mark.long]


def follow_to(browser, text):
    """Follow the first link of the row of a list that has *text*."""
    browser.row(text).find_element(CSS, "a").click()


def test_who_logs_in_sees_a_task_succeed_and_another_fail_with_its_traceback(browser, stack):
    good, bad = stack.send("shop.tasks.add", 20, 22), stack.send("shop.tasks.fail", "SKU-17")
    browser.log_in("admin")
    browser.press("Overview")
    browser.see("Throughput")
    browser.press("Home")
    browser.press("Tasks")
    browser.see_at(f"taskstate/?q=id:{bad}", "FAILURE", "#result_list")
    follow_to(browser, bad[:8])
    browser.see("FAILURE", ".field-state_now")
    browser.see("sold out", ".field-raised")
    lines = browser.text(".field-error .djcelery-text").splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert '    raise StockError(sku, "sold out")' in lines
    browser.see_at(f"taskstate/?q=id:{good}", "SUCCESS", "#result_list")
    assert len(browser.all("#result_list tbody tr")) == 1
    follow_to(browser, good[:8])
    browser.see("SUCCESS", ".field-state_now")
    browser.see("42", ".field-value")
    browser.see(WORKER, ".field-at_worker")
    assert browser.all(".field-times svg")
    # The stored result, and back.
    browser.press("stored result")
    browser.see("Task result", "#content h1")
    browser.press("task")
    browser.see("Task detail", "#content h1")


def test_a_scheduled_task_that_is_revoked_is_dropped_by_the_worker(admin, stack):
    log = stack.programs.root / "sleepy"
    # Time enough for a busy machine to get to the last page.
    task_id = stack.send("shop.tasks.sleepy", str(log), countdown=30)
    page = stack.task(task_id, "RECEIVED")
    admin.open("taskstate/?eta=scheduled")
    admin.act(task_id[:8], "revoke_tasks")
    admin.see("Revoke this task? Workers that have not started it drop it; if it runs, it goes on.")
    assert task_id in admin.text("#content")
    logged = "django_admin_log WHERE change_message LIKE '%revoke%'"
    assert stack.count(logged) == 0
    admin.press("Yes, revoke")
    admin.see("Asked the workers to revoke 1 task.", ".messagelist .success")
    assert stack.count(logged) == 1
    assert stack.state_of(task_id) == "RECEIVED", "too late to revoke it"
    stack.wait_for_state(task_id, "REVOKED", 90)
    admin.open(page)
    admin.see("REVOKED", ".field-state_now")
    assert not log.exists()


def test_who_says_no_sends_nothing(admin, stack):
    task_id = stack.send("shop.tasks.add", 1, 1, countdown=300)
    key = stack.wait_for_state(task_id, "RECEIVED")
    admin.open("taskstate/")
    admin.act(task_id[:8], "revoke_tasks", "No, take me back")
    admin.see(task_id[:8], "#result_list")
    assert stack.count("django_admin_log WHERE object_id = ?", str(key)) == 0


def test_a_failed_task_is_sent_again(admin, stack):
    task_id = stack.send("shop.tasks.fail", "SKU-4")
    page = stack.task(task_id, "FAILURE")
    admin.open(f"taskstate/?q=id:{task_id}")
    admin.act(task_id[:8], "retry_tasks")
    admin.see("['SKU-4'] {}")
    admin.press("Yes, send again")
    admin.see("Sent 1 task again.", ".messagelist .success")
    admin.open(page)
    # The camera may have seen it by now; then its state and name stand beside it.
    new_id = admin.find(".field-again .readonly").text.split()[0]
    stack.wait_for_state(new_id, "FAILURE")
    admin.open(page)
    admin.press(new_id)
    admin.see(task_id, ".field-original")
    admin.see("SKU-4", ".field-arguments")


def test_a_changed_interval_is_followed_by_beat(admin, stack):
    def runs():
        return stack.programs.rows("SELECT total_run_count FROM djcelery_periodictask WHERE name = 'seldom'")[0][0]

    before, page = runs(), stack.entry("seldom")
    admin.open(page)
    admin.find(".field-interval .select2-selection").click()
    admin.find(".select2-search__field").send_keys("second")
    admin.see("every second", ".select2-results")
    next(each for each in admin.all(".select2-results__option") if each.text == "every second").click()
    admin.press("Save and continue editing")
    admin.see("was changed successfully", ".messagelist .success")
    admin.see("every second", ".field-in_words")
    wait_until(lambda: runs() >= before + 2, 20, "two more runs")
    admin.see_at(page, "SUCCESS", ".field-last_runs")
    # Off again, from the list: the other tests don't need it.
    admin.open("periodictask/?q=seldom")
    admin.act("seldom", "disable_tasks")
    admin.see("1 periodic task was disabled.", ".messagelist .success")
    admin.find("#result_list .field-enabled img[alt=False]")


def test_an_entry_that_is_run_now_runs_now(admin, stack):
    admin.open("periodictask/?q=nightly")
    admin.act("nightly clean-up", "run_tasks", "Yes, run now")
    admin.see("1 task was sent:", ".messagelist .success")
    link = admin.find(".messagelist .success a")
    stack.wait_for_state(link.text, "SUCCESS")
    link.click()
    admin.see("SUCCESS", "#result_list")
    assert len(admin.all("#result_list tbody tr")) == 1
    # Beat's own count and time are as they were.
    query = "SELECT total_run_count, last_run_at FROM djcelery_periodictask WHERE name = 'nightly clean-up'"
    assert stack.programs.rows(query)[0][0] == 0


def test_a_worker_tells_what_it_does_and_is_shut_down(admin, stack):
    name = "celery@shop2"
    worker = stack.start_worker(name)
    admin.see_at("workerstate/?q=shop2", "ONLINE", "#result_list")
    follow_to(admin, name)
    admin.ask_worker("shop.tasks.add")
    assert "prefork" in admin.text("#djcelery-live")
    admin.open("workerstate/?q=shop2")
    admin.act(name, "shutdown_nodes")
    admin.see("Shut this worker down?")
    assert worker.popen.poll() is None
    admin.press("Yes, shut down")
    admin.see("Asked 1 worker to shut down.", ".messagelist .success")
    assert worker.end(30) == 0, worker.text()
    admin.see_at("workerstate/?q=shop2", "OFFLINE", "#result_list")
    admin.open("workerstate/?online=1")
    shown = admin.text("#result_list")
    assert WORKER in shown
    assert name not in shown


def test_the_overview_says_by_itself_what_is_wrong_and_when_all_is_right_again(admin, stack):
    admin.open("overview/")
    admin.see("Everything is all right.", "#djcelery-status", timeout_s=30)
    admin.run("window.isTheSamePage = true")
    updated = admin.text("#djcelery-updated-time")
    stack.camera.send(signal.SIGTERM)
    try:
        assert stack.camera.end() == 0, stack.camera.text()
        admin.see(f"No camera is running: {CAMERA}", "#djcelery-status", timeout_s=25)
        assert "python manage.py celerycam" in admin.text("#djcelery-status")
        assert admin.text("#djcelery-updated-time") != updated
    finally:
        stack.start_camera()
    admin.see("Everything is all right.", "#djcelery-status", timeout_s=40)
    assert admin.run("return window.isTheSamePage")
