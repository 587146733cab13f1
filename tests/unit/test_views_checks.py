"""The settings of the views, and their checks: ``check --deploy`` warns of each one that is open."""

from __future__ import annotations

import pytest
from django.core import checks as django_checks
from django.test import override_settings

from djcelery import checks
from djcelery.checks import views
from djcelery.conf import conf
from djcelery.exceptions import SettingError


def found(**settings):
    with override_settings(**settings):
        return [message for check in views.DEPLOY for message in check()]


def test_a_project_that_opens_nothing_is_not_warned():
    assert found() == []
    assert found(DJCELERY_APPLY_ALLOW=["shop.*", "mail.send"], DJCELERY_WEBHOOK_TOKEN="x" * views.MIN_TOKEN) == []
    assert found(DJCELERY_TASK_STATUS_ACCESS="id", DJCELERY_IS_TASK_SUCCESSFUL_ACCESS="id") == []


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("DJCELERY_APPLY_ACCESS", "djcelery.W601"),
        ("DJCELERY_TASK_VIEW_ACCESS", "djcelery.W601"),
        ("DJCELERY_TASK_STATUS_ACCESS", "djcelery.W602"),
        ("DJCELERY_IS_TASK_SUCCESSFUL_ACCESS", "djcelery.W602"),
        ("DJCELERY_REGISTERED_TASKS_ACCESS", "djcelery.W602"),
        ("DJCELERY_TASK_WEBHOOK_ACCESS", "djcelery.W603"),
    ],
)
def test_each_open_view_is_warned_of(name, id):
    (message,) = found(**{name: "open"})
    assert message.id == id
    assert message.msg.startswith(name)
    assert message.hint


@pytest.mark.parametrize("pattern", ["*", "**", "?*", "*.*"])
def test_a_pattern_for_all_tasks_is_warned_of(pattern):
    assert [message.id for message in found(DJCELERY_APPLY_ALLOW=["shop.add", pattern])] == ["djcelery.W604"]


def test_a_short_token_is_warned_of_and_not_shown():
    (message,) = found(DJCELERY_WEBHOOK_TOKEN="hunter2")
    assert message.id == "djcelery.W605"
    assert "hunter2" not in str(message)


def test_a_setting_that_cannot_be_parsed_is_left_to_its_own_check():
    assert found(DJCELERY_APPLY_ACCESS="nobody", DJCELERY_APPLY_ALLOW="shop.add", DJCELERY_WEBHOOK_TOKEN=5) == []


def test_the_warnings_are_for_deployment_only():
    with override_settings(DJCELERY_APPLY_ACCESS="open"):
        plain = django_checks.run_checks(tags=[checks.TAG])
        deployed = django_checks.run_checks(tags=[checks.TAG], include_deployment_checks=True)
    assert "djcelery.W601" not in {message.id for message in plain}
    assert "djcelery.W601" in {message.id for message in deployed}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("DJCELERY_APPLY_ACCESS", "id"),
        ("DJCELERY_APPLY_ACCESS", "OPEN"),
        ("DJCELERY_APPLY_ACCESS", None),
        ("DJCELERY_APPLY_ACCESS", True),
        ("DJCELERY_APPLY_ACCESS", ["open"]),
        ("DJCELERY_TASK_VIEW_ACCESS", "id"),
        ("DJCELERY_TASK_STATUS_ACCESS", "token"),
        ("DJCELERY_IS_TASK_SUCCESSFUL_ACCESS", ""),
        ("DJCELERY_REGISTERED_TASKS_ACCESS", "id"),
        ("DJCELERY_TASK_WEBHOOK_ACCESS", "permission"),
        ("DJCELERY_APPLY_ALLOW", "shop.*"),
        ("DJCELERY_APPLY_ALLOW", ["shop.*", 1]),
        ("DJCELERY_APPLY_ALLOW", [""]),
        ("DJCELERY_APPLY_ALLOW", None),
        ("DJCELERY_WEBHOOK_TOKEN", 12345678901234567890),
    ],
)
def test_wrong_values_are_refused_and_open_nothing(name, wrong):
    with override_settings(**{name: wrong}), pytest.raises(SettingError, match=name):
        getattr(conf, name)


def test_by_default_nothing_is_open():
    names = [name for name in vars(type(conf)) if name.endswith("_ACCESS")]
    assert len(names) == 6
    assert {getattr(conf, name) for name in names} == {"permission", "token"}
    assert conf.DJCELERY_APPLY_ALLOW == ()
    assert conf.DJCELERY_WEBHOOK_TOKEN is None
