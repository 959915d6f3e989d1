// The page's whole behaviour: a socket that comes back by itself, the log of the room, what is sent, the
// figures, and the other endpoints.

import { $, element, setText } from "./dom.js";
import { imageType } from "./image.js";

const MAX_MESSAGE = 1024 * 1024; // what /chat takes in one message
const LOG_ENTRIES = 500; // older entries leave the page
const LOG_IMAGES = 40; // older images give their memory back and leave a note
const RETRY_BASE = 250; // ms, doubled with every failure
const RETRY_CAP = 15_000; // ms
const STEADY = 3_000; // ms a connection must last before the backoff starts afresh
const PATIENCE = 10_000; // ms for an attempt; a packet lost on the way could hold it for minutes
const TICK = 100; // ms between two looks at what has no event: bufferedAmount and the countdown

const STATES = ["CONNECTING", "OPEN", "CLOSING", "CLOSED"];

const CLOSE_CODES = {
  1000: "Normal: both sides had said what they wanted to say.",
  1001: "Going away: the server stops, or the page was left.",
  1002: "Protocol error: the framing rules were broken.",
  1003: "A kind of message that the endpoint does not take.",
  1004: "Reserved.",
  1005: "The close frame carried no code.",
  1006: "No closing handshake: server gone, network lost, or handshake refused. A browser does not tell which.",
  1007: "Bad data, such as text that is not UTF-8.",
  1008: "Against the server's policy.",
  1009: "Message too big for the server.",
  1010: "An extension that the client needs is missing.",
  1011: "The server met an error of its own.",
  1012: "The server restarts.",
  1013: "The server is busy: try again later.",
  1014: "A gateway got a bad answer.",
  1015: "The TLS handshake failed.",
};

const encoder = new TextEncoder();
const calm = matchMedia("(prefers-reduced-motion: reduce)");
// A browser's clock steps by a tenth of a millisecond or so.
const milliseconds = (ms) => (ms < 0.1 ? "under 0.1 ms" : `${ms.toFixed(ms < 10 ? 2 : 0)} ms`);
const plural = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

// Endpoints are relative to the page, so that it also works behind a proxy which adds a path.
function endpoint(path) {
  const url = new URL(path, document.baseURI);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = url.hash = "";
  return url.href;
}

function bytesInWords(n) {
  if (n < 1024) return `${n} B`;
  const [size, unit] = n < 1024 * 1024 ? [n / 1024, "KiB"] : [n / 1024 / 1024, "MiB"];
  return `${size.toFixed(size < 10 ? 2 : 1)} ${unit}`;
}

function closeInWords(code) {
  if (CLOSE_CODES[code]) return CLOSE_CODES[code];
  if (code >= 4000) return "Private: it means what the application says.";
  if (code >= 3000) return "Registered for libraries and frameworks.";
  return "No known meaning.";
}

// ---- a socket that comes back ----

class Link {
  wanted = false; // whether a lost connection is to be made again
  attempt = 0; // failures since the last steady connection
  due = 0; // performance.now() of the next attempt, 0 when none is planned
  hurry = false; // whether the next attempt is wished for, not a retry
  ws = null;
  #timers = {};

  constructor(url, on) {
    this.url = url;
    this.on = on;
  }

  get state() {
    return this.ws ? this.ws.readyState : WebSocket.CLOSED;
  }

  get isOpen() {
    return this.state === WebSocket.OPEN;
  }

  // Connects now: an open connection is closed first, a slow attempt is given up.
  connect() {
    this.wanted = true;
    this.attempt = 0;
    if (this.isOpen) {
      this.hurry = true;
      this.ws.close(1000, "reconnect");
    } else {
      this.#dial();
    }
  }

