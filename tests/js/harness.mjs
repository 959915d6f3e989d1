// The server under test as a child process, and the few things every test here needs: deadlines,
// an inbox that loses nothing, and a raw socket for what a well-behaved client can't be made to send.
//
// CAMPANILE_BIN says which binary; no test waits a fixed time, everything waits for an event and
// gives up at a deadline.

import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { randomBytes } from "node:crypto";
import { fileURLToPath } from "node:url";

export const DEADLINE = 15_000; // ms, for one thing to happen
export const TEST_LIMIT = 60_000; // ms, for one test
export const MIB = 1024 * 1024;

const built = fileURLToPath(new URL("../../target/release/campanile", import.meta.url));
const binary = process.env.CAMPANILE_BIN || built;
if (!existsSync(binary)) throw new Error(`no binary at ${binary}: set CAMPANILE_BIN or run 'make test'`);

/** The promise, or a rejection that says what did not happen in time. */
export function within(promise, what, ms = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The arguments of the emitter's next such event. An "error" event rejects, unless it is awaited. */
export function event(emitter, name, ms = DEADLINE) {
  return within(once(emitter, name), `event '${name}'`, ms);
}

// ---- the server ------------------------------------------------------------------------------

const running = new Set();
process.on("exit", () => running.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

/** Runs the binary with these arguments to its end: `{ code, signal, stdout, stderr }`. */
export async function run(...args) {
  const child = launch(args);
  return within(child.ended, `campanile ${args.join(" ")} ends`).finally(() => child.process.kill("SIGKILL"));
}

function launch(args, env = {}) {
  const child = spawn(binary, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  running.add(child);
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) child[name].setEncoding("utf8").on("data", (text) => (output[name] += text));
  const ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      running.delete(child);
      resolve({ code, signal, ...output });
    });
  });
  ended.catch(() => {}); // whoever awaits it sees it
  return { process: child, ended, output };
}

/** A running server: `ws("/echo")` and `http("/")` are its addresses. */
export class Server {
  /**
   * Starts one on a port of the system's choice, or on the given one, and waits for its first line. With `--dev`, which
   * serves what most tests use, unless `dev` is false.
   */
  static async start({ port = 0, args = [], env = {}, dev = true } = {}) {
    const server = new Server();
    server.child = launch(["--listen", `127.0.0.1:${port}`, ...(dev ? ["--dev"] : []), ...args], env);
    const lines = createInterface({ input: server.child.process.stdout });
    const early = server.child.ended.then((end) => {
      throw new Error(`campanile ended before it listened: ${JSON.stringify(end)}`);
    });
    early.catch(() => {});
    try {
      const told = [];
      lines.on("line", (line) => told.push(line));
      const says = async (scheme) => {
        const address = new RegExp(`^campanile listening on ${scheme}://127\\.0\\.0\\.1:(\\d+)/$`);
        for (;;) {
          const line = told.find((line) => line.startsWith("campanile") && address.test(line));
          if (line) return Number(address.exec(line)[1]);
          if (told.length && !/^campanile listening on http/.test(told[0])) throw new Error(`unexpected first line: ${told[0]}`);
          await within(Promise.race([once(lines, "line"), early]), `campanile says where it listens for ${scheme}`);
        }
      };
      server.port = await says("http");
      if (args.includes("--tls-listen")) server.tlsPort = await says("https");
    } catch (problem) {
      server.child.process.kill("SIGKILL");
      throw problem;
    }
    return server;
  }

  /** One that also listens with TLS, with a certificate that it made itself: `ca` is what to trust. */
  static async startTls(authority) {
    if (authority) {
      const args = ["--tls-listen", "127.0.0.1:0", "--tls-cert", authority.cert, "--tls-key", authority.key];
      return Server.start({ args });
    }
    const state = mkdtempSync(join(tmpdir(), "campanile-"));
    try {
      const args = ["--tls-listen", "127.0.0.1:0", "--tls-self-signed"];
      const server = await Server.start({ args, env: { STATE_DIRECTORY: "", XDG_STATE_HOME: state } });
      server.ca = readFileSync(join(state, "campanile", "self-signed.pem"), "utf8").split("-----BEGIN PRIVATE")[0];
      return server;
    } finally {
      rmSync(state, { recursive: true });
    }
  }

  wss(path) {
    return `wss://127.0.0.1:${this.tlsPort}${path}`;
  }

  https(path) {
    return `https://127.0.0.1:${this.tlsPort}${path}`;
  }

  ws(path) {
    return `ws://127.0.0.1:${this.port}${path}`;
  }

  http(path) {
    return `http://127.0.0.1:${this.port}${path}`;
  }

  signal(name) {
    this.child.process.kill(name);
  }

