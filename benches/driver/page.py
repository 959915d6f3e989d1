"""Renders docs/benchmarks.md, its charts and benches/results/README.md from the raw results.

The newest file of each driver in benches/results counts. Of the page only what is between <!-- begin: NAME --> and
<!-- end --> is replaced. --check writes nothing and fails where a file would change.
"""

import json
import re

from charts import THEMES, Panel, svg
from results import RESULTS, Table, ratio_figure
from rig import ROOT, Failed, say

PAGE = ROOT / "docs/benchmarks.md"
IMAGES = ROOT / "docs/images"
OURS = "campanile"
WIDTH = 120  # of a line

# The page's table and charts: of which loads.
CHARTED = ["echo", "echo-16", "binary-16k", "text-16k", "broadcast", "broadcast-16", "chat", "idle"]
README = {"echo": "echo of 20 bytes", "broadcast-16": "broadcast to 1,000", "idle": "idle connection"}

# A longer bar is cut.
MOST_RATIO = 4.0
MOST_BYTES = 8000

# What one core does in a second: words, bench, number of the table, row, column.
PER_CORE = [
    ("echoes of 20 bytes, one in flight on each of 200 connections", "kernel", 0, "echo", OURS),
    ("echoes of 20 bytes, 16 in flight", "kernel", 0, "echo-16", OURS),
    ("echoes of 16 KiB of text", "kernel", 0, "text-16k", OURS),
    ("deliveries of a broadcast of 100 bytes to 1,000", "kernel", 0, "broadcast", OURS),
    ("deliveries of the same, 16 messages in flight", "kernel", 0, "broadcast-16", OURS),
    (
        "deliveries in a room of 100 that all publish, push protocol, 100 bytes",
        "room",
        0,
        ("publish", "publish-ns"),
        OURS,
    ),
    ("echoes of 20 bytes over TLS", "tls", 0, "echo", "wss"),
    ("echoes of 1 KiB of JSON, not compressed", "deflate", 0, "echo-1k-off", OURS),
    ("echoes of 1 KiB of JSON, compressed", "deflate", 0, "echo-1k-shared", OURS),
    ("publishes over HTTP, 32 connections", "api", 0, "conns-32", "publish, no subscriber"),
    ("connections opened and closed", "kernel", 0, "connect", OURS),
    ("connections over TLS 1.3 with a GET, opened and closed", "tls", 1, "tls13", OURS),
]
UNITS = {"ns": 1e9, "µs": 1e6, "ms": 1e3}


def newest():
    """The newest raw results of each bench."""
    found = {}
    for path in sorted(RESULTS.glob("????-??-??-*.json")):
        value = json.loads(path.read_text(encoding="utf-8"))
        found[value["bench"]] = value | {
            "file": path.name,
            "tables": [Table.from_json(table) for table in value["tables"]],
        }
    for name in ("kernel", "peers"):
        if name not in found:
            raise Failed(f"{RESULTS.relative_to(ROOT)}: no results of {name}; benches/run {name} --json writes them")
    return found


# ---- words -----------------------------------------------------------------------------------


def wrap(words):
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) + 1 > WIDTH and lines[-1]:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word}"
    return "\n".join(lines)


def where(result):
    """Date, commit and machine of some results, as sentences."""
    machine = result["machine"]
    kind = "virtual machine" if machine["virtual"] else "machine"
    return (
        f"Measured on {result['started'][:10]} at commit {result['commit']}{' with changes' * result['modified']}, on a {kind}"
        f" with {machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, {machine['system']}, {machine['rustc']}."
    )


def ratio_of(table, row, column):
    unit = table.rows[row]["unit"]
    return table.median(row, column) if unit == "ratio" else table.ratio(row, column)


def peers_table(result):
    table = result["tables"][0]
    lines = ["| load | " + " | ".join(table.columns) + " |", "| --- |" + " ---: |" * len(table.columns)]
    for name, row in table.rows.items():
        if row["unit"] == "bytes":
            values = [table.median(name, column) for column in table.columns]
            cells = ["–" if value is None else f"{value:,.0f}" for value in values]
            title = f"{row['title']}, bytes"
        else:
            values = [ratio_of(table, name, column) for column in table.columns]
            cells = ["–" if value is None else ratio_figure(value) for value in values]
            title = row["title"]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def per_core(results):
    lines = ["| one core, each second | |", "| --- | ---: |"]
    for words, bench, number, names, column in PER_CORE:
        tables = results.get(bench, {"tables": []})["tables"]
        if number >= len(tables):
            continue
        for name in [names] if isinstance(names, str) else names:
            row = tables[number].rows.get(name)
            cost = row and row["unit"] in UNITS and tables[number].median(name, column)
            if cost:
                rate = UNITS[row["unit"]] / cost
                digits = 10 ** (len(str(round(rate))) - 2)  # two digits are certain, no more
                lines.append(f"| {words} | {round(rate / digits) * digits:,.0f} |")
                break
    return "\n".join(lines)


