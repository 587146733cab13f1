"""What a hostile pickle can't do: run anything, change a class, fill the memory, or stop whoever reads it."""

from __future__ import annotations

import base64
import copy
import copyreg
import datetime
import decimal
import os
import pickle
import subprocess
import sys
import types
import zlib

import pytest
from celery.exceptions import Retry

from djcelery.picklefield import decode_stored, encode
from tests.unit.pickles import assert_harmless, body, call, read, stored

# -- hostile pickles: calls ----------------------------------------------------------------------

COMMAND = "touch executed"
CALLS = {
    "os.system": ("os.system", COMMAND),
    "posix.system": ("posix.system", COMMAND),
    "os.popen": ("os.popen", COMMAND),
    "subprocess": ("subprocess.check_output", ["touch", "executed"]),
    "Popen": ("subprocess.Popen", ["touch", "executed"]),
    "eval": ("builtins.eval", "open('executed', 'w')"),
    "py2 eval": ("__builtin__.eval", "open('executed', 'w')"),
    "exec": ("builtins.exec", "open('executed', 'w')"),
    "open": ("builtins.open", "executed", "w"),
    "py2 file": ("__builtin__.file", "executed", "w"),
    "import": ("builtins.__import__", "os"),
    "import_module": ("importlib.import_module", "os"),
    "compile": ("builtins.compile", "1", "x", "exec"),
    "getattr": ("builtins.getattr", "", "__class__"),
    "setattr": ("builtins.setattr", "", "a", 1),
    "type": ("builtins.type", "X", (), {}),
    "globals": ("builtins.globals",),
    "attrgetter": ("operator.attrgetter", "__class__"),
    "methodcaller": ("operator.methodcaller", "upper"),
    "partial": ("functools.partial", "x"),
    "pickle.loads": ("pickle.loads", b"cos\nsystem\n(S'touch executed'\ntR."),
    "cPickle.loads": ("cPickle.loads", b"x"),
    "marshal": ("marshal.loads", b"x"),
    "FunctionType": ("types.FunctionType", 1),
    "runpy": ("runpy.run_path", "executed"),
    "call_command": ("django.core.management.call_command", "flush"),
    "import_string": ("django.utils.module_loading.import_string", "os.system"),
    "instantiate": ("celery.utils.imports.instantiate", "os.system", COMMAND),
    "symbol_by_name": ("kombu.utils.imports.symbol_by_name", "os:system"),
    "own module": ("djcelery.picklefield.standins._project_class", "os", "system"),
    "pathlib": ("pathlib.Path.touch", "executed"),
    "codecs": ("_codecs.decode", b"x", "zlib"),
    "codecs.encode": ("_codecs.encode", "a", "rot13"),
    "exit": ("sys.exit", 1),
    "appattr: any attribute": ("celery.app.base._unpickle_appattr", "send_task", ("shop.tasks.add",)),
    "appattr: configuration": ("celery.app.base._unpickle_appattr", "config_from_object", ("os:system",)),
    "appattr: import": ("celery.app.base._unpickle_appattr", "subclass_with_self", ("os:system", "x")),
    "appattr: dotted": ("celery.app.base._unpickle_appattr", "loader.import_module", ("os",)),
    "appattr: no arguments": ("celery.app.base._unpickle_appattr", "AsyncResult", None),
    "_unpickle_app": ("celery.app.base._unpickle_app", "os.system", "x"),
    "extend": ("copyreg.add_extension", "os", "system", 77),
    "newobj": ("copyreg.__newobj__", "os"),
    "reconstructor": ("copy_reg._reconstructor", "os", 1, 1),
    "id": ("celery.result.AsyncResult", ["no", "text"]),
    "members": ("celery.result.GroupResult", "group", ["no results"]),
    "group id": ("celery.result.GroupResult", 5, []),
    "model": ("django.db.models.base.model_unpickle", ("auth", "User")),
    "no model": ("django.db.models.base.model_unpickle", ("no", "Thing")),
    "zone": ("pytz._p", ["Europe/Brussels"]),
    "zone path": ("pytz._p", "../../../../etc/passwd"),
    "zone key": ("zoneinfo.ZoneInfo", "/etc/passwd"),
    "int": ("builtins.int", decimal.Decimal("1e999999999")),
    "fraction": ("fractions.Fraction", decimal.Decimal("1e999999999")),
    "fraction text": ("fractions.Fraction", "1e999999999"),
    "range": ("builtins.range", 10**12),
    "range args": ("builtins.range", "a"),
    "xrange": ("__builtin__.xrange", 10**9),
    "bytes": ("builtins.bytes", 10**10),
    "bytearray": ("builtins.bytearray", 10**10),
    "bytearray codec": ("builtins.bytearray", "x", "punycode"),
    "str of a list": ("decimal.Decimal", "not a number"),
    "timedelta": ("datetime.timedelta", 10**20),
}


