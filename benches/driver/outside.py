"""A broadcast published by a thread of the program, beside the kernel's part of a broadcast.

A handler passes each message to a thread outside of the server through a channel, and that thread calls
`Handle::publish`; the channel and the waking of the thread are part of the cost. 100 bytes to 1,000 connections,
without and with a history.
"""

import rig
from loads import Load, measure as measure_load
from rig import Server, say

ROUNDS, SECS = 5, 2.0


def options(parser):
    parser.add_argument("--conns", type=int, default=1000, metavar="N", help="connections [1000]")
    parser.add_argument("--depth", type=int, nargs="+", default=[1, 16], metavar="N", help="messages in flight [1 16]")
    parser.add_argument("--history", type=int, default=100, metavar="N", help="messages of the history [100]")


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    client, baseline, harness = rig.build("campanile-loadtest", "kernel-baseline", "bench-harness")
    hub = [harness, "hub-server", "{port}"]
    servers = {
        "kernel": [baseline, "broadcast", "{port}"],
        "no history": hub,
        f"history of {arguments.history}": [*hub, "--history", arguments.history],
    }
    table = run.table("server CPU time, published from outside", servers, base="kernel")
    for depth in arguments.depth:
        load = Load(f"{arguments.conns:,} × 100 B, {depth} in flight", "broadcast", arguments.conns, 100, depth, True)
        table.row(f"depth-{depth}", load.title, load.unit)
        for n in range(arguments.rounds):
            for column, words in servers.items():
                with Server(words, cpu) as server:
                    cost, more = measure_load(client, client_cpu, server, load, arguments.secs, path="/outside")
                table.add(f"depth-{depth}", column, cost, more)
                say(f"outside: depth {depth}, round {n + 1}: {column} {cost:,.0f} ns")
