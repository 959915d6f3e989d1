// campanile against npm's `ws` as the client, and against a raw socket for what `ws` would not send.

import assert from "node:assert/strict";
import { randomBytes, randomInt } from "node:crypto";
import { after, before, describe, test as nodeTest } from "node:test";
import WebSocket from "ws";
import {
  ACCEPT, Inbox, MIB, OP, Raw, Server, TEST_LIMIT, closePayload, event, frame, get, lines, run, upgrade, within,
} from "./harness.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);

let server;
before(async () => { server = await Server.start(); });
after(() => server?.stop());

/** An open connection with an inbox of `{ data, binary }`, pongs and the close event in their own. */
async function open(path, { on = server, ...options } = {}) {
  const ws = new WebSocket(on.ws(path), { perMessageDeflate: false, maxPayload: 64 * MIB, ...options });
  ws.inbox = new Inbox();
  ws.pongs = new Inbox();
  ws.on("message", (data, binary) => ws.inbox.push({ data, binary }));
  ws.on("pong", (data) => ws.pongs.push(data));
  ws.closed = new Promise((resolve) => {
    ws.on("close", (code, reason) => {
      ws.inbox.end(new Error(`closed with ${code}`));
      resolve({ code, reason: reason.toString() });
    });
  });
  await event(ws, "open");
  ws.on("error", () => {});
  return ws;
}

async function close(ws, ...args) {
  ws.close(...args);
  return within(ws.closed, "the close event");
}

async function next(ws) {
  const { data, binary } = await ws.inbox.next();
  return binary ? data : data.toString();
}

function same(got, sent) {
  assert.equal(got.length, sent.length, "length");
  assert.ok(Buffer.compare(Buffer.from(got), Buffer.from(sent)) === 0, "content");
}

/** Text of exactly this many bytes of UTF-8, one to four of them each character. */
function textOf(bytes) {
  const cycle = "aé€😀";
  const size = Buffer.byteLength(cycle);
  return cycle.repeat(Math.floor(bytes / size)) + "x".repeat(bytes % size);
}

