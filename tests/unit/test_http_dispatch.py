"""Tasks that call a URL: what is sent, what may be called, and what becomes of every answer."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import ssl
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.test import override_settings
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from hypothesis import given, settings
from hypothesis import strategies as st

import djcelery
from djcelery import exceptions, webhooks
from djcelery.checks import webhooks as checks
from djcelery.conf import conf
from djcelery.contrib.testing import capture_tasks
from djcelery.exceptions import SettingError
from djcelery.views import task_webhook
from djcelery.webhooks import (
    URL,
    HttpDispatch,
    HttpDispatchTask,
    InvalidResponseError,
    RemoteExecuteError,
    UnknownStatusError,
    WebhookRefused,
    WebhookUnreachable,
    http_dispatch,
    post_json,
    target,
    transport,
)

CERTIFICATE = Path(__file__).parent / "certificates" / "localhost.pem"


class Receiver(BaseHTTPRequestHandler):
    """Answers what the server's ``answers`` say, by path."""

    def answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        request = {
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers),
            "body": self.rfile.read(length),
        }
        self.server.requests.append(request)
        status, body, headers = self.server.answers.get(urlsplit(self.path).path, (404, b"", {}))
        if callable(body):
            body(self)
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Keep quiet: clients that go away are what the tests are about."""

    def says(self, path, payload=None, status=200, raw=None, **headers):
        body = raw if raw is not None else json.dumps(payload).encode()
        self.answers[path] = (status, body, headers)
        return f"http://127.0.0.1:{self.server_port}{path}"


@contextmanager
def running(tls=False):
    server = Server(("127.0.0.1", 0), Receiver)
    server.answers, server.requests = {}, []
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(CERTIFICATE)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server():
    with running() as server, override_settings(DJCELERY_WEBHOOK_ALLOW=["127.0.0.1"]):
        yield server


@pytest.fixture
def addresses(monkeypatch):
    """What the resolver says, by host; it is asked for nothing else."""
    known, asked = {}, []

    def resolve(host, port, *args, **kwargs):
        asked.append(host)
        answers = known.get(host, ())
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port))
            for text in answers
        ]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    known["asked"] = asked
    return known


# what is sent


def test_get_sends_the_arguments_in_the_query_beside_those_of_the_url(server):
    url = server.says("/multiply", {"status": "success", "retval": 100})
    assert HttpDispatch(f"{url}?a=1%2C2", "GET", {"x": 10, "y": "ü &", "z": [1, 2]}).dispatch() == 100
    (request,) = server.requests
    assert request["method"] == "GET"
    assert parse_qs(urlsplit(request["path"]).query) == {"a": ["1,2"], "x": ["10"], "y": ["ü &"], "z": ["1", "2"]}
    assert request["headers"]["User-Agent"].startswith("djcelery/")
    assert request["headers"]["Host"] == f"127.0.0.1:{server.server_port}"
    assert "Authorization" not in request["headers"]


def test_post_sends_them_as_a_form_and_leaves_the_query_alone(server):
    url = server.says("/multiply", {"status": "success", "retval": None})
    assert HttpDispatch(f"{url}?a=1", "post", {"x": 10}).dispatch() is None
    (request,) = server.requests
    assert (request["method"], request["path"], request["body"]) == ("POST", "/multiply?a=1", b"x=10")
    assert request["headers"]["Content-Type"] == "application/x-www-form-urlencoded"


def test_json_is_sent_as_it_is(server):
    url = server.says("/", {"status": "success", "retval": {"deep": [1, {"a": None}]}})
    assert HttpDispatch(url, "POST", ["ü", {"a": 1}], encoding="json").dispatch() == {"deep": [1, {"a": None}]}
    (request,) = server.requests
    assert json.loads(request["body"]) == ["ü", {"a": 1}]
    assert request["headers"]["Content-Type"] == "application/json"


def test_text_that_is_no_ascii_is_quoted(server):
    server.says("/%C3%BC", {"status": "success", "retval": 1})
    assert HttpDispatch(f"http://127.0.0.1:{server.server_port}/ü?q=ä").dispatch() == 1
    assert server.requests[0]["path"] == "/%C3%BC?q=%C3%A4"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "HEAD", "", "GET / HTTP/1.1\r\nX: y"])
def test_other_methods_are_refused(server, method):
    with pytest.raises(WebhookRefused, match="by GET or POST"):
        HttpDispatch(server.says("/", {}), method).dispatch()
    assert server.requests == []


def test_a_subclass_may_add_headers(server):
    class Ours(HttpDispatch):
        user_agent = "shop/1"

        @property
        def http_headers(self):
            return {**super().http_headers, "X-Shop": "1"}

    assert Ours(server.says("/", {"status": "success", "retval": 1})).dispatch() == 1
    assert server.requests[0]["headers"]["X-Shop"] == "1"
    assert server.requests[0]["headers"]["User-Agent"] == "shop/1"


def test_proxies_of_the_environment_are_not_used(server, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    assert HttpDispatch(server.says("/", {"status": "success", "retval": 1})).dispatch() == 1


# tokens


def test_a_token_is_sent_to_its_own_origin_and_to_no_other(server):
    url = server.says("/", {"status": "success", "retval": 1})
    with override_settings(DJCELERY_WEBHOOK_SEND_TOKENS={url: "s3cret"}):
        HttpDispatch(url).dispatch()
    others = [
        f"http://127.0.0.1:{server.server_port + 1}",
        "http://127.0.0.1",
        f"https://127.0.0.1:{server.server_port}",
    ]
    with override_settings(DJCELERY_WEBHOOK_SEND_TOKENS=dict.fromkeys(others, "s3cret")):
        HttpDispatch(url).dispatch()
    assert server.requests[0]["headers"]["Authorization"] == "Bearer s3cret"
    assert "Authorization" not in server.requests[1]["headers"]


def test_the_token_of_receivers_is_not_sent_by_itself(server):
    with override_settings(DJCELERY_WEBHOOK_TOKEN="s3cret"):
        HttpDispatch(server.says("/", {"status": "success", "retval": 1})).dispatch()
    assert "s3cret" not in str(server.requests)


@pytest.mark.parametrize(
    "value",
    [
        {"hooks.example.com": "x"},
        {"ftp://hooks.example.com": "x"},
        {"https://hooks.example.com/path": "x"},
        {"https://user:s3cret@hooks.example.com": "x"},
        {"https://hooks.example.com": "s3cret\r\nX: y"},
        {"https://hooks.example.com": ""},
        {"https://hooks.example.com": 5},
        "s3cret",
    ],
)
def test_tokens_that_cannot_be_used_are_named_without_the_secret(value):
    with override_settings(DJCELERY_WEBHOOK_SEND_TOKENS=value), pytest.raises(SettingError) as caught:
        _ = conf.DJCELERY_WEBHOOK_SEND_TOKENS
    assert "s3cret" not in str(caught.value)


# what may be called


REFUSED = [
    "0.0.0.0",
    "10.0.0.1",
    "100.64.0.1",
    "100.100.100.200",
    "127.0.0.1",
    "127.255.255.255",
    "168.63.129.16",
    "169.254.169.254",
    "172.31.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("address", REFUSED)
def test_addresses_that_are_not_public_are_refused(addresses, address):
    addresses["evil.example"] = [address]
    with pytest.raises(WebhookRefused, match="not a public address"):
        HttpDispatch("http://evil.example/").dispatch()


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]
)
def test_public_addresses_may_be_called(address):
    assert target.may_be_called(address)


def test_one_address_that_is_not_public_refuses_the_host(addresses):
    addresses["evil.example"] = ["8.8.8.8", "127.0.0.1"]
    with pytest.raises(WebhookRefused, match=r"at 127\.0\.0\.1"):
        HttpDispatch("http://evil.example/").dispatch()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "017700000001",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "①②⑦.0.0.1",
        "127。0。0。1",
        "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    ],
)
def test_no_spelling_of_this_machine_gets_through(host):
    with running() as server, pytest.raises((WebhookRefused, WebhookUnreachable)) as caught:
        HttpDispatch(f"http://{host}:{server.server_port}/").dispatch()
    assert server.requests == []
    assert "can't be connected to" not in str(caught.value)


def test_the_resolver_is_asked_once_and_its_answer_is_what_is_connected_to(addresses, monkeypatch):
    connected = []

    def connect(self, where):
        connected.append(where)
        raise ConnectionRefusedError("no")

    monkeypatch.setattr(socket.socket, "connect", connect)
    addresses["rebinding.example"] = ["8.8.8.8", "8.8.4.4"]
    with pytest.raises(WebhookUnreachable, match="can't be connected to"):
        HttpDispatch("http://rebinding.example/").dispatch()
    assert addresses["asked"] == ["rebinding.example"]
    assert connected == [("8.8.8.8", 80), ("8.8.4.4", 80)]


@pytest.mark.parametrize(
    ("allowed", "host", "address"),
    [
        (["intranet.example"], "intranet.example", "10.0.0.1"),
        (["Intranet.Example."], "INTRANET.example.", "10.0.0.1"),
        (["10.0.0.0/8"], "intranet.example", "10.0.0.1"),
        (["10.0.0.0/8"], "intranet.example", "::ffff:10.0.0.1"),
        (["fd00::/8"], "intranet.example", "fd00::1"),
        (["::1"], "intranet.example", "::1"),
        (["[::1]"], "intranet.example", "::1"),
        (["bücher.example"], "xn--bcher-kva.example", "10.0.0.1"),
    ],
)
def test_hosts_and_networks_may_be_allowed(addresses, allowed, host, address):
    addresses[host.lower().rstrip(".")] = [address]
    with override_settings(DJCELERY_WEBHOOK_ALLOW=allowed):
        found = target.addresses(target.parse(f"http://{host}/"))
    assert [where[0] for _, where in found] == [address]


def test_what_is_allowed_allows_nothing_else(addresses):
    addresses["intranet.example.evil.example"] = ["10.0.0.2"]
    with override_settings(DJCELERY_WEBHOOK_ALLOW=["intranet.example", "10.0.0.1"]), pytest.raises(WebhookRefused):
        HttpDispatch("http://intranet.example.evil.example/").dispatch()


@pytest.mark.parametrize("value", ["10.0.0.0/8", [5], ["10.0.0.1/8"], ["a b"], ["http://x"], [""]])
def test_allowed_receivers_that_cannot_be_read_are_an_error(value):
    with override_settings(DJCELERY_WEBHOOK_ALLOW=value), pytest.raises(SettingError, match="DJCELERY_WEBHOOK_ALLOW"):
        _ = conf.DJCELERY_WEBHOOK_ALLOW


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (None, "needs the URL"),
        ("", "needs the URL"),
        (5, "needs the URL"),
        ("/path", "http or https"),
        ("//host/path", "http or https"),
        ("ftp://8.8.8.8/", "http or https"),
        ("file:///etc/passwd", "http or https"),
        ("gopher://8.8.8.8/_x", "http or https"),
        ("javascript:alert(1)", "http or https"),
        ("http://", "no usable host"),
        ("http:///path", "no usable host"),
        ("http://a..b/", "no usable host"),
        ("http://" + "a" * 70 + ".example/", "no usable host"),
        ("http://a;b/", "no usable host"),
        ("http://[fe80::1%25eth0]/", "host"),
        ("http://[::1/", "malformed"),
        ("http://host:99999/", "malformed"),
        ("http://host:x/", "malformed"),
        ("http://user:s3cret@host/", "a user or a password"),
        ("http://s3cret@host/", "a user or a password"),
        ("http://allowed.example@evil.example/", "a user or a password"),
        ("http://host/a b", "a blank"),
        ("http://host/\r\nX: y", "a blank"),
        ("ht\ntp://host/", "a blank"),
        ("http://allowed.example\\@evil.example/", "a blank"),
        (" http://host/", "a blank"),
    ],
)
def test_urls_that_cannot_be_meant_are_refused_and_show_no_secret(url, why):
    with pytest.raises(WebhookRefused, match=why) as caught:
        HttpDispatch(url).dispatch()
    assert "s3cret" not in str(caught.value)


@given(st.one_of(st.text(max_size=60), st.from_regex(r"(http|https|HTTP)://[^\s]{0,40}", fullmatch=True)))
@settings(max_examples=300, deadline=None, database=None)
def test_whatever_is_given_as_url_is_a_target_or_refused(url):
    try:
        found = target.parse(url)
    except WebhookRefused:
        return
    assert found.scheme in ("http", "https")
    assert found.host
    assert found.path.isascii()
    assert not set(found.path + found.host) & set(" \r\n\t\\")
    assert "@" not in found.host


def test_errors_and_log_show_neither_path_nor_query(server, caplog):
    caplog.set_level(logging.DEBUG)
    url = server.says("/s3cret", {"status": "odd"})
    with pytest.raises(UnknownStatusError) as caught:
        HttpDispatch(f"{url}?token=s3cret").dispatch()
    assert f"http://127.0.0.1:{server.server_port}/…" in str(caught.value)
    assert "s3cret" not in str(caught.value) + caplog.text
    assert f"GET http://127.0.0.1:{server.server_port}/…: 200" in caplog.text


# TLS


def test_tls_is_checked_for_the_name_in_the_url_at_the_address_that_was_looked_at(monkeypatch):
    with running(tls=True) as server, override_settings(DJCELERY_WEBHOOK_ALLOW=["127.0.0.1", "localhost"]):
        server.says("/", {"status": "success", "retval": "safe"})
        url = f"https://localhost:{server.server_port}/"
        with pytest.raises(WebhookRefused, match="no valid certificate"):
            HttpDispatch(url).dispatch()
        monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
        assert HttpDispatch(url).dispatch() == "safe"
        with pytest.raises(WebhookRefused, match="no valid certificate"):
            HttpDispatch(f"https://127.0.0.1:{server.server_port}/").dispatch()
        assert len(server.requests) == 1


def test_a_server_without_tls_is_unreachable_by_https(server):
    with pytest.raises(WebhookUnreachable, match="can't be connected to"):
        HttpDispatch(f"https://127.0.0.1:{server.server_port}/").dispatch()


# answers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(server, status):
    goal = server.says("/goal", {"status": "success", "retval": 1})
    url = server.says("/", status=status, raw=b"", Location=goal)
    with pytest.raises(InvalidResponseError, match="not followed"):
        HttpDispatch(url).dispatch()
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_an_answer_that_means_later_is_unreachable(server, status):
    url = server.says("/", {"status": "failure", "reason": "busy"}, status=status)
    with pytest.raises(WebhookUnreachable, match=str(status)):
        HttpDispatch(url).dispatch()


@pytest.mark.parametrize("status", [200, 400, 403])
def test_the_reason_of_a_failure_is_the_error(server, status):
    url = server.says("/", {"status": "failure", "reason": "Invalid moon alignment."}, status=status)
    with pytest.raises(RemoteExecuteError, match=r"^Invalid moon alignment\.$"):
        HttpDispatch(url).dispatch()


def test_a_long_reason_is_cut(server):
    url = server.says("/", {"status": "failure", "reason": "x" * 100_000})
    with pytest.raises(RemoteExecuteError) as caught:
        HttpDispatch(url).dispatch()
    assert len(str(caught.value)) == webhooks.REASON_CHARACTERS


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"", 200),
        (b"<html>", 200),
        (b"[1]", 200),
        (b'"success"', 200),
        (b"\xff\xfe", 200),
        (b"[" * 100_000, 200),
        (b"9" * 100_000, 200),
        (b"", 204),
        (b"<html>not found", 404),
        (b'{"status": "success", "retval": 1}', 404),
    ],
)
def test_an_answer_that_is_no_receivers_is_invalid(server, raw, status):
    with pytest.raises(InvalidResponseError, match=f"{status}"):
        HttpDispatch(server.says("/", raw=raw, status=status)).dispatch()


def test_an_unknown_status_is_an_invalid_response(server):
    with pytest.raises(UnknownStatusError, match="'maybe'"):
        HttpDispatch(server.says("/", {"status": "maybe"})).dispatch()


@override_settings(DJCELERY_WEBHOOK_MAX_BYTES=100)
def test_an_answer_that_is_too_long_is_not_read_to_its_end(server):
    fitting = json.dumps({"status": "success", "retval": ""})
    text = "x" * (100 - len(fitting))
    assert HttpDispatch(server.says("/", {"status": "success", "retval": text})).dispatch() == text
    with pytest.raises(InvalidResponseError, match="longer than 100 bytes"):
        HttpDispatch(server.says("/", {"status": "success", "retval": text + "x"})).dispatch()

    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"x" * 65536)

    server.answers["/endless"] = (200, endless, {})
    with pytest.raises(InvalidResponseError, match="longer"):
        HttpDispatch(f"http://127.0.0.1:{server.server_port}/endless").dispatch()


def test_an_answer_in_chunks_and_after_a_hint_is_read(server):
    def chunked(handler):
        handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b'{"status": "succ', b'ess", "retval": 1}', b""):
            handler.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    server.answers["/"] = (200, chunked, {})
    assert HttpDispatch(f"http://127.0.0.1:{server.server_port}/").dispatch() == 1


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\n\r\n{"])
def test_a_server_that_is_silent_is_given_up_in_time(server, said):
    end = threading.Event()

    def silent(handler):
        handler.wfile.write(said)
        handler.wfile.flush()
        end.wait(10)

    server.answers["/"] = (200, silent, {})
    try:
        with pytest.raises(WebhookUnreachable, match=r"no end within 0\.2 s"):
            HttpDispatch(f"http://127.0.0.1:{server.server_port}/", timeout=0.2).dispatch()
    finally:
        end.set()


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_server_that_sends_a_byte_now_and_then_gains_no_time(server, head):
    end = threading.Event()

    def dripping(handler):
        handler.wfile.write(head)
        while not end.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    server.answers["/"] = (200, dripping, {})
    try:
        with (
            override_settings(DJCELERY_WEBHOOK_TIMEOUT_S=0.3),
            pytest.raises(WebhookUnreachable, match=r"within 0\.3 s"),
        ):
            HttpDispatch(f"http://127.0.0.1:{server.server_port}/").dispatch()
    finally:
        end.set()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", WebhookUnreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", WebhookUnreachable),
        (b"SMTP ready\r\n\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", InvalidResponseError),
        (b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n", InvalidResponseError),
    ],
)
def test_what_is_no_answer_in_http_is_an_error_of_ours(server, said, error):
    def odd(handler):
        handler.wfile.write(said)
        handler.close_connection = True

    server.answers["/"] = (200, odd, {})
    with pytest.raises(error):
        HttpDispatch(f"http://127.0.0.1:{server.server_port}/").dispatch()


def test_a_port_where_nobody_listens_and_a_name_that_nobody_has_are_unreachable(server, addresses):
    addresses["127.0.0.1"] = ["127.0.0.1"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(WebhookUnreachable, match="can't be connected to"):
            HttpDispatch(f"http://127.0.0.1:{free.getsockname()[1]}/").dispatch()
    with pytest.raises(WebhookUnreachable, match="can't be resolved"):
        HttpDispatch("http://nobody.invalid/").dispatch()


# the tasks


@pytest.fixture
def app(celery_app):
    import djcelery.tasks  # noqa: F401 - what autodiscovery does

    celery_app.conf.result_backend = "cache+memory://"
    celery_app.finalize()
    return celery_app


def test_a_url_sends_a_task_and_its_answer_is_the_result(app, server):
    url = server.says("/multiply", {"status": "success", "retval": 100})
    with capture_tasks(app) as tasks:
        results = [
            URL(url).get_async(x=10, y=10),
            URL(url, app=app).post_async(x=10, y=10),
            URL(url).post_json_async({"x": 10}),
            HttpDispatchTask.delay(url=url, method="GET", x=10, y=10),
        ]
        tasks.assert_sent(http_dispatch, [url, "GET"], {"x": 10, "y": 10})
        tasks.assert_sent(post_json, [url, {"x": 10}])
        tasks.run()
        assert [result.get() for result in results] == [100] * 4
    assert [request["method"] for request in server.requests] == ["GET", "POST", "POST", "GET"]
    assert URL(url) == url


def test_a_url_sends_by_the_app_that_it_was_given(app):
    from celery import Celery

    other = Celery("other", loader=djcelery.LOADER, set_as_current=False, broker="memory://")
    with capture_tasks(other) as tasks, capture_tasks(app) as none:
        for send in (URL("https://a.example", app=other), URL("https://a.example", app=other)):
            send.get_async(x=1)
            send.post_async(x=1)
            send.post_json_async({"x": 1})
        assert [sent.name for sent in tasks] == 2 * [http_dispatch.name, http_dispatch.name, post_json.name]
        assert len(none) == 0


@pytest.mark.parametrize("name", ["celery.http_dispatch", "celery.task.http.HttpDispatchTask"])
def test_messages_with_the_names_of_celery_2_and_3_still_run(app, server, name):
    url = server.says("/", {"status": "success", "retval": 1})
    with capture_tasks(app) as tasks:
        result = app.send_task(name, kwargs={"url": url, "method": "GET", "x": 1})
        tasks.run()
        assert result.get() == 1


def test_what_may_pass_is_tried_again_by_celery_with_the_same_key(app, server):
    url = server.says("/", raw=b"", status=503)
    with capture_tasks(app) as tasks:
        result = URL(url).post_async(x=1)
        tasks[0].run()
        assert [sent.retries for sent in tasks.pending] == [1]
        assert tasks[1].id == result.id
        server.says("/", {"status": "success", "retval": "at last"})
        tasks.run()
        assert result.get() == "at last"
    keys = {request["headers"]["Idempotency-Key"] for request in server.requests}
    assert len(server.requests) == 2
    assert len(keys) == 1
    assert result.id not in keys


def test_it_is_given_up_after_max_retries(app, server):
    url = server.says("/", raw=b"", status=503)
    with capture_tasks(app) as tasks:
        result = URL(url).get_async()
        tasks.run(throw=False)
        assert len(server.requests) == 1 + http_dispatch.max_retries
        with pytest.raises(WebhookUnreachable, match="503"):
            result.get()


@pytest.mark.parametrize(
    ("status", "payload", "error"),
    [
        (200, {"status": "failure", "reason": "no"}, RemoteExecuteError),
        (404, {}, InvalidResponseError),
        (302, {}, InvalidResponseError),
        (200, {"status": "maybe"}, UnknownStatusError),
    ],
)
def test_what_will_not_pass_is_not_tried_again_and_keeps_its_class(app, server, status, payload, error):
    url = server.says("/", payload, status=status)
    with capture_tasks(app) as tasks:
        result = URL(url).get_async()
        tasks.run(throw=False)
        assert len(server.requests) == 1
        with pytest.raises(error):
            result.get()


def test_a_task_that_was_sent_by_name_calls_no_private_address(app):
    with running() as server, capture_tasks(app) as tasks:
        result = app.send_task("djcelery.http_dispatch", [f"http://127.0.0.1:{server.server_port}/"])
        tasks.run(throw=False)
        assert [sent.state for sent in tasks] == ["FAILURE"]
        with pytest.raises(WebhookRefused, match="not a public address"):
            result.get()
    assert server.requests == []


def test_the_time_of_a_task_can_be_set_by_annotation(app, server, monkeypatch):
    times = []
    monkeypatch.setattr(transport, "send", lambda *args: times.append(args[4]) or transport.Answer(200, "", b"{}"))
    monkeypatch.setattr(app.tasks["djcelery.http_dispatch"], "http_timeout_s", 30, raising=False)
    with capture_tasks(app) as tasks:
        URL("http://127.0.0.1/").get_async()
        tasks.run(throw=False)
    assert times == [30]


def test_the_tasks_are_found_where_task_modules_are_looked_for():
    from djcelery import tasks
    from djcelery.loaders import find_related_module

    assert find_related_module("djcelery", "tasks") is tasks
    assert tasks.http_dispatch.name == "djcelery.http_dispatch"


# a receiver of ours


urlpatterns = [
    path("multiply", csrf_exempt(task_webhook(lambda request: int(request.POST["x"]) * int(request.POST["y"]))))
]


@pytest.fixture
def receiver():
    class Quiet(WSGIRequestHandler):
        def log_message(self, *args):
            pass

    with (
        override_settings(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], DJCELERY_WEBHOOK_ALLOW=["127.0.0.1"]),
        make_server("127.0.0.1", 0, WSGIHandler(), handler_class=Quiet) as server,
    ):
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_receiver_made_with_the_decorator_answers(app, receiver):
    token = "a long random text that nobody guesses"
    with (
        override_settings(DJCELERY_WEBHOOK_TOKEN=token, DJCELERY_WEBHOOK_SEND_TOKENS={receiver: token}),
        capture_tasks(app) as tasks,
    ):
        good, bad = [URL(f"{receiver}/multiply").post_async(x=10, y=y) for y in (10, "ten")]
        tasks.run(throw=False)
        assert good.get() == 100
        with pytest.raises(RemoteExecuteError, match="ValueError"):
            bad.get()


def test_without_its_token_it_refuses(app, receiver):
    with (
        override_settings(DJCELERY_WEBHOOK_TOKEN="a long random text that nobody guesses"),
        pytest.raises(exceptions.WebhookError) as caught,
    ):
        HttpDispatch(f"{receiver}/multiply", "POST", {"x": 1, "y": 1}).dispatch()
    assert not isinstance(caught.value, WebhookUnreachable)


# errors and checks


@pytest.mark.parametrize(
    ("error", "parent"),
    [
        (WebhookRefused, ValueError),
        (WebhookUnreachable, ConnectionError),
        (InvalidResponseError, ValueError),
        (UnknownStatusError, InvalidResponseError),
        (RemoteExecuteError, exceptions.WebhookError),
    ],
)
def test_errors_have_the_parents_of_the_tree(error, parent):
    assert issubclass(error, parent)
    assert issubclass(error, exceptions.WebhookError)


def test_check_deploy_warns_of_tokens_in_the_open_and_of_wide_networks():
    with override_settings(
        DJCELERY_WEBHOOK_SEND_TOKENS={"http://a.example": "s3cret", "https://b.example": "s3cret"},
        DJCELERY_WEBHOOK_ALLOW=["0.0.0.0/0", "10.0.0.0/8", "::/0"],
    ):
        found = [message for check in checks.DEPLOY for message in check()]
    assert [message.id for message in found] == ["djcelery.W610", "djcelery.W611", "djcelery.W611"]
    assert "a.example" in found[0].msg
    assert "s3cret" not in str(found)


def test_the_checks_leave_bad_values_to_the_check_of_settings():
    with override_settings(DJCELERY_WEBHOOK_SEND_TOKENS=5, DJCELERY_WEBHOOK_ALLOW=5):
        assert [message for check in checks.DEPLOY for message in check()] == []


def test_every_kind_of_address_is_judged_alike_on_every_python():
    assert not target.is_public(ipaddress.ip_address("192.0.0.1"))
    assert not target.is_public(ipaddress.ip_address("64:ff9b:1::1"))
