"""What compression costs: campanile and Node's ws with the same parameters.

"shared" is without context takeover in both directions, with the largest window; "dedicated" is with takeover and windows
of 11 bits. ws compresses with zlib's default level, 6, and in another column with level 1, which is campanile's. Both
compress messages of 1 KiB and more. The load client is `bench-harness deflate-load`, since campanile-loadtest would
compress each message once for each connection and be slower than the server.

--secs are seconds of the server's CPU time. A server that compresses less has less to do, so the second table has the
bytes of a message from the server.
"""

import json

import peers
import rig
from options import loads_option
from rig import Failed, Server, say

ROUNDS, SECS = 5, 2.0
TICK = 100  # of a second, as /proc counts

# name: title, the client's mode, bytes, connections
LOADS = {
    "echo-1k": ("echo, 200 × 1 KiB", "echo", 1 << 10, 200),
    "echo-16k": ("echo, 50 × 16 KiB", "echo", 16 << 10, 50),
    "broadcast-4k": ("broadcast to 1,000, 4 KiB", "broadcast", 4 << 10, 1000),
    "idle": ("idle after 1 KiB, memory for each of 1,000", "idle", 1 << 10, 1000),
}
MODES = ("off", "shared", "dedicated")


def options(parser):
    loads_option(parser, LOADS)


def ws_options(mode, level):
    """`perMessageDeflate` for ws."""
    if mode == "off":
        return False
    options = {"threshold": 1024}
    if mode == "shared":
        options |= {"serverNoContextTakeover": True, "clientNoContextTakeover": True}
    else:
        options |= {"serverMaxWindowBits": 11, "clientMaxWindowBits": 11}
    if level is not None:
        options["zlibDeflateOptions"] = {"level": level}
    return options


def servers(mode, campanile, has_ws):
    commands = {"campanile": rig.campanile_command(campanile, "--deflate", mode)}
    if has_ws:
        commands["ws"] = peers.ws(json.dumps(ws_options(mode, None)))
        if mode != "off":
            commands["ws, level 1"] = peers.ws(json.dumps(ws_options(mode, 1)))
    return commands


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    campanile, client = rig.build("campanile", "bench-harness")
    columns = ["campanile", "ws", "ws, level 1"]
    try:
        peers.ws()
    except Failed as problem:
        columns = columns[:1]
        run.left_out["ws"] = str(problem)
    cost = run.table("server CPU time for each message", columns, base="campanile")
    wire = run.table("a message from the server, with its head", columns, base="campanile")
    for load in arguments.loads:
        title, kind, size, conns = LOADS[load]
        for mode in MODES:
            row = f"{load}-{mode}"
            cost.row(row, f"{title}, {mode}", "bytes" if kind == "idle" else "ns")
            if kind != "idle":
                wire.row(row, f"{title}, {mode}", "bytes")
            for n in range(arguments.rounds):
                for column, command in servers(mode, campanile, len(columns) > 1).items():
                    with Server(command, cpu) as server:
                        words = [kind, server.port, server.pid, mode, size, conns, arguments.secs]
                        line = rig.call(
                            ["taskset", "-c", client_cpu, client, "deflate-load", *words], 120 + 10 * arguments.secs
                        )
                    messages, ticks, length, grown, uncompressed = map(int, line.split())
                    value = grown / conns if kind == "idle" else ticks / TICK / messages * 1e9
                    cost.add(row, column, value, {"uncompressed": uncompressed / messages} if uncompressed else {})
                    if kind != "idle":
                        wire.add(row, column, length)
                    say(f"deflate: {row}, round {n + 1}: {column} {value:,.0f}")
    for row in cost.rows:
        for column in columns[1:]:
            if ratio := cost.ratio(row, column):
                run.limit(f"campanile to {column}, {cost.rows[row]['title']}", 1 / ratio)
