"""Programs to measure and to measure with: builds them, runs servers on one CPU and load clients on another."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

BENCHES = Path(__file__).resolve().parent.parent
ROOT = BENCHES.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
CARGO = os.environ.get("CARGO", "cargo")
DEADLINE = 20  # seconds for a server to listen or to end

# What all binaries are built with, so that the library is compiled once for all of them.
FEATURES = "campanile/cli"


class Failed(Exception):
    """A program could not be built or did not do its part; says why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def prepare():
    """Raises the limit of open files to its maximum, and makes SIGTERM unwind, so that every process is ended."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def cpus():
    """The server's CPU and the load client's."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise Failed("CPUs: 1 is available, 2 are needed: one for the server, one for the load client")
    return str(mine[0]), str(mine[1])


# ---- programs --------------------------------------------------------------------------------


def chosen(program):
    """A binary that a variable names, such as CAMPANILE_BIN, to be used instead of building it."""
    return os.environ.get(f"{program.upper().replace('-', '_')}_BIN")


def build(*programs):
    """Builds binaries of the workspace; their paths in the same order."""
    wanted = [name for name in programs if not chosen(name)]
    if wanted:
        # The server and the load client in any case: the library's features are those of all that is built together.
        packages = sorted({"campanile", "campanile-loadtest", *wanted} if wanted != ["kernel-baseline"] else wanted)
        words = [word for name in packages for word in ("--package", name)]
        words += ["--features", FEATURES] if "campanile" in packages else []
        words += [word for name in wanted for word in ("--bin", name)]
        call([CARGO, "build", "--release", "--locked", *words], 3600, cwd=ROOT)
    return [Path(chosen(name) or TARGET / "release" / name) for name in programs]


def campanile_command(program, *options):
    """One worker and what `--dev` serves; {port} is filled in by `Server`."""
    return [program, "--dev", "--listen", "127.0.0.1:{port}", "--workers", "1", "--log", "warn", *options]


def call(command, timeout=1200, **options):
    """Runs a program to its end, in a session of its own: its output. No process of it remains."""
    command = [str(word) for word in command]
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            **options,
        )
    except OSError as problem:
        raise Failed(f"{command[0]}: {problem.strerror}") from None
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(command[:4])} …: took longer than {timeout} s") from None
    finally:
        kill_session(process)
    if process.returncode != 0:
        lines = (errors + output).strip().splitlines()
        raise Failed(f"{' '.join(command[:4])} …: {lines[-1] if lines else f'ended with {process.returncode}'}")
    return output


def kill_session(process):
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


# ---- servers ---------------------------------------------------------------------------------


class Server:
    """A server while it runs, on the given CPUs: `with Server([program, argument], cpus) as server`.

    {port} in an argument is replaced by 0, and the server's first line of output names the port that the system chose:
    "… listening on http://127.0.0.1:PORT/". For a `silent` server, whose output is not read, {port} is a free port,
    and the server is ready when it accepts a connection there.
    """

    def __init__(self, command, cpus, silent=False):
        self.command = [str(word) for word in command]
        self.cpus = cpus
        self.silent = silent

    def __enter__(self):
        self.port = free_port() if self.silent else 0
        command = [word.replace("{port}", str(self.port)) for word in self.command]
        try:
            self.process = subprocess.Popen(
                ["taskset", "-c", self.cpus, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if self.silent else subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        except OSError as problem:
            raise Failed(f"taskset: {problem.strerror}") from None
        try:
            self.probe_port() if self.silent else self.read_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def pid(self):
        return self.process.pid

    @property
    def name(self):
        return Path(self.command[0]).name

    def read_port(self):
        self.port = self.read_ports("http")["http"]

    def read_ports(self, *schemes):
        """The ports by scheme, from as many lines as there are listeners."""
        late = threading.Timer(DEADLINE, self.process.kill)
        late.start()
        found = {}
        try:
            while not found.keys() >= {*schemes}:
                line = self.process.stdout.readline()
                if not line:
                    raise Failed(f"{self.name}: ended before it printed its address")
                place = re.search(r"listening on (https?)://127\.0\.0\.1:(\d+)/$", line.rstrip())
                if not place:
                    continue
                found[place[1]] = int(place[2])
        finally:
            late.cancel()
        return found

    def probe_port(self):
        wait_for_port(self.port, self.process, self.name)

    def __exit__(self, *_):
        try:
            self.process.terminate()
            self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            kill_session(self.process)
            if self.process.stdout:
                self.process.stdout.close()


def wait_for_port(port, process, name):
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise Failed(f"{name}: does not listen on port {port}")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def cpu_ns(pid):
    """CPU time of all threads of a process so far, by the scheduler's account."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads)


def resident_bytes(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def loadtest(program, cpus, mode, url, *options, timeout=300):
    """Runs the load client: its report. An error in it is a failure, whatever the figures are."""
    report = json.loads(call(["taskset", "-c", cpus, program, mode, url, *options, "--json", "-"], timeout))
    if report["interrupted"]:
        raise KeyboardInterrupt
    return report


# ---- a client by hand ------------------------------------------------------------------------


def upgrade_request(path, protocol=None):
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    lines += [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def open_websocket(port, path, protocol=None, receive_buffer=None):
    """A socket past the opening handshake; nothing behind the server's answer is read."""
    client = socket.socket()
    client.settimeout(DEADLINE)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        client.connect(("127.0.0.1", port))
        client.sendall(upgrade_request(path, protocol))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = client.recv(1)
            if not piece:
                raise Failed(f"{path}: the server closed the connection")
            head += piece
    except OSError as problem:
        raise Failed(f"{path}: {problem}") from None
    if b" 101 " not in head:
        raise Failed(f"{path}: {head.splitlines()[0].decode()}")
    return client