describe("opening handshake", () => {
  test("no subprotocol, no extension", async () => {
    const ws = await open("/echo");
    assert.equal(ws.protocol, "");
    assert.equal(ws.extensions, "");
    await close(ws, 1000);
  });

  test("the answer's headers, and none for what was offered in vain", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write(upgrade("/echo", {
      "Sec-WebSocket-Protocol": "chat, superchat",
      "Sec-WebSocket-Extensions": "x-unheard-of; a=1",
    }));
    const { status, version, headers } = await raw.response();
    assert.equal(status, 101);
    assert.equal(version, "HTTP/1.1");
    assert.equal(headers["sec-websocket-accept"], ACCEPT);
    assert.equal(headers.upgrade.toLowerCase(), "websocket");
    assert.equal(headers.connection.toLowerCase(), "upgrade");
    assert.equal(headers["sec-websocket-protocol"], undefined);
    assert.equal(headers["sec-websocket-extensions"], undefined);
    raw.destroy();
  });

  test("Connection as a token list, names and values in any case", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write(upgrade("/echo", {
      Connection: undefined, Upgrade: undefined, "cOnNeCtIoN": "keep-alive , UPGRADE", "UPGRADE": "WebSocket",
    }));
    assert.equal((await raw.response()).status, 101);
    raw.destroy();
  });

  test("an absolute-form request target", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write(upgrade(`ws://127.0.0.1:${server.port}/echo`));
    assert.equal((await raw.response()).status, 101);
    await raw.write(frame(OP.text, "absolute"));
    assert.equal((await raw.frame()).payload.toString(), "absolute");
    raw.destroy();
  });

  test("a query string is no part of the path", async () => {
    const ws = await open("/echo?a=1&b=%20");
    ws.send("q");
    assert.equal(await next(ws), "q");
    await close(ws, 1000);
  });

  test("one byte at a time, with the first frame in the last segment", async () => {
    const raw = await Raw.connect(server.port);
    const head = Buffer.from(upgrade("/echo"));
    for (const byte of head.subarray(0, -1)) await raw.write(Buffer.of(byte));
    await raw.write(Buffer.concat([head.subarray(-1), frame(OP.text, "with the handshake")]));
    assert.equal((await raw.response()).status, 101);
    const { opcode, fin, rsv, masked, payload } = await raw.frame();
    assert.deepEqual({ opcode, fin, rsv, masked }, { opcode: OP.text, fin: true, rsv: 0, masked: false });
    assert.equal(payload.toString(), "with the handshake");
    raw.destroy();
  });

  test("handshake, fragments, ping and close in one segment", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write(Buffer.concat([
      Buffer.from(upgrade("/echo")),
      frame(OP.text, "one, ", { fin: false }),
      frame(OP.ping, "?"),
      frame(OP.continuation, "two"),
      frame(OP.close, closePayload(1000)),
    ]));
    assert.equal((await raw.response()).status, 101);
    const pong = await raw.frame();
    assert.deepEqual([pong.opcode, pong.payload.toString()], [OP.pong, "?"]);
    assert.equal((await raw.frame()).payload.toString(), "one, two");
    assert.equal((await raw.close()).code, 1000);
    await raw.end();
  });

  test("a frame one byte at a time", async () => {
    const raw = await Raw.open(server.port);
    const message = textOf(300);
    for (const byte of frame(OP.text, message)) await raw.write(Buffer.of(byte));
    assert.equal((await raw.frame()).payload.toString(), message);
    raw.destroy();
  });

  const refused = [
    ["version 8", { "Sec-WebSocket-Version": "8" }, [426]],
    ["version 14", { "Sec-WebSocket-Version": "14" }, [426]],
    ["no key", { "Sec-WebSocket-Key": undefined }, [400]],
    ["a key of 15 bytes", { "Sec-WebSocket-Key": randomBytes(15).toString("base64") }, [400]],
    ["a key that is no base64", { "Sec-WebSocket-Key": "!!!!!!!!!!!!!!!!!!!!!!==" }, [400]],
    ["no Host", { Host: undefined }, [400]],
  ];
  for (const [name, headers, statuses] of refused) {
    test(`${name} is refused with ${statuses}`, async () => {
      const raw = await Raw.connect(server.port);
      await raw.write(upgrade("/echo", headers));
      const response = await raw.response();
      assert.ok(statuses.includes(response.status), `status ${response.status}`);
      if (response.status === 426) assert.equal(response.headers["sec-websocket-version"], "13");
      raw.destroy();
    });
  }

  test("an unknown path is refused with 404", async () => {
    const ws = new WebSocket(server.ws("/nowhere"));
    const [, response] = await event(ws, "unexpected-response");
    assert.equal(response.statusCode, 404);
    ws.on("error", () => {});
    ws.terminate();
  });
});