def provenance(results):
    peers, kernel = results["peers"], results["kernel"]
    parts = [where(peers)]
    if kernel["commit"] != peers["commit"]:
        parts.append(f"The comparison with the kernel alone: {kernel['started'][:10]}, commit {kernel['commit']}.")
    versions = peers["settings"].get("versions", {})
    parts.append(
        f"Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}." if versions else ""
    )
    parts.append(f"Medians of {peers['settings']['rounds']} rounds of {peers['settings']['secs']:g} s.")
    links = [f"[{name}](../benches/results/{results[name]['file']})" for name in ("peers", "kernel")]
    parts.append(f"Raw results: {', '.join(links)}.")
    return wrap(" ".join(parts))


def wrap_list(notes):
    lines = []
    for line in notes.splitlines():
        first, *rest = wrap(line).splitlines()
        lines += [first, *(f"  {more}" for more in rest)]
    return "\n".join(lines)


def all_results(results):
    parts = [
        "# Newest results",
        wrap(
            "Made by `benches/run page` from the newest raw file of each driver. `benches/run DRIVER --help` says what is"
            " measured. Less is better everywhere. Figures are medians. Where a table has a base, which the text above it"
            " names, the other columns are multiples of it."
        ),
    ]
    for bench, result in sorted(results.items()):
        settings = ", ".join(
            f"{name} {value}" for name, value in result["settings"].items() if not isinstance(value, (list, dict))
        )
        parts += [f"## {bench}", wrap(f"[{result['file']}]({result['file']}). {where(result)} Settings: {settings}.")]
        for table in result["tables"]:
            parts += [f"Base: {table.base}."] if table.base else []
            parts += [table.markdown(short=True)]
        notes = [*result.get("notes", []), *(f"Left out: {who}: {why}" for who, why in result["left_out"].items())]
        parts += [wrap_list("\n".join(f"* {note}" for note in notes))] if notes else []
    return "\n\n".join(parts) + "\n"


# ---- charts ----------------------------------------------------------------------------------


def panels(result, names):
    table = result["tables"][0]
    made = []
    for name in names:
        row = table.rows.get(name)
        if not row:
            continue
        memory = row["unit"] == "bytes"
        panel = Panel(
            row["title"],
            "bytes of resident memory" if memory else "server CPU time, in multiples of the kernel's",
            MOST_BYTES if memory else MOST_RATIO,
            mark=0 if memory else 1,
        )
        for column in table.columns:
            value = table.median(name, column) if memory else ratio_of(table, name, column)
            words = "" if value is None else f"{value:,.0f}" if memory else ratio_figure(value)
            label = "kernel alone" if column == "kernel" else column
            panel.bars.append((label, value, words, column == OURS))
        made.append(panel)
    return made


def kernel_panel(result):
    table = result["tables"][0]
    panel = Panel(
        "campanile", "server CPU time, in multiples of what the kernel alone takes (dashed)", 1.5, mark=1, plain=True
    )
    for name, row in table.rows.items():
        if row["unit"] == "bytes":
            continue
        value = ratio_of(table, name, OURS)
        words = "" if value is None else ratio_figure(value)
        panel.bars.append((row["title"], value, words, True))
    return panel


def charts(results):
    """The SVG files by path."""
    files = {}
    for theme in THEMES:
        peers = panels(results["peers"], CHARTED)
        files[IMAGES / f"bench-peers-{theme}.svg"] = svg(
            "Server CPU time of several WebSocket servers", peers, 2, theme
        )
        short = panels(results["peers"], README)
        for panel, title in zip(short, README.values()):
            panel.title, panel.note = title, "CPU time, kernel alone = 1" if panel.mark else "bytes of memory"
        files[IMAGES / f"bench-readme-{theme}.svg"] = svg(
            "Server CPU time of several WebSocket servers", short, 3, theme, label=112
        )
        alone = [kernel_panel(results["kernel"])]
        files[IMAGES / f"bench-kernel-{theme}.svg"] = svg(
            "Server CPU time beside the kernel's", alone, 1, theme, label=280
        )
    return files


# ---- files -----------------------------------------------------------------------------------


def fill(page, blocks):
    def replace(match):
        name = match[1]
        if name not in blocks:
            raise Failed(f"{PAGE.name}: no such block: {name}; there are {', '.join(blocks)}")
        return f"<!-- begin: {name} -->\n\n{blocks[name]}\n\n<!-- end -->"

    return re.sub(r"<!-- begin: (\S+) -->.*?<!-- end -->", replace, page, flags=re.DOTALL)


def render(check):
    """Writes what has changed; the files that have."""
    results = newest()
    blocks = {"provenance": provenance(results), "peers": peers_table(results["peers"]), "per-core": per_core(results)}
    files = charts(results)
    files[PAGE] = fill(PAGE.read_text(encoding="utf-8"), blocks)
    files[RESULTS / "README.md"] = all_results(results)
    changed = [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path in changed:
        say(f"page: {'out of date' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(files[path], encoding="utf-8")
    return changed
