# One to three lines a target; what is longer is in scripts/. `make` alone lists them.
PY = .venv/bin/python
MPY = $(PY) scripts/on_micropython.py

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

env:  ## make .venv with all that the tests need (as root: Debian packages too)
	@python3 scripts/setup.py test

demo:  ## show a knock from end to end, in a private network that is gone afterwards
	@python3 scripts/setup.py demo
	@$(PY) -m tinyknop demo

# Four at once, since most tests wait for a clock or a process. What fails in that crowd has to pass alone.
test: env lint  ## lint, all tests, then the core's tests on MicroPython
	$(PY) -m pytest -n 4 --dist loadfile tests || $(PY) -m pytest --last-failed --last-failed-no-failures none tests
	@$(MAKE) --no-print-directory test-mpy

test-mpy: env stage  ## the core's tests on MicroPython, without its hashes and AES too, and so on CPython
	$(MPY) tests/run_core.py
	$(MPY) --nossl tests/run_core.py
	TINYKNOP_CRYPTO=small $(PY) tests/run_core.py

test-net: env  ## only the tests against real peers, in network namespaces
	$(PY) -m pytest tests/real

lint: env  ## linter, formatter (check only), type checker, scan for insecure calls
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy
	$(PY) -m bandit -q -c pyproject.toml -r tinyknop ports scripts boards

# In an environment of its own: pip-audit brings what no test needs.
audit: env  ## look the versions of constraints.txt up among known vulnerabilities (asks PyPI)
	$(PY) -m venv build/audit && build/audit/bin/pip install -q pip-audit
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -r constraints.txt

coverage: env  ## which lines and functions no test reaches, child processes included (half an hour)
	$(PY) scripts/covered.py

mutants: env  ## change the modules that decide, line by line: do the tests notice? (20 minutes, CPython >= 3.10)
	$(PY) scripts/mutants.py

stage:  ## build/stage: the tree as MicroPython gets it
	@python3 scripts/stage.py

man: env  ## docs/man, docs/configuration.md and the table of docs/troubleshooting.md, from the code
	$(PY) scripts/man.py

package: env stage  ## package.json and manifest.py for boards, and build/mpy for copying
	$(PY) scripts/package.py --mpy

board: env  ## build/board: only what a board with the configuration FOR=tinyknop.json needs, compiled
	$(PY) scripts/package.py --for $(FOR)

deb:  ## build/tinyknop_VERSION_all.deb, for Debian 12 and newer
	@python3 scripts/deb.py

bench: env  ## measure tinyknop beside fwknopd
	$(PY) bench/bench.py

soak: env  ## the long fault, fuzz and timing runs (hours), then coverage and mutants
	TINYKNOP_SOAK=1 $(PY) -m pytest tests
	@$(MAKE) --no-print-directory coverage mutants

clean:  ## remove what was built, the environment too
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help env demo test test-mpy test-net lint audit coverage mutants stage man package board deb bench soak clean
