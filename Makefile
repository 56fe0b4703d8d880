# From a clean clone: `make run` shows it all, `make test` proves it. Both make their environment, .venv, first.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
FIRST := 2024-01-01
DAYS := 3
USERS := 120

.PHONY: help setup run test check bench clean

help:
	@echo "make run    a synthetic log of $(DAYS) days, backfilled by a real embedded Airflow, and a report"
	echo "make test   lint, types, import rules, all tests"
	echo "make check  lint, types, import rules"
	echo "make bench  the benchmarks, small size"
	echo "make setup  the environment alone, in $(VENV)"
	echo "make clean  remove the environment and caches; bahe_home stays"

setup: $(INSTALLED)

# Done again whenever what is to be installed changes; pip then installs only what differs.
$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	@python=
	for candidate in "$(BIN)/python" python3.11 python3 python; do
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then python=$$candidate; break; fi
	done
	if [ -z "$$python" ]; then
	  echo "Python 3.11 was not found; install it, for example: sudo apt-get install -y python3.11 python3.11-venv" >&2; exit 1
	fi
	if ! { [ -x "$${JAVA_HOME:-/nowhere}/bin/java" ] || command -v java >/dev/null; }; then
	  echo "Java was not found (neither JAVA_HOME nor PATH has it); Spark needs Java 17: sudo apt-get install -y openjdk-17-jre-headless" >&2; exit 1
	fi
	if ! [ -x "$(BIN)/pip" ] && ! "$$python" -m venv "$(VENV)"; then
	  echo "the environment $(VENV) could not be made; install the venv module: sudo apt-get install -y python3.11-venv" >&2; exit 1
	fi
	echo "Installing the pinned environment into $(VENV): about 4 minutes the first time; $(VENV)/install.log tells more."
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --log "$(VENV)/install.log" -c constraints.txt -e '.[dev]'
	echo "Archiving the classes of Spark's JVM, so that it starts in half the time: about a minute the first time."
	"$(BIN)/python" -m spark_jobs.class_archive || echo "All else works; to try again: $(BIN)/python -m spark_jobs.class_archive"
	touch "$@"

run: export BAHE_HOME := $(or $(BAHE_HOME),$(CURDIR)/bahe_home)
run: setup
	@export PATH="$(CURDIR)/$(BIN):$$PATH"
	unset BAHE_LANDING
	last=$$(python -c 'from datetime import *; print(date.fromisoformat("$(FIRST)") + timedelta($(DAYS) - 1))')
	shares=
	part() {  # NAME COMMAND...: run it, remember its seconds
	  local name=$$1 began=$$SECONDS; shift
	  echo; echo "== $$name"
	  "$$@"
	  shares+="$$(printf '%6d s  %s' $$((SECONDS - began)) "$$name")"$$'\n'
	}
	landing() { [ -d "$$BAHE_HOME/landing/impressions/dt=$$last" ] || bahe synthesize "$$BAHE_HOME/landing" --days $(DAYS) --users $(USERS) --first-day $(FIRST); }
	backfill() { bahe backfill $(FIRST) "$$last" --engine airflow || refused=$$?; [ "$$refused" = 0 ] || [ "$$refused" = 3 ]; }
	refused=0
	part "machine: bahe doctor" bahe doctor
	part "home folder: bahe init" bahe init
	part "log of $(DAYS) days: bahe synthesize" landing
	part "$(FIRST) to $$last in Airflow: bahe backfill" backfill
	part "state: bahe status" bahe status
	part "report: bahe report" bahe report
	echo; echo "== where the time went"; printf '%s' "$$shares"
	echo; echo "== look at it"
	echo "  report        open $$BAHE_HOME/report/index.html in a browser; it needs no network"
	echo "  Airflow page  BAHE_HOME=$$BAHE_HOME $(BIN)/bahe ui, then the address it prints"
	echo "  MLflow page   the same command, the second address"
	echo "  numbers       BAHE_HOME=$$BAHE_HOME $(BIN)/bahe metrics"
	exit $$refused

check: setup
	@"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .
	"$(BIN)/mypy"
	"$(BIN)/lint-imports"

test: check
	@"$(BIN)/python" -m pytest

bench: setup
	@for file in benchmarks/[a-z]*.py; do
	  "$(BIN)/python" -m "benchmarks.$$(basename "$$file" .py)" --json --small
	done

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache spark-warehouse
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
