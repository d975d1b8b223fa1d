"""The committed files agree: README, notebooks, weights and answers hold the same figures."""

import ast
import re

import pytest

import common
import exercises
import notebooks
from notebooks import NAMES, ROOT, code_cells, code_with, printed

pytestmark = pytest.mark.usefixtures("weights")


def test_results_in_the_readme_are_the_notebooks():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = {name: notebooks.results(name) for name in NAMES}
    for heading, rows in found.values():
        assert heading in readme, "the README's results are not the notebooks': see make results"
        assert rows.keys() == found["Model1"][1].keys()
    for row, (noisy, _) in found["Model1"][1].items():
        figures = [noisy, *(rows[row][1] for _, rows in found.values())]
        assert f"| {row} | {' | '.join(figures)} |" in readme, "see make results"


def test_shipped_weights_reach_the_readmes_figure(name, recwarn):
    """load_reference() refuses them where they do not reach what their history says."""
    run = common.load_reference(notebooks.network(name), 0.1)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| noisy\.png \| (.*) \|$", readme, re.MULTILINE)
    assert f"{run.picture_psnr:.2f}" == row.split(" | ")[int(name[-1])]
    assert not [warning for warning in recwarn if "keras" in str(warning.filename)]


def test_shipped_weights_are_of_the_committed_notebooks_run(name):
    [cell] = [cell for cell in code_cells(name) if "model.fit(" in cell.source]
    assert str(common.read_run(name)) in printed(cell)


def assigned(cell, variable):
    """Return the `variable` that a cell of Model3 sets to a literal."""
    return ast.literal_eval(re.search(rf"^{variable} = (\{{.*?\}})", cell, re.M | re.S)[1])


def test_published_figures_are_those_of_the_weights():
    published = assigned(code_with("Model3", "published = {"), "published")
    assert published == {name: (round(run.psnr[-1], 2), round(run.picture_psnr, 2))
                         for name, run in zip(NAMES, map(common.read_run, NAMES))}


def test_seeds_in_the_notebook_are_those_of_the_file():
    title, _, *rows = (ROOT / "weights" / "seeds.csv").read_text(encoding="utf-8").splitlines()
    assert re.search(r"on [\d,]+ test images of CIFAR-10 after 10 epochs on [\d,]+ train", title)
    seeds = {name: [] for name in NAMES}
    for name, _, reached in (row.split(",") for row in rows):
        seeds[name].append(round(float(reached), 3))
    assert assigned(code_with("Model3", "seeds = {"), "seeds") == seeds
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for name in NAMES:
        assert f"{name} {min(seeds[name]):.3f} to {max(seeds[name]):.3f}" in readme


def test_exercises_are_asked_in_the_notebooks_and_answered():
    answers = (ROOT / "benchmarks" / "ANSWERS.md").read_text(encoding="utf-8")
    for name in NAMES:
        [text] = [cell.source for cell in notebooks.cells(name) if "## Exercises" in cell.source]
        asked = [re.match(r"(\d\. \*.*?\.\*)", line)[1] for line in text.splitlines()
                 if line[:1].isdigit()]
        part = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", answers, re.M | re.S)[1]
        assert 3 <= len(asked) <= 4
        assert re.findall(r"^\d\. \*.*?\.\*", part, re.M) == asked
    for name, title, _ in exercises.EXERCISES:
        assert re.search(rf"^\| {name} \| {re.escape(title)} \|( [\d.]+ \|)+$", answers, re.M)


def test_variables_in_the_readme_are_all_there_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = (ROOT / "common.py").read_text(encoding="utf-8")
    found = [set(re.findall(r"DENOISE_[A-Z]+", text)) for text in (readme, code)]
    assert found == 2 * [{"DENOISE_DATA", "DENOISE_EPOCHS", "DENOISE_QUICK"}]
