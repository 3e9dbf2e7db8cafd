# Ropewalk's commands. `make` alone lists them. Every one may be run again at any time.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
# A context of your own kubeconfig to use instead of the local cluster, and the registry its nodes pull from.
CONTEXT ?=
REGISTRY ?= ropewalk.dev

CLUSTER := PYTHONPATH=dev $(PYTHON) -m cluster
OBSERVE := PYTHONPATH=dev .venv/bin/python -m observe
DEMO := PYTHONPATH=dev $(PYTHON) -m demo
CODE := operator/src agent_image/src dev bench tests
MCP_CODE := mcp_images tests/unit/mcp tests/conformance/everything
MCP_TESTS := tests/unit/mcp

.PHONY: help
help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: cluster-up images ## a cluster, the chart, the examples, and a question to each agent (CONTEXT=name uses your cluster)
	@$(DEMO) --context "$(CONTEXT)" --registry "$(REGISTRY)"

.PHONY: test
test: check test-unit test-integration test-e2e ## checks and tests (but test-chart, conformance), in a local cluster that ends with them

.PHONY: test-unit
test-unit: .venv/.ready .venv-mcp/.ready tools ## unit and contract tests
	.venv/bin/pytest tests/unit tests/contract --ignore $(MCP_TESTS) --numprocesses=auto $(PYTEST)
	.venv-mcp/bin/pytest $(MCP_TESTS) --numprocesses=auto $(PYTEST)

.PHONY: test-integration
test-integration: .venv/.ready .venv-mcp/.ready tools ## the operator against a real API server, MCP servers against real programs
	.venv/bin/pytest tests/integration $(PYTEST)

.PHONY: test-e2e
test-e2e: .venv/.ready tools ## real pods in the local cluster, which is brought up for it and ends with it if it was not there
	@if $(CLUSTER) status; then started=; else started=yes; fi; \
	end() { if [ -n "$$started" ]; then $(CLUSTER) down; fi; }; trap end EXIT; \
	$(CLUSTER) up; $(CLUSTER) images; .venv/bin/pytest tests/e2e $(PYTEST)

.PHONY: test-chart
test-chart: .venv/.ready .venv-checkov/.ready tools ## the chart before linters, in one namespace, and by Helm 4; after edits of it
	@$(CLUSTER) chart-tools
	.venv/bin/pytest tests/chart $(PYTEST)
	ROPEWALK_HELM=helm4 .venv/bin/pytest tests/integration/test_chart_install.py tests/chart/test_chart_namespaced.py $(PYTEST)

.PHONY: conformance
conformance: .venv/.ready .venv-mcp/.ready ## the official MCP suite: the stdio bridge beside a native server, the agent's client (npm)
	PYTHONPATH=dev:tests/support:. .venv/bin/python -m tests.conformance $(CONFORMANCE)

.PHONY: check
check: .venv/.ready .venv-mcp/.ready ## lint, types, architecture and complete docs; changes nothing
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy $(CODE) --exclude '$(MCP_TESTS)|tests/support/mcp_|tests/conformance/everything'
	.venv-mcp/bin/mypy $(MCP_CODE)
	PYTHONPATH=operator/src:agent_image/src:mcp_images .venv/bin/lint-imports
	.venv/bin/pytest -q tests/docs

.PHONY: fix
fix: .venv/.ready ## format, mend what can be mended by rule, copy the CRDs into the chart, list its values
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .
	charts/ropewalk/sync-crds
	PYTHONPATH=dev .venv/bin/python -m chart_reference

.PHONY: golden
golden: .venv/.ready ## rewrite the golden files of the renderers; read the diff
	ROPEWALK_GOLDEN=write .venv/bin/pytest -q tests/unit/operator

.PHONY: dashboards
dashboards: .venv/.ready ## write the chart's Grafana dashboards from dev/dashboards
	@PYTHONPATH=dev .venv/bin/python -m dashboards

.PHONY: tools
tools: ## build kubectl, helm and the cluster's programs into the cache
	@$(CLUSTER) tools

.PHONY: cluster-up
cluster-up: ## a one-machine Kubernetes from pinned sources (root, Debian); with CONTEXT=name nothing is done
	@if [ -z "$(CONTEXT)" ]; then $(CLUSTER) up; fi

.PHONY: cluster-down
cluster-down: ## end the local cluster and remove everything of it but the cache
	@$(CLUSTER) down

.PHONY: images
images: ## build the images and load them into the cluster
	@$(CLUSTER) images --context "$(CONTEXT)" --registry "$(REGISTRY)"

.PHONY: observe
observe: .venv/.ready ## Prometheus and Alertmanager beside the local cluster, with the chart's scrapes and alerts
	@$(OBSERVE) up

.PHONY: observe-panels
observe-panels: .venv/.ready ## every panel of every dashboard in figures, from what `make observe` has seen
	@$(OBSERVE) panels $(PANELS)

.PHONY: observe-down
observe-down: .venv/.ready ## end what `make observe` has started
	@$(OBSERVE) down

.PHONY: bench
bench: .venv/.ready .venv-mcp/.ready cluster-up images ## measure, side by side with the alternatives; minutes
	PYTHONPATH=dev:tests/support:operator/src:agent_image/src .venv/bin/python -m bench $(BENCH)

.PHONY: requirements
requirements: .venv/.ready ## pin the requirements again, with hashes, from the *.in files
	@dev/pin-requirements

.PHONY: clean
clean: ## remove the Python environments and the tools' own caches from the checkout
	rm -rf .venv .venv-mcp .venv-checkov .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

.venv/.ready: dev/requirements.txt
.venv-mcp/.ready: dev/requirements-mcp.txt
.venv-checkov/.ready: dev/requirements-checkov.txt
.venv/.ready .venv-mcp/.ready .venv-checkov/.ready:
	@$(CLUSTER) machine
	@echo "==> Making the Python environment $(@D) (about a minute)"
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
