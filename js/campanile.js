// campanile.js: topics over one WebSocket that comes back by itself and goes on where it was. No dependencies; browsers,
// workers and Node.js 20. The protocol is campanile.v1.json (docs/reference/protocol.md), the guide is
// docs/guide/pages.md.

const PROTOCOL = "campanile.v1.json";
const STABLE_AFTER = 5_000; // ms a connection must last before the backoff starts afresh
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
const HELLO_RETRY = [10, 86_400_000]; // of `hello`
const ERROR_RETRY = [10, 60_000]; // `retry` of an error; the least doubles each time the same request is put off
// Publications to one topic without an answer: where the server puts one off, those behind it may pass it.
const WINDOW = 32;
// Where all clients are told at once, or the server is full: ms that the first attempt is spread over.
const MIN_CEILING = { 1001: 3_000, 1011: 5_000, 1012: 3_000, 1013: 5_000 };

// ms between two checks for a close frame of the server, and from then until TCP must have ended. Chromium waits 2 s.
const CLOSE_TIMEOUT = 3_000;

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
function callBack(callback, ...given) {
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
const target = (name) => (isPattern(name) ? { pattern: name } : { topic: name });

// Ends the TCP connection where that is possible: `ws` has a function for it, undici 6 (Node.js 20 and 22) keeps the
// response with its socket under a symbol. Browsers need no help.
function endTransport(socket) {
  if (socket.terminate) return socket.terminate();
  for (const key of Object.getOwnPropertySymbols(socket)) socket[key]?.socket?.destroy?.();
}

const clamp = (value, [least, most], from = least) => Math.min(Math.max(value, from), most);

function assertValid(fits, name) {
  if (!fits) throw new TypeError(`the server sent a message without a valid ${name}`);
}

// Throws unless the rest can rely on the message. Members that are not known here may be anything.
function checkMembers(message) {
  for (const [is, names] of MEMBERS) for (const name of names) assertValid(message[name] === undefined || is(message[name]), name);
  return message;
}

function parseBinary(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 1) return { type: "" }; // another version
  const start = 10 + bytes[1];
  const offset = Number(new DataView(buffer).getBigUint64(start - 8));
  const topic = utf8.decode(bytes.subarray(2, start - 8));
  return { type: "message", topic, offset, data: bytes.subarray(start) };
}

