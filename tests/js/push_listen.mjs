// Clients of the server that can be made to misbehave, and what they hear.

import assert from "node:assert/strict";
import { test as nodeTest } from "node:test";
import { WebSocket } from "ws";
import { PushError, connect as connectTo } from "../../js/campanile.js";
import { Inbox, TEST_LIMIT, within } from "./harness.mjs";
import { FakeServer } from "./push_fake.mjs";

export const test = (name, body) => nodeTest(name, { timeout: TEST_LIMIT }, body);

export let server;
export const open = new Set();
export const connect = (url, options) => {
  const push = connectTo(url, { WebSocket, reconnectionDelay: 1, reconnectionDelayMax: 20, ...options });
  open.add(push);
  return push;
};
/** Starts the server of a group of tests, and ends it with every client. */
export const serving = (options) => async () => (server = await FakeServer.start(options));
export const ending = async () => {
  for (const push of open) push.close();
  open.clear();
  await server.stop();
};

/** A subscription whose messages, and whatever else it is told, wait in an inbox: `[what, value]`. */
export function listen(push, topic, options = {}) {
  const inbox = new Inbox();
  const told = {};
  for (const name of ["onSubscribed", "onRecovered", "onLost", "onError"]) told[name] = (value) => inbox.push([name, value]);
  const how = topic.endsWith("/*") ? "subscribePattern" : "subscribe";
  const sub = push[how](topic, (message, info) => inbox.push(["message", message, info]), { ...told, ...options });
  const next = async (what) => {
    const [kind, ...rest] = await inbox.next(what);
    assert.equal(kind, what, JSON.stringify(rest));
    return rest;
  };
  return { sub, inbox, next, message: async () => (await next("message"))[0] };
}

export async function rejected(promise, code) {
  const error = await within(promise.then(() => null, (error) => error), `rejection with ${code}`);
  assert.ok(error instanceof PushError, String(error));
  assert.equal(error.code, code);
  return error;
}
