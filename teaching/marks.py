"""Read what students handed in, and tell the one who marks it what there is to see.

Usage: PYTHONPATH=.:tests python teaching/marks.py FOLDER   (make marks HANDINS=FOLDER)
FOLDER holds a folder or a zip file for each student, or what Blackboard exports: files named
…_USER_attempt_DATE_NAME, of which the latest attempt counts. Prints a table, which begins with the
solution, and writes it to build/marks.csv. Outputs are found by what they say, wherever they stand.
Nothing is executed or unpacked, and nothing outside FOLDER is read.
"""

import collections
import csv
import functools
import hashlib
import re
import sys
import zipfile
from pathlib import Path, PureWindowsPath

import nbformat
import numpy as np
from PIL import Image

import common
from notebooks import NAMES, ROOT, printed

LIMIT = 50_000_000  # bytes of a notebook
FILE = re.compile(r"(?:.*_attempt_[\d-]+_?)?(Model[123])\b.*\.(ipynb|png|py)", re.IGNORECASE)
PRINTED = (r"^Epoch (?P<epochs>\d+) of \d+ on (?P<data>.+?) \(.*seed (?P<seed>\d+)\)",
           r"test images of .{1,60}? +noisy [\d.]+ +\S+ +(?P<test>[\d.]+)$",
           r"^noisy\.png +noisy [\d.]+ +\S+ +(?P<notebook>[\d.]+)$")
COLUMNS = ("student", "model", "ran", "network", "epochs", "seed", "data", "test", "notebook",
           "picture", "remarks")


def handins(folder):
    """Return {student: paths} of what lies in `folder`: of several attempts, the latest."""
    attempts = {}
    for path in sorted(folder.iterdir()):
        student, _, rest = re.sub(r"(?i)\.zip$", "", path.name).partition("_attempt_")
        if path.is_dir() or student != path.name:  # not what a system leaves beside the hand-ins
            attempts.setdefault(student, {}).setdefault(rest[:19], []).append(path)
    return {student: paths[max(paths)] for student, paths in attempts.items()}  # by their dates


def members(path):
    """Yield the paths and readers of the files in `path`: a folder, a zip file or a file.

    Links are passed over: they may lead out of the folder.
    """
    if path.is_symlink():
        return
    if path.is_dir():
        for each in sorted(path.iterdir()):
            yield from members(each)
    elif path.suffix.lower() == ".zip":
        archive = zipfile.ZipFile(path)
        for info in archive.infolist():
            inside = PureWindowsPath(info.filename)  # which knows the slashes of all systems
            if inside.anchor or ".." in inside.parts:
                raise ValueError(f"it holds {info.filename}, which leads out of it")
            yield path.joinpath(*inside.parts), functools.partial(archive.open, info)
    else:
        yield path, functools.partial(open, path, "rb")


def find(paths):
    """Return {(model, kind): reader} of a student's files, and remarks on what cannot be read.

    Of copies, that with the shortest name counts, and of these the one in the fewest folders.
    """
    there, remarks, files = [], [], {}
    for path in paths:
        try:
            there += members(path)
        except Exception as error:  # a damaged zip file raises errors of many kinds
            remarks.append(f"{path.name} cannot be read: {error}")
    for path, reader in sorted(there, key=lambda each: (len(each[0].name), len(each[0].parts))):
        if match := FILE.fullmatch(path.name):
            files.setdefault((match[1].capitalize(), match[2].lower()), reader)
    return files, remarks


def how_it_ran(cells):
    """Say whether the code `cells` were run from top to bottom without an error."""
    for output in (output for cell in cells for output in cell.outputs):
        if output.output_type == "error":
            return output.ename
    counts = [cell.execution_count for cell in cells if cell.source.strip()]
    return "yes" if counts and counts == list(range(1, len(counts) + 1)) else "not in one go"


