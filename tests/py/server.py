"""The server under test as a child process: started on a port of the system's choice, always ended.

CAMPANILE_BIN says which binary. Nothing here waits a fixed time.
"""

import atexit
import os
import queue
import re
import resource
import ssl
import subprocess
import tempfile
import threading
from pathlib import Path

DEADLINE = 15  # seconds, for one thing to happen
MIB = 1024 * 1024

BUILT = Path(__file__).resolve().parents[2] / "target/release/campanile"
BINARY = os.environ.get("CAMPANILE_BIN") or str(BUILT)


def more_files(wanted=4096):
    """500 connections and some need more descriptors than some shells allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class Server:
    """A running server; `port` is where. With --dev, which serves what most tests use, unless `dev` is false."""

    def __init__(self, *args, scheme="http", dev=True, **environment):
        more_files()  # inherited
        listens = any(arg in ("--listen", "--tls-listen") for arg in args)
        try:
            self.process = subprocess.Popen(
                [BINARY, *(() if listens else ("--listen", "127.0.0.1:0")), *(("--dev",) if dev else ()), *args],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
        except OSError as problem:
            raise RuntimeError(f"no binary at {BINARY}: set CAMPANILE_BIN or run 'make test'") from problem
        atexit.register(self.kill)
        lines = self._lines = queue.Queue()
        self._reader = threading.Thread(target=self._read, args=(lines,), daemon=True)
        self._reader.start()
        try:
            line = lines.get(timeout=DEADLINE)
            found = re.fullmatch(rf"campanile listening on {scheme}://127\.0\.0\.1:(\d+)/\n", line)
            if not found:
                raise RuntimeError(f"unexpected first line: {line!r}")
        except BaseException:
            self.kill()
            raise
        self.port = int(found[1])

    def _read(self, lines):
        for line in self.process.stdout:
            lines.put(line)
        lines.put("")  # the end, for one who still waits

    def api_port(self):
        """Where its API listens, with --api-listen; said behind the other lines."""
        while line := self._lines.get(timeout=DEADLINE):
            if found := re.fullmatch(r"campanile's API on http://127\.0\.0\.1:(\d+)/api/\n", line):
                return int(found[1])
        raise RuntimeError("it does not say where its API listens")

    def ws(self, path):
        return f"ws://127.0.0.1:{self.port}{path}"

    def stop(self):
        """Asks it to end; its exit code."""
        self.process.terminate()
        return self.ended()

    def ended(self):
        """Its exit code, once it has been asked to end: a second signal would end it without ceremony."""
        try:
            return self.process.wait(DEADLINE)
        finally:
            self.kill()

    def kill(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        atexit.unregister(self.kill)


class TlsServer(Server):
    """One that listens with TLS, with a certificate of its own; `trust` is a context that trusts it alone, `certificate` its PEM."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as state:
            own = {"STATE_DIRECTORY": "", "XDG_STATE_HOME": state}
            super().__init__("--tls-listen", "127.0.0.1:0", "--tls-self-signed", scheme="https", **own)
            text = (Path(state) / "campanile/self-signed.pem").read_text()
        self.certificate = text.split("-----BEGIN PRIVATE")[0]
        self.trust = ssl.create_default_context(cadata=self.certificate)

    def ws(self, path):
        return f"wss://127.0.0.1:{self.port}{path}"


class WithServer:
    """For test cases: one server for the class, in `cls.server`, and that it ends well is a test too."""

    arguments = ()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server = Server(*cls.arguments)

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        super().tearDownClass()
        if code != 0:
            raise AssertionError(f"campanile ended with {code}")
