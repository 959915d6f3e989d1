"""The API as its own description says: schemathesis makes requests from /api/openapi.json, right ones and wrong ones,
and holds every answer against it. Beside that, what a program in Python would do."""

import json
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request
from pathlib import Path

from websockets.sync.client import connect

from server import DEADLINE, Server, WithServer

KEY = "a-key-for-this-test"


def post(server, path, body, **headers):
    """Status and body of the answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as problem:
        with problem:
            return problem.code, json.load(problem)


class Api(WithServer, unittest.TestCase):
    def test_the_answers_are_what_the_description_says(self):
        url = f"http://127.0.0.1:{self.server.port}/api/openapi.json"
        with tempfile.TemporaryDirectory() as folder:
            # A body with too much in it can be larger than the server takes.
            Path(folder, "schemathesis.toml").write_text(
                "[checks.negative_data_rejection]\n"
                'expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "415"]\n'
            )
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "schemathesis.cli", "run", url),
                    *("--checks", "all", "--exclude-checks", "ignored_auth"),
                    *("--max-examples", "30", "--seed", "1", "--no-color", "--generation-database", "none"),
                ],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=20 * DEADLINE,
            )
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + done.stderr[-2000:])
        self.assertRegex(done.stdout, r"Tested: +9\b")

    def test_a_publication_reaches_a_client(self):
        with connect(self.server.ws("/chat")) as client:
            client.send(json.dumps({"name": "ann", "msg": "here"}))
            self.assertEqual(client.recv(DEADLINE), "ann:here")
            status, published = post(self.server, "/api/publish", {"topic": "chat", "text": "from outside"})
            self.assertEqual((status, published["receivers"]), (200, 1))
            self.assertEqual(client.recv(DEADLINE), "from outside")

    def test_another_method_and_a_wrong_body_are_refused(self):
        self.assertEqual(post(self.server, "/api/info", {})[0], 405)
        status, error = post(self.server, "/api/publish", {"topic": "a", "text": 7})
        self.assertEqual((status, error["code"]), (400, "invalid"))
        self.assertIn("got 7", error["message"])


class Keys(unittest.TestCase):
    def served(self, *arguments, **environment):
        server = Server(*arguments, dev=False, **environment)
        self.addCleanup(server.stop)
        return server

    def check(self, server):
        message = {"topic": "a", "text": "x"}
        self.assertEqual(post(server, "/api/publish", message)[0], 401)
        self.assertEqual(post(server, "/api/publish", message, Authorization="Bearer wrong")[0], 401)
        self.assertEqual(post(server, "/api/publish", message, Authorization=f"Bearer {KEY}")[0], 200)
        self.assertEqual(post(server, "/api/publish", message, **{"X-API-Key": KEY})[0], 200)

    def test_a_key_comes_from_an_argument_a_file_or_the_environment(self):
        self.check(self.served("--api-key", KEY))
        self.check(self.served(CAMPANILE_API_KEY=KEY))
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "keys"
            file.write_text(f"another-one\n\n{KEY}\n")
            self.check(self.served("--api-key-file", str(file)))

    def test_a_port_of_its_own(self):
        server = self.served("--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--api-key", KEY)
        port = server.api_port()
        with self.assertRaises(urllib.error.HTTPError) as outside:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/api/info", timeout=DEADLINE)
        with outside.exception as problem:
            self.assertEqual(problem.code, 404)
        server.port = port
        self.check(server)


if __name__ == "__main__":
    unittest.main()
