// A server of campanile.v1.json (docs/reference/protocol.md) in as few lines as its client's tests need, for what the real one
// can't be made to do: refusals at will, silence, messages of types to come. And a way to it that can be cut.

import { createHash } from "node:crypto";
import { EventEmitter, once } from "node:events";
import http from "node:http";
import net from "node:net";
import { WebSocketServer } from "ws";
import { OP, closePayload, frame } from "./harness.mjs";

export class FakeServer extends EventEmitter {
  static async start(options) {
    const server = new FakeServer(options);
    await once(server.wss, "listening");
    server.port = server.wss.address().port;
    return server;
  }

  constructor({ port = 0, history = 100, heartbeat = 25_000, hello = {} } = {}) {
    super();
    Object.assign(this, { history, heartbeat, helloMore: hello });
    this.topics = new Map();
    this.sockets = new Set();
    this.requests = []; // all that came, in order
    this.urls = [];
    this.refuse = () => undefined; // (request) => an error's members, true for no answer at all
    this.lives = 0;
    this.wss = new WebSocketServer({ host: "127.0.0.1", port, handleProtocols: (offered) => [...offered][0] });
    this.wss.on("connection", (socket, request) => this.#accept(socket, request));
  }

  url(path = "/push") {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  /** Every topic begins another life, with nothing kept. */
  restart() {
    this.topics.clear();
    this.cut();
  }

  cut() {
    for (const socket of this.sockets) socket.terminate();
  }

  async stop() {
    this.cut();
    this.wss.close();
    await once(this.wss, "close");
  }

  topic(name) {
    if (!this.topics.has(name)) {
      this.topics.set(name, { epoch: `life-${++this.lives}`, next: 1, kept: [], keys: new Map() });
    }
    return this.topics.get(name);
  }

  /** `message`: `{ data }`, `{ text }` or `{ bytes }`. */
  publish(name, message, { key, tags, idempotencyKey, except } = {}) {
    const topic = this.topic(name);
    if (topic.keys.has(idempotencyKey)) return { ...topic.keys.get(idempotencyKey), repeated: true };
    const entry = { topic: name, offset: topic.next++, key, tags, ...message };
    topic.kept.push(entry);
    if (topic.kept.length > this.history) topic.kept.shift();
    let receivers = 0;
    for (const socket of this.sockets) {
      const hears = [...socket.topics].some(([t, wanted]) =>
        (t === name || (t.endsWith("/*") && name.startsWith(t.slice(0, -1)))) && tagged(entry, wanted));
      if (!hears || socket === except) continue;
      receivers++;
      this.#message(socket, entry);
    }
    const place = { epoch: topic.epoch, offset: entry.offset, receivers };
    if (idempotencyKey) topic.keys.set(idempotencyKey, place);
    return place;
  }

  #message(socket, { topic, offset, data, text, bytes }) {
    if (!bytes) return this.tell(socket, { type: "message", topic, offset, data, text });
    const name = Buffer.from(topic);
    const head = Buffer.alloc(8);
    head.writeBigUInt64BE(BigInt(offset));
    socket.send(Buffer.concat([Buffer.from([1, name.length]), name, head, bytes]));
  }

  tell(socket, message) {
    socket.send(JSON.stringify(message));
  }

  #accept(socket, { url }) {
    this.urls.push(url);
    this.sockets.add(socket);
    socket.topics = new Map(); // and the tags that each is asked for with
    socket.on("error", () => {});
    socket.on("close", () => this.sockets.delete(socket));
    const { heartbeat, helloMore } = this;
    this.tell(socket, {
      type: "hello", protocol: "campanile.v1.json", connection: String(this.urls.length), time: Date.now(), heartbeat,
      retry: 1_000, max_message_size: 65_536, max_subscriptions: 128, ...helloMore,
    });
    socket.on("message", (text) => {
      const request = JSON.parse(text);
      this.requests.push(request);
      this.emit(request.type, request);
      const error = this.refuse(request, socket);
      if (error === true) return;
      const { id } = request;
      this.tell(socket, error ? { type: "error", id, message: "refused", ...error } : this.#answer(socket, request));
      socket.after?.();
      socket.after = null;
    });
  }

  #answer(socket, request) {
    const { type, id, topic, pattern, text, data, key, tags, idempotency_key: idempotencyKey, echo } = request;
    if (type === "subscribe") return this.#subscribe(socket, request);
    if (type === "ping") return { type: "pong", id };
    if (type === "publish") {
      const message = text === undefined ? { data } : { text };
      return { type: "published", id, ...this.publish(topic, message, { key, tags, idempotencyKey, except: echo === false && socket }) };
    }
    return socket.topics.delete(topic ?? pattern)
      ? { type: "unsubscribed", id, topic, pattern }
      : { type: "error", id, code: "not_subscribed", message: topic ?? pattern };
  }

