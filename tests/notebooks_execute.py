"""Notebooks are valid, laid out as nbformat writes them, run without a warning, and what they had stored
is what they compute: the same tables to the letter, a picture where a picture was.

usage: notebooks_execute.py NOTEBOOK... (their folder is the working folder of the cells)"""
import io
import os
import sys

import nbformat
from nbconvert.preprocessors import ExecutePreprocessor

os.environ["MPLCONFIGDIR"] = os.environ.get("MPLCONFIGDIR", "/tmp")
os.environ["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # chatter of the debugger


def outputs(cell):
    for output in cell.get("outputs", []):
        assert output.output_type == "display_data", f"{output.output_type}: {output}"
        yield output.data


for path in sys.argv[1:]:
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert len(text.encode()) < 2_000_000, len(text)
    stored = nbformat.reads(text, as_version=4)
    nbformat.validate(stored)
    assert (stored.nbformat, stored.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in stored.cells]
    assert len(set(ids)) == len(ids) and all(len(i) == 12 for i in ids)
    again = io.StringIO()
    nbformat.write(stored, again)
    if again.getvalue() != text:
        for ours, theirs in zip(text.split("\n"), again.getvalue().split("\n")):
            assert ours == theirs, f"{path}: {ours[:200]!r}, nbformat writes {theirs[:200]!r}"
    assert "/home/" not in text and "/tmp/" not in text and os.getcwd() not in text, "an absolute path"

    executed = nbformat.reads(text, as_version=4)
    folder = os.path.dirname(os.path.abspath(path))
    ExecutePreprocessor(timeout=300, kernel_name="python3").preprocess(executed, {"metadata": {"path": folder}})
    n_tables = n_pictures = 0
    for before, after in zip(stored.cells, executed.cells):
        if before.cell_type != "code":
            continue
        had, has = list(outputs(before)), list(outputs(after))
        assert bool(had) == bool(has), f"{path}: {before.source}\nstored {len(had)} outputs, made {len(has)}"
        for data in had:
            if "image/png" in data:
                assert all("image/png" in other for other in has), before.source
                n_pictures += 1
            else:
                for kind in ("text/plain", "text/html"):
                    assert data[kind] == has[0][kind], f"{path}\n{before.source}\n{data[kind]}\n\n{has[0][kind]}"
                n_tables += 1
    print(f"{os.path.basename(path)}: {len(ids)} cells, {n_tables} tables and {n_pictures} pictures reproduced")
    if "KEEP" in os.environ:
        nbformat.write(executed, path.replace(".ipynb", ".executed.ipynb"))
