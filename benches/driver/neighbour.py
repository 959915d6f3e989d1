"""What a healthy client waits for while others take all they can.

Each row is one kind of abuse, by clients in a process of their own, with a lower priority, on the load client's CPU.
Beside them one client sends an echo every 2 ms and waits for it: the 99th percentile of its times and the longest.

  nothing      no abuse
  flood        one client publishes to 400 subscribers without end; two workers, both on the server's CPU
  replay       ten clients ask for a history of 1,000 messages of 60 KB, again and again
  rate         100 clients send requests to /push without end, far above its rate
  handshakes   a recorded ClientHello on 1,000 sockets, again and again
"""

import http.client
import json
import multiprocessing
import os
import selectors
import socket
import ssl
import struct
import time
from contextlib import closing, contextmanager

import options as parse
import rig
from rig import Failed, Server, say
from tls import Both

ROUNDS = 3
SECS = 5
MAX = "fail if a 99th percentile in ms is above this"

PAUSE = 0.002  # seconds between two echoes
SUBSCRIBERS, REPLAYERS, REQUESTERS, SHAKERS = 400, 10, 100, 1000


def options(parser):
    names = ",".join(ABUSES)
    parser.add_argument(
        "--abuse", type=parse.names_of(ABUSES), default=list(ABUSES), metavar="NAMES", help=f"which of them [{names}]"
    )
    parser.add_argument("--size", type=int, default=4096, metavar="BYTES", help="of a message of the flood [4096]")


def frame(payload, opcode=1):
    """A client's frame, with a mask that changes nothing."""
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 1 << 16:
        head = bytes([0x80 | opcode, 0x80 | 126]) + struct.pack(">H", size)
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + struct.pack(">Q", size)
    return head + bytes(4) + payload


# ---- abuse: each runs in a process of its own until it is ended ---------------------------------


def drain(sockets, write=None):
    """Reads all that comes, and keeps writing `write` to the sockets that are in it."""
    selector = selectors.DefaultSelector()
    write = write or {}
    for client in sockets:
        client.setblocking(False)
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if client in write else 0)
        selector.register(client, events, [write.get(client, b""), 0])
    while selector.get_map():
        for key, events in selector.select():
            client, (data, sent) = key.fileobj, key.data
            try:
                if events & selectors.EVENT_READ and not client.recv(1 << 18):
                    raise ConnectionResetError
                if events & selectors.EVENT_WRITE:
                    sent += client.send(data[sent:])
                    key.data[1] = sent % len(data)
            except BlockingIOError:
                pass
            except OSError:
                selector.unregister(client)


def flood(server, arguments):
    subscribers = [rig.open_websocket(server.port, "/broadcast") for _ in range(SUBSCRIBERS)]
    publisher = rig.open_websocket(server.port, "/broadcast")
    message = frame(b"x" * arguments.size)
    yield
    drain([*subscribers, publisher], {publisher: message * max(1, 200_000 // len(message))})


def replay(server, arguments):
    clients = [rig.open_websocket(server.port, "/push") for _ in range(REPLAYERS)]
    ask = frame(b'{"type":"subscribe","id":1,"topic":"public/replay","last":1000}')
    again = frame(b'{"type":"unsubscribe","id":2,"topic":"public/replay"}')
    yield
    drain(clients, {client: ask + again for client in clients})


def rate(server, arguments):
    clients = [rig.open_websocket(server.port, "/push") for _ in range(REQUESTERS)]
    request = frame(b"{}") * 1000
    yield
    drain(clients, {client: request for client in clients})


def handshakes(server, arguments):
    out = ssl.MemoryBIO()
    context = ssl.create_default_context()
    try:
        context.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    yield
    selector = selectors.DefaultSelector()

    def connect():
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # no TIME_WAIT
        client.setblocking(False)
        client.connect_ex(("127.0.0.1", server.secure))
        selector.register(client, selectors.EVENT_WRITE)

    for _ in range(SHAKERS):
        connect()
    while True:
        for key, events in selector.select():
            try:
                if events & selectors.EVENT_WRITE:
                    key.fileobj.send(hello)
                    selector.modify(key.fileobj, selectors.EVENT_READ)
                    continue
                key.fileobj.recv(1 << 14)
            except OSError:
                pass
            selector.unregister(key.fileobj)
            key.fileobj.close()
            connect()


def nothing(server, arguments):
    yield
    time.sleep(3600)


ABUSES = {abuse.__name__: abuse for abuse in (nothing, flood, replay, rate, handshakes)}


def abuse_until_ended(name, server, arguments, cpu, ready):
    os.sched_setaffinity(0, {int(cpu)})
    os.nice(10)
    for _ in ABUSES[name](server, arguments):
        ready.set()


@contextmanager
def abused(name, server, arguments, cpu):
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=abuse_until_ended, args=(name, server, arguments, cpu, ready), daemon=True)
    process.start()
    try:
        if not ready.wait(rig.DEADLINE):
            raise Failed(f"{name}: its clients did not connect in time")
        yield process
    finally:
        process.kill()
        process.join()


# ---- the healthy client ------------------------------------------------------------------------


def echo_times(server, secs):
    """What each echo took, in ms, sorted."""
    message, times = frame(b"hello"), []
    with closing(rig.open_websocket(server.port, "/echo")) as client:
        until = time.monotonic() + secs
        while time.monotonic() < until:
            began = time.perf_counter()
            client.sendall(message)
            missing = 7
            while missing:
                piece = client.recv(missing)
                if not piece:
                    raise Failed("the healthy client was closed")
                missing -= len(piece)
            times.append((time.perf_counter() - began) * 1e3)
            time.sleep(PAUSE)
    return sorted(times)


def fill_history(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=rig.DEADLINE)
    with closing(connection):
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = json.dumps({"topic": "public/replay", "text": "y" * 60_000})
        for _ in range(1000):
            connection.request("POST", "/api/publish", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            if response.status != 200:
                raise Failed(f"/api/publish: {response.status} {response.read().decode()}")
            response.read()


def command(program, name):
    command = rig.campanile_command(program)
    if name == "flood":
        command[command.index("--workers") + 1] = "2"
    if name == "replay":
        command += ["--topics", "public/:history=1000,history-bytes=100MiB,subscribe=yes,publish=yes"]
    if name == "handshakes":
        command += ["--tls-listen", "127.0.0.1:0", "--tls-self-signed"]
    return command


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    [program] = rig.build("campanile")
    table = run.table("echo of a healthy client beside", ["99th percentile", "longest"])
    os.sched_setaffinity(0, {int(client_cpu)})
    for round_number in range(1, arguments.rounds + 1):
        for name in arguments.abuse:
            kind = Both if name == "handshakes" else Server
            with kind(command(program, name), cpu) as server:
                if name == "replay":
                    fill_history(server)
                with abused(name, server, arguments, client_cpu) as abuse:
                    times = echo_times(server, arguments.secs)
                    if not abuse.is_alive():
                        raise Failed(f"{name}: its clients were closed by the server")
            p99, longest = times[len(times) * 99 // 100], times[-1]
            table.row(name, name, "ms")
            table.add(name, "99th percentile", p99)
            table.add(name, "longest", longest)
            say(f"neighbour: round {round_number}: {name}: 99th percentile {p99:.1f} ms, longest {longest:.1f} ms")
    for name in arguments.abuse:
        run.limit(f"{name}, 99th percentile in ms", table.median(name, "99th percentile"))
