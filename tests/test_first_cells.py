"""A notebook opened alone, without common.py beside it: its first cell in an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest

import common
import publish
from notebooks import NAMES, ROOT, cells, code_cells

COLAB = """
import os, shutil, sys, types
def upload():
    for path in {uploaded}:
        shutil.copy(path, ".")
    return {{os.path.basename(path): open(path, "rb").read() for path in {uploaded}}}
files = types.SimpleNamespace(upload=upload)
colab = types.ModuleType("google.colab")
colab.files = files
colab.output = types.ModuleType("google.colab.output")  # JAX looks for it
sys.modules["google.colab"] = colab
"""
SHIPPED = ["common.py", "noisy.png",
           *(f"weights/{name}.{kind}" for name in NAMES for kind in ("json", "weights.h5"))]


def run(folder, source):
    """Execute `source` in a new process in `folder`, as a kernel started there would."""
    environment = {**os.environ, "DENOISE_QUICK": "1", "DENOISE_DATA": "photos"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run([sys.executable, "-c", source], cwd=folder, env=environment,
                          capture_output=True, text=True, timeout=300)


def first_cells(count=1, address=""):
    source = "\n".join(cell.source for cell in code_cells("Model2")[:count])
    return re.sub(r'ARCHIVE = ".*?"', f'ARCHIVE = "{address}"', source)


def halted(process):
    """Return the one line by which the process ended."""
    assert process.returncode == 1, process.stdout
    [line] = re.findall(r"^(?:__main__\.)?Halt: (.*)$", process.stderr, re.MULTILINE)
    return line


def pack(path, changed=(), top=""):
    """Pack what `make bundle` packs, below the folder `top`, but for what is `changed`."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    packed = re.search(r"zipfile -c build/bundle.zip (.*)", makefile)[1].split()
    content = {name: (ROOT / name).read_bytes() for name in SHIPPED if name.split("/")[0] in packed}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**content, **dict(changed)}.items():
            if data is not None:
                archive.writestr(top + name, data)
    return path


def files_in(folder):
    return sorted(path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")
                  if path.is_file() and "__pycache__" not in path.parts)


@pytest.fixture
def alone(tmp_path):
    folder = tmp_path / "content"
    folder.mkdir()
    return folder


def upload(alone, *paths, count=1, then=""):
    uploaded = [str(path.resolve()) for path in paths]
    return run(alone, COLAB.format(uploaded=uploaded) + first_cells(count) + "\n" + then)


def test_locally_one_line_says_what_is_missing_where_and_what_to_do(alone):
    line = halted(run(alone, first_cells()))
    assert line.startswith(f"There is no common.py in {alone}, and none comes from an upload: ")
    assert line.endswith("then run this cell again.") and not files_in(alone)


def test_colab_uploads_the_archive_and_goes_on(alone, tmp_path):
    archive = pack(tmp_path / "bundle (1).zip", {"__MACOSX/._common.py": b"", "evil.py": b""})
    process = upload(alone, archive, count=5, then="print(noisy.shape, common.__file__)")
    assert process.returncode == 0, process.stderr
    assert "photographs: 1,600 training images" in process.stdout
    assert process.stdout.strip().endswith(f"(512, 512, 3) {alone}/common.py")
    assert files_in(alone) == sorted([*SHIPPED, archive.name])


@pytest.mark.parametrize("top", ["", "denoising-main/"])
def test_archive_comes_from_an_address_which_can_be_corrected(alone, tmp_path, top):
    pack(tmp_path / "a.zip", {name: None for name in SHIPPED if "weights" in name}, top)
    for wrong in ("http://127.0.0.1:9/a.zip", "example"):
        line = halted(run(alone, first_cells(1, wrong)))
        assert f"none comes from {wrong}: " in line and not files_in(alone)
    process = run(alone, first_cells(1, (tmp_path / "a.zip").as_uri()))
    assert process.returncode == 0, process.stderr
    assert files_in(alone) == ["common.py", "noisy.png"]


OTHER = (ROOT / "common.py").read_bytes().replace(common.BUNDLE.encode(), b"denoising coursework 0")


