"""campanile over TLS against Python's `websockets`, both of its clients."""

import asyncio
import os
import ssl
import unittest

from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from server import DEADLINE, MIB, TlsServer


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = TlsServer()

    @classmethod
    def tearDownClass(cls):
        if cls.server.stop() != 0:
            raise AssertionError("campanile did not end well")

    def options(self, trust=None):
        trust = trust or self.server.trust
        return {"ssl": trust, "compression": None, "max_size": 64 * MIB, "proxy": None, "open_timeout": DEADLINE}

    def context(self, version):
        context = ssl.create_default_context(cadata=self.server.certificate)
        context.minimum_version = context.maximum_version = version
        return context

    def test_messages_of_all_sizes_under_both_versions(self):
        for version in [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]:
            with connect(self.server.ws("/echo"), **self.options(self.context(version))) as ws:
                self.assertEqual(ws.socket.version(), {771: "TLSv1.2", 772: "TLSv1.3"}[version.value])
                for size in [0, 1, 125, 126, 16384, 16385, 65536, MIB, 8 * MIB]:
                    message = os.urandom(size)
                    ws.send(message)
                    self.assertTrue(ws.recv(timeout=DEADLINE) == message, f"{size} long")

    def test_many_at_once(self):
        async def one(n):
            async with connect_async(self.server.ws("/echo"), **self.options()) as ws:
                for i in range(50):
                    await ws.send(f"{n} {i}")
                return [await asyncio.wait_for(ws.recv(), DEADLINE) for _ in range(50)]

        async def all_of_them():
            return await asyncio.gather(*(one(n) for n in range(50)))

        for n, got in enumerate(asyncio.run(all_of_them())):
            self.assertEqual(got, [f"{n} {i}" for i in range(50)])

    def test_a_certificate_that_is_not_trusted(self):
        with self.assertRaises(ssl.SSLCertVerificationError):
            connect(self.server.ws("/echo"), **self.options(ssl.create_default_context()))


if __name__ == "__main__":
    unittest.main()
