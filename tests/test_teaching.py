"""What a teacher hands out, and what is read from what comes back."""

import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import common
import handout
import marks
import notebooks
from notebooks import NAMES, ROOT, code_cells, code_with

pytestmark = pytest.mark.usefixtures("weights")


def test_a_hand_out_lacks_the_solution_and_works_with_it(name):
    handout.write()
    files = {path.name for path in handout.FOLDER.rglob("*") if path.is_file()}
    assert files == {"README.md", "common.py", "noisy.png", "requirements.txt",
                     *(f"{each}.{kind}" for each in NAMES for kind in ("ipynb", "json"))}
    cells = code_cells(name, handout.FOLDER)
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    text = "".join(cell.source for cell in notebooks.cells(name, handout.FOLDER))
    lacking = 'benchmarks/|seeds.csv|README|"reference": do|EPOCHS = 100|H200|bundle.zip'
    assert re.findall(lacking, text) == []
    hole, solution = (code_with(name, "keras.Input(", folder) for folder in (handout.FOLDER, ROOT))
    assert hole.startswith(solution.partition("noisy_image")[0]) and "Conv2D" not in hole
    with pytest.raises(common.Halt, match="Build the network in this cell"):
        notebooks.built(name, notebooks.few_images(), 1, handout.FOLDER)
    network = solution.partition("noisy_image")[2].partition("model =")[0]
    notebooks.alter(handout.FOLDER, name, handout.TO_DO, f"noisy_image{network}")
    model = notebooks.built(name, notebooks.few_images(), 1, handout.FOLDER)["model"]
    assert model.get_config() == notebooks.network(name).get_config()


def alter(path, *changes):
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def hand_in(folder, *names):
    """Hand in notebooks and pictures, the latter altered, in a folder of its own."""
    folder.mkdir(parents=True)
    for name in names:
        shutil.copy(ROOT / f"{name}.ipynb", folder)
        picture, _ = common.open_picture(ROOT / f"{name}.png")
        picture[0, 0] ^= len(folder.name)
        common.save_picture(picture, folder / f"{name}.png")


def test_marks_tell_hand_ins_apart():
    for seed, student in enumerate(("anna", "bob", "carla"), start=1):
        hand_in(Path("in", student), "Model2")
        alter(Path("in", student, "Model2.ipynb"), ("images, seed 0)", f"images, seed {seed})"))
    with zipfile.ZipFile("in/anna.zip", "w") as archive:
        for path in Path("in/anna").iterdir():
            archive.write(path, f"my work/{path.name}")
    shutil.rmtree("in/anna")
    alter(Path("in/bob/Model2.ipynb"), ("│ noise[", "│ clean["), ("28.75", "20.00"))
    shutil.copy(ROOT / "Model2.png", "in/carla")
    alter(Path("in/carla/Model2.ipynb"), (
        '"outputs": []', '"outputs": [{"ename": "NameError", "output_type": "error"}]'))
    _, anna, bob, carla = (row for row in marks.table(Path("in")) if row["model"] == "Model2")
    assert (anna["student"], anna["ran"], anna["network"], anna["epochs"], anna["seed"]) == (
        "anna", "yes", "size as asked", "100", "1")
    assert (anna["test"], anna["notebook"], anna["picture"], anna["remarks"]) == (
        "28.75", "30.72", "30.72", "")
    assert bob["network"].endswith("skip from the clean image") and bob["test"] == "20.00"
    assert carla["ran"] == "NameError"
    assert carla["remarks"] == "same picture as the solution's Model2 (seed 0)"


def test_of_several_attempts_the_latest_counts_and_equal_pictures_show():
    hand_in(Path("one"), "Model1", "Model3")
    shutil.copytree("one", "in/zoe")
    for name in ("Copy of Model1.ipynb", "Copy of Model1 (1).ipynb"):
        shutil.copy("one/Model1.ipynb", Path("in/zoe", name))
    Path("in/zoe/Model1.ipynb").unlink()
    shutil.copy("one/Model1.ipynb", "in/yan_Model1.ipynb")
    for student, day, file in (("a1", "20", "Model1.ipynb"), ("a1", "21", "Model1.png"),
                               ("b2", "20", "Model1 (1).png"), ("b2", "20", "Model3.ipynb")):
        shutil.copy(Path("one", file.replace(" (1)", "")),
                    f"in/Practice 1_{student}_attempt_2026-11-{day}-10-00-00_{file}")
    rows = marks.table(Path("in"))[3:]  # after the solution
    assert [row["student"] for row in rows[:6]] == ["Practice 1_a1"] * 3 + ["Practice 1_b2"] * 3
    assert rows[0]["remarks"] == "no Model1.ipynb"
    assert rows[3]["remarks"] == ("no Model1.ipynb; "
                                  "same picture as Practice 1_a1's Model1 (seed ?)")
    assert rows[5]["epochs"] == "100"
    assert (rows[6]["student"], rows[6]["epochs"]) == ("yan", "100")
    assert rows[9]["remarks"].startswith("of 2, Copy of Model1.ipynb was read; same seed as the ")


def test_what_cannot_be_read_is_told_and_the_next_student_follows():
    for student in ("c py", "d json", "e size", "f link"):
        Path("in", student).mkdir(parents=True)
    for name, inside, size in (("a out", "../Model1.ipynb", 1), ("g bomb", "Model1.ipynb", 10**8)):
        with zipfile.ZipFile(f"in/{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(inside, bytes(size))
    Path("in/b no zip.zip").write_bytes(b"no zip")
    Path("in/c py/Model1.py").write_text("exit()")
    Path("in/d json/Model1.ipynb").write_text("no json")
    Image.new("RGB", (512, 300)).save("in/e size/Model1.png")
    os.symlink(ROOT / "Model1.ipynb", "in/f link/Model1.ipynb")
    found = [row["remarks"] for row in marks.table(Path("in"))[3:] if row["model"] == "Model1"]
    expected = ("leads out of it", "not a zip file", "a .py, not a notebook",
                "Model1.ipynb cannot be read", "it has 512 × 300 pixels", "no Model1.ipynb",
                "it has 50,000,000 bytes or more")
    assert len(found) == len(expected) and all(map(str.__contains__, found, expected)), found
