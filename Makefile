# make run         quick run of the three notebooks into build/, then a table of what came out
# make test        unit tests, checks of the committed files, the notebooks re-executed with nbval
# make notebooks   the real run, in place (EPOCHS=n for another count than the notebooks' 100)
# make results     the table of the committed notebooks
# make publish     write the bundle's address into notebooks and README, for Colab:
#                  URL=https://github.com/OWNER/REPOSITORY, and BRANCH unless it is main
# make bundle      pack build/bundle.zip, the one file to upload in Colab
# make benchmark   quality, speed and memory here: pictures beside classical methods, training
#                  beside the plain code
# make seeds       three runs of each model that differ in their seeds (hours; EPOCHS=n)
# make exercises   do the notebooks' exercises and show what comes out
# make recipe      what each part of the training recipe is worth (a night)
# make three_epochs   PSNR over three epochs of our recipe, Adam's and the plain code (an hour)
# make teeth       break the bundle in many ways and show that the tests notice

PYTHON ?= python3
NOTEBOOKS = Model1 Model2 Model3  # the last one compares them
EXECUTE = .venv/bin/jupyter nbconvert --to notebook --execute --log-level=ERROR \
	--ExecutePreprocessor.record_timing=False

unexport MPLBACKEND  # another one than Jupyter's leaves notebooks without figures

.PHONY: run test notebooks results publish bundle benchmark recipe three_epochs seeds exercises \
	teeth cifar10

run results notebooks publish benchmark recipe three_epochs seeds exercises teeth: \
	export PYTHONPATH = .:tests

run: .venv/installed
	@rm -rf build/checkpoints && mkdir -p build
	@for name in $(NOTEBOOKS); do \
		echo "Quick run of $$name.ipynb …"; \
		DENOISE_QUICK=1 $(EXECUTE) --output-dir build $$name.ipynb 2>build/$$name.log \
			|| { tail -n 30 build/$$name.log; exit 1; }; \
	done
	@.venv/bin/python benchmarks/results.py build

test: export DENOISE_QUICK = 1
test: export DENOISE_DATA := $(or $(DENOISE_DATA),photos)
test: .venv/installed
	.venv/bin/ruff check common.py tests benchmarks $(NOTEBOOKS:=.ipynb)
	.venv/bin/python -m pytest --nbval-lax --nbval-current-env tests $(NOTEBOOKS:=.ipynb)

notebooks seeds: export DENOISE_QUICK =
notebooks: cifar10
	@mkdir -p build/real
	@for name in $(NOTEBOOKS); do \
		echo "Running $$name.ipynb …"; \
		DENOISE_EPOCHS=$(EPOCHS) $(EXECUTE) --output-dir build/real $$name.ipynb \
			2>build/real/$$name.log || { tail -n 30 build/real/$$name.log; exit 1; }; \
		mv build/real/$$name.ipynb $$name.ipynb; \
	done
	@DENOISE_EPOCHS=$(EPOCHS) .venv/bin/python benchmarks/reference.py >build/real/reference.log 2>&1 \
		|| { tail -n 30 build/real/reference.log; exit 1; }
	@.venv/bin/python benchmarks/results.py .

results: .venv/installed
	@.venv/bin/python benchmarks/results.py .

publish: BRANCH ?= main
publish: .venv/installed
	@.venv/bin/python benchmarks/publish.py "$(URL)" "$(BRANCH)"

bundle: .venv/installed
	@mkdir -p build
	@.venv/bin/python -m zipfile -c build/bundle.zip common.py noisy.png weights
	@echo "build/bundle.zip is what a notebook in Colab asks for."

benchmark: .venv/installed
	@.venv/bin/python benchmarks/picture_benchmark.py
	@.venv/bin/python benchmarks/benchmark.py

recipe: cifar10
	@.venv/bin/python benchmarks/recipe.py

three_epochs: cifar10
	@.venv/bin/python benchmarks/three_epochs.py

seeds: cifar10
	@DENOISE_EPOCHS=$(EPOCHS) .venv/bin/python benchmarks/seeds.py

exercises: cifar10
	@.venv/bin/python benchmarks/exercises.py

teeth: .venv/installed
	.venv/bin/python benchmarks/teeth.py

cifar10: .venv/installed
	@.venv/bin/python -c 'import common, sys; sys.exit(common.load_data().name != "CIFAR-10")' || { \
		echo "What is committed is to come from CIFAR-10, and it is not at hand: let DENOISE_DATA"; \
		echo "name a cifar10.npz, or unset it to download. For other data, use Jupyter."; exit 1; }

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
