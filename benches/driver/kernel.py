"""What campanile takes for each message, beside what the kernel alone takes.

The kernel's part is measured by `kernel-baseline` (benches/kernel), which makes the system calls of an echo and of a
broadcast and little else. The column "kernel" of an echo is a stream: the bytes of each read are sent back at once. No
WebSocket server may do that with a message that it has to validate, so large messages have a second column, where
the whole message is received before it is sent.
"""

import rig
from loads import LARGE, LOADS, measure as measure_load
from options import loads_option
from rig import Server, say

ROUNDS, SECS = 7, 2.0


def options(parser):
    loads_option(parser, LOADS)


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    campanile, client, baseline = rig.build("campanile", "campanile-loadtest", "kernel-baseline")
    table = run.table("server CPU time", ["kernel", "kernel, whole messages", "campanile"], base="kernel")
    for name in arguments.loads:
        load = LOADS[name]
        table.row(name, load.title, load.unit)
        streams = load.mode == "echo"
        servers = {"kernel": [baseline, "echo" if streams else "broadcast", "{port}"]}
        if streams and load.size >= LARGE:
            servers["kernel, whole messages"] = [baseline, "whole", "{port}", load.size]
        servers["campanile"] = rig.campanile_command(campanile)
        for n in range(arguments.rounds):
            for column, command in servers.items():
                with Server(command, cpu) as server:
                    stream = streams and column != "campanile"
                    cost, more = measure_load(client, client_cpu, server, load, arguments.secs, stream=stream)
                table.add(name, column, cost, more)
                say(f"kernel: {name}, round {n + 1}: {column} {cost:,.0f} {load.unit}")
