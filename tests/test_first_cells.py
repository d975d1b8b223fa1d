"""A notebook opened alone, without common.py beside it: its first cells in an empty folder."""

import os
import subprocess
import sys

import pytest

import common
from notebooks import ROOT, cells, code_cells

COLAB = """
import shutil, sys, types
files = types.ModuleType("google.colab.files")
def upload():
    for name in {uploaded}:
        shutil.copy("{root}/" + name, name)
    return dict.fromkeys({uploaded}, b"content")
files.upload = upload
colab = types.ModuleType("google.colab")
colab.files = files
colab.output = types.ModuleType("google.colab.output")  # JAX looks for it
sys.modules.update({{"google.colab": colab, "google.colab.files": files}})
"""


def run(folder, source):
    """Execute `source` in a new process in `folder`, as a kernel started there would."""
    environment = {**os.environ, "DENOISE_QUICK": "1", "DENOISE_DATA": "photos"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([sys.executable, "-c", source], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=300)


def first_cells(count):
    return "\n".join(cell.source for cell in code_cells("Model2")[:count])


def last_line(process):
    return process.stderr.strip().splitlines()[-1]


def test_locally_one_error_says_what_is_missing_where_and_what_to_do(tmp_path):
    process = run(tmp_path, first_cells(1))
    assert process.returncode == 1
    assert process.stderr.count("Traceback") == 1
    for part in ("common.py is not in", str(tmp_path), "beside this notebook", "FILES_URL"):
        assert part in last_line(process)


def test_colab_uploads_the_files_and_goes_on(tmp_path):
    prelude = COLAB.format(root=ROOT, uploaded=("common.py", "noisy.png"))
    goes_on = "\nprint(noisy.shape)"
    process = run(tmp_path, prelude + first_cells(6) + goes_on)
    assert process.returncode == 0, process.stderr
    assert "Choose common.py and noisy.png" in process.stdout
    assert "photographs: 1,600 training images" in process.stdout
    assert process.stdout.strip().endswith("(512, 512, 3)")
    assert {path.name for path in tmp_path.iterdir()} >= {"common.py", "noisy.png"}


def test_one_line_uploads_a_picture_in_colab(tmp_path):
    [text] = [cell.source for cell in cells("Model1") if "files.upload()" in cell.source
              and cell.cell_type == "markdown"]
    line = text.split("`")[1]
    prelude = COLAB.format(root=ROOT, uploaded=("Model1.png",))
    process = run(tmp_path, f"{prelude}\n{line}\nprint(PICTURE)")
    assert process.stdout.strip() == "Model1.png", process.stderr
    assert (tmp_path / "Model1.png").exists()


def test_colab_upload_that_brings_nothing_is_told(tmp_path):
    process = run(tmp_path, COLAB.format(root=ROOT, uploaded=()) + first_cells(1))
    assert process.returncode == 1
    assert "common.py is not in" in last_line(process)


def test_files_are_fetched_from_an_address(tmp_path):
    site, folder = tmp_path / "site", tmp_path / "folder"
    site.mkdir()
    folder.mkdir()
    (site / "common.py").write_text(f"BUNDLE = {common.BUNDLE!r}")
    (site / "noisy.png").write_bytes(b"pixels")
    source = first_cells(2).replace('FILES_URL = ""', f'FILES_URL = "{site.as_uri()}"')
    process = run(folder, source + "\nprint(common.__file__)")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == str(folder / "common.py")
    assert (folder / "noisy.png").read_bytes() == b"pixels"


@pytest.mark.parametrize("content", ["", "BUNDLE = 'denoising coursework 0'"])
def test_another_common_is_recognised(tmp_path, content):
    (tmp_path / "common.py").write_text(content)
    process = run(tmp_path, first_cells(2))
    assert process.returncode == 1
    assert f"{tmp_path}/common.py is not the common.py that came with" in last_line(process)


def test_package_missing_inside_common_is_not_taken_for_common(tmp_path):
    (tmp_path / "common.py").write_text("import a_package_that_is_not_installed")
    process = run(tmp_path, first_cells(1))
    assert last_line(process).endswith("No module named 'a_package_that_is_not_installed'")