@pytest.mark.parametrize("fault, reason", [
    ("no zip", "not a zip file"), ("nothing", "not a zip file"),
    ("no common.py", "missing or of another version"), (OTHER, "missing or of another version")])
def test_what_is_not_the_bundle_leaves_nothing_and_can_be_corrected(alone, tmp_path, fault, reason):
    content = fault if fault == OTHER else (ROOT / "common.py").read_bytes()
    path = pack(tmp_path / "a.zip", {"common.py": None if fault == "no common.py" else content})
    if fault == "no zip":
        path.write_bytes(b"<!DOCTYPE html>")
    uploaded = [] if fault == "nothing" else [path]
    line = halted(upload(alone, *uploaded))
    assert reason in line and files_in(alone) == [path.name for path in uploaded]
    assert upload(alone, pack(path)).returncode == 0


def test_what_was_uploaded_without_an_archive_stays(alone):
    line = halted(upload(alone, ROOT / "common.py", ROOT / "noisy.png"))
    assert "not a zip file" in line and files_in(alone) == ["common.py", "noisy.png"]
    assert run(alone, first_cells()).returncode == 0


def test_another_common_is_recognised_and_not_replaced(alone, tmp_path):
    (alone / "common.py").write_text("BUNDLE = 'denoising coursework 0'")
    line = halted(upload(alone, pack(tmp_path / "a.zip"), count=4))
    assert line.startswith(f"{alone}/common.py is not the one of this notebook")
    assert files_in(alone) == ["common.py"]


def test_first_cell_is_folded_and_colab_is_asked_for_a_gpu(name):
    notebook = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    assert notebook.metadata["accelerator"] == "GPU"
    first = code_cells(name)[0]
    assert first.source.startswith("# @title ") and first.metadata["cellView"] == "form"
    assert first.metadata["jupyter"]["source_hidden"]


@pytest.fixture
def published():
    """Publish a copy of the bundle in the test's folder."""
    for file in ("README.md", *(f"{name}.ipynb" for name in NAMES)):
        shutil.copy(ROOT / file, file)
    publish.publish("https://github.com/someone/else", "main")


def address_in(name):
    return re.search(r'^ARCHIVE = "(.*?)"', code_cells(name, ".")[0].source, re.M)[1]


def test_publishing_writes_badge_and_address_and_nothing_else(name, published):
    publish.publish("https://github.com/teacher/denoising/", "2026")
    link = f"https://colab.research.google.com/github/teacher/denoising/blob/2026/{name}.ipynb"
    first = cells(name, ".")[0]
    assert first.source.count("colab-badge.svg") == 1 and f"]({link})\n\n# " in first.source
    assert address_in(name) == "https://github.com/teacher/denoising/archive/refs/heads/2026.zip"
    before = cells(name)
    changed = [i for i, cell in enumerate(cells(name, ".")) if cell != before[i]]
    assert changed == [0, before.index(code_cells(name)[0])]
    nbformat.validate(nbformat.read(f"{name}.ipynb", as_version=4))
    readme = Path("README.md").read_text(encoding="utf-8")
    assert readme.count("colab-badge.svg") == 3 and "someone/else" not in readme
    assert publish.BADGE.sub("", readme).split() == publish.BADGE.sub(
        "", (ROOT / "README.md").read_text(encoding="utf-8")).split()


def test_another_server_needs_no_badge(published):
    publish.publish("https://example.org/class/bundle.zip", "main")
    for name in NAMES:
        assert "colab-badge" not in cells(name, ".")[0].source
        assert address_in(name) == "https://example.org/class/bundle.zip"
    assert "colab-badge" not in Path("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("address, branch", [
    ("", "main"), ("https://example.org/a/b", "main"), ("https://github.com/a/b", ""),
    ("https://github.com/a/b", "a b"), ('https://example.org/".zip', "main")])
def test_what_is_no_address_is_refused(address, branch):
    with pytest.raises(SystemExit, match="https://github.com/OWNER/REPOSITORY.*zip"):
        publish.publish(address, branch)
