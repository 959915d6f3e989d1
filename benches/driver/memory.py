"""Resident memory of the server before a load, at its peak, and after all clients have gone.

Each case has a server of its own with two workers. --secs is how long after the end of the load memory is read.
"""

import json
import os
import socket
import struct
import time

import rig
from rig import Failed, Server, say

ROUNDS, SECS = 1, 20.0
MAX = "fail if more MiB remain than this"
TOPICS = ["--topics", "a/:client-subscribe=yes", "--topics", "kept/:history=100,history-age=5s"]


def frame(payload, opcode=1):
    """A client's frame, masked with zeros."""
    length = len(payload)
    if length < 126:
        head = struct.pack(">BB", 0x80 | opcode, 0x80 | length)
    elif length < 1 << 16:
        head = struct.pack(">BBH", 0x80 | opcode, 0xFE, length)
    else:
        head = struct.pack(">BBQ", 0x80 | opcode, 0xFF, length)
    return head + bytes(4) + payload


class Load:
    """The clients of one server, and the server's memory."""

    def __init__(self, server):
        self.port, self.pid = server.port, server.pid
        self.clients = []
        self.before = self.peak = self.resident()

    def resident(self):
        return rig.resident_bytes(self.pid) / (1 << 20)

    def note(self):
        self.peak = max(self.peak, self.resident())

    def open(self, path, protocol=None, receive_buffer=None):
        self.clients.append(rig.open_websocket(self.port, path, protocol, receive_buffer))
        return self.clients[-1]

    def subscribe(self, clients, topics):
        for at in range(clients):
            client = self.open("/push", "campanile.v1.json")
            requests = [json.dumps({"type": "subscribe", "topic": topic}) for topic in topics(at)]
            client.sendall(b"".join(frame(request.encode()) for request in requests))
            if at % 100 == 99:
                self.note()
        time.sleep(2)
        self.note()

    def flood(self, data):
        for _ in range(250):
            self.open("/echo", receive_buffer=4096).setblocking(False)
        for at in range(200):
            for client in self.clients:
                try:
                    client.send(data)
                except BlockingIOError:
                    pass
            if at % 10 == 9:
                time.sleep(0.05)
                self.note()

    def publish(self):
        client = socket.create_connection(("127.0.0.1", self.port))
        answers = client.makefile("rb")
        for at in range(6000):
            topics = [(at * 50 + n) % 20_000 for n in range(50)]
            body = json.dumps({"messages": [{"topic": f"kept/{n}", "data": "x" * 900} for n in topics]})
            head = f"POST /api/batch HTTP/1.1\r\nHost: localhost:{self.port}\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            status, length = answers.readline(), 0
            while (line := answers.readline().strip().lower()) != b"":
                if line.startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)
            if b" 200 " not in status:
                raise Failed(f"/api/batch: {status.decode().strip()}")
            if at % 200 == 199:
                self.note()
        client.close()

    def connect(self, clients):
        for _ in range(clients):
            self.open("/echo")
        self.note()


CASES = {
    "subscriptions": (
        "6,000 clients of /push with 128 topics each, all different",
        lambda load: load.subscribe(6000, lambda at: [f"a/longer/name/{at}/{n}" for n in range(128)]),
    ),
    "large": (
        "250 clients of /echo that send 64 KiB and do not read",
        lambda load: load.flood(frame(bytes(65_000), 2)),
    ),
    "small": (
        "the same with messages of 20 bytes",
        lambda load: load.flood(frame(bytes(20), 2) * 3000),
    ),
    "connections": ("15,000 clients of /echo", lambda load: load.connect(15_000)),
    "topic": ("15,000 subscribers of one topic", lambda load: load.subscribe(15_000, lambda _: ["a/topic"])),
    "histories": ("270 MB published to 20,000 topics with a history of 5 s", lambda load: load.publish()),
}


def options(parser):
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[*CASES, []], help=f"of {', '.join(CASES)} [all]")


def measure(arguments, run):
    [campanile] = rig.build("campanile")
    everywhere = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    table = run.table("resident memory", ["before", "peak", "after"])
    command = [campanile, "--dev", "--listen", "127.0.0.1:{port}", "--workers", "2", *TOPICS]
    for name in arguments.cases or CASES:
        title, work = CASES[name]
        table.row(name, title, "MiB")
        for _ in range(arguments.rounds):
            with Server(command, everywhere) as server:
                load = Load(server)
                work(load)
                for client in load.clients:
                    client.close()
                load.note()
                time.sleep(arguments.secs)
                after = load.resident()
            for column, value in (("before", load.before), ("peak", load.peak), ("after", after)):
                table.add(name, column, value)
            say(f"memory: {name}: {load.before:.1f} before, {load.peak:.1f} at the peak, {after:.1f} MiB after")
        run.limit(f"{title}: MiB that remain", table.median(name, "after"))