  disconnect() {
    this.wanted = false;
    this.due = 0;
    clearTimeout(this.#timers.retry);
    this.ws?.close(1000, "disconnect");
  }

  retryNow() {
    if (this.due) this.#dial();
  }

  #dial() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.due = 0;
    this.hurry = false;
    this.#abandon();
    const ws = new WebSocket(this.url);
    this.ws = ws;
    ws.binaryType = "arraybuffer"; // a Blob would have to be read asynchronously, out of order with text
    this.#timers.patience = setTimeout(() => ws.close(), PATIENCE);
    ws.onopen = () => {
      clearTimeout(this.#timers.patience);
      this.#timers.steady = setTimeout(() => (this.attempt = 0), STEADY);
      this.on.open();
    };
    ws.onmessage = (event) => this.on.message(event.data);
    ws.onclose = (event) => {
      clearTimeout(this.#timers.patience);
      clearTimeout(this.#timers.steady);
      if (this.wanted) this.#plan();
      this.on.close(event);
    };
    this.on.dial();
  }

  // A socket that hangs in CONNECTING or CLOSING may report much later: it is over for us now.
  #abandon() {
    if (this.state === WebSocket.CLOSED) return;
    this.ws.onopen = this.ws.onmessage = this.ws.onclose = null;
    this.ws.close();
    this.on.close({ code: 1006, reason: "" });
  }

  // Full jitter, anywhere up to the ceiling: the clients of a restarted server must not come in one moment.
  #plan() {
    const ceiling = Math.min(RETRY_CAP, RETRY_BASE * 2 ** this.attempt);
    const delay = this.hurry ? 0 : Math.random() * ceiling;
    this.attempt += 1;
    this.due = performance.now() + delay;
    this.#timers.retry = setTimeout(() => this.#dial(), delay);
  }
}

// ---- the log ----

const log = $("log");
const scroller = $("scroll");
let queue = []; // entries not yet on the page, as functions that build them
let flushing = 0;
let unseen = 0;
let pinned = true; // whether the reader is at the end, and wants to stay there

// Batches, since a layout for each of thousands of messages per second would freeze the tab; and by a
// timer, since requestAnimationFrame sleeps in a hidden tab.
function enqueue(build) {
  queue.push(build);
  if (queue.length > LOG_ENTRIES) queue.shift();
  flushing ||= setTimeout(flush, 16);
}

function flush() {
  flushing = 0;
  const batch = document.createDocumentFragment();
  for (const build of queue) batch.append(build());
  unseen = pinned ? 0 : unseen + queue.length;
  queue = [];
  log.append(batch);
  while (log.childElementCount > LOG_ENTRIES) discard(log.firstElementChild);
  forgetOldImages();
  $("empty").hidden = true;
  if (pinned) toBottom();
  showUnseen();
}

function discard(entry) {
  URL.revokeObjectURL(entry.querySelector("img")?.src);
  entry.remove();
}

function forgetOldImages() {
  const images = log.getElementsByTagName("img");
  while (images.length > LOG_IMAGES) {
    URL.revokeObjectURL(images[0].src);
    images[0].replaceWith(element("span", `${images[0].alt} (no longer kept)`));
  }
}

const atBottom = () => scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 48;
function toBottom() {
  pinned = true; // now, since the scroll event comes only with the next frame
  scroller.scrollTop = scroller.scrollHeight;
}

function showUnseen() {
  $("newest").hidden = unseen === 0;
  if (unseen) setText($("newest"), `${plural(unseen, "new message")} ↓`);
}

// Only a move upwards leaves the end: growth alone also takes it out of sight, before we can follow.
let lastTop = 0;
scroller.addEventListener("scroll", () => {
  const up = scroller.scrollTop < lastTop;
  lastTop = scroller.scrollTop;
  pinned = atBottom() || (pinned && !up);
  if (pinned) unseen = 0;
  showUnseen();
});
// Images grow the log when they are decoded; hints and on-screen keyboards shrink the room.
const heights = new ResizeObserver(() => pinned && toBottom());
heights.observe(log);
heights.observe(scroller);
$("newest").addEventListener("click", () => {
  toBottom();
  scroller.focus();
});

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit" });

// The time is shown by the style sheet, so that the entry's text stays exactly what the server sent.
function entry(kind, mine, ...content) {
  const li = element("li");
  Object.assign(li.dataset, { kind, time: clock.format() }, mine && { mine });
  li.append(...content);
  return li;
}

function say(text) {
  enqueue(() => entry("system", false, element("span", text, { dir: "auto" })));
}

// A colour of one's own, the same on every screen.
function hue(name) {
  let hash = 0;
  for (const char of name) hash = (hash * 31 + char.codePointAt(0)) | 0;
  return ((hash % 360) + 360) % 360;
}

// "name:msg" is talk, "name left" is news. A name has no colon (see `currentName`), so the first one ends it.
function showText(text, mine) {
  const colon = text.indexOf(":");
  if (colon < 0) return say(text);
  const name = text.slice(0, colon);
  enqueue(() => {
    const who = element("b", name, { dir: "auto" });
    who.style.setProperty("--hue", hue(name));
    return entry("text", mine, who, ":", element("span", text.slice(colon + 1), { dir: "auto" }));
  });
}

function showBinary(buffer, mine) {
  const type = imageType(new Uint8Array(buffer));
  enqueue(() => (type ? imageEntry(buffer, type, mine) : binaryEntry(buffer.byteLength, mine)));
}

function binaryEntry(length, mine) {
  return entry("binary", mine, element("span", `binary, ${length} bytes`));
}

function imageEntry(buffer, type, mine) {
  const image = element("img", undefined, {
    alt: `${type.slice(6).toUpperCase()} image, ${bytesInWords(buffer.byteLength)}`,
    src: URL.createObjectURL(new Blob([buffer], { type })),
  });
  const li = entry("image", mine, image);
  image.onerror = () => {
    URL.revokeObjectURL(image.src);
    li.replaceWith(binaryEntry(buffer.byteLength, mine));
  };
  return li;
}

// ---- the room ----

const totals = { received: 0, receivedBytes: 0, sent: 0, sentBytes: 0 };
let awaited = []; // what this tab has sent and not yet seen come back: { key, at, text }
let wasOpen = false;
let lost = false; // whether the room has been told that the connection is gone

const chat = new Link(endpoint("chat"), {
  dial: showStatus,
  open() {
    wasOpen = true;
    if (lost) say("You are back in the room");
    lost = false;
    hint("");
    checkHealth();
    showStatus();
  },
  message(data) {
    const text = typeof data === "string";
    totals.received += 1;
    totals.receivedBytes += text ? encoder.encode(data).length : data.byteLength;
    const mine = recognise(text ? data : data.byteLength);
    text ? showText(data, mine) : showBinary(data, mine);
    ring();
  },
  close(event) {
    showClose(event);
    if (wasOpen) leaveRoom(event.code); // failed attempts are not news to the room
    wasOpen = false;
    showStatus();
  },
});

// How an open connection ended tells more than the failed attempts after it, which are always 1006.
let ended = false;
function showClose({ code, reason }) {
  if (ended && !wasOpen) return;
  ended = true;
  setText($("close-code"), String(code));
  setText($("close-reason"), reason);
  $("close-reason").hidden = !reason;
  setText($("close-words"), closeInWords(code));
}

function leaveRoom(code) {
  lost = true;
  say(!chat.wanted ? "You left the room" : chat.hurry ? "Reconnecting" : `Connection lost (${code})`);
  // A WebSocket gives no receipt. What had not come back may or may not have been heard.
  for (const { text } of awaited) if (text) say(`Perhaps not delivered: ${text}`);
  awaited = [];
  checkHealth();
}

// The server sends everyone the same bytes, so a tab knows its own messages by having sent them.
function recognise(key) {
  const at = awaited.findIndex((one) => one.key === key);
  if (at < 0) return false;
  setText($("round"), milliseconds(performance.now() - awaited[at].at));
  awaited.splice(at, 1);
  return true;
}

function send(data, size, key, text) {
  awaited.push({ key, text, at: performance.now() });
  if (awaited.length > 100) awaited.shift();
  chat.ws.send(data);
  totals.sent += 1;
  totals.sentBytes += size;
  showStatus();
}

// Whether a message of this size can go out now; if not, says why.
function maySend(size, what) {
  if (size > MAX_MESSAGE) {
    hint(`${what} has ${bytesInWords(size)} (${size} bytes); the server takes at most ${bytesInWords(MAX_MESSAGE)}.`);
    return false;
  }
  if (!chat.isOpen) {
    hint("Not connected: what you wrote stays here.");
    return false;
  }
  hint("");
  return true;
}

// Half an emoji (a lone surrogate, as from a cut paste) has no UTF-8 form.
const wellFormed = (text) => (text.toWellFormed ? text.toWellFormed() : text);

function sendText() {
  const box = $("message");
  const msg = wellFormed(box.value.trim());
  if (!msg) return;
  const name = currentName();
  const json = JSON.stringify({ name, msg });
  const size = encoder.encode(json).length;
  if (!maySend(size, "This message")) return;
  send(json, size, `${name}:${msg}`, msg);
  box.value = "";
  toBottom(); // who speaks wants to see it
}

async function sendFiles(files) {
  for (const file of files) {
    const what = file.name || "This image";
    if (!maySend(file.size, what)) return;
    const bytes = await file.arrayBuffer().catch(() => null);
    if (!bytes) return hint(`${what} could not be read.`);
    if (!maySend(bytes.byteLength, what)) return; // the connection may have gone while it was read
    send(bytes, bytes.byteLength, bytes.byteLength, what);
  }
}

const hint = (text) => setText($("hint"), text);

function onSubmit(id, action) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    action();
  });
}