@pytest.mark.parametrize("arguments", CALLS.values(), ids=CALLS)
def test_nothing_that_a_pickle_calls_is_executed(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_harmless(read(call(*arguments)))
    assert_harmless(decode_stored(stored(call(*arguments), compress=True)))
    assert list(tmp_path.iterdir()) == []


OPCODES = {
    "INST": b"\x80\x02(S'touch executed'\nios\nsystem\n.",
    "OBJ": b"\x80\x02(cos\nsystem\nS'touch executed'\no.",
    "NEWOBJ": b"\x80\x02cos\nsystem\nU\x0etouch executed\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04cos\nsystem\n(\x8c\x0etouch executedt}\x92.",
    "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0etouch executed\x85R.",
    "NEWOBJ of a function": b"\x80\x02ccelery.app.base\n_unpickle_appattr\n)\x81.",
    "NEWOBJ of an exception": b"\x80\x02ccelery.exceptions\nRetry\n)\x81.",
    "reconstructed exception": (
        b"\x80\x02ccopy_reg\n_reconstructor\n(ccelery.exceptions\nRetry\nc__builtin__\nobject\nNtR."
    ),
    "PERSID": b"\x80\x02Pfile:///etc/passwd\n.",
    "BINPERSID": b"\x80\x02U\x0bsomething/1Q.",
    "EXT1": b"\x80\x02\x82\xf0U\x0etouch executed\x85R.",
    "unknown opcode": b"\x80\x02\xff.",
    "no stop": b"\x80\x02K\x01",
    "empty stack": b"\x80\x02.",
    "BUILD on a class": b"\x80\x02ccelery.exceptions\nRetry\n}U\x07messageU\x01xsb.",
    "BUILD on a value class": b"\x80\x02cdatetime\ntimedelta\n}U\x03minK\x01sb.",
    "BUILD on a stand-in": b"\x80\x02ccelery.result\nAsyncResult\n}U\x01aK\x01sb.",
    "BUILD on a result": b"\x80\x02ccelery.result\nAsyncResult\nU\x01a\x85R}U\x06parentK\x01sb.",
    "slots of a class": b"\x80\x02ccelery.exceptions\nRetry\nN}U\x07messageU\x01xs\x86b.",
    "huge bytearray": b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00x.",
    "huge bytes": b"\x80\x04\x8e\x00\x00\x00\x00\x10\x00\x00\x00x.",
    "huge memo index": b"\x80\x02Nr\xff\xff\xff\xff0j\x00\xff\xff\xffa.",
    "negative length": b"\x80\x02\x8b\xff\xff\xff\xffx.",
    "long digits": b"\x80\x02L" + b"9" * 20000 + b"L\n.",
}


@pytest.mark.parametrize("data", OPCODES.values(), ids=OPCODES)
def test_no_opcode_is_a_way_around(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    copyreg.add_extension("os", "system", 0xF0)
    copyreg._extension_cache[0xF0] = os.system
    try:
        assert_harmless(read(data))
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
        copyreg._extension_cache.pop(0xF0, None)
    assert list(tmp_path.iterdir()) == []
    assert Retry.message is None or "x" not in str(Retry.message)
    assert datetime.timedelta.min.days < -1


def test_the_names_of_functions_alone_are_refused_too():
    for name in (b"os\nsystem", b"builtins\neval", b"celery.app.base\n_unpickle_appattr", b"datetime\ntimezone.utc"):
        assert_harmless(read(b"\x80\x02c" + name + b"\n."))
    inside = read(b"\x80\x02]cos\nsystem\na.")
    assert repr(inside) == "[<unreadable: the name os.system>]"


def test_a_refused_part_leaves_the_rest_readable():
    value = read(b"\x80\x02}" + body("a") + body(1) + b"s" + body("b") + call("os.system", COMMAND)[2:-1] + b"s.")
    assert value["a"] == 1
    assert (value["b"].name, value["b"].args) == ("os.system", (COMMAND,))


def test_refused_values_are_equal_copied_and_pickled_like_any_value():
    one, other = read(call("os.system", COMMAND)), read(call("os.system", COMMAND))
    assert one == other
    assert one != read(call("os.popen", COMMAND))
    for again in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert (again.name, again.args, str(again)) == (one.name, one.args, str(one))
    broken = decode_stored("gAJLKg==")
    assert pickle.loads(pickle.dumps(broken)) == broken


# -- hostile pickles: memory and time ------------------------------------------------------------


def doubled(times):
    """Return opcodes that make a list of the last list twice, *times* over: 2 ** *times* when printed."""
    data = b"]U\x01xaq\x00"
    for _ in range(times):
        data += b"0]h\x00ah\x00aq\x00"
    return data


# Opcodes that call what is in memo 1 with what is in memo 2, 5000 times.
CALLED = b"](" + b"h\x01h\x02\x85R" * 5000 + b"e."

BOMBS = {
    "shared lists": b"\x80\x02" + doubled(50) + b".",
    "a shared list many times": b"\x80\x02]q\x00(" + b"N" * 20000 + b"e0](" + b"h\x00" * 20000 + b"e.",
    "a shared text many times": b"\x80\x02" + body("x" * 20000) + b"q\x000](" + b"h\x00" * 20000 + b"e.",
    "text of shared lists": b"\x80\x02" + doubled(50) + b"0c__builtin__\nstr\nh\x00\x85R.",
    "bare text of shared lists": b"\x80\x02" + doubled(50) + b"0c__builtin__\nstr\nh\x00\x85\x81.",
    "text rebuilt": b"\x80\x02" + doubled(50) + b"0ccopy_reg\n_reconstructor\nc__builtin__\nstr\nq\x01h\x01h\x00\x87R.",
    "exception that prints": b"\x80\x02" + doubled(50) + b"0cbilliard.pool\nMaybeEncodingError\nh\x00h\x00\x86R.",
    "exception that walks": b"\x80\x02" + doubled(50) + b"0cdjango.core.exceptions\nValidationError\nh\x00\x85R.",
    "retry that prints": b"\x80\x02" + doubled(50) + b"0ccelery.exceptions\nRetry\nU\x01mh\x00\x86R.",
    "lists of a range": b"\x80\x02c__builtin__\nlist\nq\x01c__builtin__\nxrange\nJ\x40\x42\x0f\x00\x85Rq\x02" + CALLED,
    "copies of a list": b"\x80\x02](" + b"N" * 50000 + b"eq\x02c__builtin__\nlist\nq\x01" + CALLED,
    "copies of bytes": b"\x80\x02" + body("x" * 50000) + b"q\x02c__builtin__\nbytearray\nq\x01" + CALLED,
    "shared deques": (
        b"\x80\x02ccollections\ndeque\nq\x01]U\x01xa\x85Rq\x00" + b"0h\x01]h\x00ah\x00a\x85Rq\x00" * 50 + b"."
    ),
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "a dict in itself": b"\x80\x02}q\x00K\x01h\x00s.",
    "deep lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "deep tuples": b"\x80\x02N" + b"\x85" * 500_000 + b".",
    "deep tuples as a key": b"\x80\x02}N" + b"\x85" * 500_000 + b"K\x01s.",
    "deep tuples of marks": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "deep tuples by calls": b"\x80\x02c__builtin__\ntuple\nq\x01" + b"h\x01" * 5000 + b"N" + b"\x85\x85R" * 5000 + b".",
    "deep exceptions": b"\x80\x02" + b"c__builtin__\nValueError\n" * 20000 + b"N" + b"\x85R" * 20000 + b".",
    "deep refusals": b"\x80\x02" + b"cos\nsystem\n" * 20000 + b"N" + b"\x85R" * 20000 + b".",
    "deep results": b"\x80\x02" + b"ccelery.result\nAsyncResult\nU\x01a" * 5000 + b"N" + b"\x86R" * 5000 + b".",
}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("name", BOMBS)
def test_no_pickle_makes_more_of_itself_than_its_length_allows(name):
    """In a process of its own, with little memory: a bomb would kill it, or take for ever."""
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))\n"
        "import django\ndjango.setup()\n"
        "from djcelery.picklefield import decode_stored, Unreadable\n"
        "value = decode_stored(sys.stdin.read())\n"
        "assert isinstance(value, Unreadable), type(value)\n"
        "print(value)\n"
    )
    # Each app of an earlier test may have put a folder there.
    path = os.pathsep.join(dict.fromkeys(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=stored(BOMBS[name]),
        capture_output=True,
        text=True,
        timeout=180,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONPATH": path},
    )
    assert done.returncode == 0, (done.returncode, done.stderr[-2000:])
    assert done.stdout.startswith("<unreadable: ")
    assert "MemoryError" not in done.stdout


def test_a_compressed_bomb_is_not_inflated(monkeypatch):
    monkeypatch.setattr("djcelery.picklefield.fields.MAX_INFLATED_BYTES", 1_000_000)
    bomb = zlib.compress(b"\x80\x02U" + b"\x00" * 2_000_000)
    value = decode_stored(base64.b64encode(bomb).decode())
    assert_harmless(value)
    assert "grows beyond 1000000 bytes" in str(value)
    twice = base64.b64encode(zlib.compress(zlib.compress(pickle.dumps(1, 2)))).decode()
    assert_harmless(decode_stored(twice))


def test_large_honest_values_are_read():
    rows = [{"id": number, "name": f"row {number}", "kind": "the same text in all"} for number in range(20_000)]
    assert decode_stored(encode(rows)) == rows
    assert decode_stored(encode([["shared"]] * 50_000)) == [["shared"]] * 50_000
    nested = None
    for _ in range(100):
        nested = [nested]
    assert decode_stored(encode(nested)) == nested


# -- what a project may allow --------------------------------------------------------------------


@pytest.fixture
def allowed(monkeypatch, settings):
    """A module that the project trusts, with more in it than its classes."""
    module = types.ModuleType("trusted.tasks")
    exec(
        "import os, subprocess\nfrom os import system\nfrom subprocess import Popen\n"
        "class Basket:\n    items = ()\n    @staticmethod\n    def run(*a): open('executed', 'w')\n"
        "    class Inner: pass\n"
        "def danger(*a): open('executed', 'w')\n"
        "instance = Basket()\n",
        module.__dict__,
    )
    for cls in (module.Basket, module.Basket.Inner):
        cls.__module__ = "trusted.tasks"
    monkeypatch.setitem(sys.modules, "trusted", types.ModuleType("trusted"))
    monkeypatch.setitem(sys.modules, "trusted.tasks", module)
    settings.DJCELERY_UNPICKLE_ALLOW = ["trusted.tasks"]
    return module


@pytest.mark.parametrize(
    "name",
    ["danger", "system", "Popen", "os.system", "subprocess.Popen", "Basket.run", "instance", "instance.run",
     "Basket.__init__", "Basket.__class__", "Basket.__subclasses__", "missing", "__builtins__", "__loader__"],
)  # fmt: skip
def test_an_allowed_module_gives_its_own_classes_and_nothing_else(name, allowed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data in (
        b"\x80\x02ctrusted.tasks\n%s\nU\x0etouch executed\x85R." % name.encode(),
        b"\x80\x04\x8c\x0dtrusted.tasks\x8c%c%s\x93\x8c\x0etouch executed\x85R." % (len(name), name.encode()),
    ):
        assert_harmless(read(data))
    assert list(tmp_path.iterdir()) == []


def test_allowed_classes_come_back_with_their_state(allowed, settings):
    data = b"\x80\x02ctrusted.tasks\nBasket\n)\x81}" + body("items") + body(["tea"]) + b"sb."
    assert (type(read(data)), read(data).items) == (allowed.Basket, ["tea"])
    settings.DJCELERY_UNPICKLE_ALLOW = ["trusted.tasks.Basket"]
    assert type(read(data)) is allowed.Basket
    settings.DJCELERY_UNPICKLE_ALLOW = ["trusted"]
    assert_harmless(read(data))


def test_the_attributes_of_an_allowed_class_can_not_be_set(allowed):
    assert_harmless(read(b"\x80\x02ctrusted.tasks\nBasket\n}" + body("items") + body("x") + b"sb."))
    assert allowed.Basket.items == ()


def test_a_module_that_can_not_be_imported_is_named(settings, tmp_path, monkeypatch):
    (tmp_path / "broken_module.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.DJCELERY_UNPICKLE_ALLOW = ["broken_module", "no_such_module"]
    assert_harmless(read(call("broken_module.Thing")))
    assert "no_such_module.Thing" in str(read(call("no_such_module.Thing")))


def test_a_frame_that_lies_about_its_length_makes_no_room():
    assert read(b"\x80\x04\x95\x00\x00\x00\x00\x10\x00\x00\x00N.") is None
