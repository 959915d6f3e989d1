"""The time from `publish` to the callback in a page, idle and under load, in Chromium and in Node.

Both sides use campanile.js (benches/driver/browser.mjs says how the clocks are compared). The load is a broadcast to
1,000 connections at a share of the rate at which it saturates the server. The server has the first CPU; the load client,
the publisher and the browser share the second. Needs what `make test` installs for the browser's tests.
"""

import json
import shutil

import rig
from rig import BENCHES, Failed, say

ROUNDS, SECS = 1, 20.0
ROWS = {"p50": "median", "p99": "99th percentile", "max": "longest"}
COLUMNS = ["idle, Chromium", "idle, Node", "loaded, Chromium", "loaded, Node"]


def options(parser):
    parser.add_argument("--rate", type=float, default=40, metavar="N", help="publications per second, below 50 [40]")
    parser.add_argument("--share", type=float, default=0.5, metavar="X", help="the load, of the saturation rate [0.5]")


def measure(arguments, run):
    if not shutil.which("node"):
        raise Failed("node is not installed")
    cpu, client_cpu = rig.cpus()
    campanile, client = rig.build("campanile", "campanile-loadtest")
    table = run.table("publish to callback", COLUMNS)
    for row, title in ROWS.items():
        table.row(row, title, "ms")
    for n in range(arguments.rounds):
        words = [campanile, client, cpu, client_cpu, arguments.secs, arguments.rate, arguments.share]
        output = rig.call(["node", BENCHES / "driver/browser.mjs", *words], 300 + 5 * arguments.secs)
        figures = json.loads(output)
        run.settings["deliveries_per_second"] = figures.pop("deliveries_per_second")
        for column, values in figures.items():
            for row, value in values.items():
                table.add(row, column, value)
            say(f"browser: round {n + 1}: {column}: median {values['p50']:.2f} ms")