onSubmit("composer", sendText);
$("message").addEventListener("input", () => hint(""));
$("message").addEventListener("keydown", (event) => {
  // Enter also ends the composition of a character in an input method; that one is not ours.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  sendText();
});
$("image").addEventListener("change", async (event) => {
  await sendFiles([...event.target.files]);
  event.target.value = ""; // else choosing the same file again would be no change
});
document.addEventListener("paste", (event) => {
  // Office programs put a picture beside copied text; the text is what was meant.
  const { files, types } = event.clipboardData;
  if (!files.length || types.includes("text/plain")) return;
  event.preventDefault();
  sendFiles([...files]);
});

// The whole page accepts a file, since missing the room by a finger would make the browser leave it.
const dragsFile = (event) => event.dataTransfer?.types.includes("Files");
const showDrop = (on) => $("chat").toggleAttribute("data-drop", on);
addEventListener("dragover", (event) => {
  if (!dragsFile(event)) return;
  event.preventDefault();
  showDrop(true);
});
addEventListener("dragleave", (event) => event.relatedTarget || showDrop(false)); // else only into a child
addEventListener("drop", (event) => {
  if (!dragsFile(event)) return;
  event.preventDefault();
  showDrop(false);
  sendFiles([...event.dataTransfer.files]);
});