  /** How it ended: `{ code, signal, stdout, stderr }`. */
  ended() {
    return within(this.child.ended, "campanile ends");
  }

  /** Asks it to end and requires that it does so cleanly. */
  async stop() {
    this.signal("SIGTERM");
    try {
      const { code, signal, stderr } = await this.ended();
      if (code !== 0) throw new Error(`campanile ended with ${signal ?? code}\n${stderr}`);
    } finally {
      this.kill();
    }
  }

  kill() {
    this.child.process.kill("SIGKILL");
  }

  /** It still answers. */
  async healthy() {
    const { status, body } = await get(this.http("/healthz"));
    return status === 200 && body === "ok\n";
  }
}

/** One plain HTTP request on a connection of its own. */
export async function get(url, options = {}) {
  const request = http.request(url, { agent: false, ...options });
  request.end(options.body);
  const [response] = await event(request, "response");
  const parts = [];
  await within((async () => { for await (const part of response) parts.push(part); })(), "the body");
  return { status: response.statusCode, headers: response.headers, body: Buffer.concat(parts).toString() };
}

// ---- messages --------------------------------------------------------------------------------

/** What has come and was not yet asked for, in order; the one asking waits for the next. */
export class Inbox {
  constructor() {
    this.items = [];
    this.waiting = [];
  }

  push(item) {
    const asker = this.waiting.shift();
    if (asker) asker.resolve(item);
    else this.items.push(item);
  }

  /** Nothing more comes: whoever waits learns why. */
  end(why) {
    this.ended = why;
    for (const asker of this.waiting.splice(0)) asker.reject(why);
  }

  next(what = "a message", ms = DEADLINE) {
    if (this.items.length) return Promise.resolve(this.items.shift());
    if (this.ended) return Promise.reject(this.ended);
    return within(new Promise((resolve, reject) => this.waiting.push({ resolve, reject })), what, ms);
  }
}

// ---- the wire, by hand -----------------------------------------------------------------------

export const OP = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 };

/**
 * A client's frame. What a client may not send can be asked for: `mask: false`, `rsv`, any opcode,
 * a length written in 2 or 8 bytes although it fits in fewer (`lengthBytes`), or another length
 * than the payload's (`length`).
 */
export function frame(opcode, payload = "", { fin = true, rsv = 0, mask = true, lengthBytes, length } = {}) {
  const data = Buffer.from(payload);
  const announced = BigInt(length ?? data.length);
  const bytes = lengthBytes ?? (announced < 126n ? 0 : announced < 65536n ? 2 : 8);
  const head = Buffer.alloc(2 + bytes);
  head[0] = (fin ? 0x80 : 0) | (rsv << 4) | opcode;
  head[1] = (mask ? 0x80 : 0) | (bytes === 0 ? Number(announced) : bytes === 2 ? 126 : 127);
  if (bytes === 2) head.writeUInt16BE(Number(announced), 2);
  if (bytes === 8) head.writeBigUInt64BE(announced, 2);
  if (!mask) return Buffer.concat([head, data]);
  const key = randomBytes(4);
  return Buffer.concat([head, key, data.map((byte, i) => byte ^ key[i & 3])]);
}

/** A Close frame's payload. */
export function closePayload(code, reason = "") {
  const head = Buffer.alloc(2);
  head.writeUInt16BE(code);
  return Buffer.concat([head, Buffer.from(reason)]);
}

/** The lines of a request, the blank one included. */
export function lines(...text) {
  return text.join("\r\n") + "\r\n\r\n";
}

/** The handshake of RFC 6455 section 1.3, with its key; `headers` replace or add. */
export function upgrade(target, headers = {}) {
  const all = {
    Host: "127.0.0.1",
    Upgrade: "websocket",
    Connection: "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
    ...headers,
  };
  const given = Object.entries(all).filter(([, value]) => value !== undefined);
  return lines(`GET ${target} HTTP/1.1`, ...given.map(([name, value]) => `${name}: ${value}`));
}
export const ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/** A TCP connection on which everything is written by hand. */
export class Raw {
  static async connect(port) {
    const raw = new Raw();
    raw.buffer = Buffer.alloc(0);
    raw.changed = () => {};
    raw.socket = net.connect({ port, host: "127.0.0.1", noDelay: true });
    raw.socket.on("data", (data) => {
      raw.buffer = Buffer.concat([raw.buffer, data]);
      raw.changed();
    });
    raw.socket.on("error", () => {}); // a reset is an end too
    raw.socket.on("close", () => {
      raw.closed = true;
      raw.changed();
    });
    raw.socket.on("end", () => {
      raw.closed = true;
      raw.changed();
    });
    await event(raw.socket, "connect");
    return raw;
  }

