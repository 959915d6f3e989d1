"""How long other connections wait while a crowd is cut off.

10,000 connections with 100 subscriptions each are cut at once: their process is killed, or the server terminates them.
Meanwhile another connection on the same worker sends an echo and waits for it, over and over, and a thread of the server
queries the worker's mailbox, which it reads once in each iteration: the longest answer is the longest time for which the
worker was held. An echo may wait longer, since it is behind the crowd in what the kernel has ready.
"""

import http.client
import subprocess
import threading
import time
from contextlib import closing

import rig
from rig import Failed, Server, say

ROUNDS, SECS = 5, 0.5
MAX = "fail if a worker was held for more milliseconds than this"
CASES = {"nothing happens": None, "their process is killed": "kill", "the server terminates them": "terminate"}
ROWS = {
    "echo-p50": "echo, median",
    "echo-p99": "echo, 99th percentile",
    "echo-max": "echo, longest",
    "held": "worker held, longest",
    "gone": "all of them removed after",
}


def options(parser):
    parser.add_argument("--conns", type=int, default=10_000, metavar="N", help="[10000]")
    parser.add_argument(
        "--topics",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000],
        metavar="N",
        help="topics in all [100000 1000000]",
    )


def get(server, path):
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.DEADLINE)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


class Probe:
    """A connection of /echo."""

    FRAME = bytes([0x82, 0x80 | 8, 0, 0, 0, 0]) + b"are-you?"  # a mask that changes nothing

    def __init__(self, server):
        self.socket = rig.open_websocket(server.port, "/echo")

    def echo(self):
        """Seconds until it is back."""
        began = time.perf_counter()
        self.socket.sendall(self.FRAME)
        missing = 2 + 8
        while missing:
            piece = self.socket.recv(missing)
            if not piece:
                raise Failed("the probe's connection was closed")
            missing -= len(piece)
        return time.perf_counter() - began

    def until(self, done):
        """Echoes until `done` is set: what each took, in ms."""
        times, end = [], time.monotonic() + 60
        while not done.is_set():
            times.append(self.echo() * 1e3)
            if time.monotonic() > end:
                raise Failed("the connections did not end in 60 s")
        return sorted(times)


def when_gone(server):
    """Set when only the probe is left. Asked by a thread, so that the probe goes on."""
    gone = threading.Event()

    def poll():
        while int(get(server, "/open")) > 1:
            time.sleep(0.02)
        gone.set()

    threading.Thread(target=poll, daemon=True).start()
    return gone


def one_cut(how, server, client, cpu, conns, secs):
    """The figures of one cut, by row."""
    url = f"ws://127.0.0.1:{server.port}/hundred"
    words = ["taskset", "-c", cpu, client, "idle", url, "--conns", conns, "--duration", "300s"]
    crowd = subprocess.Popen(
        [str(word) for word in words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        until = time.monotonic() + 60
        while int(get(server, "/open")) < conns:
            if crowd.poll() is not None or time.monotonic() > until:
                raise Failed(f"{conns} connections did not open")
            time.sleep(0.05)
        probe = Probe(server)
        get(server, "/held")
        for _ in range(1000):
            probe.echo()
        get(server, "/held")
        began = time.monotonic()
        if how is None:
            done = threading.Event()
            threading.Timer(secs, done.set).start()
        else:
            crowd.kill() if how == "kill" else get(server, "/cut")
            done = when_gone(server)
        times = probe.until(done)
        took = (time.monotonic() - began) * 1e3
        figures = {"echo-p50": times[len(times) // 2], "echo-p99": times[len(times) * 99 // 100], "echo-max": times[-1]}
        figures["held"] = int(get(server, "/held")) / 1e3
        return figures if how is None else figures | {"gone": took}
    finally:
        rig.kill_session(crowd)


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    client, harness = rig.build("campanile-loadtest", "bench-harness")
    for topics in arguments.topics:
        table = run.table(f"{arguments.conns:,} connections, {topics:,} topics", CASES)
        for row, title in ROWS.items():
            table.row(row, title, "ms")
        for n in range(arguments.rounds):
            for column, how in CASES.items():
                with Server([harness, "hub-server", "{port}", "--topics", topics], cpu) as server:
                    figures = one_cut(how, server, client, client_cpu, arguments.conns, arguments.secs)
                for row, value in figures.items():
                    table.add(row, column, value)
                say(f"cut: {topics:,} topics, round {n + 1}: {column}: held {figures['held']:.2f} ms")
        for column in CASES:
            run.limit(f"{topics:,} topics, {column}: worker held, ms", table.median("held", column))
