SHELL := /bin/bash
PY := .venv/bin/python
CLUSTER := tests/contract/test_runners.py $(addprefix tests/integration/test_,$(addsuffix .py,kafka_log kafka_topics \
  kafka_reading cluster_roles publishing inbox archived_log archive_s3))
.PHONY: install lock kafka static unit contract cluster services pages kills test test-long bench bench-kafka demo pictures demo-score clean

install: .venv/installed  ## make .venv with the touchfold command

.venv/installed: requirements.lock pyproject.toml tools/install.sh
	bash tools/install.sh
	touch $@

lock:  ## refresh requirements.lock: hashes, no addresses
	$(PY) -m pip install -q uv && .venv/bin/uv pip compile -q --generate-hashes --no-emit-index-url --no-header \
	  --python-version 3.11 --extra dev pyproject.toml -o requirements.lock

kafka:  ## fetch the jars of a real Kafka into a cache, for the tests
	@bash tools/kafka/fetch.sh >/dev/null

static: install  ## ruff and mypy --strict
	@bash tools/timed.sh static bash -c '.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy'

unit: install  ## unit and property tests: no service
	@bash tools/timed.sh "unit and property" .venv/bin/pytest tests/unit tests/property -m "not long"

contract: install kafka  ## ports and rooms against real services
	@bash tools/timed.sh "contract and integration" .venv/bin/pytest tests/contract tests/integration tests/checker \
	  -m "not long and not kill" --durations=25 $(addprefix --ignore=,$(CLUSTER))

cluster: install kafka  ## cluster mode against a real Kafka, PostgreSQL and an S3 server
	@bash tools/timed.sh cluster .venv/bin/pytest $(CLUSTER) -m "not long and not kill"

services: install kafka  ## both at once: they wait more than they compute
	@$(MAKE) --no-print-directory -j2 contract cluster

pages: install  ## the pages in a real Chromium, and the README's tour
	@bash tools/browser.sh
	@bash tools/timed.sh pages .venv/bin/pytest tests/e2e -m "not long"

kills: install kafka  ## kill -9 at failpoints and at random, judged by the independent checker
	@bash tools/timed.sh kills .venv/bin/pytest tests -m "kill and not long" --durations=15

test: static unit services  ## everything; what CI and the README call
	@$(MAKE) --no-print-directory -j2 pages kills  # they wait more than they compute

test-long: install kafka  ## long forms of the property, kill and fuzz suites
	@bash tools/timed.sh long .venv/bin/pytest tests -m "long" --timeout 7200

demo: install  ## a shop's customers, live, on loopback
	.venv/bin/touchfold demo

pictures: install  ## the README's pictures, from a running demo
	$(PY) tools/pictures.py --data touchfold-data

demo-score: install  ## identity and churn flag against the truth of the demo
	.venv/bin/touchfold demo-score

bench: install  ## ratios against baselines measured in the same run
	$(PY) -m tests.bench --out docs/benchmarks.md

bench-kafka: install kafka  ## the same for cluster mode, on a broker of its own
	$(PY) -m tests.bench.kafka --out docs/benchmarks-kafka.md

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache
