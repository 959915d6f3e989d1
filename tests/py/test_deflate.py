"""permessage-deflate between campanile and Python's `websockets`, in each of the server's modes."""

import os
import unittest

from websockets.exceptions import ConnectionClosedError
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import CloseCode
from websockets.sync.client import connect

from server import DEADLINE, MIB, WithServer

WINDOW = 11  # of `--deflate dedicated`

# What a client offers.
OFFERS = [
    {},
    {"client_max_window_bits": None},
    {"server_no_context_takeover": True},
    {"client_no_context_takeover": True},
    {"server_no_context_takeover": True, "client_no_context_takeover": True},
    *({"server_max_window_bits": bits} for bits in range(9, 16)),
    *({"client_max_window_bits": bits} for bits in range(9, 16)),
    {"server_max_window_bits": 12, "client_max_window_bits": 12, "compress_settings": {"memLevel": 5}},  # its default
    {"server_max_window_bits": 9, "client_max_window_bits": 9, "compress_settings": {"level": 9}},
    {"compress_settings": {"level": 0}},
]


def json(size, first=0):
    """Lists of records of about this many bytes, no two alike."""
    records = (f'{{"bell":"größte","id":{i},"at":{i * 7919},"name":"name {i % 13}"}}' for i in range(first, first + size // 50))
    return ",".join(records)


def opened(server, path="/echo", **offer):
    factory = ClientPerMessageDeflateFactory(**{"client_max_window_bits": True, **offer})
    options = {"compression": None, "extensions": [factory], "proxy": None, "open_timeout": DEADLINE}
    return connect(server.ws(path), max_size=64 * MIB, close_timeout=DEADLINE, **options)


def listen(ws):
    """The lengths of the compressed frames that come from now on, as they come."""
    [extension] = ws.protocol.extensions
    lengths, decode = [], extension.decode

    def record(frame, **options):
        if frame.rsv1:
            lengths.append(len(frame.data))
        return decode(frame, **options)

    extension.decode = record
    return lengths


class Deflate:
    def comes_back(self, ws, message):
        got = ws.recv(timeout=DEADLINE)
        self.assertIs(type(got), type(message))
        self.assertTrue(got == message, f"{len(message)} long")

    def test_echo(self):
        for offer in OFFERS:
            with self.subTest(offer=offer), opened(self.server, **offer) as ws:
                self.assertEqual(ws.response.headers["Sec-WebSocket-Extensions"], self.answer(**offer))
                lengths = listen(ws)
                long = [json(2000), json(65536), json(2000, 7).encode(), json(MIB // 2), json(2000)]
                for message in long:
                    ws.send(message)
                for message in long:
                    self.comes_back(ws, message)
                # Not all, where the server's loop has fallen behind meanwhile.
                self.assertTrue(lengths, "some come compressed")
                self.assertLess(sum(lengths), 0.6 * sum(map(len, long)))
                for message in ["", "a", "grüße 😀", b"", os.urandom(100), os.urandom(100_000)]:
                    ws.send(message)
                    self.comes_back(ws, message)

    def test_fragments(self):
        with opened(self.server) as ws:
            for size in [3000, 200_000]:
                text = json(size)
                ws.send([text[at : at + size // 20] for at in range(0, len(text), size // 20)])
                self.comes_back(ws, text)

    def test_a_message_as_large_as_the_limit_that_does_not_shrink(self):
        with opened(self.server) as ws:
            message = os.urandom(16 * MIB)
            ws.send(message)
            self.comes_back(ws, message)

    def test_too_big_once_inflated(self):
        with opened(self.server) as ws:
            with self.assertRaises(ConnectionClosedError) as caught:
                ws.send(b"\0" * (16 * MIB + 1))
                ws.recv(timeout=DEADLINE)
            self.assertEqual(caught.exception.rcvd.code, CloseCode.MESSAGE_TOO_BIG)

    def test_broadcast(self):
        listeners = [opened(self.server, "/broadcast", **offer) for offer in OFFERS]
        try:
            lengths = [listen(ws) for ws in listeners]
            messages = [f"{i} {json(2000 + 50 * i, i)}" for i in range(30)]
            for message in messages:
                listeners[0].send(message)
            for ws in listeners:
                for message in messages:
                    self.comes_back(ws, message)
            for each in lengths:
                self.assertTrue(each, "some come compressed")
        finally:
            for ws in listeners:
                ws.close()


class Shared(Deflate, WithServer, unittest.TestCase):
    arguments = ("--deflate", "shared")

    def answer(self, server_max_window_bits=None, **_):
        words = ["permessage-deflate", "server_no_context_takeover", "client_no_context_takeover"]
        if server_max_window_bits:
            words.append(f"server_max_window_bits={server_max_window_bits}")
        return "; ".join(words)


class Dedicated(Deflate, WithServer, unittest.TestCase):
    arguments = ("--deflate", "dedicated")

    def answer(
        self,
        server_no_context_takeover=False,
        client_no_context_takeover=False,
        server_max_window_bits=None,
        client_max_window_bits=True,
        **_,
    ):
        words = ["permessage-deflate"]
        if server_no_context_takeover:
            words.append("server_no_context_takeover")
        if client_no_context_takeover or client_max_window_bits is None:
            words.append("client_no_context_takeover")
        if server_max_window_bits:
            words.append(f"server_max_window_bits={min(WINDOW, server_max_window_bits)}")
        largest = 15 if client_max_window_bits is True else client_max_window_bits or 0
        if not client_no_context_takeover and largest > WINDOW:
            words.append(f"client_max_window_bits={WINDOW}")
        return "; ".join(words)


class Off(WithServer, unittest.TestCase):
    arguments = ("--deflate", "off")

    def test_an_offer_is_declined(self):
        with opened(self.server) as ws:
            self.assertIn("permessage-deflate", ws.request.headers["Sec-WebSocket-Extensions"])
            self.assertNotIn("Sec-WebSocket-Extensions", ws.response.headers)
            message = json(5000)
            ws.send(message)
            self.assertEqual(ws.recv(timeout=DEADLINE), message)


if __name__ == "__main__":
    unittest.main()
