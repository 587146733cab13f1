"""The login of the stand-alone monitor, which is made once."""

from __future__ import annotations

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.models import User

from djcelery.mon import make_login

pytestmark = pytest.mark.django_db


def test_the_login_is_made_once_and_may_do_everything():
    password = make_login()
    user = authenticate(username="admin", password=password)
    assert user.is_superuser
    assert user.is_staff
    assert len(password) == 20
    assert password not in user.password
    assert make_login() is None
    assert authenticate(username="admin", password=password) == user


def test_no_login_is_made_where_somebody_may_do_everything():
    User.objects.create_superuser("carol", password="x")
    assert make_login() is None
    assert not User.objects.filter(username="admin").exists()


def test_a_login_is_made_where_the_one_that_could_has_been_closed():
    User.objects.create_superuser("carol", password="x", is_active=False)
    assert authenticate(username="admin", password=make_login())


def test_a_new_password_ends_the_old_one_and_the_sessions(client):
    old = make_login()
    client.force_login(User.objects.get())
    assert client.get("/admin/").status_code == 200
    new = make_login(is_new_password=True)
    assert new != old
    assert authenticate(username="admin", password=old) is None
    assert authenticate(username="admin", password=new)
    assert client.get("/admin/").status_code == 302
    assert User.objects.count() == 1


def test_a_new_password_gives_back_the_rights_that_were_taken():
    make_login()
    User.objects.update(is_superuser=False, is_staff=False, is_active=False)
    user = authenticate(username="admin", password=make_login(is_new_password=True))
    assert (user.is_superuser, user.is_staff) == (True, True)


def test_two_logins_have_two_passwords():
    assert make_login() != make_login(is_new_password=True)
