"""campanile against Python's `websockets`, its threaded client."""

import json
import os
import unittest

from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK, InvalidStatus
from websockets.frames import CloseCode
from websockets.sync.client import connect
from websockets.typing import Origin

from server import DEADLINE, MIB, Server, WithServer


def opened(server, path="/echo", **options):
    options = {"compression": None, "max_size": 64 * MIB, "proxy": None, "open_timeout": DEADLINE, **options}
    return connect(server.ws(path), close_timeout=DEADLINE, **options)


class Echo(WithServer, unittest.TestCase):
    def test_text_and_binary(self):
        with opened(self.server) as ws:
            for message in ["", "a", "grüße 😀", "x" * 70000, b"", b"\x00\xff", os.urandom(125), os.urandom(126), os.urandom(65536)]:
                ws.send(message)
                got = ws.recv(timeout=DEADLINE)
                self.assertIs(type(got), type(message))
                self.assertTrue(got == message, f"{len(message)} long")

    def test_large_messages(self):
        with opened(self.server) as ws:
            for message in [os.urandom(MIB), os.urandom(16 * MIB), "é" * (8 * MIB)]:
                ws.send(message)
                self.assertTrue(ws.recv(timeout=DEADLINE) == message)

    def test_fragments(self):
        with opened(self.server) as ws:
            ws.send(["frag", "", "ments"])
            self.assertEqual(ws.recv(timeout=DEADLINE), "fragments")
            parts = [os.urandom(size) for size in range(400)]
            ws.send(parts)
            self.assertEqual(ws.recv(timeout=DEADLINE), b"".join(parts))

    def test_a_message_comes_back_in_one_frame(self):
        with opened(self.server) as ws:
            ws.send(["one", "two"])
            self.assertEqual(list(ws.recv_streaming()), ["onetwo"])

    def test_order(self):
        with opened(self.server) as ws:
            for i in range(300):
                ws.send(str(i))
            self.assertEqual([ws.recv(timeout=DEADLINE) for _ in range(300)], [str(i) for i in range(300)])

    def test_ping(self):
        with opened(self.server) as ws:
            for payload in [b"", b"payload", os.urandom(125)]:
                self.assertTrue(ws.ping(payload).wait(DEADLINE), "a pong")


class Handshake(WithServer, unittest.TestCase):
    def test_a_page_of_the_same_host_is_accepted_and_no_other(self):
        here = f"http://127.0.0.1:{self.server.port}"
        with opened(self.server, origin=Origin(here)) as ws:
            self.assertEqual(ws.request.headers["Origin"], here)
            ws.send("from here")
            self.assertEqual(ws.recv(timeout=DEADLINE), "from here")
        with self.assertRaises(InvalidStatus) as caught:
            opened(self.server, origin=Origin("https://example.com"))
        self.assertEqual(caught.exception.response.status_code, 403)
        self.assertIn(b"https://example.com", caught.exception.response.body)

    def test_an_offered_subprotocol_is_not_chosen(self):
        with opened(self.server, subprotocols=["chat"]) as ws:
            self.assertIsNone(ws.subprotocol)

    def test_extra_headers_do_no_harm(self):
        with opened(self.server, additional_headers={"Cookie": "a=b", "X-Long": "x" * 2000}) as ws:
            ws.send("with headers")
            self.assertEqual(ws.recv(timeout=DEADLINE), "with headers")

    def test_an_unknown_path_is_404(self):
        with self.assertRaises(InvalidStatus) as caught:
            opened(self.server, "/nowhere")
        self.assertEqual(caught.exception.response.status_code, 404)


class Closing(WithServer, unittest.TestCase):
    def test_codes_of_the_client(self):
        for code in [1000, 1001, 1011, 3000, 4999]:
            with self.subTest(code=code), opened(self.server) as ws:
                ws.close(code, "a reason – é")
                self.assertEqual(ws.close_code, code)
                with self.assertRaises((ConnectionClosedOK, ConnectionClosedError)) as caught:
                    ws.recv(timeout=DEADLINE)
                self.assertEqual(caught.exception.rcvd.code, code)
                self.assertTrue(caught.exception.sent.reason)

    def test_too_big(self):
        with opened(self.server) as ws:
            with self.assertRaises(ConnectionClosedError) as caught:
                ws.send(b"\0" * (16 * MIB + 1))
                ws.recv(timeout=DEADLINE)
            self.assertEqual(caught.exception.rcvd.code, CloseCode.MESSAGE_TOO_BIG)

    def test_going_away(self):
        own = Server()
        try:
            with opened(own) as ws:
                own.process.terminate()
                with self.assertRaises(ConnectionClosedOK) as caught:  # 1001 is one of its good ends
                    ws.recv(timeout=DEADLINE)
                self.assertEqual(caught.exception.rcvd.code, CloseCode.GOING_AWAY)
            self.assertEqual(own.ended(), 0)
        finally:
            own.kill()


class Chat(WithServer, unittest.TestCase):
    def test_chat(self):
        with opened(self.server, "/chat") as anna, opened(self.server, "/chat") as bert:
            anna.send(json.dumps({"name": "Anna", "msg": "grüße 😀"}))
            for ws in (anna, bert):
                self.assertEqual(ws.recv(timeout=DEADLINE), "Anna:grüße 😀")
            image = os.urandom(50_000)
            bert.send(image)
            for ws in (anna, bert):
                self.assertEqual(ws.recv(timeout=DEADLINE), image)
            anna.close()
            self.assertEqual(bert.recv(timeout=DEADLINE), "Anna left")


if __name__ == "__main__":
    unittest.main()