def network(text):
    """Say which layers and parameters the last table of layers in `text` has."""
    table = text.rpartition('Model: "')[2]
    kinds = collections.Counter(re.findall(r"\((Add|BatchNormalization|Conv2D)\)", table))
    said = [f"{each} parameters" for each in re.findall(r"Trainable params: ([\d,]+)", table)]
    said += [f"{number} {kind}" for kind, number in sorted(kinds.items())]
    if re.search(r"(\w+)\s+\(InputLayer\).*\(Add\)[^├└]*\b\1\[0\]", table, re.DOTALL):
        said.append("skip from the clean image")
    return ", ".join(said)


def about_notebook(file):
    """Return what the outputs of a notebook say, as entries of a row."""
    content = file.read(LIMIT)
    if len(content) == LIMIT:
        raise ValueError(f"it has {LIMIT:,} bytes or more")
    notebook = nbformat.v4.reads(content)  # whatever it holds: it is not validated
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    text = re.sub(r"\x1b\[[\d;]*m", "", "\n".join(map(printed, cells)))  # without colours
    row = {"ran": how_it_ran(cells), "network": network(text)}
    for pattern in PRINTED:
        for match in re.finditer(pattern, text, re.MULTILINE):
            row |= match.groupdict()
    return row


def about_picture(file):
    """Return the PSNR of a picture, and what only equal ones have in common."""
    picture = Image.open(file, formats=["PNG"])
    if picture.size != (512, 512):
        raise ValueError("it has {} × {} pixels, not 512 × 512".format(*picture.size))
    pixels = np.array(picture.convert("RGB"))
    return {"picture": f"{common.psnr(common.clean_picture(), pixels):.2f}",
            "hash": hashlib.sha256(pixels).digest()}


def entries(model, files):
    """Return what a student's `files` say about a `model`, as entries of a row, and remarks."""
    row, said = {}, ["a .py, not a notebook"] if (model, "py") in files else []
    for kind, about in (("ipynb", about_notebook), ("png", about_picture)):
        if (model, kind) not in files:
            said.append(f"no {model}.{kind}")
            continue
        try:
            with files[model, kind]() as file:
                row |= about(file)
        except Exception as error:  # it may hold anything
            said.append(f"{model}.{kind} cannot be read: {error!r}")
    return row, said


def plain(value):
    """Return `value` as a line that no terminal and no spreadsheet takes for anything else."""
    text = "".join(each if each.isprintable() else " " for each in str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def rows_of(student, paths, asked, seen):
    """Yield a student's rows, compared with what the earlier ones show.

    `asked` holds the networks of the solution, by their names, and `seen` whose the pictures so far
    are, by their hashes. Both are filled here.
    """
    files, remarks = find(paths)
    for model in NAMES:
        found, said = entries(model, files)
        row = dict.fromkeys(COLUMNS, "") | {"student": student, "model": model} | found
        if row["network"] == asked.setdefault(model, row["network"]):
            row["network"] = "size as asked"
        if "hash" in row:
            if row["notebook"] not in ("", row["picture"]):
                said.append("the picture is not the notebook's")
            same = seen.setdefault(row.pop("hash"), [])
            said += [f"same picture as {whose}" for whose in same[:2]]
            same.append(f"{student}'s {model} (seed {row['seed'] or '?'})")
        row["remarks"] = "; ".join(remarks + said)
        yield {column: plain(value) for column, value in row.items()}


def table(folder):
    """Return the rows of all hand-ins in `folder`, after those of the solution."""
    solution = [ROOT / f"{name}.{kind}" for name in NAMES for kind in ("ipynb", "png")]
    students, asked, seen = {"the solution": solution, **handins(folder)}, {}, {}
    return [row for each in students.items() for row in rows_of(*each, asked, seen)]


if __name__ == "__main__":
    if not Path(sys.argv[1] or "?").is_dir():
        sys.exit(f"HANDINS is {sys.argv[1]!r}; it must be the folder with what was handed in.")
    lines = [COLUMNS, *(row.values() for row in table(Path(sys.argv[1])))]
    Path("build").mkdir(exist_ok=True)
    with open("build/marks.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(lines)
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
