"""Read what students handed in, and tell the one who marks it what there is to see.

Usage: PYTHONPATH=.:tests python teaching/marks.py FOLDER   (make marks HANDINS=FOLDER)
FOLDER holds a folder or a zip file for each student, or what learning platforms export: files
named STUDENT_NAME or, by Blackboard, …_USER_attempt_DATE_NAME, of which the latest attempt counts.
Prints a table and writes it to build/marks.csv. Outputs are found by what they say, wherever they
stand. Nothing is executed or unpacked, and nothing outside FOLDER is read.
"""

import csv
import functools
import hashlib
import io
import json
import re
import sys
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

import common
from notebooks import NAMES, ROOT

LIMIT = 50_000_000  # bytes of a file
KINDS = ("Conv2D", "BatchNormalization", "ReLU", "Add")  # of layers
NETWORKS = {"Model1": "114,307 parameters, 5 Conv2D, 4 ReLU",
            "Model2": "114,307 parameters, 5 Conv2D, 4 ReLU, 1 Add",
            "Model3": "114,819 parameters, 5 Conv2D, 4 BatchNormalization, 4 ReLU, 1 Add"}
NAMED = re.compile(r"(Model[123])(?!\d)(.*)\.(ipynb|png|py)$", re.IGNORECASE)
COLUMNS = ("student", "model", "ran", "network", "epochs", "seed", "data", "test", "notebook",
           "picture", "remarks")


def handins(folder):
    """Return {student: paths} of what lies in `folder`: of several attempts, the latest."""
    latest = {}
    for path in sorted(folder.glob("[!.]*")):
        student, attempt, rest = path.name.partition("_attempt_")
        when = rest[:19]  # such as 2026-11-28-10-00-00
        if not attempt and path.is_file():
            student = NAMED.sub("", path.name).strip("_- ") or "?"
            student = path.stem if student == path.name else student
        known, paths = latest.get(student, (when, []))
        if when >= known:
            latest[student] = (when, [*(paths if when == known else []), path])
    return {student: paths for student, (_, paths) in sorted(latest.items())}


def members(path, root):
    """Yield the paths and readers of the files in `path`: a folder, a zip file or a file."""
    if not path.resolve().is_relative_to(root):
        raise ValueError("it leads out of the folder")
    if path.is_dir():
        for each in sorted(path.iterdir()):
            yield from members(each, root)
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                inside = PurePosixPath(info.filename.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts:
                    raise ValueError(f"it holds {info.filename}, which leads out of it")
                yield inside, functools.partial(archive.open, info)
    else:
        yield path.relative_to(root), functools.partial(open, path, "rb")


def read(paths, root):
    """Return {(model, suffix): (content, remark)} of a student's files, and remarks on the others.

    Of copies, that with the plainest name counts, and the one that lies in the fewest folders.
    """
    found, remarks = {}, []
    for path in paths:
        try:
            for inside, reader in members(path, root):
                name = re.sub(r".*_attempt_[\d-]+_?", "", inside.name)
                match = NAMED.search(name)
                hidden = any(part.startswith((".", "__MACOSX")) for part in inside.parts)
                if not match or hidden:
                    continue
                with reader() as file:
                    content = file.read(LIMIT + 1)
                if len(content) > LIMIT:
                    raise ValueError(f"{name} has more than {LIMIT:,} bytes")
                rank = (match[0] != name or match[2] != "", len(inside.parts))
                place = found.setdefault((match[1].capitalize(), match[3].lower()), [])
                place.append((rank, name, content))
        except Exception as error:  # a damaged zip file raises errors of many kinds
            remarks.append(f"{path.name} cannot be read: {error}")
    files = {}
    for place, copies in found.items():
        rank, name, content = min(copies, key=lambda copy: copy[0])
        doubt = rank[0] or sum(other == rank for other, _, _ in copies) > 1
        files[place] = content, f"of {len(copies)}, {name} was read" * doubt
    return files, remarks


def outputs(cell):
    """Return what a `cell` printed or showed as text."""
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "")
             for output in cell.get("outputs", [])]
    return re.sub(r"\x1b\[[\d;]*m", "", "\n".join("".join(text) for text in texts))