function toWebSocketUrl(url) {
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
  #attemptId = 0; // counts attempts, so that what belongs to an earlier one is known
  #failures = 0; // failures since the last steady connection
  #isWaiting = false; // whether the next attempt is waited for
  #isClosing = false; // whether the server's close frame was noticed, and the end of the connection is waited for
  #timer; // the attempt's deadline, the wait for the next one, or the heartbeat: never two at once
  #openedAt = 0; // when it opened
  #baseDelay = 1_000; // ms, the first ceiling; what the server said last
  #lastReceived = 0; // when anything last came
  #heartbeat = 0; // ms after which the server is asked whether it is there
  #hello = {};
  #lastId = 0;
  #pending = new Map(); // subscriptions and their ends without an answer, by the id of the request
  #publications = new Map(); // the same of publications, in the order in which they were made
  #serialTopics = new Set(); // topics with one publication at a time, since the server has put one off
  #subs = new Map(); // by topic or pattern
  #pageListeners; // ends listening to the page
  // No secret; and `crypto.randomUUID` is for secure pages alone.
  #keyPrefix = (Math.random().toString(36) + Math.random().toString(36)).replaceAll("0.", "");

  constructor(url, options) {
    super();
    if (typeof url !== "function") url = toWebSocketUrl(url); // throws here and not in the background
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
    if (this.#isOpen()) this.#subscribe(sub);
    return {
      ...named,
      /** Where to go on from; null before it began, and for a pattern. */
      get position() {
        return sub.position && { ...sub.position };
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
      const id = ++this.#lastId;
      // With a name of its own, sending it again after a cut does not publish it twice.
      const idempotency_key = idempotencyKey ?? `${this.#keyPrefix}-${id}`;
      const body = typeof data === "string" ? { text: data } : { data };
      const text = encode({ type: "publish", id, topic, ...body, key, tags, idempotency_key, ttl, echo }); // now: the page may change it
      const { queue } = this.#options;
      if (!this.#isOpen() && this.#publications.size >= queue) {
        return fail("queue", `not connected, and no more than ${queue} publications wait`);
      }
      const timer = setTimeout(() => {
        this.#publications.delete(id);
        fail("timeout", `no answer within ${timeout} ms; it may have been published`);
        this.#flush();
      }, timeout);
      const done = (settle) => (answer) => {
        clearTimeout(timer);
        settle(answer);
      };
      this.#publications.set(id, { id, type: "publish", topic, text, done: done(resolve), failed: done(reject) });
      this.#flush();
    });
  }

  /** Ends the connection there is and makes another at once; also after `close()`. Subscriptions go on. */
  reconnect() {
    if (!this.#pageListeners) {
      this.#pageListeners = new AbortController();
      const { signal } = this.#pageListeners;
      globalThis.addEventListener?.("online", () => this.#wake(true), { signal });
      const page = globalThis.document;
      page?.addEventListener("visibilitychange", () => page.hidden || this.#wake(), { signal });
    }
    this.#failures = 0;
    if (this.#state === OPEN) this.#handleClose(1000, "reconnect", true, 0);
    else this.#connect();
  }

  close(code = 1000, reason = "") {
    if (this.#state !== CLOSED) this.#handleClose(code, reason, true, null);
  }

  // ---- the connection ----

  async #connect() {
    this.#closeSocket();
    this.#state = CONNECTING;
    const attemptId = this.#attemptId;
    const here = () => attemptId === this.#attemptId;
    this.#timer = setTimeout(() => this.#handleClose(1006, "no answer"), this.#options.connectTimeout);
    try {
      const url = typeof this.#url === "function" ? toWebSocketUrl(await this.#url()) : this.#url;
      if (!here()) return;
      const socket = (this.#socket = new this.#options.WebSocket(url, PROTOCOL));
      socket.binaryType = "arraybuffer"; // a Blob would have to be read asynchronously, out of order with text
      socket.onmessage = ({ data }) => here() && this.#receive(data);
      socket.onclose = ({ code, reason, wasClean }) => here() && this.#handleClose(code, reason, wasClean);
      socket.onerror = () => {}; // the close that follows says more
    } catch (error) {
      if (!here()) return;
      this.#emit("error", { error });
      this.#handleClose(1006, "");
    }
  }

  // A socket without a network reports its end minutes later: it is over for us now.
  #closeSocket(code, reason) {
    clearTimeout(this.#timer);
    this.#isWaiting = this.#isClosing = false;
    this.#attemptId++;
    const socket = this.#socket;
    this.#socket = null;
    // undici has no limit here either: a server that does not end TCP would keep a socket open for each attempt.
    if (socket) setTimeout(() => socket.readyState < CLOSED && endTransport(socket), CLOSE_TIMEOUT).unref?.();
    try {
      socket?.close(code, reason);
    } catch {
      socket.close(); // a code that a page may not send
    }
  }

  // `retry`: milliseconds until the next attempt, null for none; by default what the code asks for.
  #handleClose(code, reason, wasClean = false, retry = this.#nextDelay(code, reason)) {
    const inFlight = new Set();
    for (const one of [...this.#publications.values()].reverse()) {
      if (this.#isInFlight(one)) inFlight.add(one.topic);
      // What went behind it may have been published.
      else if (one.deferred && inFlight.has(one.topic)) this.#remove(one.id).failed(one.deferred);
      one.deferred = one.overtaken = one.waits = null;
    }
    this.#pending.clear();
    this.#closeSocket(...(wasClean ? [code, reason] : []));
    for (const sub of this.#subs.values()) sub.live = false;
    this.#hello = {};
    if (retry === null) {
      this.#state = CLOSED;
      this.#pageListeners.abort();
      this.#pageListeners = null;
      const error = new PushError("closed", `the connection was closed: ${code} ${reason}`);
      for (const { failed } of this.#publications.values()) failed(error);
      this.#publications.clear();
    } else {
      this.#state = CONNECTING;
      this.#isWaiting = true;
      this.#timer = setTimeout(() => this.#connect(), retry);
    }
    this.#emit("close", { code, reason, wasClean, retry });
  }

  // Full jitter, anywhere up to the ceiling: the clients of a restarted server must not come in one moment.
  #nextDelay(code, reason) {
    if (!(this.#options.reconnect?.(code, reason) ?? !(FINAL.includes(code) || code >= 4000))) return null;
    if (this.#state === OPEN && Date.now() - this.#openedAt > STABLE_AFTER) this.#failures = 0;
    const { reconnectionDelay = this.#baseDelay, reconnectionDelayMax = Math.max(30_000, reconnectionDelay) } = this.#options;
    const ceiling = Math.max(reconnectionDelay * 2 ** this.#failures++, MIN_CEILING[code] ?? 0);
    return Math.random() * Math.min(reconnectionDelayMax, ceiling);
  }

  // The network is back, or somebody looks at the page again, which may have slept. Timers alone are too slow for either.
  #wake(online) {
    if (this.#state === OPEN) this.#isOpen() && this.#ping();
    else if (online || this.#isWaiting) {
      this.#failures = 0;
      this.#connect();
    }
  }

  // Whether requests can be sent. After the server's close frame a browser waits for the end of TCP for a time and then
  // reports `close`; undici (Node.js) waits without limit.
  #isOpen() {
    const socket = this.#socket;
    if (this.#state === OPEN && !this.#isClosing && socket.readyState > OPEN) {
      this.#isClosing = true;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => {
        endTransport(socket); // `close` follows, with the server's code
        this.#timer = setTimeout(() => this.#handleClose(1006, "closed by the server, which did not end TCP"), 100);
      }, CLOSE_TIMEOUT);
    }
    return this.#state === OPEN && !this.#isClosing;
  }

  #startHeartbeat(wait) {
    this.#timer = setTimeout(() => {
      if (!this.#isOpen()) return;
      const quiet = Date.now() - this.#lastReceived; // negative when somebody has set the clock
      if (!this.#heartbeat || (quiet >= 0 && quiet < this.#heartbeat)) this.#startHeartbeat(this.#heartbeat - quiet);
      else this.#ping();
    }, Math.min(wait > 0 ? wait : CLOSE_TIMEOUT, CLOSE_TIMEOUT));
  }

  #ping() {
    clearTimeout(this.#timer);
    this.#lastReceived = 0;
    this.#socket.send('{"type":"ping"}');
    this.#timer = setTimeout(() => {
      if (this.#lastReceived) this.#startHeartbeat(this.#heartbeat);
      else if (this.#isOpen()) this.#handleClose(1006, "no answer to a ping");
    }, this.#options.pongTimeout);
  }

  // ---- what goes out ----

  // False: it was too long, and has ended.
  #send(one) {
    const { id, text } = one;
    const limit = this.#hello.max_message_size;
    if (text.length * 3 > limit && new TextEncoder().encode(text).length > limit) {
      this.#remove(id).failed(new PushError("too_big", `a request has at most ${limit} bytes`));
      return false;
    }
    one.sent = this.#attemptId;
    one.deferred = null;
    this.#socket.send(text);
    return true;
  }

  #request(request, done, failed, wanted) {
    const one = { ...request, text: encode(request), done, failed, wanted };
    this.#pending.set(request.id, one);
    if (!this.#send(one)) this.#flush();
  }

  // It is on its way on this connection, and an answer to it may come.
  #isInFlight(one) {
    return one.sent === this.#attemptId && !one.deferred;
  }

  // A publication waits until the subscriptions that were asked for before it have begun, and so is heard by them. Those
  // of an earlier connection that had no answer go out again: their `idempotency_key` keeps them from being published twice. To
  // one topic they go in order: none passes one that waits, and where the server has put one off, none is sent behind
  // another until all are answered.
  #flush() {
    if (!this.#isOpen() || [...this.#pending.values()].some((one) => one.type === "subscribe")) return;
    const inFlight = new Map(); // how many, by topic
    for (const one of this.#publications.values()) inFlight.set(one.topic, (inFlight.get(one.topic) ?? 0) + this.#isInFlight(one));
    for (const topic of this.#serialTopics) if (!inFlight.has(topic)) this.#serialTopics.delete(topic);
    for (const one of this.#publications.values()) {
      const { topic } = one;
      if (this.#isInFlight(one)) continue;
      const before = inFlight.get(topic);
      const full = one.waits || before >= (this.#serialTopics.has(topic) ? 1 : WINDOW);
      if (full || this.#send(one)) inFlight.set(topic, full ? Infinity : before + 1);
    }
  }

  #isUnsubscribing(topic) {
    return [...this.#pending.values()].some((one) => one.type === "unsubscribe" && (one.topic ?? one.pattern) === topic);
  }

  #subscribe(sub) {
    const { topic, position, tags, latest, last } = sub;
    sub.live = false;
    if (this.#isUnsubscribing(topic)) return; // it follows when that is answered
    const request = { type: "subscribe", id: ++this.#lastId, ...target(topic), tags };
    if (position && sub.resume) request.since = { ...position };
    else Object.assign(request, { latest, last });
    const wanted = () => this.#subs.get(topic) === sub;
    const done = (answer) => {
      if (!wanted()) return;
      if (request.since && (latest || last) && !answer.recovered) {
        // What was missed is gone; what everything stands at now, or was said last, may not be.
        sub.position = null;
        this.#unsubscribe(topic);
      } else {
        sub.start(answer);
      }
    };
    const failed = (error) => {
      if (!wanted()) return;
      this.#subs.delete(topic);
      if (sub.options.onError) callBack(sub.options.onError, error);
      else this.#emit("error", { error });
    };
    this.#request(request, done, failed, wanted);
  }

  #unsubscribe(topic) {
    if (!this.#isOpen() || this.#isUnsubscribing(topic)) return;
    const then = () => {
      const sub = this.#subs.get(topic);
      if (sub) this.#subscribe(sub);
    };
    this.#request({ type: "unsubscribe", id: ++this.#lastId, ...target(topic) }, then, then);
  }

  // ---- what comes in ----

  // Whatever it is: what can't be relied on is an `error`, and the next message is read.
  #receive(data) {
    this.#lastReceived = Date.now();
    try {
      this.#handle(typeof data === "string" ? JSON.parse(data) : parseBinary(data));
    } catch (error) {
      this.#emit("error", { error });
    }
  }

  #handle(message) {
    const { type, topic, messages } = message;
    switch (type) {
      case "message":
        return this.#deliver(topic, message);
      case "messages":
        for (const one of messages) this.#deliver(topic, one);
        return;
      case "hello":
        if (this.#state !== OPEN) this.#handleHello(checkMembers(message)); // only the first says anything
        return;
      case "subscribed":
      case "published":
      case "unsubscribed":
        return this.#handleAnswer(checkMembers(message));
      case "lagged":
        assertValid(isInt(messages), "messages");
        return this.#emit(type, { messages });
      case "error":
        return this.#handleError(checkMembers(message));
    }
    assertValid(isText(type), "type"); // another one is of a version to come
  }

  #handleAnswer(message) {
    const { id, type, epoch, offset } = message;
    const one = this.#find(id);
    if (!one || !type.startsWith(one.type) || !this.#isInFlight(one)) return;
    // A pattern has no position.
    if (type === "subscribed" && one.topic) assertValid(epoch && offset !== undefined, "epoch and offset");
    this.#remove(id).done(message);
    for (const other of this.#publications.values()) {
      if (type !== "published" || other.topic !== one.topic || other.id > id) continue;
      // To publish it when a later one was published would change the order.
      if (other.deferred) this.#remove(other.id).failed(other.deferred);
      else other.overtaken = true;
    }
    this.#flush();
  }

  #handleHello(hello) {
    clearTimeout(this.#timer);
    this.#hello = hello;
    const { heartbeat, retry } = hello;
    this.#heartbeat = heartbeat ? clamp(heartbeat, HEARTBEAT) : 0;
    if (retry !== undefined) this.#baseDelay = clamp(retry, HELLO_RETRY);
    this.#state = OPEN;
    this.#openedAt = this.#lastReceived;
    this.#startHeartbeat(this.#heartbeat);
    for (const sub of this.#subs.values()) this.#subscribe(sub);
    this.#flush();
    this.#emit("open", { hello });
  }

  #find(id) {
    return this.#pending.get(id) ?? this.#publications.get(id);
  }

  #remove(id) {
    const one = this.#find(id);
    this.#pending.delete(id);
    this.#publications.delete(id);
    return one;
  }

  #handleError({ id, code, message, retry }) {
    const one = this.#find(id);
    const error = new PushError(code, message, retry);
    if (id === undefined) this.#emit("error", { error });
    if (!one || !this.#isInFlight(one)) return;
    if (retry === undefined || one.overtaken) {
      this.#remove(id).failed(error);
      return this.#flush();
    }
    one.deferred = error; // until it is sent again
    one.waits = true;
    const kept = this.#publications.has(id);
    if (kept) this.#serialTopics.add(one.topic);
    one.least = 2 * (one.least ?? ERROR_RETRY[0] / 2);
    setTimeout(() => {
      if (this.#find(id) !== one || one.deferred !== error) return; // another connection sends it by itself
      one.waits = false;
      if (!kept) {
        if (one.wanted?.() ?? true) return this.#send(one);
        this.#remove(id);
      }
      this.#flush();
    }, clamp(retry, ERROR_RETRY, one.least)).unref?.(); // Node.js would wait for it after `close()`
  }

  #deliver(topic, one) {
    const { offset, text, data } = checkMembers(one);
    assertValid(isText(topic), "topic");
    assertValid(isInt(offset), "offset");
    const message = text ?? data;
    if (message === undefined) return; // a payload of a kind to come
    // Whoever listens by a pattern did not ask for the history of one topic.
    const own = this.#subs.get(topic);
    if (own?.deliver(topic, offset, message)) return;
    const all = [...this.#subs.values()].filter((sub) => sub.prefix && topic.startsWith(sub.prefix));
    for (const sub of all) callBack(sub.callback, message, { topic, offset, replayed: false });
    if (!own && !all.length) this.#emit("message", { topic, offset, data: message });
  }

  #emit(type, facts) {
    this.dispatchEvent(Object.assign(new Event(type), facts));
  }
}

class Subscription {
  live = false; // whether the server has answered on this connection
  position; // { epoch, offset } of the last message seen, or where it went live; none for a pattern
  #hadPosition; // whether there is something that could have been missed
  #replaysLeft = 0; // messages from the history to come
  #replayEnd = 0; // the last offset they can have

  constructor(topic, callback, options) {
    const { latest, last, tags, since = null, resume = !latest || !!since } = options;
    // Undefined is not sent; a wrong value is, and the server says what is wrong with it.
    Object.assign(this, { topic, callback, options, latest: latest || undefined, last, tags, resume });
    this.position = since && { ...since };
    this.prefix = isPattern(topic) ? topic.slice(0, -1) : null;
    this.#hadPosition = !!since;
  }

  start(answer) {
    const { epoch, offset, recovered, replayed } = answer;
    const { onSubscribed, onRecovered, onLost } = this.options;
    const same = this.position?.epoch === epoch;
    if (!this.prefix) {
      const seen = same ? Math.min(this.position.offset, offset) : 0;
      this.position = { epoch, offset: replayed ? seen : offset };
    }
    this.live = true;
    this.#replaysLeft = replayed;
    this.#replayEnd = offset;
    callBack(onSubscribed, answer);
    // The newest of each key is whole by itself, as long as the topic has not begun another life.
    const whole = recovered || (same && this.latest && !this.resume);
    if (this.#hadPosition) callBack(whole ? onRecovered : onLost, answer);
    this.#hadPosition = true;
  }

  /** Whether the message was from the history. */
  deliver(topic, offset, message) {
    if (!this.live || this.prefix) return false; // by a pattern, before what it would come after
    const replayed = this.#replaysLeft > 0 && offset <= this.#replayEnd;
    if (replayed) this.#replaysLeft--;
    const { epoch, offset: seen } = this.position;
    this.position.offset = Math.max(seen, replayed && !this.#replaysLeft ? this.#replayEnd : offset);
    if (offset > seen) callBack(this.callback, message, { topic, epoch, offset, replayed });
    return replayed;
  }
}