describe("plain HTTP on the same port", () => {
  test("the page", async () => {
    const { status, headers, body } = await get(server.http("/"));
    assert.equal(status, 200);
    assert.match(headers["content-type"], /^text\/html\b/);
    for (const id of ["name", "message", "send", "image", "log", "state"]) {
      assert.match(body, new RegExp(`id=["']?${id}["'\\s>]`), `an element with the id ${id}`);
    }
  });

  test("health", async () => {
    const { status, body } = await get(server.http("/healthz"));
    assert.equal(status, 200);
    assert.equal(body, "ok\n");
  });

  test("an unknown path is 404, an unknown method 405 with Allow", async () => {
    assert.equal((await get(server.http("/nowhere"))).status, 404);
    const { status, headers } = await get(server.http("/healthz"), { method: "DELETE" });
    assert.equal(status, 405);
    assert.match(headers.allow, /\bGET\b/);
  });

  test("a WebSocket endpoint asked without an upgrade says that it wants one", async () => {
    const { status } = await get(server.http("/echo"));
    assert.ok([400, 426].includes(status), `status ${status}`);
  });

  test("HEAD has the length of GET and no body", async () => {
    const { body } = await get(server.http("/"));
    const raw = await Raw.connect(server.port);
    await raw.write(lines("HEAD / HTTP/1.1", "Host: x") + lines("GET /healthz HTTP/1.1", "Host: x"));
    const head = await raw.response({ head: true });
    assert.equal(head.status, 200);
    if (head.headers["content-length"]) assert.equal(Number(head.headers["content-length"]), Buffer.byteLength(body));
    assert.equal((await raw.response()).body, "ok\n");
    raw.destroy();
  });

  test("several requests on one connection, then an upgrade on it", async () => {
    const raw = await Raw.connect(server.port);
    for (let i = 0; i < 3; i++) {
      await raw.write(lines("GET /healthz HTTP/1.1", "Host: x"));
      assert.equal((await raw.response()).body, "ok\n");
    }
    await raw.write(lines("GET /nowhere HTTP/1.1", "Host: x"));
    assert.equal((await raw.response()).status, 404);
    await raw.write(upgrade("/echo"));
    assert.equal((await raw.response()).status, 101);
    await raw.write(frame(OP.text, "after HTTP"));
    assert.equal((await raw.frame()).payload.toString(), "after HTTP");
    raw.destroy();
  });

  test("pipelined requests are answered in order", async () => {
    const raw = await Raw.connect(server.port);
    const ask = (path) => lines(`GET ${path} HTTP/1.1`, "Host: x");
    await raw.write(ask("/healthz") + ask("/nowhere") + ask("/healthz"));
    assert.equal((await raw.response()).status, 200);
    assert.equal((await raw.response()).status, 404);
    assert.equal((await raw.response()).body, "ok\n");
    raw.destroy();
  });

  test("'Connection: close' ends the connection after the answer", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write(lines("GET /healthz HTTP/1.1", "Host: x", "Connection: close"));
    assert.equal((await raw.response()).body, "ok\n");
    await raw.end();
  });

  test("what is no HTTP gets 400, too large a head 431, and the connection ends", async () => {
    const raw = await Raw.connect(server.port);
    await raw.write("\x16\x03\x01 this is not HTTP\r\n\r\n");
    assert.equal((await raw.response()).status, 400);
    await raw.end();
    const large = await Raw.connect(server.port);
    large.write(lines("GET / HTTP/1.1", "Host: x", `X-Large: ${"x".repeat(128 * 1024)}`));
    assert.equal((await large.response()).status, 431);
    large.destroy();
    assert.ok(await server.healthy());
  });
});

