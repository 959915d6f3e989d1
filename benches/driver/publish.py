"""Publishing from a thread of the program, with one worker and with two.

One thread calls `Handle::publish`; each worker has one subscriber. All of it is one process (`bench-harness publish`),
on all CPUs: "flat out" is as fast as it goes, every delivery checked; "paced" is the time from `publish` to the
subscriber's read, without and with an echo load on the same workers; "no subscriber" publishes to a topic without any.
"""

import json

import rig
from rig import say

ROUNDS, SECS = 3, 2.0
ROWS = {
    "flat-out-wall": ("flat out, wall time for each message", "ns"),
    "flat-out-publisher": ("flat out, the publisher's CPU time", "ns"),
    "flat-out-workers": ("flat out, the workers' CPU time", "ns"),
    "no-subscriber": ("no subscriber, CPU time of both", "ns"),
    "paced-p50": ("publish to receipt, median", "µs"),
    "paced-p99": ("publish to receipt, p99", "µs"),
    "loaded-p50": ("the same beside an echo load, median", "µs"),
    "loaded-p99": ("the same beside an echo load, p99", "µs"),
}


def options(parser):
    parser.add_argument("--rate", type=int, default=1000, metavar="N", help="paced: messages per second [1000]")
    parser.add_argument("--load", type=int, default=20_000, metavar="N", help="echo load: messages per second [20000]")


def measure(arguments, run):
    [harness] = rig.build("bench-harness")
    table = run.table("publishing from outside", ["one worker", "two workers"], base="one worker")
    for row, (title, unit) in ROWS.items():
        table.row(row, title, unit)
    for n in range(arguments.rounds):
        for column, workers in (("one worker", 1), ("two workers", 2)):
            options = ["--secs", arguments.secs, "--rate", arguments.rate, "--load", arguments.load]
            figures = json.loads(rig.call([harness, "publish", workers, *options], 120 + 10 * arguments.secs))
            for row in ROWS:
                table.add(row, column, figures[row])
            say(f"publish: round {n + 1}: {column}: {figures['flat-out-wall']:,.0f} ns for each message")
