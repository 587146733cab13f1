# Everything a newcomer types. "make" alone lists it.
#
# PYTHON        the interpreter that makes .venv (python3)
# DEMO_SECONDS  end the demo after so many seconds, and check it (empty: run until Ctrl-C)
# DEMO_PORT     port of the demo's web server on 127.0.0.1 (8000)
# ARGS          more arguments for pytest
# FUZZ_REQUESTS requests of "make fuzz" (10000)
# SUITE         databases for "make suite": postgresql sqlite mysql redis (postgresql sqlite); SUITE=short is a selection of two minutes

PYTHON ?= python3
DEMO_PORT ?= 8000
DEMO_SECONDS ?=
ARGS ?=
SUITE ?=
FUZZ_REQUESTS ?= 10000

# Where servers are a must (CI is set), their clients are, too; elsewhere mysqlclient may not compile.
extras := $(if $(CI),test-servers,test)
comma := ,

venv := .venv
python := $(venv)/bin/python
stamp := $(venv)/installed-$(extras)

# A developer's shell must not decide which project runs.
unexport DJANGO_SETTINGS_MODULE
unexport PYTHONPATH

.PHONY: help demo test shuffle faults flood suite fuzz lint docs clean

help:
	@echo "make demo     a shop with worker, beat, camera and admin on this machine; Ctrl-C ends it"
	@echo "              DEMO_SECONDS=40 ends it by itself and checks it, DEMO_PORT=8001 takes another port"
	@echo "make test     the test suite, in parallel; ARGS='-k schedule' chooses tests"
	@echo "make shuffle  the same tests in a random order, which pytest prints as a seed; ARGS='--randomly-seed=77' repeats it"
	@echo "make suite    Celery's own integration suite on our result backend, half an hour; SUITE=short: two minutes"
	@echo "make faults   kill workers and beats, restart servers under load, about 25 minutes; ARGS='--help' tells more"
	@echo "make flood    200,000 tasks while camera and database are restarted: does the history agree? ARGS='--tasks 20000'"
	@echo "make fuzz     10,000 hostile requests each to the admin and to the views; FUZZ_REQUESTS=500, DATABASE_URL=... choose"
	@echo "make lint     ruff, mypy, import-linter"
	@echo "make docs     the manual, in docs/_build; a warning is an error"
	@echo "make clean    remove .venv, .demo and build results"

demo: $(stamp)
	@exec $(python) examples/demoproject/run_demo.py --seconds "$(DEMO_SECONDS)" --port "$(DEMO_PORT)"

test: $(stamp)
	@exec $(python) -m pytest -n 4 -m "not long" $(ARGS)

shuffle: $(stamp)
	@exec env SHUFFLE=1 $(python) -m pytest -n 4 -m "not long" $(ARGS)

suite: $(venv)/installed-suite
	@exec $(python) suite/run.py $(patsubst short,--short,$(SUITE)) $(if $(ARGS),-- $(ARGS))

# Needs all servers' clients, and the servers' programs: it starts PostgreSQL and MariaDB of its own.
faults: $(venv)/installed-test-servers
	@exec $(python) -m tests.faults $(ARGS)

# On this machine's RabbitMQ, with a PostgreSQL of its own.
flood: $(venv)/installed-test-servers
	@exec $(python) -m tests.faults.flood $(ARGS)

fuzz: $(stamp)
	@exec env FUZZ_REQUESTS=$(FUZZ_REQUESTS) $(python) -m pytest -n 4 tests/db/test_fuzz_admin.py tests/db/test_views_fuzz.py $(ARGS)

lint: $(venv)/installed-lint
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(venv)/bin/lint-imports

docs: $(venv)/installed-docs
	$(python) -m sphinxlint --enable all --disable line-too-long --ignore docs/_build docs README.rst CONTRIBUTING.rst
	$(python) -m sphinx -W --keep-going -q -b html docs docs/_build

clean:
	rm -rf .venv .demo build dist docs/_build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# One environment for all targets, made again only when pyproject.toml changed.
$(venv)/installed-%: pyproject.toml
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "make: there is no $(PYTHON). Install Python 3.10 or newer, or name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "make: djcelery needs Python 3.10 or newer; $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." \
	    "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "make: $(PYTHON) can't make virtual environments." \
	    "On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing djcelery and what it needs into $(venv) ..."
	@"$(PYTHON)" -m venv $(venv)
	@$(python) -m pip install -q --disable-pip-version-check -e ".[$(subst -,$(comma),$*)]"
	@touch $@
