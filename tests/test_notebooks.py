"""The committed notebooks and pictures, as they lie here: executed, alike, from real runs."""

import re
from itertools import pairwise, zip_longest

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import common
import notebooks
from notebooks import CHECKED, NAMES, ROOT, cells, code_cells, printed, tags


def test_executed_from_top_to_bottom(name):
    counts = [cell.execution_count for cell in code_cells(name)]
    assert counts == list(range(1, len(counts) + 1))


def test_no_errors_and_no_warnings(name):
    for cell in code_cells(name):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source
            assert "warning" not in output.get("text", "").lower(), cell.source


def test_enough_cells_are_compared_and_each_has_something_to_compare(name):
    checked = [cell for cell in code_cells(name) if CHECKED in tags(cell)]
    assert len(checked) >= 8
    for cell in checked:
        assert printed(cell).strip(), cell.source


def test_recorded_run_is_a_real_one(name):
    [cell] = [cell for cell in code_cells(name) if "model.fit(" in cell.source]
    found = re.search(r"Trained for ([\d,]+) epochs? on CIFAR-10 \(([\d,]+) images\)",
                      printed(cell))
    assert found, f"{name}.ipynb does not hold a real run on CIFAR-10: {printed(cell)}"
    epochs, images = (int(number.replace(",", "")) for number in found.groups())
    assert epochs >= 1
    assert images > 49_000
    assert not any("Quick run" in printed(cell) for cell in code_cells(name))


def test_live_display_left_its_last_state_alone(name):
    [cell] = [cell for cell in code_cells(name) if "model.fit(" in cell.source]
    shown = [output for output in cell.outputs if output.output_type == "display_data"]
    assert len(shown) == 2
    assert sum("image/png" in output.data for output in shown) == 1


def path(name):
    """Return the cells that the three notebooks share, with one name for the three models."""
    return [(cell.cell_type, re.sub("|".join(NAMES), "ModelX", cell.source), tags(cell))
            for cell in cells(name) if not {"model", "own"} & set(tags(cell))]


def test_notebooks_share_one_path():
    for other in NAMES[1:]:
        for this, that in zip_longest(path("Model1"), path(other)):
            assert this == that, f"Model1 and {other} differ"


def test_each_has_a_chapter_that_the_others_do_not_have(name):
    own = {cell.source for cell in cells(name) if "own" in tags(cell)}
    assert len(own) >= 10
    assert not any(own & {cell.source for cell in cells(other)} for other in NAMES if other != name)


def test_contents_lead_to_headings(name):
    text = "\n".join(cell.source for cell in cells(name) if cell.cell_type == "markdown")
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^## (.*)$", text, re.M)}
    links = set(re.findall(r"\]\(#(.*?)\)", text))
    assert len(links) >= 8 and links <= headings


def before_training(name):
    return ["model.fit(" in cell.source for cell in code_cells(name)].index(True)


def test_layout(name):
    titles = [line for cell in cells(name) if cell.cell_type == "markdown"
              for line in cell.source.splitlines() if re.match("# ", line)]
    assert len(titles) == 1 and titles[0].startswith(f"# {name}: ")
    for before, cell in pairwise(cells(name)):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", cell.source
    first, *others = lengths = [len(list(filter(str.strip, cell.source.splitlines())))
                                for cell in code_cells(name)]
    assert first <= 30 and max(others) <= 20 and np.median(lengths) <= 7
    assert max(len(line) for cell in code_cells(name) for line in cell.source.splitlines()
               if not line.startswith("FILES_URL = ")) <= 100
    own = sum("own" in tags(cell) for cell in code_cells(name)[:before_training(name)])
    assert before_training(name) - own < 15
    assert (ROOT / f"{name}.ipynb").stat().st_size < 4_000_000


def test_no_path_of_one_machine(name):
    for cell in code_cells(name):
        assert not re.search(r"/(root|home|tmp|work|Users)/", cell.source + printed(cell))


def test_picture_is_what_the_notebook_reports(name):
    with Image.open(ROOT / f"{name}.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (512, 512))
        pixels = np.array(picture)
    _, rows = notebooks.results(name)
    before, after = map(float, rows["noisy.png"])
    clean = common.clean_picture()
    assert common.psnr(clean, pixels) == pytest.approx(after, abs=0.0051)
    assert common.psnr(clean, common.noisy_picture()) == pytest.approx(before, abs=0.0051)


def trained(name):
    """Return the variables of the notebook `name` with its own, untrained network."""
    data = common.Data("CIFAR-10", *2 * [np.full((64, 32, 32, 3), 128, np.uint8)])
    run = common.Run(name, "CIFAR-10", 64, 64, 1, 32, 0.1, 0, 19.0, "2026-11-25", "Keras", [0.1],
                     [20.0], [1.0], [[1, 0.1]])
    scores = common.Scores(20.0, None, None)
    return notebooks.built(name, data, 1) | {
        "plt": plt, "PICTURE": "mine.png", "run": run, "before": scores, "after": scores}


def execute(name, variables, first, last):
    """Execute the code cells from that with the text `first` to that with `last`."""
    sources = [cell.source for cell in code_cells(name)]
    start, end = ([text in source for source in sources].index(True) for text in (first, last))
    for source in sources[start:end + 1]:
        exec(source, variables)
    plt.close("all")


def test_evaluation_is_on_noisy_images():
    variables = trained("Model2")  # which changes nothing before it is trained
    execute("Model2", variables, "denoised_test = ", "denoised_test = ")
    assert variables["after"].psnr == variables["before"].psnr == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("shape, dtype", [
    ((30, 40, 4), np.uint8), ((30, 40), np.uint16), ((1, 1, 3), np.uint8)])
def test_own_picture_goes_through_without_a_psnr(tmp_path, capsys, shape, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype)
    common.save_picture(pixels, tmp_path / "mine.png")
    variables = trained("Model1")
    execute("Model1", variables, "open_picture(PICTURE)", "open_picture(PICTURE)")
    execute("Model1", variables, "clean = common.clean_picture()", "rows = {")
    written = common.open_picture("Model1.png")
    assert written.dtype == dtype and not np.array_equal(written, pixels)
    np.testing.assert_array_equal(written, common.denoise(
        variables["model"], pixels, common.estimate_noise(pixels)))
    output = capsys.readouterr().out
    assert f"mine.png: shape {shape}, {np.dtype(dtype)}" in output
    assert "PSNR: " not in output and "clean picture" not in output


SHOWN = {"Model1": "Gaussian     20.", "Model2": "Changed pixels: 1 rows, 1 columns",
         "Model3": "Model2     not run       28.7"}


def test_own_chapter_is_shown_beside_an_own_picture_without_it(name, capsys):
    variables = {**trained(name), "noisy": np.zeros((9, 9), np.uint8), "clean": None}
    variables["denoised_test"] = variables["noisy_test"]
    if name == "Model1":
        execute(name, variables, "import skimage.data", "def four_kinds(")
    sources = [cell.source for cell in code_cells(name)]
    [results] = [i for i, cell in enumerate(code_cells(name)) if "results" in tags(cell)]
    execute(name, variables, sources[results + 1], sources[-1])
    output = capsys.readouterr().out
    assert SHOWN[name] in output and "mine.png" not in output
