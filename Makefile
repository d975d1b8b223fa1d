# make run         quick run of the three notebooks into build/, then a table of what came out;
#                  EPOCHS=n trains for real, for n epochs on CIFAR-10, in build/real/
# make test        unit tests, checks of the committed files, the notebooks re-executed with nbval
# make notebooks   the committed run: in place, with the notebooks' own number of epochs
# make results     the table of the committed notebooks
# make publish     write the bundle's address into notebooks and README, for Colab:
#                  URL=https://github.com/OWNER/REPOSITORY, and BRANCH unless it is main
# make bundle      pack build/bundle.zip, the one file to upload in Colab
# make handout     write build/handout/ and its zip: the practice for students, without the
#                  solution; URL=… publishes it
# make marks       read what came back, HANDINS=folder, and show what there is to mark
# make exercises   do the notebooks' exercises and show what comes out (1½ hours; EPOCHS=n)
# make seeds       three runs of each model that differ in their seeds (hours; EPOCHS=n)
# make recipe      what each part of the training recipe is worth (15 hours)
# make ceiling     what averaging the published networks gains
# make benchmark   quality, speed and memory here: pictures beside classical methods, training
#                  beside the plain code
# make teeth       break the bundle in twelve ways and show that the tests notice
#
# Variables count alike on the command line and in the environment: EPOCHS (or DENOISE_EPOCHS),
# DENOISE_DATA, URL, BRANCH, HANDINS, PYTHON.

PYTHON ?= python3
EPOCHS ?= $(DENOISE_EPOCHS)
EPOCHS := $(EPOCHS)
NOTEBOOKS = Model1 Model2 Model3  # the last one compares them

export PYTHONPATH = $(CURDIR):$(CURDIR)/tests
override DENOISE_EPOCHS :=
override DENOISE_QUICK :=
override DENOISE_DATA := $(or $(abspath $(wildcard $(DENOISE_DATA))),$(DENOISE_DATA))
export DENOISE_DATA DENOISE_EPOCHS DENOISE_QUICK
unexport MPLBACKEND  # another one than Jupyter's leaves notebooks without figures
exercises seeds: override DENOISE_EPOCHS := $(EPOCHS)

.PHONY: run test notebooks results publish bundle handout marks exercises seeds recipe ceiling \
	benchmark teeth cifar10

# Execute the notebooks of this folder into the folder $(1).
define execute
for name in $(NOTEBOOKS); do \
	echo "Running $$name.ipynb …"; \
	"$(CURDIR)/.venv/bin/jupyter" nbconvert --to notebook --execute --log-level=ERROR \
		--ExecutePreprocessor.record_timing=False --output-dir $(1) $$name.ipynb \
		2>$(1)/$$name.log || { tail -n 30 $(1)/$$name.log; exit 1; }; \
done
endef

ifeq ($(EPOCHS),)
run: .venv/installed
	@rm -rf build/checkpoints && mkdir -p build
	@export DENOISE_QUICK=1 && $(call execute,build)
	@.venv/bin/python benchmarks/results.py build
	@echo "This was a quick run: a sign that all works, not what the networks can do."
	@echo "For real, on CIFAR-10, 3 to 5 minutes per epoch and model on two cores: make run EPOCHS=3"
else
run: cifar10
	@mkdir -p build/real && cp -R common.py noisy.png weights $(NOTEBOOKS:=.ipynb) build/real
	@cd build/real && export DENOISE_EPOCHS="$(EPOCHS)" && $(call execute,.)
	@.venv/bin/python benchmarks/results.py build/real
endif

test: .venv/installed
	.venv/bin/ruff check common.py tests benchmarks teaching $(NOTEBOOKS:=.ipynb)
	DENOISE_QUICK=1 DENOISE_DATA="$(or $(DENOISE_DATA),photos)" .venv/bin/python -m pytest \
		--nbval-lax --nbval-current-env tests $(NOTEBOOKS:=.ipynb)

notebooks: cifar10
	@$(if $(EPOCHS),echo "These are the notebooks' own epochs; for others: make run EPOCHS=$(EPOCHS)"; exit 1)
	@mkdir -p build/committed && $(call execute,build/committed)
	@mv $(NOTEBOOKS:%=build/committed/%.ipynb) .
	@.venv/bin/python benchmarks/reference.py >build/committed/reference.log 2>&1 \
		|| { tail -n 30 build/committed/reference.log; exit 1; }
	@.venv/bin/python benchmarks/results.py .

results: .venv/installed
	@.venv/bin/python benchmarks/results.py .

publish: .venv/installed
	@.venv/bin/python teaching/publish.py "$(URL)" "$(or $(BRANCH),main)"

bundle: .venv/installed
	@mkdir -p build
	@.venv/bin/python -m zipfile -c build/bundle.zip common.py noisy.png weights
	@echo "build/bundle.zip is what a notebook in Colab asks for."

handout: .venv/installed
	@.venv/bin/python teaching/handout.py "$(URL)" "$(or $(BRANCH),main)"

marks: .venv/installed
	@.venv/bin/python teaching/marks.py "$(HANDINS)"

exercises: cifar10
	@.venv/bin/python teaching/exercises.py

seeds: cifar10
	@.venv/bin/python benchmarks/seeds.py

recipe: cifar10
	@.venv/bin/python benchmarks/recipe.py

ceiling: cifar10
	@.venv/bin/python benchmarks/ceiling.py

benchmark: .venv/installed
	@.venv/bin/python benchmarks/benchmark.py

teeth: .venv/installed
	@.venv/bin/python benchmarks/teeth.py

cifar10: .venv/installed
	@.venv/bin/python -c 'import common, sys; sys.exit(common.load_data().name != "CIFAR-10")' || { \
		echo "This takes CIFAR-10, and it is not at hand: let DENOISE_DATA name a cifar10.npz, or"; \
		echo "unset it to download. For other data, use Jupyter."; exit 1; }

.venv/installed: requirements.txt
	@command -v $(PYTHON) >/dev/null || { \
		echo "No $(PYTHON) here: install Python 3.10 to 3.13, or name one: make PYTHON=python3.12"; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$$($(PYTHON) --version) will not do: TensorFlow needs Python 3.10 to 3.13."; \
		echo "Install one of them and name it: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "This Python has no venv module. On Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@echo "Installing the packages into .venv: 2.7 GB, some minutes …"
	$(PYTHON) -m venv --clear .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@
