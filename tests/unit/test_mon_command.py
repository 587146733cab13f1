"""``manage.py djcelerymon``: its line, its web server, and what it refuses or warns of."""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import urllib.error
import urllib.request

import pytest
from django.core.management import call_command, load_command_class
from django.core.management.base import CommandError
from django.test import modify_settings, override_settings

from djcelery.management import options as option_tools
from djcelery.management import web
from djcelery.management.base import CeleryCommand
from djcelery.management.commands import djcelerymon
from djcelery.management.web import Address, WebServer, parse_address
from tests.services import wait_until


class Server:
    """Stands in for the web server; *failure* is what has ended it."""

    def __init__(self, address, app):
        self.address, self.app, self.calls = address, app, []
        self.is_loopback, self.failure = address.host in ("127.0.0.1", "::1", "localhost"), None

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")


@pytest.fixture
def ran(celery_app, monkeypatch):
    """What Celery and the web server got: ``ran["line"]``, ``ran["server"]``; neither is started."""
    calls = {}

    def run_celery(self, line, program_name=None, defaults=None, **options):
        calls.update(line=line, program=self.click_program(options), calls=list(calls["server"].calls))
        if "ends" in calls:
            calls["ends"](calls["server"])

    def make(address, app):
        calls["server"] = Server(address, app)
        return calls["server"]

    monkeypatch.setattr(CeleryCommand, "run_celery", run_celery)
    monkeypatch.setattr(web, "WebServer", make)
    monkeypatch.setattr(
        "signal.signal", lambda number, handler: calls.setdefault("signals", {}).update({number: handler})
    )
    for name in ("CELERY_BROKER_URL", "CELERY_LOADER", "DJANGO_SETTINGS_MODULE", "PYTHONPATH"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    with (
        override_settings(ALLOWED_HOSTS=["localhost"]),
        modify_settings(INSTALLED_APPS={"append": "django.contrib.staticfiles"}),
    ):
        yield calls


def typed(*words):
    """Run the command as if *words* had been typed; return what it wrote to standard output and to standard error."""
    command = load_command_class("djcelery", "djcelerymon")
    command.stderr._out, command.stdout._out = io.StringIO(), io.StringIO()
    command.run_from_argv(["manage.py", "djcelerymon", "--skip-checks", *words])
    return command.stdout._out.getvalue(), command.stderr._out.getvalue()


CAMERA = "--camera=djcelery.snapshot.Camera"


@pytest.mark.parametrize(
    ("words", "address", "line"),
    [
        ([], Address("127.0.0.1", 8000), ["events", "--name=djcelerymon@%h", CAMERA]),
        (["8001"], Address("127.0.0.1", 8001), ["events", "--name=djcelerymon@%h", CAMERA]),
        (["-6"], Address("::1", 8000, True), ["events", "--name=djcelerymon@%h", CAMERA]),
        (["8001", "--ipv6"], Address("::1", 8001, True), ["events", "--name=djcelerymon@%h", CAMERA]),
        (["--noreload", "localhost:0"], Address("localhost", 0), ["events", "--name=djcelerymon@%h", CAMERA]),
        (["8001", "-f", "2", "--name=a"], Address("127.0.0.1", 8001), ["events", "--frequency=2", "--name=a", CAMERA]),
        (["-F", "2", "8001", "--name", "a", "-l", "warn", "-b", "redis://h"], Address("127.0.0.1", 8001),
         ["--broker=redis://h", "events", "--frequency=2", "--loglevel=WARNING", "--name=a", CAMERA]),
    ],
)  # fmt: skip
def test_the_line_is_that_of_runserver_and_celerycam(ran, words, address, line):
    typed(*words)
    assert ran["server"].address == address
    assert sorted(ran["line"]) == sorted(["--skip-checks", *line])


def test_the_broker_of_the_line_is_that_of_the_pages(ran):
    typed("-b", "redis://elsewhere")
    assert os.environ["CELERY_BROKER_URL"] == "redis://elsewhere"


def test_the_web_server_runs_as_long_as_the_camera(ran):
    typed()
    assert ran["calls"] == ["start"]
    assert ran["server"].calls == ["start", "stop"]
    assert ran["program"].commands["events"].title == "djcelerymon"


def test_a_camera_that_fails_ends_the_web_server(ran):
    def fail(server):
        raise CommandError("no tables")

    ran["ends"] = fail
    with pytest.raises(CommandError, match="no tables"):
        call_command("djcelerymon", "0")
    assert ran["server"].calls == ["start", "stop"]


def test_a_web_server_that_ends_by_itself_is_an_error(ran):
    ran["ends"] = lambda server: setattr(server, "failure", OSError("gone"))
    with pytest.raises(CommandError, match=r"The web server has ended: OSError\('gone'\)"):
        call_command("djcelerymon", "0")


def test_the_signals_end_it_without_a_traceback_before_the_camera_runs(ran):
    typed()
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(SystemExit) as ended:
            ran["signals"][number](number, None)
        assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--detach"], "runs in the foreground"),
        (["--dump"], "celeryev --dump"),
        (["8000000"], "'8000000' is no address"),
        (["65536"], "'65536' is no address"),
        (["host:"], "'host:' is no address"),
        (["a/b:80"], "is no address"),
        (["-f", "0"], "'0' is not a number of seconds above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_words(ran, words, text):
    with pytest.raises(CommandError) as refused:
        call_command("djcelerymon", *words)
    assert text in str(refused.value)
    assert "line" not in ran


def test_settings_without_pages_are_refused(ran):
    with override_settings(ROOT_URLCONF=None), pytest.raises(CommandError, match=r"python -m djcelery\.mon"):
        call_command("djcelerymon")
    with override_settings(ALLOWED_HOSTS=[]), pytest.raises(CommandError, match="ALLOWED_HOSTS is empty"):
        call_command("djcelerymon")
    with override_settings(STATIC_URL=None), pytest.raises(CommandError, match="STATIC_URL"):
        call_command("djcelerymon")
    assert "line" not in ran
    with override_settings(ALLOWED_HOSTS=[], DEBUG=True):
        call_command("djcelerymon")
    assert "line" in ran


@pytest.mark.parametrize("error", [ImportError("no redis here"), AttributeError("no redis here")])
def test_a_broker_without_its_client_library_is_refused(ran, monkeypatch, error):
    def fail(*args):
        raise error

    monkeypatch.setattr("kombu.connection.Connection.get_transport_cls", fail)
    with pytest.raises(CommandError, match=r"no redis here\. Install it"):
        call_command("djcelerymon")
    assert "line" not in ran


def test_it_says_where_the_admin_is_and_warns_of_nothing_on_loopback(ran):
    out, err = typed("8001")
    assert out == "-> djcelerymon: http://127.0.0.1:8001/admin/ (end it with Ctrl-C)\n"
    assert err == ""


def test_an_address_that_others_reach_is_a_warning(ran):
    out, err = typed("0.0.0.0:8001")
    assert "http://0.0.0.0:8001/" in out
    assert "Other machines reach 0.0.0.0:8001" in err
    assert "SSH" in err


def test_hosts_that_refuse_this_machine_are_a_warning(ran):
    with override_settings(ALLOWED_HOSTS=["shop.example.com"]):
        assert "ALLOWED_HOSTS names neither localhost" in typed()[1]
        assert "ALLOWED_HOSTS" not in typed("shop.example.com:80")[1]
    with override_settings(ALLOWED_HOSTS=["[::1]"]):
        assert typed("-6")[1] == ""


def test_missing_styles_are_a_warning(ran):
    with modify_settings(INSTALLED_APPS={"remove": "django.contrib.staticfiles"}):
        assert "the admin's styles are not served" in typed()[1]
        assert typed("--nostatic")[1] == ""


def test_options_without_meaning_are_accepted(ran):
    assert typed("--noreload")[1] == ""
    assert "--nothreading has no effect" in typed("--nothreading")[1]


def test_debug_is_never_touched(ran):
    from django.conf import settings

    typed()
    assert settings.DEBUG is False


def test_every_option_of_the_camera_is_offered_with_its_meaning(ran, celery_app):
    command = load_command_class("djcelery", "djcelerymon")
    parser = command.create_parser("manage.py", "djcelerymon")
    offered = set(parser._option_string_actions)
    for option in option_tools.program_options(djcelerymon.MON, celery_app):
        assert set(option.opts) | set(option.secondary_opts) <= offered
    assert [action.option_strings for action in parser._actions if not action.help] == []
    assert "usage: manage.py djcelerymon [port or host:port] [options]" in parser.format_help()
    assert "usage: djcelerymon [port" in command.create_parser("djcelerymon", "djcelerymon").format_help()


# -- the server --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "is_ipv6", "address", "written"),
    [
        (None, False, Address("127.0.0.1", 8000), "127.0.0.1:8000"),
        ("", True, Address("::1", 8000, True), "[::1]:8000"),
        ("0", False, Address("127.0.0.1", 0), "127.0.0.1:0"),
        ("mon.example.com:80", False, Address("mon.example.com", 80), "mon.example.com:80"),
        ("[fd00::1]:80", False, Address("fd00::1", 80, True), "[fd00::1]:80"),
    ],
)
def test_addresses(text, is_ipv6, address, written):
    assert parse_address(text, is_ipv6) == address
    assert str(address) == written


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


@pytest.fixture
def serving():
    """Start servers for an application; stop them at the end."""
    servers = []

    def serve(app=hello):
        servers.append(WebServer(Address("127.0.0.1", 0), app))
        servers[-1].start()
        return servers[-1]

    yield serve
    for server in servers:
        server.stop()


# Without the proxy of the environment: the server is on this machine.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def get(server, path="/"):
    with opener.open(f"http://{server.address}{path}", timeout=60) as response:
        return response.read()


def test_it_serves_until_it_is_stopped(serving):
    server = serving()
    assert server.is_loopback
    assert get(server) == b"hello"
    server.stop()
    assert not server.is_alive()
    assert server.failure is None
    with pytest.raises(urllib.error.URLError):
        get(server)


def test_requests_do_not_wait_for_each_other(serving):
    gate = threading.Event()

    def slow(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            gate.wait(60)
        return hello(environ, start_response)

    server, found = serving(slow), []
    waiting = threading.Thread(target=lambda: found.append(get(server, "/slow")))
    waiting.start()
    assert get(server) == b"hello"
    assert not found
    gate.set()
    waiting.join(60)
    assert found == [b"hello"]


def test_a_port_in_use_is_said_with_what_to_do():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"127.0.0.1:{port}: the port is in use. End the program that has it"):
            WebServer(Address("127.0.0.1", port), hello)


@pytest.mark.parametrize(
    ("host", "text"),
    [("192.0.2.1", "this machine has no such address"), ("no.such.host.invalid", "there is no such host")],
)
def test_an_address_of_nobody_is_said(host, text):
    with pytest.raises(CommandError, match=text):
        WebServer(Address(host, 0), hello)


def test_a_server_that_dies_stops_the_main_thread(monkeypatch):
    sent = []
    monkeypatch.setattr(signal, "pthread_kill", lambda ident, number: sent.append((ident, number)))
    server = WebServer(Address("127.0.0.1", 0), hello)
    monkeypatch.setattr(server.server, "serve_forever", lambda: (_ for _ in ()).throw(ValueError("bad descriptor")))
    # BaseServer.shutdown() waits for a loop that this one never had.
    monkeypatch.setattr(server.server, "shutdown", lambda: None)
    server.start()
    server.join(60)
    assert isinstance(server.failure, ValueError)
    assert sent == [(threading.main_thread().ident, signal.SIGTERM)]
    server.stop()


def test_a_server_whose_socket_is_gone_does_not_go_on(serving, monkeypatch):
    sent = []
    monkeypatch.setattr(signal, "pthread_kill", lambda ident, number: sent.append(number))
    server = serving()
    get(server)
    server.server.socket.close()
    server.join(60)
    assert not server.is_alive()
    assert "its socket is gone" in str(server.failure)
    assert sent == [signal.SIGTERM]


def test_too_many_open_files_do_not_end_the_server(serving, monkeypatch):
    server, errors = serving(), [OSError(24, "Too many open files")]
    accept = server.server.socket.accept

    class Socket:
        def accept(self):
            if errors:
                raise errors.pop()
            return accept()

    real = server.server.socket
    monkeypatch.setattr(server.server, "socket", Socket())
    assert get(server) == b"hello"
    assert errors == []
    monkeypatch.setattr(server.server, "socket", real)


def test_a_client_that_goes_away_is_no_error(serving, caplog):
    server = serving()
    with socket.create_connection(server.server.server_address) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
    assert get(server) == b"hello"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_request_that_breaks_is_logged(serving, caplog):
    def broken(environ, start_response):
        raise KeyError("in the application")

    server = serving(broken)
    with pytest.raises(urllib.error.HTTPError) as answer:
        get(server)
    assert answer.value.code == 500
    answer.value.close()
    assert b"in the application" not in answer.value.msg.encode()


def test_static_files_are_served_without_debug(serving, settings):
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.staticfiles"]
    settings.DEBUG = False
    settings.ALLOWED_HOSTS = ["127.0.0.1"]
    server = serving(web.application())
    assert b"--primary" in get(server, "/static/admin/css/base.css")
    for path, code in (
        ("/static/../settings.py", 400),
        ("/static/%2e%2e/%2e%2e/settings.py", 400),
        ("/static//etc/passwd", 404),
        ("/static/admin/", 404),
        ("/static/a%00b", 404),
    ):
        with pytest.raises(urllib.error.HTTPError) as answer:
            get(server, path)
        assert (path, answer.value.code) == (path, code)
        answer.value.close()


def test_a_thread_that_has_gone_leaves_no_connection(serving, settings):
    # Django's server closes the database connections of each request's thread; without that SQLite files pile up.
    closed = []
    server = serving()
    server.server._close_connections = lambda: closed.append(threading.current_thread().name)
    get(server)
    wait_until(lambda: closed, 60, "the end of the request")
    assert closed != [threading.current_thread().name]
