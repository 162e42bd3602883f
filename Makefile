# Commands on a machine with Python >= 3.11 and make:
#   make quickstart   sets up .venv, trains and evaluates on real digits, writes runs/quickstart/report.html
#   make study        trains five small models on digits, puts them under every probe of robustness, writes runs/study/study.html
#   make mender       locates and repairs the flaw of small models on shapes with a planted cue, writes runs/mender/mender.html
#   make ads          trains state space models with and without Adaptive Scaling on digits, writes runs/ads/ads.html
#   make dense        trains a small UperNet and Mask R-CNN on rendered shapes, attacks, corrupts, occludes their images, writes runs/dense/dense.html
#   make adapt        adapts small models to corrupted digits at test time, and attacks them through it, writes runs/adaptation/adapt.html
#   make docs         builds the site into docs/_build/html and runs its notebooks; NOTEBOOKS=off does not run them
#   make test         sets up .venv, runs the checks
#   make test-slow    runs those that take longer: every golden model, programs killed in several processes
#   make test-peers   compares with live reference programs, which it installs (PyTorch among them)
#   make test-aot     compiles the TPU kernels ahead of time, with the libtpu wheel (200 MB) and no TPU
# PYTHON=python3.13 chooses the interpreter, VENV=path where it is set up. uv installs where present, pip otherwise.
# Every command may be repeated; what is already done is not done again.

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/quickstart
STUDY ?= runs/study
MENDER ?= runs/mender
ADS ?= runs/ads
DENSE ?= runs/dense
ADAPT ?= runs/adaptation
NOTEBOOKS ?= force
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
WORKERS ?= $(shell [ $(CORES) -gt 1 ] && echo $$(( $(CORES) < 8 ? $(CORES) : 8 )) || echo 0)
# Whole files to each worker: what a file's tests share is made once.
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile

IN := $(VENV)/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: quickstart study mender ads dense adapt docs test test-slow test-peers test-aot lint install install-aot clean FORCE
.NOTPARALLEL:
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.installed
	@$(IN) -m experiments.quickstart --workdir $(WORKDIR)

study: $(VENV)/.installed
	@$(IN) -m experiments.study --workdir $(STUDY)

mender: $(VENV)/.installed
	@$(IN) -m experiments.mender --config configs/mender.py --workdir $(MENDER) --workers=0

ads: $(VENV)/.installed
	@$(IN) -m experiments.ads --config configs/ads_study.py --workdir $(ADS) --workers=0

dense: $(VENV)/.installed-detection
	@$(IN) -m experiments.dense --config configs/dense.py --workdir $(DENSE)

adapt: $(VENV)/.installed
	@$(IN) -m experiments.adapt --config configs/adaptation.py --workdir $(ADAPT)

# Warnings are errors; then every internal link of the built pages is checked. Nothing is read from the network.
docs: $(VENV)/.installed-docs
	@NOTEBOOKS=$(NOTEBOOKS) $(IN) -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@$(IN) docs/tools/check_site.py docs/_build/html

test: lint
	@$(IN) -m pytest $(SIDE_BY_SIDE) -m "not slow and not aot and not peers" $(ARGS)

test-slow: $(VENV)/.installed-test
	@$(IN) -m pytest $(SIDE_BY_SIDE) -m slow $(ARGS)

test-peers: $(VENV)/.installed-peers
	@$(IN) -m pytest -m peers $(ARGS)

# libtpu lies apart: beside JAX it would be looked for, and waited for, by every program on a machine without a TPU.
test-aot: $(VENV)/.installed-aot
	@TPU_LIBRARY_PATH=$(abspath $(VENV))/aot/libtpu/libtpu.so $(IN) -m pytest -m aot $(ARGS)

install-aot: $(VENV)/.installed-aot

lint: $(VENV)/.installed-test
	@$(IN) -m ruff check .
	@$(IN) -m pyrefly check --summary=none

install: $(VENV)/.installed-test

# The results in runs/ stay: they are yours.
clean:
	@if [ -e $(VENV)/.python ]; then rm -rf $(VENV); fi
	@rm -rf .cache .pytest_cache .ruff_cache .hypothesis build dist *.egg-info docs/_build docs/_readme.md docs/api docs/families
	@find . -path ./.git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

comma := ,
# $(call install,requirement): uv does not read pip's configuration, so where its install fails (a mirror only pip knows) pip has its turn.
define install
	@echo "installing $(1) into $(VENV) ..."
	@if command -v uv >/dev/null 2>&1 && uv pip install --quiet --python $(IN) -c constraints.txt -e '$(1)' 2>/dev/null; then :; else \
	  $(IN) -m pip --version >/dev/null 2>&1 || $(IN) -m ensurepip >/dev/null 2>&1 \
	    || { echo "make: no installer: $(IN) has no pip and there is no working uv" >&2; exit 1; }; \
	  $(IN) -m pip install --quiet -c constraints.txt -e '$(1)'; fi
endef

$(VENV)/.installed: $(VENV)/.python setup.py pyproject.toml constraints.txt
	$(call install,.)
	@touch $@

$(VENV)/.installed-test: $(VENV)/.python setup.py pyproject.toml constraints.txt
	$(call install,.[test])
	@touch $(VENV)/.installed $@

$(VENV)/.installed-detection: $(VENV)/.installed
	$(call install,.[detection])
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.python setup.py pyproject.toml constraints.txt
	$(call install,.[docs])
	@touch $(VENV)/.installed $@

$(VENV)/.installed-peers: $(VENV)/.installed-test
	$(call install,.[test$(comma)peers])
	@touch $@

$(VENV)/.installed-aot: $(VENV)/.installed-test
	@echo "installing libtpu into $(VENV)/aot ..."
	@$(IN) -m pip --version >/dev/null 2>&1 || $(IN) -m ensurepip >/dev/null 2>&1; \
	$(IN) -m pip install --quiet --no-deps --upgrade --target $(VENV)/aot -c constraints.txt libtpu
	@touch $@

# Holds "where the base interpreter lives, its version"; rewritten, and the environment made anew, only when PYTHON names another one.
$(VENV)/.python: FORCE
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "make: PYTHON=$(PYTHON) is not on this machine" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "make: Python >= 3.11 is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1 | head -n 1): choose one by make PYTHON=python3.13" >&2; exit 1; }
	@wanted=$$($(PYTHON) -c 'import sys; print(sys.base_prefix, "%d.%d" % sys.version_info[:2])'); \
	if [ "$$wanted" = "$$(cat $@ 2>/dev/null)" ] && [ -x $(IN) ]; then exit 0; fi; \
	if [ -e $@ ]; then clear=--clear; else clear=; fi; \
	base=$$($(PYTHON) -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))'); \
	echo "making $(VENV) with $$($(PYTHON) -V)"; \
	"$$base" -m venv $$clear $(VENV) >/dev/null 2>&1 || { command -v uv >/dev/null 2>&1 && uv venv --quiet --clear --python "$$base" $(VENV); } \
	  || { echo "make: $(PYTHON) cannot make a virtual environment (on Debian: apt install python3-venv)" >&2; exit 1; }; \
	echo "$$wanted" > $@
