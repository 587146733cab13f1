"""Fixtures of the tests with a database."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission


@pytest.fixture
def person(client, django_user_model):
    """A function that logs in a member of the staff with the permissions named."""

    def log_in(*codenames):
        user = django_user_model.objects.create_user("person", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in