describe("echo", () => {
  const sizes = [0, 1, 125, 126, 127, 65535, 65536, MIB, 16 * MIB];

  test("text of every length class", async () => {
    const ws = await open("/echo");
    for (const size of sizes) {
      const text = textOf(size);
      ws.send(text);
      const { data, binary } = await ws.inbox.next(`text of ${size} bytes`);
      assert.equal(binary, false);
      same(data, Buffer.from(text));
    }
    assert.equal((await close(ws, 1000)).code, 1000);
  });

  test("binary of every length class", async () => {
    const ws = await open("/echo");
    for (const size of sizes) {
      const bytes = randomBytes(size);
      ws.send(bytes);
      const { data, binary } = await ws.inbox.next(`binary of ${size} bytes`);
      assert.equal(binary, true);
      same(data, bytes);
    }
    assert.equal((await close(ws, 1000)).code, 1000);
  });

  test("every length from 0 to 300, sent at once", async () => {
    const ws = await open("/echo");
    const sent = Array.from({ length: 301 }, (_, size) => randomBytes(size));
    for (const bytes of sent) ws.send(bytes);
    for (const bytes of sent) same(await next(ws), bytes);
    await close(ws, 1000);
  });

  test("fragments become one message again", async () => {
    const ws = await open("/echo");
    ws.send("frag", { fin: false });
    ws.send("", { fin: false });
    ws.send("men", { fin: false });
    ws.ping("between");
    ws.send("ts", { fin: true });
    assert.equal((await ws.pongs.next("a pong between fragments")).toString(), "between");
    assert.equal(await next(ws), "fragments");

    const parts = Array.from({ length: 500 }, () => randomBytes(randomInt(0, 300)));
    parts.forEach((part, i) => ws.send(part, { fin: i === parts.length - 1 }));
    same(await next(ws), Buffer.concat(parts));
    await close(ws, 1000);
  });

  test("characters cut by fragments", async () => {
    const ws = await open("/echo");
    const text = Buffer.from("κόσμε €😀");
    for (let i = 0; i < text.length; i++) {
      ws.send(text.subarray(i, i + 1), { fin: i === text.length - 1, binary: false });
    }
    assert.equal(await next(ws), text.toString());
    await close(ws, 1000);
  });

  test("65,536 fragments", async () => {
    const raw = await Raw.open(server.port);
    const payload = randomBytes(65536);
    const frames = Array.from(payload, (byte, i) =>
      frame(i === 0 ? OP.binary : OP.continuation, Buffer.of(byte), { fin: i === payload.length - 1 }));
    raw.write(Buffer.concat(frames));
    same((await raw.frame()).payload, payload);
    raw.destroy();
  });

  test("1000 messages keep their order", async () => {
    const ws = await open("/echo");
    for (let i = 0; i < 1000; i++) ws.send(`${i} ${"x".repeat(randomInt(0, 2000))}`);
    for (let i = 0; i < 1000; i++) assert.equal(parseInt(await next(ws), 10), i);
    await close(ws, 1000);
  });

  test("bufferedAmount drains", async () => {
    const ws = await open("/echo");
    const bytes = randomBytes(8 * MIB);
    for (let i = 0; i < 4; i++) ws.send(bytes);
    assert.ok(ws.bufferedAmount > 0, "some of 32 MiB has to wait");
    for (let i = 0; i < 4; i++) same(await next(ws), bytes);
    assert.equal(ws.bufferedAmount, 0);
    await close(ws, 1000);
  });

  test("a client that reads late gets everything", async () => {
    const ws = await open("/echo");
    ws.pause();
    const sent = Array.from({ length: 40 }, () => randomBytes(100_000));
    let written = 0;
    for (const bytes of sent) ws.send(bytes, () => written++);
    const other = await open("/echo"); // the server serves others meanwhile
    other.send("meanwhile");
    assert.equal(await next(other), "meanwhile");
    ws.resume();
    for (const bytes of sent) same(await next(ws), bytes);
    assert.equal(written, sent.length);
    await close(ws, 1000);
    await close(other, 1000);
  });
});

describe("ping and pong", () => {
  test("a pong has the ping's payload", async () => {
    const ws = await open("/echo");
    for (const size of [0, 1, 4, 124, 125]) {
      const payload = randomBytes(size);
      ws.ping(payload);
      same(await ws.pongs.next(`a pong of ${size} bytes`), payload);
    }
    await close(ws, 1000);
  });

  test("an unasked pong is no fault", async () => {
    const ws = await open("/echo");
    ws.pong("nobody asked");
    ws.send("still here");
    assert.equal(await next(ws), "still here");
    await close(ws, 1000);
  });
});