  #subscribe(socket, { id, topic, pattern, since, latest, last, tags }) {
    if (pattern === undefined && topic.endsWith("/*")) return { type: "error", id, code: "topic", message: topic };
    topic ??= pattern;
    if (socket.topics.has(topic)) return { type: "error", id, code: "already", message: topic };
    if (last && (since || latest)) return { type: "error", id, code: "invalid", message: "exclude each other" };
    socket.topics.set(topic, tags);
    if (pattern) return { type: "subscribed", id, pattern, recovered: false, replayed: 0 };
    const { epoch, next, kept } = this.topic(topic);
    const oldest = kept[0]?.offset ?? next;
    const recovered = since?.epoch === epoch && since.offset < next && since.offset + 1 >= oldest;
    let replay = recovered ? kept.filter((one) => one.offset > since.offset) : [];
    if (latest) replay = kept.filter((one, i) => !kept.slice(i + 1).some((later) => later.key === one.key));
    if (last) replay = kept;
    replay = replay.filter((one) => tagged(one, tags)).slice(-(last ?? 0));
    socket.after = () => replay.forEach((one) => this.#message(socket, one));
    return { type: "subscribed", id, topic, epoch, offset: next - 1, recovered, replayed: replay.length };
  }
}

const tagged = (entry, wanted) => !wanted || wanted.some((tag) => entry.tags?.includes(tag));

/**
 * A server that sends its close frame, if there is a code, and never ends a TCP connection. With `drip` it sends messages
 * after the close frame. Events: `connection`, and `end` once a client's socket is gone and not only its half ended.
 */
export class StuckServer extends EventEmitter {
  static async start(code, drip = false) {
    const server = new StuckServer();
    server.sockets = new Set();
    server.http = http.createServer().on("upgrade", ({ headers }, socket) => {
      const key = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
      const accept = createHash("sha1").update(key).digest("base64");
      const tell = (opcode, payload) => socket.write(frame(opcode, payload, { mask: false }));
      const message = (content) => tell(OP.text, JSON.stringify(content));
      socket.write(`HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n` +
        `Sec-WebSocket-Protocol: ${headers["sec-websocket-protocol"]}\r\n\r\n`);
      message({ type: "hello", protocol: "campanile.v1.json", connection: "1", time: 0, heartbeat: 0, retry: 10,
        max_message_size: 65_536, max_subscriptions: 128 });
      if (code) tell(OP.close, closePayload(code, "go"));
      const dripping = drip && setInterval(() => message({ type: "message", topic: "t", offset: 1, data: 1 }), 50);
      // An HTTP server's sockets may be half open. What is written to a socket that is gone brings a reset.
      let probing;
      socket.on("data", () => {}).on("error", () => {});
      socket.once("end", () => (probing = setInterval(() => tell(OP.ping, ""), 50)));
      socket.once("close", () => {
        clearInterval(dripping);
        clearInterval(probing);
        server.sockets.delete(socket);
        server.emit("end");
      });
      server.sockets.add(socket);
      server.emit("connection");
    });
    server.http.listen(0, "127.0.0.1");
    await once(server.http, "listening");
    server.url = `ws://127.0.0.1:${server.http.address().port}/`;
    return server;
  }

  stop() {
    for (const socket of this.sockets) socket.destroy();
    this.http.close();
  }
}

/** A TCP port that leads to another, until it is cut. */
export class Way {
  static async to(port) {
    const way = new Way();
    way.pairs = new Set();
    way.open = true;
    way.server = net.createServer((near) => {
      if (!way.open) return near.destroy();
      const far = net.connect(port, "127.0.0.1");
      const pair = { near, far };
      way.pairs.add(pair);
      for (const [one, other] of [[near, far], [far, near]]) {
        one.on("error", () => {});
        one.on("close", () => {
          other.destroy();
          way.pairs.delete(pair);
        });
        one.pipe(other);
      }
    });
    way.server.listen(0, "127.0.0.1");
    await once(way.server, "listening");
    way.port = way.server.address().port;
    return way;
  }

  /** What is on its way is lost. */
  cut() {
    for (const { near, far } of this.pairs) {
      near.destroy();
      far.destroy();
    }
  }

  /** Nothing comes back to the near side, until it is released. */
  hold() {
    for (const { near, far } of this.pairs) far.unpipe(near).pause();
  }

  release() {
    for (const { near, far } of this.pairs) far.pipe(near);
  }

  /** Nothing gets through any more, and nobody is told. */
  freeze() {
    for (const { near, far } of this.pairs) {
      near.unpipe(far);
      far.unpipe(near);
      near.pause();
      far.pause();
    }
  }

  async stop() {
    this.cut();
    this.server.close();
    await once(this.server, "close");
  }
}