// ---- the name ----

function randomName() {
  const pick = (words) => words.split(" ")[Math.floor(Math.random() * 12)];
  const mood = pick("Amber Brisk Calm Clear Early Gentle Merry Mellow Quiet Sunny Swift Wandering");
  return `${mood} ${pick("Dove Finch Heron Jackdaw Lark Linnet Martin Owl Sparrow Swallow Robin Wren")}`;
}

// Storage may be forbidden, as in private windows; the name is then for this visit only.
function stored(area, name) {
  try {
    if (name === undefined) return self[area].getItem("campanile.name");
    self[area].setItem("campanile.name", name);
  } catch {
    return null;
  }
}

function currentName() {
  // No colon, since a colon ends the name in what the server sends; and no control characters.
  const name = wellFormed($("name").value.replace(/[:\p{Cc}]/gu, " ").replace(/\s+/g, " ").trim());
  $("name").value = name || randomName();
  return $("name").value;
}

// A chosen name is for every later visit; a drawn one for this tab, so that a second tab is someone else.
$("name").value = stored("sessionStorage") || stored("localStorage") || randomName();
stored("sessionStorage", currentName());
$("name").addEventListener("change", () => {
  stored("sessionStorage", currentName());
  stored("localStorage", currentName());
});

// ---- the figures ----

const rates = new Array(60).fill(0); // messages per second in the last minute
let mark = { at: performance.now(), total: 0 };

function showStatus() {
  const state = STATES[chat.state];
  setText($("state"), state);
  document.querySelector(".link").dataset.state = state;
  setText($("ready"), `${chat.state} (${state.toLowerCase()})`);
  setText($("buffered"), String(chat.ws?.bufferedAmount ?? 0));
  setText($("detail"), detail());
  setText($("reconnect"), chat.due ? "Reconnect now" : chat.wanted ? "Reconnect" : "Connect");
  setText($("disconnect"), chat.due ? "Stop" : "Disconnect");
  $("disconnect").disabled = !chat.wanted;
  setText($("received"), `${plural(totals.received, "message")}, ${bytesInWords(totals.receivedBytes)}`);
  setText($("sent"), `${plural(totals.sent, "message")}, ${bytesInWords(totals.sentBytes)}`);
  setText($("protocol"), chat.isOpen ? chat.ws.protocol || "none" : "–");
  setText($("extensions"), chat.isOpen ? chat.ws.extensions || "none" : "–");
}

function detail() {
  if (!chat.wanted) return chat.state === WebSocket.CLOSED ? "you disconnected" : "";
  if (!chat.due) return chat.isOpen || !chat.attempt ? "" : `attempt ${chat.attempt}`;
  const left = Math.max(0, chat.due - performance.now()) / 1000;
  return `attempt ${chat.attempt} in ${left.toFixed(1)}\u00a0s`;
}

function showRate() {
  const now = performance.now();
  const passed = (now - mark.at) / 1000; // more than a second where a hidden tab's timers are slowed
  if (passed < 1) return;
  rates.shift();
  rates.push((totals.received - mark.total) / passed);
  mark = { at: now, total: totals.received };
  setText($("rate"), Math.round(rates.at(-1)).toLocaleString("en"));
  drawSpark();
}