describe("closing", () => {
  for (const code of [1000, 1001, 1003, 1007, 1011, 1012, 1014, 3000, 3999, 4000, 4999]) {
    test(`the client's ${code} is answered with ${code}`, async () => {
      const ws = await open("/echo");
      assert.equal((await close(ws, code, "a reason – é")).code, code);
    });
  }

  test("a reason of 123 bytes", async () => {
    const ws = await open("/echo");
    assert.equal((await close(ws, 4000, "r".repeat(123))).code, 4000);
  });

  test("a close without a code is answered without one", async () => {
    const ws = await open("/echo");
    assert.equal((await close(ws)).code, 1005);
  });

  test("the server ends the connection after the closing handshake", async () => {
    const raw = await Raw.open(server.port);
    await raw.write(frame(OP.close, closePayload(1000, "bye")));
    assert.equal((await raw.close()).code, 1000);
    await raw.end();
  });

  test("what comes after a Close is ignored", async () => {
    const raw = await Raw.open(server.port);
    await raw.write(Buffer.concat([frame(OP.close, closePayload(1000)), frame(OP.text, "too late"), frame(OP.ping, "")]));
    assert.equal((await raw.close()).code, 1000);
    await raw.end();
  });

  test("an echo sent before the client's Close still arrives", async () => {
    const ws = await open("/echo");
    ws.send("last words");
    ws.close(1000);
    assert.equal(await next(ws), "last words");
    assert.equal((await within(ws.closed, "the close event")).code, 1000);
  });

  test("terminate is noticed", async () => {
    const [anna, bert] = [await open("/chat"), await open("/chat")];
    anna.send(JSON.stringify({ name: "Anna", msg: "hi" }));
    assert.equal(await next(bert), "Anna:hi");
    anna.terminate();
    assert.equal(await next(bert), "Anna left");
    await close(bert, 1000);
  });
});

describe("protocol faults", () => {
  const bad = Buffer.from([0xce, 0xba, 0xe1, 0xbd, 0xb9, 0xed, 0xa0, 0x80, 0x65]); // a surrogate
  const fragment = frame(OP.text, "a", { fin: false });
  const faults = [
    ["an unmasked frame", 1002, frame(OP.text, "bare", { mask: false })],
    ["an unmasked ping", 1002, frame(OP.ping, "", { mask: false })],
    ["RSV1 without an extension", 1002, frame(OP.text, "a", { rsv: 4 })],
    ["RSV2", 1002, frame(OP.text, "a", { rsv: 2 })],
    ["RSV3 on a ping", 1002, frame(OP.ping, "a", { rsv: 1 })],
    ["opcode 3", 1002, frame(3, "a")],
    ["opcode 11", 1002, frame(11, "a")],
    ["opcode 15", 1002, frame(15)],
    ["a continuation of nothing", 1002, frame(OP.continuation, "a")],
    ["a new message inside another", 1002, Buffer.concat([fragment, frame(OP.text, "b")])],
    ["a fragmented ping", 1002, frame(OP.ping, "a", { fin: false })],
    ["a fragmented close", 1002, frame(OP.close, closePayload(1000), { fin: false })],
    ["a ping of 126 bytes", 1002, frame(OP.ping, "p".repeat(126))],
    ["a close of 126 bytes", 1002, frame(OP.close, closePayload(1000, "r".repeat(124)))],
    ["125 in two bytes", 1002, frame(OP.text, "a".repeat(125), { lengthBytes: 2 })],
    ["65535 in eight bytes", 1002, frame(OP.binary, Buffer.alloc(65535), { lengthBytes: 8 })],
    ["a length with the highest bit", 1002, frame(OP.binary, "", { length: 1n << 63n })],
    ["a close payload of one byte", 1002, frame(OP.close, "a")],
    ...[0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535].map((code) =>
      [`close code ${code}`, 1002, frame(OP.close, closePayload(code))]),
    ["bad UTF-8 in a reason", 1007, frame(OP.close, Buffer.concat([closePayload(1000), bad]))],
    ["bad UTF-8", 1007, frame(OP.text, bad)],
    ["bad UTF-8 after a good fragment", 1007, Buffer.concat([fragment, frame(OP.continuation, bad)])],
    ["bad UTF-8 in a message that goes on", 1007, frame(OP.text, bad, { fin: false })],
    ["bad UTF-8 in a frame that goes on", 1007, frame(OP.text, bad, { length: 1000n })],
    ["a character cut by the message's end", 1007, frame(OP.text, Buffer.from("€").subarray(0, 2))],
    ["a frame larger than 16 MiB", 1009, frame(OP.binary, "", { length: BigInt(16 * MIB + 1) })],
    ["a message larger than 16 MiB", 1009, Buffer.concat([
      frame(OP.binary, "some", { fin: false }), frame(OP.continuation, "", { length: BigInt(16 * MIB) })])],
  ];
  for (const [name, code, bytes] of faults) {
    test(`${name}: ${code}`, async () => {
      const raw = await Raw.open(server.port);
      raw.write(bytes);
      const got = await raw.close();
      assert.equal(got.code, code, got.reason);
      await raw.end();
    });
  }

  test("the same through ws: its close event says 1007", async () => {
    const ws = await open("/echo");
    ws.send(bad, { binary: false });
    assert.equal((await within(ws.closed, "the close event")).code, 1007);
  });

  test("a good message before the fault is still echoed", async () => {
    const raw = await Raw.open(server.port);
    raw.write(Buffer.concat([frame(OP.text, "good"), frame(3)]));
    assert.equal((await raw.frame()).payload.toString(), "good");
    assert.equal((await raw.close()).code, 1002);
    await raw.end();
  });

  test("connections cut in the middle of anything leave the server well", async () => {
    const [request, message] = [Buffer.from(upgrade("/echo")), frame(OP.binary, randomBytes(70000))];
    for (const cut of [0, 1, 20, request.length - 1, request.length, request.length + 1, request.length + 9, request.length + 999]) {
      const raw = await Raw.connect(server.port);
      await raw.write(Buffer.concat([request, message]).subarray(0, cut));
      raw.socket.resetAndDestroy();
    }
    assert.ok(await server.healthy());
    const ws = await open("/echo");
    ws.send("well");
    assert.equal(await next(ws), "well");
    await close(ws, 1000);
  });
});

