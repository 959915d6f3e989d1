// permessage-deflate (RFC 7692) between campanile and npm's `ws`, in each of the server's modes: what is agreed on,
// and that what goes over the wire is compressed and comes out as it went in.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test as nodeTest } from "node:test";
import WebSocket from "ws";
import { Inbox, MIB, Server, TEST_LIMIT, event, within } from "./harness.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);

const MODES = ["shared", "dedicated"];
const WINDOW = 11; // of `--deflate dedicated`

// What a client offers: the options of `ws`.
const OFFERS = [
  true,
  { threshold: 0 },
  { serverNoContextTakeover: true },
  { clientNoContextTakeover: true },
  { serverNoContextTakeover: true, clientNoContextTakeover: true, threshold: 0 },
  ...[9, 10, 11, 12, 13, 14, 15].map((bits) => ({ serverMaxWindowBits: bits, threshold: 0 })),
  ...[9, 11, 12, 15].map((bits) => ({ clientMaxWindowBits: bits, threshold: 0 })),
  { clientMaxWindowBits: false, threshold: 0 },
  { serverMaxWindowBits: 10, clientMaxWindowBits: 10, serverNoContextTakeover: true, threshold: 0 },
];

/** The server's answer to such an offer. */
function answer(mode, { serverNoContextTakeover, clientNoContextTakeover, serverMaxWindowBits, clientMaxWindowBits = 15 }) {
  const words = ["permessage-deflate"];
  const shared = mode === "shared";
  const untold = clientMaxWindowBits === false; // its window can't be named, and is too large
  if (shared || serverNoContextTakeover) words.push("server_no_context_takeover");
  if (shared || clientNoContextTakeover || untold) words.push("client_no_context_takeover");
  if (serverMaxWindowBits) words.push(`server_max_window_bits=${shared ? serverMaxWindowBits : Math.min(WINDOW, serverMaxWindowBits)}`);
  if (!shared && !clientNoContextTakeover && clientMaxWindowBits > WINDOW) words.push(`client_max_window_bits=${WINDOW}`);
  return words.join("; ");
}

/** An open connection with an inbox of `{ data, binary }`; `agreed` is what the server's answer names. */
async function open(on, path, perMessageDeflate) {
  const ws = new WebSocket(on.ws(path), { perMessageDeflate, maxPayload: 64 * MIB });
  ws.inbox = new Inbox();
  ws.on("message", (data, binary) => ws.inbox.push({ data, binary }));
  ws.on("upgrade", (response) => { ws.agreed = response.headers["sec-websocket-extensions"]; });
  ws.closed = new Promise((resolve) => {
    ws.on("close", (code) => {
      ws.inbox.end(new Error(`closed with ${code}`));
      resolve(code);
    });
  });
  await event(ws, "open");
  ws.on("error", () => {});
  return ws;
}

async function close(ws) {
  ws.close(1000);
  assert.equal(await within(ws.closed, "the close event"), 1000);
}

/** Lists of records of exactly this many bytes: they shrink to less than half, and no two are alike. */
let records = 0;
function json(bytes) {
  let text = "", left = bytes;
  for (;;) {
    const record = `{"bell":"größte","id":${records++},"at":${records * 7919},"name":"name ${records % 13}"},`;
    const size = Buffer.byteLength(record);
    if (size > left) return text + " ".repeat(left);
    text += record;
    left -= size;
  }
}

/** Sends all of these at once and takes their echoes; the bytes that went over the wire, both ways. */
async function echoes(ws, messages, options = {}) {
  const { bytesRead, bytesWritten } = ws._socket;
  for (const message of messages) ws.send(message, options);
  for (const message of messages) await comesBack(ws, message);
  return { read: ws._socket.bytesRead - bytesRead, written: ws._socket.bytesWritten - bytesWritten };
}

async function comesBack(ws, message) {
  const { data, binary } = await ws.inbox.next(`${message.length} long`);
  assert.equal(binary, typeof message !== "string");
  assert.ok(Buffer.from(message).equals(data), `a message ${message.length} long comes back equal`);
}

/**
 * Does something until so much of it was compressed that the wire took little, `[bytes on the wire, bytes of messages]`:
 * a server whose loop has fallen behind sends as it is what it has no time for, and a test's machine may be busy.
 */
async function compressed(act) {
  const seen = [];
  for (let i = 0; i < 10; i++) {
    const [wire, all] = await act();
    if (wire < 0.6 * all) return;
    seen.push(`${wire} of ${all} bytes`);
  }
  assert.fail(`not compressed: ${seen}`);
}

const size = (messages) => messages.reduce((sum, message) => sum + Buffer.byteLength(message), 0);