def how_it_ran(cells):
    """Say whether the code `cells` were run from top to bottom without an error."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                return output["ename"]
    counts = [cell.get("execution_count") for cell in cells if "".join(cell["source"]).strip()]
    if not any(counts):
        return "no"
    return "yes" if counts == list(range(1, len(counts) + 1)) else "not in one go"


def network(text):
    """Say which layers and parameters the last table of layers in `text` has."""
    table = text.rpartition('Model: "')[2]
    said = [f"{number} {kind}" for kind in KINDS if (number := table.count(f"({kind})"))]
    first, skip = re.search(r"(\w+)\s+\(InputLayer\)", table), re.search(r"\(Add\)[^├└]*", table)
    if first and skip and f"{first[1]}[0]" in skip[0]:
        said.append("skip from the clean image")
    return ", ".join([f"{each} parameters" for each in re.findall(
        r"Trainable params: ([\d,]+)", table)[:1]] + said)


def about_notebook(model, content):
    """Return what the outputs of a notebook say, as entries of a row."""
    cells = [cell for cell in json.loads(content)["cells"] if cell["cell_type"] == "code"]
    text = "\n".join(map(outputs, cells))
    row = {"ran": how_it_ran(cells), "network": network(text)}
    if row["network"] == NETWORKS[model]:
        row["network"] = "size as asked"
    for columns, pattern in {
            ("epochs", "data", "seed"): r"^Epoch (\d+) of \d+ on (.+?) \(.*seed (\d+)\)",
            ("test",): r"test images of .{1,60}? +noisy [\d.]+ +\S+ +([\d.]+)$",
            ("notebook",): r"^noisy\.png +noisy [\d.]+ +\S+ +([\d.]+)$"}.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            row |= dict(zip(columns, match.groups()))
    return row


def plain(value):
    """Return `value` as a line that no terminal and no spreadsheet takes for anything else."""
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", str(value)).encode("utf-8", "replace").decode()
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text


def pixels(content):
    if not content.startswith(b"\x89PNG"):
        raise ValueError("it is not a PNG file")
    picture = Image.open(io.BytesIO(content), formats=["PNG"])
    if picture.size != (512, 512):
        raise ValueError("it has {} × {} pixels, not 512 × 512".format(*picture.size))
    return np.array(picture.convert("RGB"))


def digest(picture):
    return hashlib.sha256(picture).digest()


def same(seen, thing, whose):
    """Return two of those who had the `thing` before, and note that `whose` it is, too."""
    owners = seen.setdefault(thing, [])
    owners.append(whose)
    return owners[:-1][:2]


def rows_of(student, files, remarks, seen):
    """Yield a student's rows. `seen` has the seeds and pictures so far, and whose they are."""
    for model in NAMES:
        row, said = {"student": student, "model": model}, list(remarks)
        said += [files[model, kind][1] for kind in ("ipynb", "png") if (model, kind) in files]
        try:
            if (model, "ipynb") in files:
                row |= about_notebook(model, files[model, "ipynb"][0])
            else:
                said.append("no notebook" + ", but a .py" * ((model, "py") in files))
        except Exception as error:  # it may hold anything
            said.append(f"the notebook cannot be read: {error!r}")
        seed = row.get("seed", "?")
        if seed != "?":
            said += [f"same seed as {each}" for each in same(seen, (model, seed), student)]
        if (model, "png") in files:
            try:
                picture = pixels(files[model, "png"][0])
                row["picture"] = f"{common.psnr(common.clean_picture(), picture):.2f}"
                if row["picture"] != row.get("notebook", row["picture"]):
                    said.append("the picture is not the notebook's")
                said += [f"same picture as {each}" for each in same(
                    seen, digest(picture), f"{student}'s {model} (seed {seed})")]
            except Exception as error:
                said.append(f"the picture cannot be read: {error}")
        row["remarks"] = "; ".join(filter(None, said))
        yield {column: plain(value) for column, value in row.items()}


def table(folder):
    """Return the rows of all hand-ins in `folder`."""
    seen = {digest(pixels((ROOT / f"{name}.png").read_bytes())):
            [f"the published {name} (seed {common.read_run(name).seed})"] for name in NAMES}
    folder = folder.resolve()
    return [row for student, paths in handins(folder).items()
            for row in rows_of(student, *read(paths, folder), seen)]


if __name__ == "__main__":
    if not Path(sys.argv[1] or "?").is_dir():
        sys.exit(f"HANDINS is {sys.argv[1]!r}; it must be the folder with what was handed in.")
    rows = table(Path(sys.argv[1]))
    Path("build").mkdir(exist_ok=True)
    with open("build/marks.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = [COLUMNS, *([row.get(column, "") for column in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for line in lines:
        print("  ".join(map(str.ljust, line, widths)).rstrip())
