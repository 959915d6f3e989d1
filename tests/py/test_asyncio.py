"""campanile against Python's `websockets`, its asyncio client."""

import asyncio
import os
import unittest

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.frames import CloseCode

from server import DEADLINE, MIB, WithServer, more_files


def opened(server, path="/echo", **options):
    options = {"compression": None, "max_size": 64 * MIB, "proxy": None, "open_timeout": DEADLINE, **options}
    return connect(server.ws(path), close_timeout=DEADLINE, **options)


async def soon(awaitable):
    return await asyncio.wait_for(awaitable, DEADLINE)


class Asyncio(WithServer, unittest.IsolatedAsyncioTestCase):
    async def test_echo(self):
        async with opened(self.server) as ws:
            for message in ["", "grüße 😀", b"", os.urandom(MIB), os.urandom(16 * MIB)]:
                await ws.send(message)
                got = await soon(ws.recv())
                self.assertIs(type(got), type(message))
                self.assertTrue(got == message, f"{len(message)} long")

    async def test_fragments_from_an_async_iterable(self):
        async def parts():
            for i in range(200):
                yield f"{i} "
                await asyncio.sleep(0)

        async with opened(self.server) as ws:
            await ws.send(parts())
            self.assertEqual(await soon(ws.recv()), "".join(f"{i} " for i in range(200)))

    async def test_ping_latency(self):
        async with opened(self.server) as ws:
            pong = await ws.ping(b"how long")
            seconds = await soon(pong)
            self.assertGreater(seconds, 0)
            self.assertLess(seconds, 2)  # on loopback, a busy machine allowed for
            self.assertEqual(ws.latency, seconds)

    async def test_a_ping_is_answered_while_large_messages_are_under_way(self):
        async with opened(self.server) as ws:
            messages = [os.urandom(4 * MIB) for _ in range(4)]

            async def send():
                for message in messages:
                    await ws.send(message)
                return await ws.ping()

            sending = asyncio.create_task(send())
            for message in messages:
                self.assertTrue(await soon(ws.recv()) == message)
            await soon(await soon(sending))

    async def test_close(self):
        ws = await opened(self.server)
        await ws.close(4001, "enough")
        self.assertEqual(ws.close_code, 4001)

    async def test_bad_utf8_is_1007(self):
        async with opened(self.server) as ws:
            with self.assertRaises(ConnectionClosedError) as caught:
                await ws.send(b"\xed\xa0\x80", text=True)
                await soon(ws.recv())
            self.assertEqual(caught.exception.rcvd.code, CloseCode.INVALID_DATA)

    async def test_500_connections(self):
        more_files()
        clients = await asyncio.gather(*(opened(self.server) for _ in range(500)))
        try:
            messages = [os.urandom(i + 1) for i in range(500)]
            await asyncio.gather(*(ws.send(message) for ws, message in zip(clients, messages)))
            got = await asyncio.gather(*(soon(ws.recv()) for ws in clients))
            self.assertEqual(got, messages)
        finally:
            await asyncio.gather(*(ws.close() for ws in clients))
        self.assertEqual({ws.close_code for ws in clients}, {1000})

    async def test_broadcast_to_500(self):
        more_files()
        clients = await asyncio.gather(*(opened(self.server, "/broadcast") for _ in range(500)))
        try:
            messages = [os.urandom(100), "text for all", os.urandom(20_000)]
            for message in messages:
                await clients[0].send(message)
            for message in messages:
                got = await asyncio.gather(*(soon(ws.recv()) for ws in clients))
                self.assertTrue(all(each == message for each in got))
        finally:
            await asyncio.gather(*(ws.close() for ws in clients))


if __name__ == "__main__":
    unittest.main()
