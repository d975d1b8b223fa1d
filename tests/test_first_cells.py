"""A notebook opened alone, without common.py beside it: its first cells in an empty folder."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

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
    line = halted(run(tmp_path, first_cells(2)))
    assert line.startswith(f"There is no common.py in {tmp_path}: ")
    assert line.endswith("Put it there, beside this notebook, or set FILES_URL. Then run this cell "
                         "again.")


def test_the_line_is_all_that_a_notebook_shows():
    variables = {}
    exec(code_with("Model1", "class Halt"), variables)
    assert variables["Halt"]("so")._render_traceback_() == ["Halt: so"]


def bundle():
    """Pack what `make bundle` packs. Returns the path of the zip file."""
    makefile = (ROOT / "Makefile").read_text()
    names = re.search(r"zipfile -c build/bundle.zip (.*)", makefile)[1].split()
    target = Path("bundle.zip").resolve()
    subprocess.run([sys.executable, "-m", "zipfile", "-c", target, *names], cwd=ROOT, check=True)
    return target


def in_colab(tmp_path, *uploaded, cells=2, then=""):
    """Run the first cells in a folder of its own, where the dialog brings the `uploaded` files."""
    folder = tmp_path / "content"
    folder.mkdir(exist_ok=True)
    prelude = COLAB.format(uploaded=list(map(str, uploaded)))
    return folder, run(folder, prelude + first_cells(cells) + "\n" + then)


@pytest.mark.parametrize("name", ["bundle.zip", "common.py", "common (1).py"])
def test_colab_uploads_one_file_and_goes_on(tmp_path, name):
    if name == "bundle.zip":
        bundle()
    else:
        shutil.copy(ROOT / "common.py", name)
    folder, process = in_colab(tmp_path, Path(name).resolve(), cells=6,
                               then="print(noisy.shape, common.__file__)")
    assert process.returncode == 0, process.stderr
    assert "photographs: 1,600 training images" in process.stdout
    assert process.stdout.strip().endswith(f"(512, 512, 3) {folder}/common.py")
    for model in NAMES:
        kept = folder / "weights" / f"{model}.weights.h5"
        assert kept.exists() is (name == "bundle.zip")


@pytest.mark.parametrize("content", [b"no python", b'BUNDLE = "denoising coursework 0"\n', "cut",
                                     None])
def test_colab_upload_of_another_file_is_told_and_the_dialog_comes_back(tmp_path, content):
    uploaded = []
    if content:
        uploaded = [tmp_path / "common.py"]
        uploaded[0].write_bytes(bundle().read_bytes()[:9000] if content == "cut" else content)
    folder, process = in_colab(tmp_path, *uploaded)
    assert halted(process).endswith(
        "Run this cell again and choose the bundle's zip file, or common.py.")
    assert not (folder / "common.py").exists()
    _, process = in_colab(tmp_path, ROOT / "common.py", cells=3)
    assert process.returncode == 0, process.stderr


def test_common_is_fetched_from_an_address(tmp_path, site):
    shutil.copy(ROOT / "common.py", site.folder)
    process = run(tmp_path, first_cells(3, site.address)
                  + "\nprint(common.__file__, common.FILES_URL)")
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"{tmp_path}/common.py {site.address}"


SOURCE = (ROOT / "common.py").read_text()


@pytest.mark.parametrize("content, message", [
    (None, "HTTP Error 404"), (json.dumps(SOURCE), "is not the one of this notebook"),
    (SOURCE[:-200], "is not the one of this notebook"),
    (SOURCE.replace(common.BUNDLE, "denoising coursework 0"), "is not the one of this notebook")])
def test_what_is_not_common_is_not_kept(tmp_path, site, content, message):
    if content:
        (site.folder / "common.py").write_text(content)
    line = halted(run(tmp_path, first_cells(2, site.address)))
    assert str(tmp_path) in line and message in line and "FILES_URL" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["http://127.0.0.1:9", "example"])
def test_an_address_that_does_not_answer_is_told(tmp_path, address):
    line = halted(run(tmp_path, first_cells(2, address)))
    assert "FILES_URL" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", ["", "BUNDLE = 'denoising coursework 0'"])
def test_another_common_is_recognised(tmp_path, content):
    (tmp_path / "common.py").write_text(content)
    line = halted(run(tmp_path, first_cells(3)))
    assert line.startswith(f"{tmp_path}/common.py is not the one of this notebook")


def test_package_missing_inside_common_is_not_taken_for_common(tmp_path):
    (tmp_path / "common.py").write_text("import a_package_that_is_not_installed")
    process = run(tmp_path, first_cells(2))
    assert process.stderr.rstrip().endswith("No module named 'a_package_that_is_not_installed'")


def test_notebooks_and_helper_are_of_one_version(name):
    assert f'BUNDLE = "{common.BUNDLE}"' in code_cells(name)[0].source
    assert SOURCE.endswith(f'\nBUNDLE = "{common.BUNDLE}"\n')


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
        'FILES_URL = "https://raw.githubusercontent.com/teacher/denoising/2026"\n') == 1
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


@pytest.mark.parametrize("address, branch", [
    ("", "main"), ("github.com/a/b", "main"), ("https://example.org/a/b", "main"),
    ("https://github.com/a", "main"), ("https://github.com/a/b/blob/main", "main"),
    ("https://github.com/a/b", ""), ("https://github.com/a/b", "a(b)"),
    ("https://github.com/a/b", "a b"), ("https://github.com/a/b", "a\\1")])
def test_what_is_no_repository_or_branch_is_refused(address, branch):
    with pytest.raises(SystemExit, match="https://github.com/OWNER/REPOSITORY"):
        publish.publish(address, branch)
