"""Requests of the HTTP API beside GET /healthz, in CPU time of the server.

Each connection has one request in flight: the client sends on all of them and then reads from all of them. That it is
slow does not matter, since the server's CPU time is what counts.
"""

import os
import socket
import time

import rig
from rig import Failed, Server, say

ROUNDS, SECS = 5, 1.0
BASE = "GET /healthz"


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path, body):
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


BATCH = '{"messages":[' + ",".join(['{"topic":"a/b","text":"x"}'] * 100) + "]}"
REQUESTS = {
    BASE: get("/healthz"),
    "publish, no subscriber": post("/api/publish", '{"topic":"a/b","data":{"n":1,"of":"bench"}}'),
    "publish, one subscriber": post("/api/publish", '{"topic":"chat","data":{"n":1,"of":"bench"}}'),
    "batch of 100": post("/api/batch", BATCH),
    "GET /api/info": get("/api/info"),
}


def options(parser):
    parser.add_argument("--conns", type=int, nargs="+", default=[1, 32], metavar="N", help="connections [1 32]")


def is_whole(answer):
    head, found, body = answer.partition(b"\r\n\r\n")
    length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0] if found else b"0"
    return found and len(body) >= int(length)


def send_on_all(sockets, request):
    for one in sockets:
        one.sendall(request)
    for one in sockets:
        answer = one.recv(65536)
        while not (answer.startswith(b"HTTP/1.1 200") and is_whole(answer)):
            more = one.recv(65536)
            if not more or not answer.startswith(b"HTTP/1.1 200"):
                raise Failed(f"expected a response with status 200, got {answer[:80]!r}")
            answer += more


def cost(server, request, conns, secs):
    """CPU time of one request."""
    sockets = [socket.create_connection(("127.0.0.1", server.port), rig.DEADLINE) for _ in range(conns)]
    send_on_all(sockets, request)  # all are accepted
    done, end, began = 0, time.monotonic() + secs, rig.cpu_ns(server.pid)
    while time.monotonic() < end:
        send_on_all(sockets, request)
        done += conns
    spent = rig.cpu_ns(server.pid) - began
    for one in sockets:
        one.close()
    return spent / done


def subscribe(port):
    """A WebSocket that receives what is published to `chat`, read by a process that ends with the server."""
    subscriber = rig.open_websocket(port, "/chat")
    subscriber.settimeout(None)
    if os.fork() == 0:
        while subscriber.recv(1 << 20):
            pass
        os._exit(0)
    subscriber.close()


def measure(arguments, run):
    cpu, client_cpu = rig.cpus()
    [campanile] = rig.build("campanile")
    os.sched_setaffinity(0, {int(client_cpu)})
    table = run.table("server CPU time for each request", REQUESTS, base=BASE)
    with Server(rig.campanile_command(campanile), cpu) as server:
        subscribe(server.port)
        for conns in arguments.conns:
            row = f"conns-{conns}"
            table.row(row, f"{conns} connection{'s' if conns > 1 else ''}", "ns")
            for n in range(arguments.rounds):
                for column, request in REQUESTS.items():
                    table.add(row, column, cost(server, request, conns, arguments.secs))
                    say(
                        f"api: {conns} connections, round {n + 1}: {column} {table.rows[row]['values'][column][-1]:,.0f} ns"
                    )
    # The ratio of a batch is to be compared with 100 requests.
    for row in table.rows:
        for column in ("publish, no subscriber", "publish, one subscriber"):
            run.limit(f"{table.rows[row]['title']}: {column}", table.ratio(row, column))
