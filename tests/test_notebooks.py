"""The committed notebooks and pictures, as they lie here: executed, alike, from real runs."""

import functools
import re
import time
from itertools import pairwise, zip_longest

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from skimage import restoration
from skimage.util import random_noise

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


def own_part(cell):
    return "model" in tags(cell) or "model1-only" in tags(cell)


def shared_cells(name):
    found = []
    for cell in cells(name):
        if own_part(cell):
            continue
        source = re.sub(r"Model[123]", "ModelX", cell.source)
        found.append((cell.cell_type, source, tags(cell)))
    return found


def test_notebooks_are_alike_but_for_their_networks():
    for other in NAMES[1:]:
        for this, that in zip_longest(shared_cells("Model1"), shared_cells(other)):
            assert this == that, f"Model1 and {other} differ"
        assert not any("model1-only" in tags(cell) for cell in cells(other))


def test_layout(name):
    titles = [line for cell in cells(name) if cell.cell_type == "markdown"
              for line in cell.source.splitlines() if re.match("# ", line)]
    assert len(titles) == 1 and titles[0].startswith(f"# {name}: ")
    for before, cell in pairwise(cells(name)):
        assert cell.cell_type == "markdown" or before.cell_type == "markdown", cell.source
    for cell in code_cells(name):
        assert len(cell.source.splitlines()) <= 25, cell.source
    lengths = [len(cell.source.splitlines()) for cell in code_cells(name)]
    assert np.median(lengths) <= 7
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


def test_no_colour_cast(name):
    [on_test, on_picture] = [re.findall(r"[+-]\d+\.\d+", printed(cell))
                             for cell in code_cells(name) if "colour_cast" in cell.source]
    assert len(on_test) == len(on_picture) == 3
    assert max(abs(float(error)) for error in on_test + on_picture) <= 0.25


def test_results_in_the_readme_are_the_notebooks():
    readme = " ".join((ROOT / "README.md").read_text().split())
    found = {name: notebooks.results(name) for name in NAMES}
    for heading, rows in found.values():
        assert heading in readme, "the README's results are not the notebooks': see make results"
        assert rows.keys() == found["Model1"][1].keys()
    for row, (noisy, _) in found["Model1"][1].items():
        figures = [noisy, *(rows[row][1] for _, rows in found.values())]
        assert f"| {row} | {' | '.join(figures)} |" in readme, "see make results"


def trained(name):
    """Return the variables of the notebook `name` after it trained a network that does nothing."""
    image = keras.Input((None, None, 3))
    few = np.full((8, 32, 32, 3), 128, np.uint8)
    clean = common.to_float(few)
    run = common.Run(name, "CIFAR-10", 8, 8, 1, 32, 0.1, 0, 19.0, "2026-11-25", "Keras", [0.1],
                     [20.0], [1.0], [[1, 0.1]])
    scores = common.Scores(20.0, None, None)
    return {"common": common, "np": np, "plt": plt, "NAME": name, "PICTURE": "mine.png",
            "model": keras.Model(image, keras.layers.Identity()(image)), "run": run,
            "NOISE_STD": 0.1, "SEED": 0, "EPOCHS": 1, "CHECKPOINTS": "checkpoints",
            "data": common.Data("CIFAR-10", few, few), "clean_test": clean,
            "noisy_test": common.add_noise(clean, 0.1, 0), "noisy_scores": scores, "scores": scores}


@pytest.mark.parametrize("shape, dtype", [
    ((30, 40, 3), np.uint8), ((30, 40, 4), np.uint8), ((30, 40, 2), np.uint8), ((30, 40), np.uint8),
    ((30, 40), np.uint16), ((1, 1, 3), np.uint8), ((3, 1200, 3), np.uint8)])
def test_own_picture_goes_through_without_a_psnr(name, tmp_path, capsys, shape, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype)
    common.save_picture(pixels, tmp_path / "mine.png")
    variables = trained(name)
    sources = [cell.source for cell in code_cells(name)]
    [setup] = [source for source in sources if "open_picture(PICTURE)" in source]
    [first] = [i for i, source in enumerate(sources) if source.startswith("ours = ")]
    [last] = [i for i, cell in enumerate(code_cells(name)) if "results" in tags(cell)]
    for source in [setup, *sources[first:last + 1]]:
        exec(source, variables)
    plt.close("all")
    written = common.open_picture(f"{name}.png")
    assert written.dtype == dtype
    np.testing.assert_array_equal(written, pixels)
    output = capsys.readouterr().out
    assert f"mine.png: shape {shape}, {np.dtype(dtype)}" in output
    assert "PSNR: " not in output and "clean picture" not in output


def test_limits_are_shown_beside_an_own_picture_without_it(name, capsys):
    variables = {**trained(name), "clean": None, "time": time, "functools": functools,
                 "restoration": restoration, "random_noise": random_noise}
    sources = [cell.source for cell in code_cells(name)]
    [first] = [i for i, source in enumerate(sources) if source.startswith("few = ")]
    for source in sources[first:]:
        exec(source, variables)
    plt.close("all")
    output = capsys.readouterr().out
    noisy, denoised = re.search(r"^Gaussian +(\S+) +(\S+)$", output, re.MULTILINE).groups()
    assert noisy == denoised  # by a network that does nothing
    assert re.search(rf"^{name} +1  CIFAR-10 +20\.00 +8  this notebook$", output, re.MULTILINE)
    assert "mine.png" not in output