  /** Connects and shakes hands. */
  static async open(port, path = "/echo") {
    const raw = await Raw.connect(port);
    raw.write(upgrade(path));
    const response = await raw.response();
    if (response.status !== 101) throw new Error(`handshake refused: ${response.status}`);
    return raw;
  }

  /** Writes; resolves when the kernel has it. */
  write(data) {
    return new Promise((resolve) => this.socket.write(data, resolve));
  }

  /** What `take` makes of the bytes received, as soon as it makes something of them. */
  async #until(take, what) {
    const ready = new Promise((resolve, reject) => {
      this.changed = () => {
        const value = take();
        if (value !== undefined) resolve(value);
        else if (this.closed) reject(new Error(`the connection ended before ${what}; got ${this.buffer.toString("hex").slice(0, 80)}`));
      };
      this.changed();
    });
    return within(ready, what).finally(() => (this.changed = () => {}));
  }

  #take(length) {
    const taken = this.buffer.subarray(0, length);
    this.buffer = this.buffer.subarray(length);
    return taken;
  }

  /** The next HTTP response; its body by Content-Length. */
  response({ head: headOnly = false } = {}) {
    return this.#until(() => {
      const end = this.buffer.indexOf("\r\n\r\n");
      if (end < 0) return undefined;
      const [first, ...rest] = this.buffer.subarray(0, end).toString("latin1").split("\r\n");
      const headers = Object.fromEntries(rest.map((line) => {
        const colon = line.indexOf(":");
        return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
      }));
      const length = headOnly ? 0 : Number(headers["content-length"] ?? 0);
      if (this.buffer.length < end + 4 + length) return undefined;
      this.#take(end + 4);
      const body = this.#take(length).toString();
      return { status: Number(first.split(" ")[1]), version: first.split(" ")[0], headers, body };
    }, "a response");
  }

  /** The next frame from the server. */
  frame() {
    return this.#until(() => {
      const data = this.buffer;
      if (data.length < 2) return undefined;
      const short = data[1] & 0x7f;
      const start = short === 126 ? 4 : short === 127 ? 10 : 2;
      if (data.length < start) return undefined;
      const length = short === 126 ? data.readUInt16BE(2) : short === 127 ? Number(data.readBigUInt64BE(2)) : short;
      if (data.length < start + length) return undefined;
      const frame = {
        fin: data[0] >= 0x80,
        rsv: (data[0] >> 4) & 7,
        opcode: data[0] & 15,
        masked: data[1] >= 0x80,
        payload: data.subarray(start, start + length),
      };
      this.#take(start + length);
      return frame;
    }, "a frame");
  }

  /** The next frame, which has to be a Close: its code and reason; answered, as the RFC asks. */
  async close() {
    const { opcode, payload, masked } = await this.frame();
    if (opcode !== OP.close) throw new Error(`opcode ${opcode} instead of a Close, payload ${payload.toString("hex").slice(0, 80)}`);
    if (masked) throw new Error("a server must not mask");
    this.socket.write(frame(OP.close, payload.subarray(0, 2)));
    return payload.length ? { code: payload.readUInt16BE(), reason: payload.subarray(2).toString() } : { code: 1005, reason: "" };
  }

  /** The server ends the connection, and sends nothing more before it does. */
  async end() {
    await this.#until(() => (this.closed ? true : undefined), "the end of the connection");
    if (this.buffer.length) throw new Error(`more came before the end: ${this.buffer.toString("hex").slice(0, 100)}`);
    this.destroy();
  }

  destroy() {
    this.socket.destroy();
  }
}

/** An authority that signed a certificate for 127.0.0.1, as files in a folder that `remove` removes. */
export function testAuthority() {
  const folder = mkdtempSync(join(tmpdir(), "campanile-ca-"));
  const [ca, caKey, cert, key, request, extensions] = ["ca.pem", "ca.key", "cert.pem", "cert.key", "csr.pem", "ext"].map(
    (name) => join(folder, name),
  );
  const openssl = (...args) => execFileSync("openssl", args, { stdio: "pipe" });
  const newKey = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  openssl("req", "-x509", ...newKey, "-keyout", caKey, "-out", ca, "-days", "2", "-subj", "/CN=campanile test");
  openssl("req", ...newKey, "-keyout", key, "-out", request, "-subj", "/CN=127.0.0.1");
  writeFileSync(extensions, "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
  const signed = ["-CA", ca, "-CAkey", caKey, "-CAcreateserial", "-days", "1", "-extfile", extensions, "-out", cert];
  openssl("x509", "-req", "-in", request, ...signed);
  return { ca, cert, key, remove: () => rmSync(folder, { recursive: true, force: true }) };
}