describe("broadcast and chat", () => {
  test("200 clients get every message, byte for byte and in order", async () => {
    const clients = await Promise.all(Array.from({ length: 200 }, () => open("/broadcast")));
    const [first] = clients;
    const sent = [Buffer.alloc(0), ...[1, 100, 125, 126, 4000, 65535, 65536, 200_000].map((size) => randomBytes(size))];
    for (const bytes of sent) first.send(bytes);
    first.send(textOf(1000));
    for (const client of clients) {
      for (const bytes of sent) {
        const { data, binary } = await client.inbox.next();
        assert.equal(binary, true);
        same(data, bytes);
      }
      assert.equal(await next(client), textOf(1000));
    }
    // each to all: 200 × 200 messages; those of one sender arrive in the order it sent them
    clients.forEach((client, i) => { client.send(`${i} a`); client.send(`${i} b`); });
    for (const client of clients) {
      const seen = new Set();
      for (let i = 0; i < 400; i++) {
        const [sender, which] = (await next(client)).split(" ");
        assert.equal(seen.has(`${sender} a`), which === "b", `message ${which} of ${sender}`);
        seen.add(`${sender} ${which}`);
      }
      assert.equal(seen.size, 400);
    }
    await Promise.all(clients.map((client) => close(client, 1000)));
  });

  test("an endpoint's messages stay in it", async () => {
    const [one, chat] = [await open("/broadcast"), await open("/chat")];
    one.send("only here");
    assert.equal(await next(one), "only here");
    chat.send(JSON.stringify({ name: "Ida", msg: "first" }));
    assert.equal(await next(chat), "Ida:first");
    await close(one, 1000);
    await close(chat, 1000);
  });

  test("chat: name:msg to everyone, binary as it is, 'name left'", async () => {
    const [anna, bert] = [await open("/chat"), await open("/chat")];
    const all = [anna, bert];
    anna.send(JSON.stringify({ name: "Anna 😀", msg: "grüß: \"dich\" \n" }));
    for (const ws of all) assert.equal(await next(ws), "Anna 😀:grüß: \"dich\" \n");
    const image = randomBytes(100_000);
    bert.send(image);
    for (const ws of all) same(await next(ws), image);
    await close(anna, 1000);
    assert.equal(await next(bert), "Anna 😀 left");
    // Bert has given no name: nothing is said when he goes
    const carl = await open("/chat");
    await close(bert, 1000);
    carl.send(JSON.stringify({ name: "Carl", msg: "alone" }));
    assert.equal(await next(carl), "Carl:alone");
    await close(carl, 1000);
  });
});

