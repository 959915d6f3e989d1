// A WebSocket that goes nowhere: a test says what comes in, and sees what goes out. With the timers of node:test's mock a
// day passes in a moment, and every run of a seed is the same.

import { mock } from "node:test";
import { connect as connectTo } from "../../js/campanile.js";

export class FakeSocket {
  static last;
  sent = [];
  bufferedAmount = 0;

  constructor() {
    FakeSocket.last = this;
  }

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close() {}

  /** A frame of text or of bytes, as it is; everything else as JSON. */
  tell(message) {
    const raw = typeof message === "string" || message instanceof ArrayBuffer;
    this.onmessage({ data: raw ? message : JSON.stringify(message) });
  }

  hello(more) {
    this.tell({ type: "hello", protocol: "campanile.v1.json", connection: "1", time: 0, heartbeat: 25_000, retry: 1_000,
      max_message_size: 65_536, max_subscriptions: 128, ...more });
    return this;
  }

  cut() {
    this.onclose({ code: 1006, reason: "", wasClean: false });
  }

  /** Requests of this type, the last one first. */
  asked(type) {
    return this.sent.filter((one) => one.type === type).reverse();
  }
}

/** A client without a network, and all that it told the page: `[type, event]`. */
export function connect(options) {
  const push = connectTo("ws://127.0.0.1/", { WebSocket: FakeSocket, ...options });
  const events = [];
  for (const type of ["open", "close", "error", "lagged", "message"]) push.addEventListener(type, (event) => events.push([type, event]));
  return { push, events, count: (type) => events.filter(([what]) => what === type).length };
}

/** Makes time stand still, but for `pass`. */
export const stop = () => mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_767_225_600_000 });
export const go = () => mock.timers.reset();
export const pass = (ms) => mock.timers.tick(ms);

/** The same numbers for the same seed (mulberry32): `below(n)`, `chance(p)`, `one(list)`. */
export function dice(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  const below = (n) => Math.floor(next() * n);
  return { below, chance: (p) => next() < p, one: (list) => list[below(list.length)] };
}
