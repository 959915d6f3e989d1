// campanile against npm's `websocket`: its client, which fragments what it sends, and its W3C class.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, describe, test as nodeTest } from "node:test";
import websocket from "websocket";
import { Inbox, MIB, Server, TEST_LIMIT, within } from "./harness.mjs";

const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);

let server;
before(async () => { server = await Server.start(); });
after(() => server?.stop());

/** An open connection with an inbox of its messages (or frames) and a promise of its close event. */
async function open(path, config = {}, on = server) {
  const client = new websocket.client({ maxReceivedMessageSize: 64 * MIB, maxReceivedFrameSize: 64 * MIB, ...config });
  const opened = new Promise((resolve, reject) => {
    client.on("connect", (connection) => {
      connection.inbox = new Inbox();
      connection.pongs = new Inbox();
      connection.on("message", (message) => connection.inbox.push(message));
      connection.on("frame", (frame) => connection.inbox.push(frame));
      connection.on("pong", (data) => connection.pongs.push(data));
      connection.on("error", () => {});
      connection.closed = new Promise((ended) => {
        connection.on("close", (code, description) => ended({ code, description }));
      });
      resolve(connection);
    });
    client.on("connectFailed", reject);
  });
  client.connect(on.ws(path));
  return within(opened, "the connection");
}

function closed(connection) {
  return within(connection.closed, "the close event");
}

describe("the client", () => {
  test("text and binary", async () => {
    const connection = await open("/echo");
    connection.sendUTF("grüße 😀");
    assert.deepEqual(await connection.inbox.next(), { type: "utf8", utf8Data: "grüße 😀" });
    for (const size of [0, 1, 125, 126, 65535, 65536, MIB]) {
      const bytes = randomBytes(size);
      connection.sendBytes(bytes);
      const { type, binaryData } = await connection.inbox.next(`binary of ${size} bytes`);
      assert.equal(type, "binary");
      assert.ok(bytes.equals(binaryData), `${size} bytes`);
    }
    connection.close();
    assert.equal((await closed(connection)).code, 1000);
  });

  for (const threshold of [1, 100, 0x4000]) {
    test(`sends fragments of ${threshold} bytes`, async () => {
      const connection = await open("/echo", { fragmentOutgoingMessages: true, fragmentationThreshold: threshold });
      const text = "aé€😀".repeat(threshold === 0x4000 ? 20_000 : 50);
      connection.sendUTF(text);
      assert.equal((await connection.inbox.next()).utf8Data, text);
      const bytes = randomBytes(threshold * 64 + 1);
      connection.sendBytes(bytes);
      assert.ok(bytes.equals((await connection.inbox.next()).binaryData));
      connection.close();
      assert.equal((await closed(connection)).code, 1000);
    });
  }

  test("sees whole messages as single final frames", async () => {
    const connection = await open("/echo", { assembleFragments: false, fragmentOutgoingMessages: false });
    connection.sendUTF("a frame");
    const frame = await connection.inbox.next();
    assert.equal(frame.fin, true);
    assert.equal(frame.opcode, 1);
    assert.equal(frame.binaryPayload.toString(), "a frame");
    connection.close();
    await closed(connection);
  });

  test("ping and pong", async () => {
    const connection = await open("/echo");
    connection.ping("are you there");
    assert.equal((await connection.pongs.next("a pong")).toString(), "are you there");
    connection.close();
    await closed(connection);
  });

  for (const code of [1000, 1001, 3000, 4999]) {
    test(`its close code ${code} comes back`, async () => {
      const connection = await open("/echo");
      connection.close(code, "leaving");
      assert.equal((await closed(connection)).code, code);
    });
  }

  test("a drop with 1011 comes back as such", async () => {
    const connection = await open("/echo");
    connection.drop(1011, "fell over", false);
    assert.equal((await closed(connection)).code, 1011);
    assert.ok(await server.healthy());
  });

  test("the server's close has its code and description", async () => {
    const own = await Server.start();
    try {
      const connection = await open("/broadcast", {}, own);
      own.signal("SIGTERM");
      const { code, description } = await closed(connection);
      assert.equal(code, 1001);
      assert.equal(typeof description, "string");
      assert.equal((await own.ended()).code, 0);
    } finally {
      own.kill();
    }
  });

  test("of draft version 8 it is refused", async () => {
    await assert.rejects(open("/echo", { webSocketVersion: 8 }), /426/);
  });

  test("50 of them on /broadcast", async () => {
    const all = await Promise.all(Array.from({ length: 50 }, () => open("/broadcast")));
    const bytes = randomBytes(5000);
    all[0].sendBytes(bytes);
    all[49].sendUTF("and text");
    for (const connection of all) {
      const got = [await connection.inbox.next(), await connection.inbox.next()];
      assert.ok(got.some((message) => message.type === "binary" && bytes.equals(message.binaryData)));
      assert.ok(got.some((message) => message.type === "utf8" && message.utf8Data === "and text"));
    }
    for (const connection of all) connection.close();
    for (const connection of all) assert.equal((await closed(connection)).code, 1000);
  });
});

describe("the W3C class", () => {
  test("echo, readyState, bufferedAmount and close", async () => {
    const ws = new websocket.w3cwebsocket(server.ws("/echo"));
    assert.equal(ws.readyState, ws.CONNECTING);
    ws.binaryType = "arraybuffer";
    const inbox = new Inbox();
    const opened = new Promise((resolve, reject) => Object.assign(ws, { onopen: resolve, onerror: reject }));
    const ended = new Promise((resolve) => { ws.onclose = resolve; });
    ws.onmessage = (message) => inbox.push(message.data);
    await within(opened, "open");
    assert.equal(ws.readyState, ws.OPEN);
    assert.equal(ws.protocol ?? "", "");
    ws.send("text");
    assert.equal(await inbox.next(), "text");
    ws.send(new Uint8Array([1, 2, 3]));
    assert.deepEqual(new Uint8Array(await inbox.next()), new Uint8Array([1, 2, 3]));
    assert.equal(ws.bufferedAmount, 0);
    ws.close(1000, "x");
    assert.equal(ws.readyState, ws.CLOSING);
    const { code, wasClean } = await within(ended, "close");
    assert.deepEqual({ code, wasClean }, { code: 1000, wasClean: true });
    assert.equal(ws.readyState, ws.CLOSED);
  });
});