for (const mode of MODES) {
  describe(`--deflate ${mode}`, () => {
    let server;
    before(async () => { server = await Server.start({ args: ["--deflate", mode] }); });
    after(() => server?.stop());

    for (const offer of OFFERS) {
      test(`echo to a client that offers ${JSON.stringify(offer)}`, async () => {
        const ws = await open(server, "/echo", offer);
        assert.equal(ws.agreed, answer(mode, offer));
        assert.equal(ws.extensions, "permessage-deflate");
        const texts = [1024, 4096, 65536, 65536, MIB, 1024].map(json);
        const binaries = [1024, 65536, 300_000].map((bytes) => Buffer.from(json(bytes)));
        for (const messages of [texts, binaries]) {
          await compressed(async () => {
            const wire = await echoes(ws, messages);
            assert.ok(wire.written < 0.6 * size(messages), `${wire.written} of ${size(messages)} bytes to the server`);
            return [wire.read, size(messages)];
          });
        }
        // What does not shrink, and what is short.
        await echoes(ws, [randomBytes(1024), "", "a", "grüße 😀", Buffer.alloc(0), randomBytes(100_000), json(1000)]);
        await close(ws);
      });
    }

    test("500 messages in one write keep their order", async () => {
      const ws = await open(server, "/echo", { threshold: 0 });
      const messages = Array.from({ length: 500 }, (_, i) => `${i} ${json((i * 37) % 3000)}`);
      await compressed(async () => {
        ws._socket.cork();
        setImmediate(() => ws._socket.uncork());
        return [(await echoes(ws, messages)).read, size(messages)];
      });
      await close(ws);
    });

    test("compressed fragments become one message again, and so does the next", async () => {
      const ws = await open(server, "/echo", { threshold: 0 });
      for (const bytes of [3000, 200_000]) {
        const text = Buffer.from(json(bytes));
        for (let at = 0; at < text.length; at += Math.ceil(bytes / 30)) {
          const end = Math.min(text.length, at + Math.ceil(bytes / 30));
          ws.send(text.subarray(at, end), { fin: end === text.length, binary: false, compress: true });
          if (at === 0) ws.ping();
        }
        await comesBack(ws, text.toString());
      }
      await close(ws);
    });

    test("compressed and uncompressed messages alternate", async () => {
      const ws = await open(server, "/echo", { threshold: 0 });
      for (let i = 0; i < 20; i++) await echoes(ws, [json(2000)], { compress: i % 3 !== 0 });
      await close(ws);
    });

    test("a message as large as the limit allows that does not shrink", async () => {
      const ws = await open(server, "/echo", true);
      await echoes(ws, [randomBytes(16 * MIB)]);
      await close(ws);
    });

    test("a message that is larger than the limit only when it is inflated ends with 1009", async () => {
      const ws = await open(server, "/echo", true);
      ws.send(Buffer.alloc(16 * MIB + 1));
      assert.equal(await within(ws.closed, "the close event"), 1009);
    });

    test("a broadcast is heard in one order, whatever its listeners agreed on", async () => {
      const listeners = await Promise.all([...OFFERS, false].map((offer) => open(server, "/broadcast", offer)));
      const plain = listeners.at(-1);
      assert.equal(plain.agreed, undefined);
      const senders = [listeners[0], listeners[5], plain];
      await compressed(async () => {
        const before = listeners.map((ws) => ws._socket.bytesRead);
        const sent = senders.map((_, who) => Array.from({ length: 40 }, (_, i) => `${who} ${i} ${json(100 * i)}`));
        for (let i = 0; i < 40; i++) senders.forEach((ws, who) => ws.send(sent[who][i]));
        const heard = [];
        for (let i = 0; i < 120; i++) heard.push((await plain.inbox.next()).data.toString());
        sent.forEach((own, who) => assert.deepEqual(heard.filter((text) => text.startsWith(`${who} `)), own));
        for (const ws of listeners.slice(0, -1)) for (const text of heard) await comesBack(ws, text);
        const read = listeners.map((ws, i) => ws._socket.bytesRead - before[i]);
        assert.ok(read.pop() > size(heard), "as it is");
        return [Math.max(...read), size(heard)];
      });
      await Promise.all(listeners.map(close));
    });
  });
}

describe("--deflate off", () => {
  test("nothing is agreed on, and messages go as they are", async () => {
    const server = await Server.start({ args: ["--deflate", "off"] });
    try {
      const ws = await open(server, "/echo", true);
      assert.deepEqual([ws.agreed, ws.extensions], [undefined, ""]);
      const messages = [json(5000)];
      assert.ok((await echoes(ws, messages)).read > size(messages));
      await close(ws);
    } finally {
      await server.stop();
    }
  });
});
