"""A notebook opened alone, without common.py beside it: its first cells in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile

import nbformat
import pytest

import common
import publish
from notebooks import NAMES, ROOT, cells, code_cells, code_with

COLAB = """
import shutil, sys, types
files = types.ModuleType("google.colab.files")
def upload():
    for path in {uploaded}:
        shutil.copy(path, ".")
    return {{path.rpartition("/")[2]: b"content" for path in {uploaded}}}
files.upload = upload
colab = types.ModuleType("google.colab")
colab.files = files
colab.output = types.ModuleType("google.colab.output")  # JAX looks for it
sys.modules.update({{"google.colab": colab, "google.colab.files": files}})
"""
PAGE = b"<!DOCTYPE html><title>common.py</title>"


def run(folder, source):
    """Execute `source` in a new process in `folder`, as a kernel started there would."""
    environment = {**os.environ, "DENOISE_QUICK": "1", "DENOISE_DATA": "photos"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([sys.executable, "-c", source], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=300)


def first_cells(count, address=""):
    source = "\n".join(cell.source for cell in code_cells("Model2")[:count])
    return re.sub(r'FILES_URL = ".*?"', f'FILES_URL = "{address}"', source)


def halted(process):
    """Return the one line by which the process ended."""
    assert process.returncode == 1, process.stdout
    [line] = re.findall(r"^__main__\.Halt: (.*)$|^Halt: (.*)$", process.stderr, re.MULTILINE)
    return max(line)


def test_locally_one_line_says_what_is_missing_where_and_what_to_do(tmp_path):
    line = halted(run(tmp_path, first_cells(1)))
    assert line == f"There is no common.py in {tmp_path}. Put it there, beside this notebook, " \
                   "and run this cell again."


def test_the_line_is_all_that_a_notebook_shows():
    code = code_with("Model1", "class Halt").partition("if importlib")[0]
    variables = {}
    exec(code, variables)
    assert variables["Halt"]("so")._render_traceback_() == ["Halt: so"]


@pytest.mark.parametrize("packed", [True, False])
def test_colab_uploads_one_file_and_goes_on(tmp_path, packed):
    uploaded = ROOT / "common.py"
    if packed:
        uploaded = tmp_path / "bundle.zip"
        with zipfile.ZipFile(uploaded, "w") as bundle:
            for name in ("common.py", "weights/Model2.json"):
                bundle.write(ROOT / name, name)
    folder = tmp_path / "content"
    folder.mkdir()
    process = run(folder, COLAB.format(uploaded=[str(uploaded)]) + first_cells(5)
                  + "\nprint(noisy.shape, common.__file__)")
    assert process.returncode == 0, process.stderr
    assert "photographs: 1,600 training images" in process.stdout
    assert process.stdout.strip().endswith(f"(512, 512, 3) {folder}/common.py")
    assert (folder / "weights" / "Model2.json").exists() is packed


def test_colab_dialog_that_is_cancelled_is_told(tmp_path):
    line = halted(run(tmp_path, COLAB.format(uploaded=[]) + first_cells(1)))
    assert line.endswith("Run this cell again and choose the bundle's zip file, or common.py.")


def test_common_is_fetched_from_an_address(tmp_path, site):
    shutil.copy(ROOT / "common.py", site.folder)
    process = run(tmp_path, first_cells(2, site.address)
                  + "\nprint(common.__file__, common.FILES_URL)")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"{tmp_path}/common.py {site.address}"


@pytest.mark.parametrize("content, message", [
    (None, "cannot be fetched: HTTP Error 404"), (PAGE, "is not the one of this notebook"),
    (b'BUNDLE = "denoising coursework 0"', "is not the one of this notebook")])
def test_what_is_not_common_is_not_kept(tmp_path, site, content, message):
    if content:
        (site.folder / "common.py").write_bytes(content)
    line = halted(run(tmp_path, first_cells(1, site.address)))
    assert site.address in line and message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "example"])
def test_an_address_that_does_not_answer_is_told(tmp_path, address):
    line = halted(run(tmp_path, first_cells(1, address)))
    assert line.startswith(f"{address}/common.py cannot be fetched: ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "BUNDLE = 'denoising coursework 0'"])
def test_another_common_is_recognised(tmp_path, content):
    (tmp_path / "common.py").write_text(content)
    line = halted(run(tmp_path, first_cells(2)))
    assert line.startswith(f"{tmp_path}/common.py is not the one of this notebook")


def test_package_missing_inside_common_is_not_taken_for_common(tmp_path):
    (tmp_path / "common.py").write_text("import a_package_that_is_not_installed")
    process = run(tmp_path, first_cells(1))
    assert process.stderr.rstrip().endswith("No module named 'a_package_that_is_not_installed'")


def test_notebooks_and_helper_are_of_one_version(name):
    assert f'BUNDLE = "{common.BUNDLE}"' in code_cells(name)[0].source


@pytest.fixture
def published():
    """Publish a copy of the bundle in the test's folder, first elsewhere."""
    for file in ("README.md", *(f"{name}.ipynb" for name in NAMES)):
        shutil.copy(ROOT / file, file)
    publish.publish("https://github.com/someone/else", "main")
    publish.publish("https://github.com/teacher/denoising/", "2026")


def test_publishing_writes_badge_and_address_and_nothing_else(name, published):
    link = f"https://colab.research.google.com/github/teacher/denoising/blob/2026/{name}.ipynb"
    first, *others = cells(name, ".")
    assert first.source.count("colab-badge.svg") == 1 and f"]({link})\n\n# " in first.source
    setup = [cell.source for cell in others if "FILES_URL = " in cell.source]
    assert setup[0].count(
        'FILES_URL = "https://raw.githubusercontent.com/teacher/denoising/2026"  #') == 1
    before = cells(name)
    changed = [i for i, cell in enumerate(cells(name, ".")) if cell != before[i]]
    assert changed == [0, [i for i, cell in enumerate(before)
                           if cell.cell_type == "code"][0]]
    nbformat.validate(nbformat.read(f"{name}.ipynb", as_version=4))


def test_publishing_puts_three_badges_into_the_readme(published):
    text = (ROOT / "README.md").read_text()
    with open("README.md", encoding="utf-8") as file:
        now = file.read()
    assert now.count("colab-badge.svg") == 3 and "someone/else" not in now
    assert publish.BADGE.sub("", now).split() == publish.BADGE.sub("", text).split()


@pytest.mark.parametrize("address", ["", "github.com/a/b", "https://example.org/a/b",
                                     "https://github.com/a", "https://github.com/a/b/blob/main"])
def test_an_address_that_is_no_repository_is_refused(address):
    with pytest.raises(SystemExit, match="https://github.com/OWNER/REPOSITORY"):
        publish.publish(address, "main")
