"""Two servers under one load, in turn: any command against any other, or against the kernel alone.

{port} in a command becomes a free port of 127.0.0.1 that the server has to listen on. Without --versus the other side is
`kernel-baseline`, or with --whole its echo of whole messages.

  benches/run ratio echo --server 'target/release/campanile --dev --listen 127.0.0.1:{port} --workers 1'
  benches/run ratio chat --conns 100 --size 100 --server 'new/campanile …' --versus 'old/campanile …'
"""

import rig
from loads import Load, measure as measure_load
from options import command
from rig import Failed, Server, say

ROUNDS, SECS = 5, 2.0
MODES = ("echo", "broadcast", "chat", "connect", "idle")
CONNS = {"echo": 200, "broadcast": 1000, "chat": 100, "connect": 1, "idle": 10_000}


def options(parser):
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("--server", type=command, required=True, metavar="COMMAND", help="what is measured")
    parser.add_argument("--path", metavar="PATH", help="[/echo, or /broadcast]")
    parser.add_argument("--versus", type=command, metavar="COMMAND", help="what it is compared with [the kernel]")
    parser.add_argument("--versus-path", metavar="PATH", help="[as --path]")
    parser.add_argument("--whole", action="store_true", help="echo: compare with whole messages")
    parser.add_argument(
        "--conns", type=int, metavar="N", help="connections [echo 200, broadcast 1000, chat 100, idle 10000]"
    )
    parser.add_argument("--size", type=int, default=20, metavar="N", help="bytes of a message [20]")
    parser.add_argument("--depth", type=int, default=1, metavar="N", help="messages in flight [1]")
    parser.add_argument("--text", action="store_true", help="text with non-ASCII instead of binary messages")


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    client, baseline = rig.build("campanile-loadtest", "kernel-baseline")
    conns = arguments.conns or CONNS[arguments.mode]
    load = Load("", arguments.mode, conns, arguments.size, arguments.depth, arguments.text)
    streams = not arguments.versus and load.mode == "echo"
    if arguments.whole and not streams:
        raise Failed("--whole: expected the mode echo without --versus")
    if arguments.versus:
        other, other_path = arguments.versus, arguments.versus_path or arguments.path
    elif arguments.whole:
        other, other_path = [baseline, "whole", "{port}", load.size], None
    else:
        other, other_path = [baseline, "echo" if streams else "broadcast", "{port}"], None
    base = "versus" if arguments.versus else "kernel"
    table = run.table("server CPU time", [base, "server"], base=base)
    words = [f"{load.mode}, {conns:,} connections"]
    if load.mode not in ("connect", "idle"):
        words += [f"{load.size:,} B {'text' if load.text else 'binary'}", f"{load.depth} in flight"]
    table.row("load", ", ".join(words), load.unit)
    sides = {"server": (arguments.server, arguments.path, False), base: (other, other_path, streams)}
    for n in range(arguments.rounds):
        for column, (words, path, stream) in sides.items():
            with Server(words, cpu, silent=True) as server:
                cost, more = measure_load(client, client_cpu, server, load, arguments.secs, path, stream)
            table.add("load", column, cost, more)
            say(f"ratio: round {n + 1}: {column} {cost:,.0f} {load.unit}")