describe("the process", () => {
  for (const signal of ["SIGTERM", "SIGINT"]) {
    test(`${signal}: 1001 to every client, exit code 0`, async () => {
      const own = await Server.start();
      try {
        const clients = await Promise.all(["/echo", "/chat", "/broadcast", "/echo"].map((path) => open(path, { on: own })));
        own.signal(signal);
        for (const ws of clients) assert.equal((await within(ws.closed, "the close event")).code, 1001);
        const { code, signal: by } = await own.ended();
        assert.deepEqual({ code, by }, { code: 0, by: null });
      } finally {
        own.kill();
      }
    });
  }

  test("a client that never answers does not hold up the end", async () => {
    const own = await Server.start();
    try {
      const raw = await Raw.open(own.port);
      own.signal("SIGTERM");
      const { opcode, payload } = await raw.frame();
      assert.deepEqual([opcode, payload.readUInt16BE()], [OP.close, 1001]);
      assert.equal((await own.ended()).code, 0);
      raw.destroy();
    } finally {
      own.kill();
    }
  });

  test("a port in use: exit code 1 and a message", async () => {
    const { code, stdout, stderr } = await run("--listen", `127.0.0.1:${server.port}`);
    assert.equal(code, 1);
    assert.equal(stdout, "");
    assert.match(stderr, new RegExp(`127\\.0\\.0\\.1:${server.port}`));
    assert.match(stderr, /in use/i);
  });

  for (const args of [["--no-such-flag"], ["--listen", "nonsense"], ["--listen", "127.0.0.1:99999"]]) {
    test(`${args.join(" ")}: exit code 2 and a message`, async () => {
      const { code, stdout, stderr } = await run(...args);
      assert.equal(code, 2);
      assert.equal(stdout, "");
      assert.ok(stderr.includes(args.at(-1)), stderr);
    });
  }
});

describe("over TLS", () => {
  let secure;
  before(async () => { secure = await Server.startTls(); });
  after(() => secure?.stop());
  const options = () => ({ on: { ws: (path) => secure.wss(path) }, ca: secure.ca });

  test("messages of all sizes come back", async () => {
    const ws = await open("/echo", options());
    for (const size of [0, 1, 125, 126, 16_383, 16_384, 16_385, 65_536, MIB, 16 * MIB]) {
      const payload = randomBytes(size);
      ws.send(payload);
      assert.ok((await next(ws)).equals(payload), `${size} bytes`);
    }
    assert.equal((await close(ws, 1000, "done")).code, 1000);
  });

  test("1000 messages at once keep their order, under TLS 1.2 and 1.3", async () => {
    for (const version of ["TLSv1.2", "TLSv1.3"]) {
      const ws = await open("/echo", { ...options(), minVersion: version, maxVersion: version });
      for (let i = 0; i < 1000; i++) ws.send(String(i));
      for (let i = 0; i < 1000; i++) assert.equal((await next(ws)).toString(), String(i));
      await close(ws, 1000);
    }
  });

  test("a certificate that is not trusted ends it at the client", async () => {
    const ws = new WebSocket(secure.wss("/echo"));
    const [error] = await event(ws, "error").catch((error) => [error]);
    assert.match(error.code, /SELF_SIGNED|UNABLE_TO_VERIFY/);
    assert.ok(await secure.healthy());
  });

  test("who speaks plain HTTP there is ended, and others are not", async () => {
    const raw = await Raw.connect(secure.tlsPort);
    raw.write(upgrade("/echo"));
    await within(event(raw.socket, "end"), "the end");
    raw.destroy();
    const ws = await open("/echo", options());
    await close(ws, 1000);
  });
});
