// campanile.js: topics over one WebSocket that comes back by itself and goes on where it was. No dependencies; browsers,
// workers and Node.js 20. The protocol is campanile.v1.json (docs/reference/protocol.md), the guide is
// docs/guide/pages.md.

const PROTOCOL = "campanile.v1.json";
const STEADY = 5_000; // ms a connection must last before the backoff starts afresh
// Codes that trying again would only bring again; and those of the application, 4000 and up.
const FINAL = [1000, 1002, 1003, 1007, 1008, 1009, 1010];
const DEFAULTS = {
  connectTimeout: 10_000, // a packet lost on the way could hold an attempt for minutes
  pongTimeout: 10_000,
  timeout: 10_000,
  queue: 64, // with 128 subscriptions what a server takes at once
};
// The least and the most of what a server can ask for, in ms; docs/reference/protocol.md has the table. A timer
// overflows at 2^31.
const HEARTBEAT = [1_000, 86_400_000]; // 0: none
const RETRY = [10, 86_400_000]; // of `hello`
const AGAIN = [10, 60_000]; // `retry` of an error; the least doubles each time the same request is put off
// Publications to one topic without an answer: where the server puts one off, those behind it may pass it.
const WINDOW = 32;
// Where all clients are told at once, or the server is full: ms that the first attempt is spread over.
const SPREAD = { 1001: 3_000, 1011: 5_000, 1012: 3_000, 1013: 5_000 };

const CONNECTING = 0, OPEN = 1, CLOSED = 3;

const utf8 = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

// What members are, in every message that has them.
const isInt = (value) => Number.isSafeInteger(value) && value >= 0;
const isText = (value) => typeof value === "string";
const MEMBERS = [
  [isInt, ["id", "offset", "replayed", "receivers", "retry", "heartbeat", "max_message_size"]],
  [isText, ["topic", "epoch", "text", "code", "message"]],
];

/** What a request ended with: the server's `code`, or `timeout`, `closed`, `queue`. */
export class PushError extends Error {
  constructor(code, message, retry) {
    super(message);
    this.name = "PushError";
    this.code = code;
    this.retry = retry;
  }
}

/** Connects, and keeps connected until `close()`. */
export function connect(url = "/push", options = {}) {
  return new Push(url, options);
}

// A page's own mistake is reported like any other, and keeps nothing from being delivered to others.
function call(callback, ...given) {
  try {
    callback?.(...given);
  } catch (error) {
    if (globalThis.reportError) reportError(error);
    else queueMicrotask(() => { throw error; });
  }
}

// Half an emoji, as from a cut paste, has no UTF-8 form, and no server takes its escape.
function encode(request) {
  return JSON.stringify(request).replace(/\\(ud[89a-f]..|.)/g, (all, escape) => (escape[1] ? "\\ufffd" : all));
}

// No topic is named like this, so one map can hold topics and patterns.
const isPattern = (name) => String(name).endsWith("/*");

// As a request names it.
const named = (name) => (isPattern(name) ? { pattern: name } : { topic: name });

const clamp = (value, [least, most], from = least) => Math.min(Math.max(value, from), most);

function expect(fits, name) {
  if (!fits) throw new TypeError(`the server sent a message without a valid ${name}`);
}

// Throws unless the rest can rely on the message. Members that are not known here may be anything.
function check(message) {
  for (const [is, names] of MEMBERS) for (const name of names) expect(message[name] === undefined || is(message[name]), name);
  return message;
}

function unpack(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 1) return { type: "" }; // another version
  const start = 10 + bytes[1];
  const offset = Number(new DataView(buffer).getBigUint64(start - 8));
  const topic = utf8.decode(bytes.subarray(2, start - 8));
  return { type: "message", topic, offset, data: bytes.subarray(start) };
}

function address(url) {
  const full = new URL(url, globalThis.location?.href);
  full.protocol = full.protocol.replace("http", "ws");
  if (!/^wss?:$/.test(full.protocol)) throw new TypeError(`${url}: expected ws, wss, http or https`);
  full.hash = "";
  if (!full.searchParams.has("batch")) full.searchParams.set("batch", true);
  return full.href;
}