function drawSpark() {
  const top = Math.max(1, ...rates);
  const points = rates.map((rate, x) => `${x} ${(19 - (rate / top) * 18).toFixed(1)}`);
  $("spark").setAttribute("d", `M${points.join("L")}`);
}

// The bell swings once for a message, and not anew for each of a thousand.
let swinging = null;
function ring() {
  if (swinging || document.hidden || calm.matches) return;
  const swing = (id, ...degrees) =>
    $(id).animate(
      degrees.map((d) => ({ transform: `rotate(${d}deg)` })),
      { duration: 1100, easing: "ease-in-out" },
    );
  swing("clapper", 0, 8, -12, 9, -5, 2, 0);
  swinging = swing("bell", 0, 17, -14, 9, -5, 2, 0);
  swinging.onfinish = () => (swinging = null);
}

async function checkHealth() {
  const start = performance.now();
  const answer = await fetch("healthz", { cache: "no-store" }).catch(() => null);
  const took = milliseconds(performance.now() - start);
  setText($("health"), answer?.ok ? `healthy, ${took}` : answer ? `HTTP ${answer.status}` : "unreachable");
  $("health").dataset.good = Boolean(answer?.ok);
}

// ---- the other endpoints ----

// A plain socket, opened at the first use and kept; resolves when it is open.
function opener(path, { message, close }) {
  let ready = null;
  return () =>
    (ready ??= new Promise((resolve, reject) => {
      const ws = new WebSocket(endpoint(path));
      ws.binaryType = "arraybuffer";
      ws.onopen = () => resolve(ws);
      ws.onmessage = (event) => message(event.data);
      ws.onclose = (event) => {
        ready = null;
        const words = `Closed with ${event.code}. ${closeInWords(event.code)}`;
        reject(new Error(words));
        close(words);
      };
    }));
}

let answered = null; // settles the round trip on its way
const openEcho = opener("echo", {
  message: (data) => answered?.resolve(data),
  close: (words) => answered?.reject(new Error(words)),
});

async function roundTrip(ws, text) {
  const start = performance.now();
  const back = await new Promise((resolve, reject) => {
    answered = { resolve, reject };
    ws.send(text);
  });
  const took = performance.now() - start;
  if (back !== text) throw new Error("Something else came back.");
  return took;
}

let echoing = false; // a flag and not disabled buttons, which would lose the keyboard focus

async function echo(times) {
  if (echoing) return;
  echoing = true;
  const text = wellFormed($("echo-text").value);
  try {
    const ws = await openEcho();
    const took = [];
    for (let i = 0; i < times; i++) took.push(await roundTrip(ws, text));
    took.sort((a, b) => a - b);
    const [fastest, median] = [took[0], took[times >> 1]].map(milliseconds);
    const many = `${times} round trips: median ${median}, fastest ${fastest}`;
    setText($("echo-result"), times > 1 ? many : `“${text}” came back in ${median}`);
  } catch (error) {
    setText($("echo-result"), error.message);
  }
  echoing = false;
}

function heard(text) {
  const list = $("broadcast-log");
  list.prepend(element("li", text, { dir: "auto" }));
  if (list.childElementCount > 8) list.lastElementChild.remove();
}

const openBroadcast = opener("broadcast", {
  message: (data) => heard(typeof data === "string" ? data : `binary, ${data.byteLength} bytes`),
  close: heard,
});

function broadcast() {
  const send = (ws) => ws.send($("broadcast-text").value);
  openBroadcast().then(send, () => {}); // `close` has told why
}

onSubmit("echo", () => echo(1));
onSubmit("broadcast", broadcast);
$("echo-many").addEventListener("click", () => echo(100));

// ---- start ----

$("reconnect").addEventListener("click", () => chat.connect());
$("disconnect").addEventListener("click", () => {
  chat.disconnect();
  showStatus();
  $("reconnect").focus(); // the button under the finger is now disabled, and would drop the focus
});

addEventListener("online", () => chat.retryNow());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  chat.retryNow();
  checkHealth();
});

$("example").textContent = `const ws = new WebSocket("${endpoint("chat")}");
ws.onmessage = (event) => console.log(event.data);
ws.onopen = () => ws.send(JSON.stringify({ name: "me", msg: "hello" }));`;

setInterval(() => {
  showStatus();
  showRate();
}, TICK);
setInterval(() => document.hidden || checkHealth(), 15_000);
drawSpark();
checkHealth();
chat.connect();
