"""What TLS costs: messages over wss:// beside ws:// on one server, and connections beside OpenSSL's own server.

The cipher is what the load client prefers, AES-256-GCM. Connections are made and closed by `openssl s_time`, for both
servers; without the `openssl` program they are left out.
"""

import os
import re
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import rig
from rig import Failed, Server, say

ROUNDS, SECS = 5, 2.0
ECHOES = {"echo": ("echo, 200 × 20 B", 20), "echo-16k": ("echo, 200 × 16 KiB", 16 << 10)}
HANDSHAKES = {
    "tls13": ("TLS 1.3 and a GET", "-tls1_3", "-new"),
    "tls13-resumed": ("TLS 1.3 and a GET, resumed", "-tls1_3", "-reuse"),
    "tls12": ("TLS 1.2", "-tls1_2", "-new"),
    "tls12-resumed": ("TLS 1.2, resumed", "-tls1_2", "-reuse"),
}


def options(parser):
    pass


class Both(Server):
    """A server with a plain and a TLS listener."""

    def read_port(self):
        ports = self.read_ports("http", "https")
        self.port, self.secure = ports["http"], ports["https"]


@contextmanager
def openssl_server(cpu, pem):
    port = rig.free_port()
    words = ["taskset", "-c", cpu, "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", pem, "-key", pem]
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(
        [*words, "-quiet", "-www"], stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
    )
    try:
        rig.wait_for_port(port, process, "openssl s_server")
        yield process.pid, port
    finally:
        rig.kill_session(process)


def handshake(pid, port, cpu, secs, version, how):
    """CPU time of the server for each connection, in µs."""
    before = rig.cpu_ns(pid)
    # s_time takes whole seconds.
    words = [
        "taskset",
        "-c",
        cpu,
        "openssl",
        "s_time",
        "-connect",
        f"127.0.0.1:{port}",
        "-time",
        str(max(1, round(secs))),
    ]
    # A ticket of TLS 1.3 comes behind the handshake: only a client that reads something gets it.
    words += [how, version, *(["-www", "/healthz"] if version == "-tls1_3" else [])]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 + 3 * secs)
    made = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    if not made or not int(made[1]):
        raise Failed(f"openssl s_time: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return (rig.cpu_ns(pid) - before) / int(made[1]) / 1e3


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    campanile, client = rig.build("campanile", "campanile-loadtest")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STATE_DIRECTORY"] = folder
        tls = ["--tls-listen", "127.0.0.1:0", "--tls-self-signed"]
        with Both(rig.campanile_command(campanile, *tls), cpu) as server:
            messages(arguments, run, server, client, client_cpu)
            if shutil.which("openssl"):
                connections(arguments, run, server, cpu, client_cpu, Path(folder) / "self-signed.pem")
            else:
                run.left_out["connections"] = "openssl is not installed"


def messages(arguments, run, server, client, client_cpu):
    table = run.table("server CPU time for each message", ["ws", "wss"], base="ws")
    for row, (title, size) in ECHOES.items():
        table.row(row, title, "ns")
        for n in range(arguments.rounds):
            for column, port in (("ws", server.port), ("wss", server.secure)):
                words = ["--conns", 200, "--size", size, "--duration", arguments.secs, "--pid", server.pid]
                words += ["--insecure"] * (column == "wss")
                report = rig.loadtest(client, client_cpu, "echo", f"{column}://127.0.0.1:{port}/echo", *words)
                table.add(row, column, report["server"]["cpu_ns_per_message"])
                say(f"tls: {row}, round {n + 1}: {column} {report['server']['cpu_ns_per_message']:,.0f} ns")
    table.row("idle", "idle, memory for each of 5,000", "bytes")
    for column, port in (("ws", server.port), ("wss", server.secure)):
        words = ["--conns", 5000, "--duration", 2, "--pid", server.pid, *["--insecure"] * (column == "wss")]
        report = rig.loadtest(client, client_cpu, "idle", f"{column}://127.0.0.1:{port}/echo", *words)
        table.add("idle", column, report["server"]["bytes_per_connection"])
    for row in ECHOES:
        run.limit(table.rows[row]["title"], table.ratio(row, "wss"))


def connections(arguments, run, server, cpu, client_cpu, pem):
    table = run.table("server CPU time for each connection", ["openssl s_server", "campanile"], base="openssl s_server")
    with openssl_server(cpu, pem) as (pid, port):
        for row, (title, version, how) in HANDSHAKES.items():
            table.row(row, title, "µs")
            for n in range(arguments.rounds):
                for column, at in (("openssl s_server", (pid, port)), ("campanile", (server.pid, server.secure))):
                    cost = handshake(*at, client_cpu, arguments.secs, version, how)
                    table.add(row, column, cost)
                    say(f"tls: {row}, round {n + 1}: {column} {cost:,.1f} µs")