class Push extends EventTarget {
  #url;
  #options;
  #socket = null;
  #state = CLOSED;
  #turn = 0; // counts attempts, so that what belongs to an earlier one is known
  #attempt = 0; // failures since the last steady connection
  #due = false; // whether the next attempt is waited for
  #timer; // the attempt's deadline, the wait for the next one, or the heartbeat: never two at once
  #since = 0; // when it opened
  #base = 1_000; // ms, the first ceiling; what the server said last
  #heard = 0; // when anything last came
  #silence = 0; // ms after which the server is asked whether it is there
  #hello = {};
  #id = 0;
  #asked = new Map(); // subscriptions and their ends without an answer, by the id of the request
  #out = new Map(); // the same of publications, in the order in which they were made
  #careful = new Set(); // topics with one publication at a time, since the server has put one off
  #subs = new Map(); // by topic or pattern
  #leaving; // ends listening to the page
  // No secret; and `crypto.randomUUID` is for secure pages alone.
  #name = (Math.random().toString(36) + Math.random().toString(36)).replaceAll("0.", "");

  constructor(url, options) {
    super();
    if (typeof url !== "function") url = address(url); // throws here and not in the background
    this.#url = url;
    this.#options = { ...DEFAULTS, ...options };
    this.#options.WebSocket ??= globalThis.WebSocket;
    if (!this.#options.WebSocket) throw new TypeError("no WebSocket here: pass { WebSocket }");
    this.reconnect();
  }

  /** CONNECTING (0) also while it waits for the next attempt, OPEN (1), CLOSED (3). */
  get readyState() {
    return this.#state;
  }

  get bufferedAmount() {
    return this.#socket?.bufferedAmount ?? 0;
  }

  /** What the server said at the beginning of this connection; empty before. */
  get hello() {
    return this.#hello;
  }

  /** A name made from what others sent never is a pattern: `user/*` is refused. */
  subscribe(topic, callback, options = {}) {
    if (isPattern(topic)) throw new PushError("topic", `topic: ${topic} is a pattern; use subscribePattern`);
    return this.#add(new Subscription(topic, callback, options), { topic });
  }

  subscribePattern(pattern, callback, options = {}) {
    if (!isPattern(pattern)) throw new PushError("pattern", `pattern: ${pattern}, expected one such as ticks/*`);
    return this.#add(new Subscription(pattern, callback, options), { pattern });
  }

  #add(sub, named) {
    const { topic: name } = sub;
    if (this.#subs.has(name)) throw new PushError("already", `there is a subscription to ${name}`);
    this.#subs.set(name, sub);
    if (this.#state === OPEN) this.#subscribe(sub);
    return {
      ...named,
      /** Where to go on from; null before it began, and for a pattern. */
      get position() {
        return sub.place && { ...sub.place };
      },
      unsubscribe: () => {
        if (this.#subs.get(name) !== sub) return;
        this.#subs.delete(name);
        this.#unsubscribe(name);
      },
    };
  }

  publish(topic, data, { key, tags, ttl, echo, idempotencyKey, timeout = this.#options.timeout } = {}) {
    return new Promise((resolve, reject) => {
      const fail = (code, message) => reject(new PushError(code, message));
      if (data instanceof ArrayBuffer || ArrayBuffer.isView(data)) throw new TypeError("bytes are published over HTTP");
      if (this.#state === CLOSED) return fail("closed", "the connection was closed");
      const id = ++this.#id;
      // With a name of its own, sending it again after a cut does not publish it twice.
      const idempotency_key = idempotencyKey ?? `${this.#name}-${id}`;
      const body = typeof data === "string" ? { text: data } : { data };
      const text = encode({ type: "publish", id, topic, ...body, key, tags, idempotency_key, ttl, echo }); // now: the page may change it
      const { queue } = this.#options;
      if (this.#state !== OPEN && this.#out.size >= queue) {
        return fail("queue", `not connected, and no more than ${queue} publications wait`);
      }
      const timer = setTimeout(() => {
        this.#out.delete(id);
        fail("timeout", `no answer within ${timeout} ms; it may have been published`);
        this.#flush();
      }, timeout);
      const done = (settle) => (answer) => {
        clearTimeout(timer);
        settle(answer);
      };
      this.#out.set(id, { id, type: "publish", topic, text, done: done(resolve), failed: done(reject) });
      this.#flush();
    });
  }

  /** Ends the connection there is and makes another at once; also after `close()`. Subscriptions go on. */
  reconnect() {
    if (!this.#leaving) {
      this.#leaving = new AbortController();
      const { signal } = this.#leaving;
      globalThis.addEventListener?.("online", () => this.#wake(true), { signal });
      const page = globalThis.document;
      page?.addEventListener("visibilitychange", () => page.hidden || this.#wake(), { signal });
    }
    this.#attempt = 0;
    if (this.#state === OPEN) this.#lost(1000, "reconnect", true, 0);
    else this.#dial();
  }

  close(code = 1000, reason = "") {
    if (this.#state !== CLOSED) this.#lost(code, reason, true, null);
  }

  // ---- the connection ----

  async #dial() {
    this.#drop();
    this.#state = CONNECTING;
    const turn = this.#turn;
    const here = () => turn === this.#turn;
    this.#timer = setTimeout(() => this.#lost(1006, "no answer"), this.#options.connectTimeout);
    try {
      const url = typeof this.#url === "function" ? address(await this.#url()) : this.#url;
      if (!here()) return;
      const socket = (this.#socket = new this.#options.WebSocket(url, PROTOCOL));
      socket.binaryType = "arraybuffer"; // a Blob would have to be read asynchronously, out of order with text
      socket.onmessage = ({ data }) => here() && this.#received(data);
      socket.onclose = ({ code, reason, wasClean }) => here() && this.#lost(code, reason, wasClean);
      socket.onerror = () => {}; // the close that follows says more
    } catch (error) {
      if (!here()) return;
      this.#emit("error", { error });
      this.#lost(1006, "");
    }
  }

  // A socket without a network reports its end minutes later: it is over for us now.
  #drop(code, reason) {
    clearTimeout(this.#timer);
    this.#due = false;
    this.#turn++;
    const socket = this.#socket;
    this.#socket = null;
    try {
      socket?.close(code, reason);
    } catch {
      socket.close(); // a code that a page may not send
    }
  }

  // `retry`: milliseconds until the next attempt, null for none; by default what the code asks for.
  #lost(code, reason, wasClean = false, retry = this.#retry(code, reason)) {
    const flying = new Set();
    for (const one of [...this.#out.values()].reverse()) {
      if (this.#flies(one)) flying.add(one.topic);
      // What went behind it may have been published.
      else if (one.held && flying.has(one.topic)) this.#end(one.id).failed(one.held);
      one.held = one.late = one.rests = null;
    }
    this.#asked.clear();
    this.#drop(...(wasClean ? [code, reason] : []));
    for (const sub of this.#subs.values()) sub.live = false;
    this.#hello = {};
    if (retry === null) {
      this.#state = CLOSED;
      this.#leaving.abort();
      this.#leaving = null;
      const error = new PushError("closed", `the connection was closed: ${code} ${reason}`);
      for (const { failed } of this.#out.values()) failed(error);
      this.#out.clear();
    } else {
      this.#state = CONNECTING;
      this.#due = true;
      this.#timer = setTimeout(() => this.#dial(), retry);
    }
    this.#emit("close", { code, reason, wasClean, retry });
  }

  // Full jitter, anywhere up to the ceiling: the clients of a restarted server must not come in one moment.
  #retry(code, reason) {
    if (!(this.#options.reconnect?.(code, reason) ?? !(FINAL.includes(code) || code >= 4000))) return null;
    if (this.#state === OPEN && Date.now() - this.#since > STEADY) this.#attempt = 0;
    const { reconnectionDelay = this.#base, reconnectionDelayMax = Math.max(30_000, reconnectionDelay) } = this.#options;
    const ceiling = Math.max(reconnectionDelay * 2 ** this.#attempt++, SPREAD[code] ?? 0);
    return Math.random() * Math.min(reconnectionDelayMax, ceiling);
  }

  // The network is back, or somebody looks at the page again, which may have slept. Timers alone are too slow for either.
  #wake(online) {
    if (this.#state === OPEN) this.#probe();
    else if (online || this.#due) {
      this.#attempt = 0;
      this.#dial();
    }
  }

  #watch(wait) {
    if (wait > 0) this.#timer = setTimeout(() => {
      const quiet = Date.now() - this.#heard; // negative when somebody has set the clock
      if (quiet >= 0 && quiet < this.#silence) this.#watch(this.#silence - quiet);
      else this.#probe();
    }, wait);
  }

  #probe() {
    clearTimeout(this.#timer);
    this.#heard = 0;
    this.#socket.send('{"type":"ping"}');
    this.#timer = setTimeout(() => {
      if (this.#heard) this.#watch(this.#silence);
      else this.#lost(1006, "no answer to a ping");
    }, this.#options.pongTimeout);
  }

  // ---- what goes out ----

  // False: it was too long, and has ended.
  #send(one) {
    const { id, text } = one;
    const limit = this.#hello.max_message_size;
    if (text.length * 3 > limit && new TextEncoder().encode(text).length > limit) {
      this.#end(id).failed(new PushError("too_big", `a request has at most ${limit} bytes`));
      return false;
    }
    one.sent = this.#turn;
    one.held = null;
    this.#socket.send(text);
    return true;
  }

  #ask(request, done, failed, wanted) {
    const one = { ...request, text: encode(request), done, failed, wanted };
    this.#asked.set(request.id, one);
    if (!this.#send(one)) this.#flush();
  }

  // It is on its way on this connection, and an answer to it may come.
  #flies(one) {
    return one.sent === this.#turn && !one.held;
  }

  // A publication waits until the subscriptions that were asked for before it have begun, and so is heard by them. Those
  // of an earlier connection that had no answer go out again: their `idempotency_key` keeps them from being published twice. To
  // one topic they go in order: none passes one that waits, and where the server has put one off, none is sent behind
  // another until all are answered.
  #flush() {
    if (this.#state !== OPEN || [...this.#asked.values()].some((one) => one.type === "subscribe")) return;
    const flying = new Map(); // how many, by topic
    for (const one of this.#out.values()) flying.set(one.topic, (flying.get(one.topic) ?? 0) + this.#flies(one));
    for (const topic of this.#careful) if (!flying.has(topic)) this.#careful.delete(topic);
    for (const one of this.#out.values()) {
      const { topic } = one;
      if (this.#flies(one)) continue;
      const before = flying.get(topic);
      const full = one.rests || before >= (this.#careful.has(topic) ? 1 : WINDOW);
      if (full || this.#send(one)) flying.set(topic, full ? Infinity : before + 1);
    }
  }

  #isLeaving(topic) {
    return [...this.#asked.values()].some((one) => one.type === "unsubscribe" && (one.topic ?? one.pattern) === topic);
  }

  #subscribe(sub) {
    const { topic, place, tags, latest, last } = sub;
    sub.live = false;
    if (this.#isLeaving(topic)) return; // it follows when that is answered
    const request = { type: "subscribe", id: ++this.#id, ...named(topic), tags };
    if (place && sub.resume) request.since = { ...place };
    else Object.assign(request, { latest, last });
    const wanted = () => this.#subs.get(topic) === sub;
    const done = (answer) => {
      if (!wanted()) return;
      if (request.since && (latest || last) && !answer.recovered) {
        // What was missed is gone; what everything stands at now, or was said last, may not be.
        sub.place = null;
        this.#unsubscribe(topic);
      } else {
        sub.begin(answer);
      }
    };
    const failed = (error) => {
      if (!wanted()) return;
      this.#subs.delete(topic);
      if (sub.options.onError) call(sub.options.onError, error);
      else this.#emit("error", { error });
    };
    this.#ask(request, done, failed, wanted);
  }

  #unsubscribe(topic) {
    if (this.#state !== OPEN || this.#isLeaving(topic)) return;
    const then = () => {
      const sub = this.#subs.get(topic);
      if (sub) this.#subscribe(sub);
    };
    this.#ask({ type: "unsubscribe", id: ++this.#id, ...named(topic) }, then, then);
  }

  // ---- what comes in ----

  // Whatever it is: what can't be relied on is an `error`, and the next message is read.
  #received(data) {
    this.#heard = Date.now();
    try {
      this.#take(typeof data === "string" ? JSON.parse(data) : unpack(data));
    } catch (error) {
      this.#emit("error", { error });
    }
  }

  #take(message) {
    const { type, topic, messages } = message;
    switch (type) {
      case "message":
        return this.#deliver(topic, message);
      case "messages":
        for (const one of messages) this.#deliver(topic, one);
        return;
      case "hello":
        if (this.#state !== OPEN) this.#opened(check(message)); // only the first says anything
        return;
      case "subscribed":
      case "published":
      case "unsubscribed":
        return this.#answered(check(message));
      case "lagged":
        expect(isInt(messages), "messages");
        return this.#emit(type, { messages });
      case "error":
        return this.#failed(check(message));
    }
    expect(isText(type), "type"); // another one is of a version to come
  }

  #answered(message) {
    const { id, type, epoch, offset } = message;
    const one = this.#get(id);
    if (!one || !type.startsWith(one.type) || !this.#flies(one)) return;
    // A pattern has no place.
    if (type === "subscribed" && one.topic) expect(epoch && offset !== undefined, "epoch and offset");
    this.#end(id).done(message);
    for (const other of this.#out.values()) {
      if (type !== "published" || other.topic !== one.topic || other.id > id) continue;
      // To publish it when a later one was published would change the order.
      if (other.held) this.#end(other.id).failed(other.held);
      else other.late = true;
    }
    this.#flush();
  }

  #opened(hello) {
    clearTimeout(this.#timer);
    this.#hello = hello;
    const { heartbeat, retry } = hello;
    this.#silence = heartbeat ? clamp(heartbeat, HEARTBEAT) : 0;
    if (retry !== undefined) this.#base = clamp(retry, RETRY);
    this.#state = OPEN;
    this.#since = this.#heard;
    this.#watch(this.#silence);
    for (const sub of this.#subs.values()) this.#subscribe(sub);
    this.#flush();
    this.#emit("open", { hello });
  }

  #get(id) {
    return this.#asked.get(id) ?? this.#out.get(id);
  }

  #end(id) {
    const one = this.#get(id);
    this.#asked.delete(id);
    this.#out.delete(id);
    return one;
  }

  #failed({ id, code, message, retry }) {
    const one = this.#get(id);
    const error = new PushError(code, message, retry);
    if (id === undefined) this.#emit("error", { error });
    if (!one || !this.#flies(one)) return;
    if (retry === undefined || one.late) {
      this.#end(id).failed(error);
      return this.#flush();
    }
    one.held = error; // until it is sent again
    one.rests = true;
    const kept = this.#out.has(id);
    if (kept) this.#careful.add(one.topic);
    one.least = 2 * (one.least ?? AGAIN[0] / 2);
    setTimeout(() => {
      if (this.#get(id) !== one || one.held !== error) return; // another connection sends it by itself
      one.rests = false;
      if (!kept) {
        if (one.wanted?.() ?? true) return this.#send(one);
        this.#end(id);
      }
      this.#flush();
    }, clamp(retry, AGAIN, one.least)).unref?.(); // Node.js would wait for it after `close()`
  }

  #deliver(topic, one) {
    const { offset, text, data } = check(one);
    expect(isText(topic), "topic");
    expect(isInt(offset), "offset");
    const message = text ?? data;
    if (message === undefined) return; // a payload of a kind to come
    // Whoever listens by a pattern did not ask for the history of one topic.
    const own = this.#subs.get(topic);
    if (own?.deliver(topic, offset, message)) return;
    const all = [...this.#subs.values()].filter((sub) => sub.prefix && topic.startsWith(sub.prefix));
    for (const sub of all) call(sub.callback, message, { topic, offset, replayed: false });
    if (!own && !all.length) this.#emit("message", { topic, offset, data: message });
  }

  #emit(type, facts) {
    this.dispatchEvent(Object.assign(new Event(type), facts));
  }
}

class Subscription {
  live = false; // whether the server has answered on this connection
  place; // { epoch, offset } of the last message seen, or where it went live; none for a pattern
  #begun; // whether there is something that could have been missed
  #replay = 0; // messages from the history to come
  #until = 0; // the last offset they can have

  constructor(topic, callback, options) {
    const { latest, last, tags, since = null, resume = !latest || !!since } = options;
    // Undefined is not sent; a wrong value is, and the server says what is wrong with it.
    Object.assign(this, { topic, callback, options, latest: latest || undefined, last, tags, resume });
    this.place = since && { ...since };
    this.prefix = isPattern(topic) ? topic.slice(0, -1) : null;
    this.#begun = !!since;
  }

  begin(answer) {
    const { epoch, offset, recovered, replayed } = answer;
    const { onSubscribed, onRecovered, onLost } = this.options;
    const same = this.place?.epoch === epoch;
    if (!this.prefix) {
      const seen = same ? Math.min(this.place.offset, offset) : 0;
      this.place = { epoch, offset: replayed ? seen : offset };
    }
    this.live = true;
    this.#replay = replayed;
    this.#until = offset;
    call(onSubscribed, answer);
    // The newest of each key is whole by itself, as long as the topic has not begun another life.
    const whole = recovered || (same && this.latest && !this.resume);
    if (this.#begun) call(whole ? onRecovered : onLost, answer);
    this.#begun = true;
  }

  /** Whether the message was from the history. */
  deliver(topic, offset, message) {
    if (!this.live || this.prefix) return false; // by a pattern, before what it would come after
    const replayed = this.#replay > 0 && offset <= this.#until;
    if (replayed) this.#replay--;
    const { epoch, offset: seen } = this.place;
    this.place.offset = Math.max(seen, replayed && !this.#replay ? this.#until : offset);
    if (offset > seen) call(this.callback, message, { topic, epoch, offset, replayed });
    return replayed;
  }
}
