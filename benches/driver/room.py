"""A room of the push protocol beside the kernel's part of a chat with frames of the same size.

100 clients of /push publish JSON to the topic that all of them subscribe to; with acknowledgements each publication is
answered too. The campanile-loadtest modes are `room` and `chat`.
"""

import rig
from loads import Load, WARM, measure as measure_load
from rig import Server, say

ROUNDS, SECS = 5, 2.0


def options(parser):
    parser.add_argument("--conns", type=int, default=100, metavar="N", help="[100]")
    parser.add_argument("--size", type=int, default=100, metavar="N", help="bytes of a message's data [100]")
    parser.add_argument("--depth", type=int, default=1, metavar="N", help="messages in flight [1]")


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    client, baseline, harness = rig.build("campanile-loadtest", "kernel-baseline", "bench-harness")
    table = run.table("server CPU time for each delivery", ["kernel", "campanile"], base="kernel")
    load = ["--conns", arguments.conns, "--size", arguments.size, "--depth", arguments.depth]
    load += ["--duration", arguments.secs, "--warmup", WARM]
    for name, words in (("publish", []), ("publish-ack", ["--ack"])):
        title = f"{arguments.conns} in a room, {arguments.size} B of data{', acknowledged' if words else ''}"
        table.row(name, title, "ns")
        for n in range(arguments.rounds):
            with Server([harness, "hub-server", "{port}"], cpu) as server:
                url = f"ws://127.0.0.1:{server.port}/push"
                report = rig.loadtest(client, client_cpu, "room", url, *load, *words, "--pid", server.pid)
            ours = report["server"]["cpu_ns_per_message"]
            payload = round(report["bytes_per_second"] / report["messages_per_second"])
            table.add(name, "campanile", ours, {"payload_bytes": payload})
            chat = Load(title, "chat", arguments.conns, payload, arguments.depth, True)
            with Server([baseline, "broadcast", "{port}"], cpu) as server:
                kernel, more = measure_load(client, client_cpu, server, chat, arguments.secs)
            table.add(name, "kernel", kernel, more)
            say(f"room: {name}, round {n + 1}: campanile {ours:,.0f} ns for {payload} bytes, kernel {kernel:,.0f} ns")
