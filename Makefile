# Omamori. `make` alone prints this help. Everything a target needs, it installs or builds itself.
SHELL := /bin/sh
.DEFAULT_GOAL := help
PY := .venv/bin/python
KEYS := build/keys
BOARD ?= x86_64-uefi
IMAGE ?= build/image/$(if $(filter x86_64-uefi,$(BOARD)),,$(BOARD)-)release
ARGS ?=

.PHONY: help setup run test test-fast test-long test-powercut check format lock image keys supervisor bench bench-wire bench-faults bench-office bench-feed bench-ingest bench-fleet bench-ota bench-supervisor clean distclean

help: ## this list
	@printf 'Omamori: firmware, agent, feeds and cloud of a bridge-mode security appliance\n\n'
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nExamples\n  make run                      the lab: an office, the box and an internet; stays until Ctrl-C\n'
	@printf "  make run ARGS='--once --json result.json'\n  make test ARGS='-k gate'\n"

setup: ## make a fresh Debian 12 machine (root) ready: packages, .venv
	@sh tools/setup.sh

run: setup ## build everything, start the lab, play the scenes, show the page
	@exec .venv/bin/omamori-lab run $(ARGS)

test: setup check ## linters, then every test (builds the image, boots it)
	@$(PY) -m pytest $(ARGS)

test-fast: setup ## tests without root, image and QEMU
	@$(PY) -m pytest -m 'not root and not image and not system and not browser and not long' $(ARGS)

test-long: setup ## bad firmware, three firmwares in a row and the like: most of an hour
	@$(PY) -m pytest -m long $(ARGS)

test-powercut: setup ## the power fails at every write of an update (ARGS='--subsets 4 --boots 12')
	@$(PY) -m pytest tests/system/test_powercut.py -m long $(ARGS)

check: setup ## ruff and mypy
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check -q .
	@.venv/bin/mypy

format: setup ## reformat the Python code
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

keys: setup ## development keys in build/keys, once
	@[ -d $(KEYS) ] || .venv/bin/omamori-ota keys init $(KEYS)
	@[ -f $(KEYS)/bundle/bundle.crt ] || .venv/bin/omamori-ota keys complete $(KEYS)

image: keys ## build the release image (BOARD=aarch64-uefi for 64-bit Arm)
	@.venv/bin/omamori-image build --board $(BOARD) --trust $(KEYS)/trust \
	  --secureboot-key $(KEYS)/secureboot/db.key --out $(IMAGE) $(ARGS)

supervisor: setup ## build the firmware of the microcontroller that holds the wire
	@.venv/bin/omamori-image supervisor $(ARGS)

bench: setup ## measure; writes docs/benchmarks/*.json and docs/benchmarks.md
	@.venv/bin/omamori-lab bench $(ARGS)

bench-wire: setup ## bare bridge, stock engine and Omamori side by side (ARGS='--rules DIR' for real rules)
	@.venv/bin/omamori-lab bench wire $(ARGS)

bench-faults: setup ## how long each failure interrupts traffic
	@.venv/bin/omamori-lab bench faults $(ARGS)

bench-office: setup ## a hundred office PCs for ten minutes
	@.venv/bin/omamori-lab bench office $(ARGS)

bench-feed: setup ## bytes, memory and times of feeds (ARGS='--rules DIR --lists DIR' for real ones)
	@.venv/bin/omamori-lab bench feed $(ARGS)

bench-ota: setup ## size, memory and time of firmware updates, and one in QEMU (ARGS='--only releases')
	@.venv/bin/omamori-lab bench ota $(ARGS)

bench-supervisor: setup ## how long each failure of the whole box interrupts, with a supervisor, in QEMU
	@.venv/bin/omamori-lab bench supervisor $(ARGS)

bench-ingest: setup ## events a second that one worker of the cloud stores
	@.venv/bin/omamori-lab bench ingest $(ARGS)

bench-fleet: setup ## ten thousand simulated boxes against one broker (ARGS='--boxes 500')
	@.venv/bin/omamori-lab bench fleet $(ARGS)

lock: setup ## renew the hash locks of the Python dependencies (ARGS=--upgrade for newest)
	@tools/lock.sh $(ARGS)

clean: ## remove what was built here (keys and caches stay)
	@rm -rf build/image build/lab .mypy_cache .ruff_cache .hypothesis pytest-embedded
	@find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean ## also remove .venv and the development keys
	@rm -rf build .venv *.egg-info
