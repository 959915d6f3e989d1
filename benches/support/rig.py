"""What the comparisons written in Python share: servers on one CPU, load clients on another, yardsticks where present.

The yardsticks are what the kernel alone costs, and a client of their own, in $BENCH_SUITE or ../shared/bench: `wsbench`,
`limits/raw-echo.c` and `limits/raw-broadcast.c`. Without them there is no column for the kernel.
"""

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

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
SUITE = Path(os.environ.get("BENCH_SUITE") or ROOT.parent / "shared/bench")
CARGO = os.environ.get("CARGO", "cargo")
DEADLINE = 20  # seconds for a server to listen or end


class Failed(Exception):
    """A program could not be built or did not do its part; says why."""


def say(text):
    print(text, file=sys.stderr, flush=True)


def prepare():
    """Before anything else: what is open may be many, and a signal to end unwinds, so that every process ends."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def cpus():
    """The server's CPU and the load client's."""
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        raise Failed("this needs two CPUs: one for the server, one for the load client")
    return str(mine[0]), str(mine[1])


def call(command, timeout=1200, **options):
    """Runs a program to its end, in a session of its own: its output. Whatever happens, nothing of it stays."""
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


def campanile():
    """The server and the load client, built."""
    call([CARGO, "build", "--release", "--workspace", "--bins", "--locked"], cwd=ROOT)
    return TARGET / "release/campanile", TARGET / "release/campanile-loadtest"


def yardstick(name):
    """A yardstick's program, built, or None where there are none."""
    out = TARGET / "peers/yardsticks"
    if name == "wsbench":
        manifest = SUITE / "wsbench/Cargo.toml"
        if not manifest.is_file():
            return None
        call([CARGO, "build", "--release", "--locked", "--manifest-path", manifest, "--target-dir", out / "wsbench"])
        return out / "wsbench/release/wsbench"
    source, program = SUITE / f"limits/{name}.c", out / name
    if not source.is_file():
        return None
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        out.mkdir(parents=True, exist_ok=True)
        call(["cc", "-O3", "-march=native", "-o", program, source])
    return program


class Server:
    """A server while it runs, on the given CPUs: `with Server([program, argument], cpus) as server`.

    In its arguments, {port} stands for a port that the system chooses: 0, and the server's first line says which it
    is; or, for a silent one that says nothing, a port that was free.
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
            self.wait_for() if self.silent else self.read_port()
        except BaseException:
            self.__exit__()
            raise
        return self

    @property
    def pid(self):
        return self.process.pid

    def read_port(self):
        late = threading.Timer(DEADLINE, self.process.kill)
        late.start()
        try:
            line = self.process.stdout.readline()
        finally:
            late.cancel()
        found = re.search(r"listening on http://127\.0\.0\.1:(\d+)/$", line.rstrip())
        if found:
            self.port = int(found[1])
            return
        raise Failed(f"{Path(self.command[0]).name} does not listen")

    def wait_for(self):
        until = time.monotonic() + DEADLINE
        while time.monotonic() < until and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        raise Failed(f"{Path(self.command[0]).name} does not listen on port {self.port}")

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


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def loadtest(program, cpus, mode, url, *options, timeout=180):
    """A run of the load client: its report. An error in it is a failure, whatever the figures."""
    report = json.loads(call(["taskset", "-c", cpus, program, mode, url, *options, "--json", "-"], timeout))
    if report["interrupted"]:
        raise KeyboardInterrupt
    return report
