"""The committed notebooks and pictures, as they lie here: executed, alike, from real runs."""

import pathlib
import re
from itertools import pairwise, zip_longest

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import common
import notebooks
from notebooks import CHECKED, NAMES, ROOT, cells, code_cells, code_with, printed, tags


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
    assert len(checked) >= 7
    for cell in checked:
        assert printed(cell).strip(), cell.source


def test_recorded_run_is_a_real_one(name):
    [cell] = [cell for cell in code_cells(name) if "model.fit(" in cell.source]
    found = re.search(r"Epoch (\d+) of \1 on CIFAR-10 \(([\d,]+) training images, ",
                      printed(cell))
    assert found, f"{name}.ipynb does not hold a real run on CIFAR-10: {printed(cell)}"
    epochs, images = (int(number.replace(",", "")) for number in found.groups())
    assert epochs >= 1
    assert images > 49_000
    assert not any("Quick run" in printed(cell) for cell in code_cells(name))
    assert sum("image/png" in output.get("data", {}) for output in cell.outputs) == 1


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
    first, *others = lengths = [len([line for line in cell.source.splitlines()
                                     if line.strip() and not line.startswith("# @title")])
                                for cell in code_cells(name)]
    assert first <= 31 and max(others) <= 15 and np.median(lengths) <= 7
    assert max(len(line) for cell in code_cells(name) for line in cell.source.splitlines()
               if not line.startswith("ARCHIVE = ")) <= 100
    own = sum("own" in tags(cell) for cell in code_cells(name)[:before_training(name)])
    assert before_training(name) - own < 15
    assert (ROOT / f"{name}.ipynb").stat().st_size < 4_000_000


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
    """Return the variables of the notebook `name` with its own network, as if it were trained."""
    images = np.full((150, 32, 32, 3), 128, np.uint8)
    variables = notebooks.built(name, common.Data("CIFAR-10", images, images), 1)
    run = common.read_run(name)
    variables["model"].trained = run.key
    return variables | {"plt": plt, "pathlib": pathlib, "run": run}


@pytest.mark.usefixtures("weights")
def test_evaluation_is_on_all_noisy_images():
    variables = trained("Model2")  # which changes nothing before it is trained
    exec(code_with("Model2", "denoised_test = model.predict"), variables)
    assert variables["after"].psnr == variables["before"].psnr == pytest.approx(20, abs=0.1)
    assert variables["after"].psnr == common.psnr(variables["clean_test"], variables["noisy_test"])
    assert len(variables["after"].image_psnr) == 150


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("shape, dtype, file", [
    ((30, 40, 4), np.uint8, "mine.png"), ((30, 40), np.uint16, "$$.png"),
    ((1, 1, 3), np.uint8, pathlib.Path("Model1.png"))])
def test_own_picture_is_denoised_beside_itself(capsys, shape, dtype, file):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype)
    common.save_picture(pixels, file, b"a profile")
    variables = trained("Model1")
    cell = code_with("Model1", 'PICTURE = ""')
    exec(cell, variables)
    assert "Write the name of your picture" in capsys.readouterr().out
    exec(cell.replace('PICTURE = ""', f"PICTURE = {file!r}").replace("Posix", "pathlib.Posix"),
         variables)
    plt.gcf().draw_without_rendering()
    plt.close("all")
    np.testing.assert_array_equal(common.open_picture(file)[0], pixels)
    written, profile = common.open_picture(f"{file}.Model1.png")
    assert written.dtype == dtype and profile == b"a profile"
    np.testing.assert_array_equal(written, common.denoise(
        variables["model"], pixels, common.estimate_noise(pixels) / 0.1))
    assert len(list(pathlib.Path().glob("*.*"))) == 2


@pytest.mark.usefixtures("weights")
def test_noisy_png_is_denoised_in_sight(name):
    variables = trained(name)
    cell = code_with(name, "common.save_picture(denoised")
    exec(cell, variables)
    written, _ = common.open_picture(f"{name}.png")
    np.testing.assert_array_equal(written, common.denoise(variables["model"], variables["noisy"]))
    variables["model"].trained = None
    pathlib.Path(f"{name}.png").unlink()
    with pytest.raises(common.Halt, match="built again"):
        exec(cell, variables)
    assert not pathlib.Path(f"{name}.png").exists()
