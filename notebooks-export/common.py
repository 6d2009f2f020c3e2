# %% code
import html
import os
import re
import sqlite3
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display

DATABASE = Path({{database}})  # from the folder of this notebook
if not DATABASE.exists():
    DATABASE = Path(os.environ.get("TINYLORA_DB", DATABASE))
if not DATABASE.exists():
    raise FileNotFoundError(f"{DATABASE}: let the variable TINYLORA_DB name results.db")
connection = sqlite3.connect(DATABASE.resolve().as_uri() + "?mode=ro", uri=True)  # read-only
connection.text_factory = lambda text: text.decode(errors="replace")
NAMES = {{names}}


def read(sql):
    """The answer as a data frame; :experiment and the like come from NAMES."""
    return pd.read_sql_query(sql, connection, params=NAMES)


def cell(value):
    """Whole numbers whole, others to four digits, nothing for NULL."""
    if value is None or value != value:
        return ""
    if isinstance(value, str):
        return re.sub(r"[\x00-\x20\x7f]", " ", value)
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e15 else f"{value:.4g}"


def show(table):
    """A table as HTML, and as aligned text for where there is none."""
    columns = [[name] + [cell(value) for value in table[name]] for name in table.columns]
    numeric = [not any(isinstance(value, str) for value in table[name]) for name in table.columns]
    width = [max(map(len, column)) for column in columns]
    page, plain = "<table>\n", ""
    for row in range(len(table) + 1):
        page += "<tr>"
        for k, column in enumerate(columns):
            tag, look = "td" if row else "th", "right; white-space: nowrap" if numeric[k] else "left"
            page += f'<{tag} style="text-align: {look}">{html.escape(column[row], quote=False)}</{tag}>'
        page += "</tr>\n"
        line = [c[row].rjust(w) if n else c[row].ljust(w) for c, w, n in zip(columns, width, numeric)]
        plain += "  ".join(line).rstrip() + "\n"
    display({"text/html": page + "</table>", "text/plain": plain.rstrip()}, raw=True)


# Okabe and Ito's colours, the dark ones first; marks and dashes tell lines apart in grey.
COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"]
MARKS, DASHES = "osD^vPX", ["-", "--", "-.", ":"]
plt.rcParams.update({
    "figure.dpi": 110, "figure.figsize": (7, 4.2), "figure.autolayout": True, "font.size": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#e4e4e4", "axes.axisbelow": True, "legend.frameon": False, "image.cmap": "viridis"})


def plain(text):
    """For matplotlib, which takes what stands between dollars for a formula."""
    return text.replace("$", r"\$")


def style(k):
    return {"color": COLORS[k % 7], "marker": MARKS[k % 7], "linestyle": DASHES[k % 4]}
