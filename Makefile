SHELL := /bin/bash
PY := .venv/bin/python
CLUSTER := tests/contract/test_runners.py $(addprefix tests/integration/test_,$(addsuffix .py,kafka_log kafka_topics \
  kafka_reading cluster_roles publishing inbox archived_log archive_s3))
FIRST := $(filter-out $(CLUSTER),$(wildcard tests/contract/test_*.py) tests/checker $(wildcard tests/integration/test_[a-d]*.py))
SECOND := $(filter-out $(CLUSTER),$(wildcard tests/integration/test_[!a-d]*.py))
AT_ONCE ?= 3
.PHONY: install lock kafka browser analytics-js sdks static unit contract contract-first contract-second cluster services pages kills test \
  test-long bench bench-kafka demo pictures demo-score clean

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

browser:  ## a Chromium for the pages
	@bash tools/browser.sh

analytics-js:  ## fetch Segment's script for browsers, which the door serves
	@bash tools/analytics_js.sh

sdks: install browser  ## SDKs of Segment, RudderStack and Jitsu, in Chromium too, against a real server
	@bash tools/sdks.sh >/dev/null
	@bash tools/timed.sh sdks .venv/bin/pytest tests/sdks -m "not long"

contract: install kafka  ## ports and rooms against real services, in two halves at once
	@$(MAKE) --no-print-directory -j2 contract-first contract-second

contract-first: install kafka
	@bash tools/timed.sh "contract and integration, a to d" .venv/bin/pytest $(FIRST) -m "not long and not kill" --durations=15

contract-second: install kafka
	@bash tools/timed.sh "integration, e to z" .venv/bin/pytest $(SECOND) -m "not long and not kill" --durations=15

cluster: install kafka  ## cluster mode against a real Kafka, PostgreSQL and an S3 server
	@bash tools/timed.sh cluster .venv/bin/pytest $(CLUSTER) -m "not long and not kill"

services: install kafka  ## all of these at once: they wait more than they compute
	@$(MAKE) --no-print-directory -j$(AT_ONCE) cluster contract-first contract-second

pages: install browser  ## the pages in a real Chromium, and the README's tour
	@bash tools/timed.sh pages .venv/bin/pytest tests/e2e -m "not long"

kills: install kafka  ## kill -9 at failpoints and at random, judged by the independent checker
	@bash tools/timed.sh kills .venv/bin/pytest tests -m "kill and not long" --durations=15

# A part uses 0.4 to 0.9 of a core, so three at once keep two cores busy; the longest begin first.
test: install kafka browser  ## everything; what CI and the README call
	@$(MAKE) --no-print-directory -j$(AT_ONCE) static kills cluster contract-first contract-second pages sdks unit

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
