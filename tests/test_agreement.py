"""The committed files agree: README, notebooks, weights and answers hold the same figures."""

import ast
import re

import numpy as np
import pytest

import common
import exercises
import notebooks
import recipe
from notebooks import NAMES, ROOT, code_cells, code_with, printed

TEST_IMAGES = "9,980 test images of CIFAR-10"
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
    assert f"{run.test_psnr:.2f}" == notebooks.results(name)[1][TEST_IMAGES][1]
    assert not [warning for warning in recwarn if "keras" in str(warning.filename)]


def test_shipped_weights_are_of_the_committed_notebooks_run(name):
    [cell] = [cell for cell in code_cells(name) if "model.fit(" in cell.source]
    assert str(common.read_run(name)) in printed(cell)


def assigned(cell, variable):
    """Return the `variable` that a cell of Model3 sets to a literal."""
    [value] = [node.value for node in ast.parse(cell).body
               if isinstance(node, ast.Assign) and node.targets[0].id == variable]
    return ast.literal_eval(value)


def measured(steps, row, *names):
    """Return the means over the seeds in recipe.csv, rounded, for the networks `names`."""
    found = [[psnr for (*key, _), psnr in recipe.measured().items()
              if key == ["CIFAR-10", str(steps), name, row]] for name in names]
    return tuple(round(float(np.mean(values)), 2) for values in found)


def test_quoted_tables_are_those_of_the_ablation():
    lengths = {"400 steps": 400, "1 epoch": 1404, "3 epochs": 4212, "10 epochs": 14040}
    worth = {f"{length}, held-out images": measured(steps, "muon", "Model1", "Model2")
             for length, steps in lengths.items()}
    worth["100 epochs, test images"] = tuple(
        round(common.read_run(name).test_psnr, 2) for name in NAMES[:2])
    assert assigned(code_with("Model2", "worth = {"), "worth") == worth
    worth = {f"{title}, {length}": measured(lengths[length], row, "Model2", "Model3")
             for title, row in {"Adam at 2e-3": "adam", "Muon at 4e-3": "muon"}.items()
             for length in list(lengths)[:3]}
    assert assigned(code_with("Model3", "worth = {"), "worth") == worth


def test_quoted_grid_is_that_of_the_ablation():
    grid = {optimizer: {row["rate"]: measured(400, name, *NAMES)
                        for name, row in recipe.ROWS.items() if f"{optimizer.lower()}-at" in name}
            for optimizer in ("Muon", "Adam")}
    assert assigned(code_with("Model3", "grid = {"), "grid") == grid


def test_tables_of_the_ablation_are_those_of_its_file():
    text = (ROOT / "benchmarks" / "BENCHMARK.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| CIFAR-10[^|]*, steps \|.*?(?=\n\n)", text, re.MULTILINE | re.DOTALL)
    assert shown == recipe.tables()


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
    answers = (ROOT / "teaching" / "ANSWERS.md").read_text(encoding="utf-8")
    for name in NAMES:
        [text] = [cell.source for cell in notebooks.cells(name) if "## Exercises" in cell.source]
        asked = [re.match(r"(\d\. \*.*?\.\*)", line)[1] for line in text.splitlines()
                 if line[:1].isdigit()]
        part = re.search(rf"^## {name}$(.*?)(?=^## |\Z)", answers, re.M | re.S)[1]
        assert 3 <= len(asked) <= 4
        assert re.findall(r"^\d\. \*.*?\.\*", part, re.M) == asked
    for name, title, _ in exercises.EXERCISES:
        assert re.search(rf"^\| {name} \| {re.escape(title)} \|( [\w.]+ \|)+$", answers, re.M)


def test_variables_in_the_readme_are_all_there_are():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = (ROOT / "common.py").read_text(encoding="utf-8")
    found = [set(re.findall(r"DENOISE_[A-Z]+", text)) for text in (readme, code)]
    assert found == 2 * [{"DENOISE_DATA", "DENOISE_EPOCHS", "DENOISE_QUICK"}]
