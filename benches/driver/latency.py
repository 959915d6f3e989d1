"""Latency of an echo beside an echo of plain bytes by `kernel-baseline`, under the same open-loop load.

Messages are due at fixed times whatever comes back, at a share of campanile's own saturation rate, and latency counts
from when each was due. The client is the same, over ws:// and over tcp://.
"""

import rig
from rig import Server, say

ROUNDS, SECS = 7, 3.0
PERCENTILES = {"p50": "p50", "p99": "p99", "p99_9": "p99.9"}


def options(parser):
    parser.add_argument("--conns", type=int, default=200, metavar="N", help="[200]")
    parser.add_argument("--size", type=int, default=20, metavar="N", help="bytes of a message [20]")
    parser.add_argument("--share", type=float, default=0.5, metavar="X", help="of the saturation rate [0.5]")
    parser.add_argument("--rate", type=float, metavar="N", help="messages per second, instead of a share")


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    campanile, client, baseline = rig.build("campanile", "campanile-loadtest", "kernel-baseline")
    servers = {
        "kernel": Server([baseline, "echo", "{port}"], cpu),
        "campanile": Server(rig.campanile_command(campanile), cpu),
    }

    def load(column, server, *more):
        place = f"127.0.0.1:{server.port}"
        url = f"tcp://{place}" if column == "kernel" else f"ws://{place}/echo"
        options = [
            "--conns",
            arguments.conns,
            "--size",
            arguments.size,
            "--duration",
            arguments.secs,
            "--pid",
            server.pid,
        ]
        return rig.loadtest(client, client_cpu, "echo", url, *options, *more)

    rate = arguments.rate
    if not rate:
        with servers["campanile"] as server:
            full = load("campanile", server)
        rate = full["messages_per_second"] * arguments.share
        say(f"latency: saturated at {full['messages_per_second']:,.0f} messages per second")
    run.settings["rate"] = round(rate)
    table = run.table(f"echo at {rate:,.0f} messages per second", servers, base="kernel")
    for name, title in PERCENTILES.items():
        table.row(name, title, "µs")
    for n in range(arguments.rounds):
        for column in servers:
            with servers[column] as server:
                report = load(column, server, "--rate", f"{rate:.0f}")
            for name in PERCENTILES:
                table.add(name, column, report["latency_ns"][name] / 1000)
            shown = ", ".join(
                f"{title} {report['latency_ns'][name] / 1000:,.1f}" for name, title in PERCENTILES.items()
            )
            say(f"latency: round {n + 1}: {column}: {shown} µs")
    run.limit("p99.9", table.ratio("p99_9", "campanile"))
