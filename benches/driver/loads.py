"""The loads that servers are compared under, all made by campanile-loadtest."""

from dataclasses import dataclass

import rig
from rig import Failed


@dataclass(frozen=True)
class Load:
    """What clients do; `path` is where campanile and the peers answer it."""

    title: str
    mode: str
    conns: int
    size: int = 0
    depth: int = 1
    text: bool = False

    @property
    def path(self):
        return "/broadcast" if self.mode in ("broadcast", "chat") else "/echo"

    @property
    def unit(self):
        return "bytes" if self.mode == "idle" else "ns"


LOADS = {
    "echo": Load("echo, 200 × 20 B", "echo", 200, 20),
    "echo-16": Load("echo, 200 × 20 B, 16 in flight", "echo", 200, 20, depth=16),
    "echo-15000": Load("echo, 15,000 × 20 B", "echo", 15_000, 20),
    "text-1k": Load("echo, 200 × 1 KiB text", "echo", 200, 1 << 10, text=True),
    "binary-16k": Load("echo, 50 × 16 KiB binary", "echo", 50, 16 << 10),
    "text-16k": Load("echo, 50 × 16 KiB text", "echo", 50, 16 << 10, text=True),
    "binary-1m": Load("echo, 10 × 1 MiB binary", "echo", 10, 1 << 20),
    "text-1m": Load("echo, 10 × 1 MiB text", "echo", 10, 1 << 20, text=True),
    "broadcast": Load("broadcast to 1,000, 100 B", "broadcast", 1000, 100, text=True),
    "broadcast-16": Load("broadcast to 1,000, 100 B, 16 in flight", "broadcast", 1000, 100, depth=16, text=True),
    "broadcast-15000": Load("broadcast to 15,000, 512 B", "broadcast", 15_000, 512, text=True),
    "chat": Load("chat of 100, 100 B", "chat", 100, 100, text=True),
    "connect": Load("connect, handshake, close", "connect", 1),
    "idle": Load("idle, memory for each of 10,000", "idle", 10_000),
}

# From here on a message is large: a server that needs the whole of it has costs that a stream of bytes has not.
LARGE = 16 << 10


def measure(client, cpu, server, load, secs, path=None, stream=False):
    """The server's cost of one message, delivery, handshake or idle connection, and how busy both sides were.

    A `stream` server gets plain bytes over TCP instead of WebSocket.
    """
    options = ["--conns", load.conns, "--pid", server.pid, "--duration", 1 if load.mode == "idle" else secs]
    if load.mode in ("echo", "broadcast", "chat"):
        options += [
            "--size",
            load.size,
            "--depth",
            load.depth,
            "--warmup",
            WARM,
            "--text" if load.text and not stream else "--binary",
        ]
    place = f"127.0.0.1:{server.port}"
    url = f"tcp://{place}" if stream else f"ws://{place}{load.path if path is None else path}"
    report = rig.loadtest(client, cpu, load.mode, url, *options, timeout=300 + secs)
    cost = report["server"]["bytes_per_connection" if load.mode == "idle" else "cpu_ns_per_message"]
    if cost is None:
        raise Failed(f"{load.title}: nothing was measured in {secs:g} s")
    if load.mode == "idle":
        return cost, {}
    return cost, {
        "per_second": round(report["messages_per_second"]),
        "server_cores": round(report["server"]["cores"], 3),
        "client_cores": round(report["client"]["cores"], 3),
    }


WARM = 1  # seconds of traffic before the measurement; just-in-time compilers need some
