"""What a second worker costs: an echo at one worker, at two workers, and at two servers with one worker each.

Two servers have the same event loops as two workers and share nothing. With four CPUs or more, servers and clients
have two each. With fewer, servers have the first CPU and clients the second; then messages per second say nothing, and
only CPU time for each message can be compared. With --spread all share all CPUs, so that workers meet in memory.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import rig
from rig import Server, say

ROUNDS, SECS = 7, 3.0
COLUMNS = {"one worker": (1, 1), "two workers": (1, 2), "two servers": (2, 1)}  # servers, workers of each


def options(parser):
    parser.add_argument("--conns", type=int, default=200, metavar="N", help="[200]")
    parser.add_argument("--size", type=int, default=20, metavar="N", help="bytes of a message [20]")
    parser.add_argument("--depth", type=int, default=1, metavar="N", help="in flight per connection [1]")
    parser.add_argument("--spread", action="store_true", help="servers and clients on all CPUs")


def measure(arguments, run):
    cpus = [str(cpu) for cpu in sorted(os.sched_getaffinity(0))]
    if arguments.spread:
        server_cpus = client_cpus = ",".join(cpus)
    elif len(cpus) >= 4:
        server_cpus, client_cpus = ",".join(cpus[:2]), ",".join(cpus[2:4])
    else:
        server_cpus, client_cpus = rig.cpus()
    run.settings |= {"server_cpus": server_cpus, "client_cpus": client_cpus}
    campanile, client = rig.build("campanile", "campanile-loadtest")
    options = ["--conns", max(1, arguments.conns // 2), "--size", arguments.size, "--depth", arguments.depth]
    options += ["--duration", arguments.secs]
    table = run.table("echo by two clients", COLUMNS, base="one worker")
    table.row("server", "server CPU time for each message", "ns")
    table.row("client", "client CPU time for each message", "ns")
    table.row("wall", "wall time for each message", "ns")

    def load(server):
        url = f"ws://127.0.0.1:{server.port}/echo"
        return rig.loadtest(client, client_cpus, "echo", url, *options, "--pid", server.pid)

    for n in range(arguments.rounds):
        for column, (count, workers) in COLUMNS.items():
            command = [campanile, "--dev", "--listen", "127.0.0.1:{port}", "--workers", workers, "--log", "warn"]
            with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
                servers = [stack.enter_context(Server(command, server_cpus)) for _ in range(count)]
                reports = list(pool.map(load, (servers[0], servers[-1])))
            rate = sum(report["messages_per_second"] for report in reports)
            # Both clients watch the whole of a server that they share.
            server = sum(report["server"]["cores"] for report in reports) * count / 2
            clients = sum(report["client"]["cores"] for report in reports)
            for row, value in (("server", server), ("client", clients), ("wall", 1)):
                table.add(row, column, value / rate * 1e9)
            say(f"workers: round {n + 1}: {column}: {server / rate * 1e9:,.0f} ns")
    for column in ("two workers", "two servers"):
        run.limit(f"{column}: server CPU time", table.ratio("server", column))
