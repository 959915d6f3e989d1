"""What a driver has measured: tables of costs, printed, compared with a bound, and written as JSON.

Every figure is a cost (time, memory), so less is better everywhere. A table has rows (what is done) and columns (who
does it); a cell has one value for each round, and counts by its median. A table with a base shows each median's ratio
to the base's.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import datetime, timezone

from rig import BENCHES, ROOT, Failed, say

RESULTS = BENCHES / "results"
COLUMN = "campanile"  # what --max is about, in tables that have it


def figure(value):
    """A number as tables show it."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def ratio_figure(value):
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


class Table:
    """Rows by name, in the order of their first value."""

    def __init__(self, title, columns, base=None):
        self.title = title
        self.columns = list(columns)
        self.base = base
        self.rows = {}

    def row(self, name, title, unit):
        self.rows.setdefault(name, {"title": title, "unit": unit, "values": {}, "more": {}})

    def add(self, name, column, value, more=None):
        row = self.rows[name]
        row["values"].setdefault(column, []).append(value)
        for key, extra in (more or {}).items():
            row["more"].setdefault(column, {}).setdefault(key, []).append(extra)

    def median(self, name, column):
        values = self.rows[name]["values"].get(column)
        return statistics.median(values) if values else None

    def ratio(self, name, column):
        own, base = self.median(name, column), self.median(name, self.base) if self.base else None
        return own / base if own is not None and base else None

    def cell(self, name, column, short=False):
        own, ratio = self.median(name, column), self.ratio(name, column)
        if own is None:
            return "–"
        if self.rows[name]["unit"] == "ratio":
            return ratio_figure(own)
        if ratio is None or column == self.base:
            return figure(own)
        return ratio_figure(ratio) if short else f"{figure(own)} ({ratio_figure(ratio)})"

    def markdown(self, short=False):
        """A short table has ratios alone in all columns but the base."""
        lines = [f"| {self.title} | " + " | ".join(self.columns) + " |", "| --- |" + " ---: |" * len(self.columns)]
        for name, row in self.rows.items():
            title = row["title"] if row["unit"] == "ratio" else f"{row['title']}, {row['unit']}"
            lines.append(f"| {title} | " + " | ".join(self.cell(name, column, short) for column in self.columns) + " |")
        return "\n".join(lines)

    def as_json(self):
        rows = [
            {"name": name, **{key: value for key, value in row.items() if key != "more" or value}}
            for name, row in self.rows.items()
        ]
        return {"title": self.title, "columns": self.columns, "base": self.base, "rows": rows}

    @classmethod
    def from_json(cls, value):
        table = cls(value["title"], value["columns"], value["base"])
        for row in value["rows"]:
            table.rows[row["name"]] = {"more": {}, **{key: row[key] for key in row if key != "name"}}
        return table


class Run:
    """One run of a driver."""

    def __init__(self, bench, settings):
        self.bench = bench
        self.settings = settings
        self.started = datetime.now(timezone.utc)
        self.tables = []
        self.left_out = {}
        self.limited = []

    def table(self, title, columns, base=None):
        self.tables.append(Table(title, columns, base))
        return self.tables[-1]

    def limit(self, what, value):
        """Compares this with --max, instead of the ratios."""
        self.limited.append((what, value))

    def above(self, limit):
        """What is above a limit, in words."""
        checked = self.limited or [
            (f"{row['title']}: {column}", table.ratio(name, column))
            for table in self.tables
            for name, row in table.rows.items()
            # A time says nothing about memory beside it.
            if row["unit"] != "bytes" or len(table.rows) == 1
            for column in table.columns
            if column != table.base and (column == COLUMN or COLUMN not in table.columns)
        ]
        return [
            f"{what}: {value:.2f}, at most {limit:g} is allowed" for what, value in checked if value and value > limit
        ]

    def markdown(self):
        parts = [table.markdown() for table in self.tables]
        rounds, secs = self.settings.get("rounds"), self.settings.get("secs")
        note = f"Less is better. Medians of {rounds} rounds of {secs:g} s."
        if any(table.base for table in self.tables):
            bases = dict.fromkeys(table.base for table in self.tables if table.base)
            note += f" In parentheses: the ratio to {' or '.join(bases)}."
        parts += [note]
        parts += [f"Left out: {who}: {why}" for who, why in self.left_out.items()]
        return "\n\n".join(parts)

    def as_json(self):
        return {
            "bench": self.bench,
            "started": self.started.isoformat(timespec="seconds"),
            **commit(),
            "machine": machine(),
            "settings": self.settings,
            "tables": [table.as_json() for table in self.tables],
            "left_out": self.left_out,
        }

    def save(self, path):
        """Writes the raw results; `-` is stdout, and nothing a dated file in benches/results."""
        text = dump(self.as_json())
        if path == "-":
            sys.stdout.write(text)
            return
        if not path:
            RESULTS.mkdir(exist_ok=True)
            path = RESULTS / f"{self.started:%Y-%m-%d}-{self.bench}.json"
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
        except OSError as problem:
            raise Failed(f"{path}: {problem.strerror}") from None
        say(f"{self.bench}: wrote {path}")


def dump(value):
    """JSON with short values on one line each, for readable differences."""

    def write(item, indent):
        line = json.dumps(item, ensure_ascii=False)
        if not isinstance(item, (dict, list)) or len(indent) + len(line) <= 110:
            return line
        inner = indent + "  "
        if isinstance(item, dict):
            parts = [
                f"{inner}{json.dumps(key, ensure_ascii=False)}: {write(part, inner)}" for key, part in item.items()
            ]
            return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
        return "[\n" + ",\n".join(inner + write(part, inner) for part in item) + f"\n{indent}]"

    return write(value, "") + "\n"


# ---- where and what --------------------------------------------------------------------------


def output_of(*command):
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def commit():
    """The commit that was measured, and whether the tree differs from it."""
    if os.environ.get("CAMPANILE_BIN"):
        return {"commit": f"CAMPANILE_BIN={os.environ['CAMPANILE_BIN']}", "modified": True}
    changed = output_of(
        "git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benches/results", ":!docs"
    )
    return {"commit": output_of("git", "rev-parse", "--short=12", "HEAD") or "unknown", "modified": bool(changed)}


def machine():
    def field(path, name):
        try:
            with open(path, encoding="utf-8") as file:
                lines = [line.split(":", 1) for line in file if line.startswith(name)]
        except OSError:
            return ""
        return lines[0][1].strip() if lines else ""

    memory = field("/proc/meminfo", "MemTotal").split()
    return {
        "cpu": field("/proc/cpuinfo", "model name") or platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gib": round(int(memory[0]) / (1 << 20)) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "virtual": "hypervisor" in field("/proc/cpuinfo", "flags").split(),
        "rustc": output_of(os.environ.get("RUSTC", "rustc"), "--version"),
    }
