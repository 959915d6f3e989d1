/** Topics over one WebSocket that comes back by itself and goes on where it was. */

/** A place in a topic: `offset` counts its messages from 1 in the life that `epoch` names. */
export interface Position {
  epoch: string;
  offset: number;
}

/** What comes with each message. */
export interface MessageInfo {
  /** The topic itself, also for a pattern. */
  topic: string;
  offset: number;
  /** Absent for a pattern: it has no place to come back to. */
  epoch?: string;
  /** Whether it comes from what the topic kept. */
  replayed: boolean;
}

/** How a subscription began on this connection. */
export interface Subscribed {
  /** Absent for a pattern. */
  topic?: string;
  /** Absent for a topic. */
  pattern?: string;
  /** Absent for a pattern. */
  epoch?: string;
  /** Absent for a pattern. */
  offset?: number;
  /** Whether everything behind the place that was asked for follows. */
  recovered: boolean;
  /** Messages from what the topic kept that follow. */
  replayed: number;
}

export interface SubscribeOptions {
  /** Begin with the newest message of each key that is kept; after a cut again, unless `resume` is set. */
  latest?: boolean;
  /**
   * Begin with the last so many messages that are kept, 1 to 65,536; after a cut again where what was missed is no longer
   * kept, or where `resume` is false. Not with `latest`, not for a pattern.
   */
  last?: number;
  /** Only messages with one of these tags, 1 to 16 of 1 to 64 bytes each. Default: all. */
  tags?: readonly string[];
  /** Go on from here, as `Subscription.position` gave it. With `latest` or `last`, that is what follows where this is lost. */
  since?: Position | null;
  /** After a cut, get what was missed. Default true, with `latest` alone false. */
  resume?: boolean;
  /** Each time the server has answered, before any message. */
  onSubscribed?(how: Subscribed): void;
  /** After a cut, or with `since`: nothing is missing. What was missed comes next. */
  onRecovered?(how: Subscribed): void;
  /** After a cut, or with `since`: something may be missing. Load your state anew. */
  onLost?(how: Subscribed): void;
  /** The server refused, and the subscription has ended. Without it, `error` is dispatched. */
  onError?(error: PushError): void;
}

/** A pattern has no history to begin with. */
export type PatternOptions = Pick<SubscribeOptions, "tags" | "onSubscribed" | "onLost" | "onError">;

export interface Subscription {
  readonly topic: string;
  /** Where to go on from later, as `since`; null before it began. */
  readonly position: Position | null;
  unsubscribe(): void;
}

export interface PatternSubscription {
  readonly pattern: string;
  /** A pattern stands for many topics and has no position. */
  readonly position: null;
  unsubscribe(): void;
}

export interface PublishOptions {
  /** What the message is the latest state of. */
  key?: string;
  /** What subscriptions with `tags` choose it by, 1 to 16 of 1 to 64 bytes each. */
  tags?: readonly string[];
  /** Publishing again with the same string does nothing. Default: one of its own for each. */
  idempotencyKey?: string;
  /** Milliseconds that the topic keeps it. Default: the topic's own. */
  ttl?: number;
  /** Whether this connection's own subscription gets it too. Default true. */
  echo?: boolean;
  /** Milliseconds until it is given up. Default that of the connection. */
  timeout?: number;
}

/** Where the message is; without `epoch` and `offset` where nobody listened and nothing is kept. */
export interface Published {
  epoch?: string;
  offset?: number;
  /** Connections that it was queued for. */
  receivers: number;
  /** True where its `idempotencyKey` was there before. */
  repeated?: boolean;
}

/** What the server said first. Times in milliseconds, sizes in bytes. */
export interface Hello {
  protocol: string;
  /** The connection's id, `connection` in the requests of the API. */
  connection: string;
  time: number;
  heartbeat: number;
  /** The ceiling of the first wait before coming back. */
  retry?: number;
  max_message_size: number;
  max_subscriptions: number;
}

/** What is asked of a WebSocket: the browser's, Node's from 22 on, or that of the package `ws`. */
export interface WebSocketConstructor {
  new (url: string, protocols: string): {
    binaryType: any;
    readonly bufferedAmount: number;
    readonly readyState: number;
    onmessage: any;
    onclose: any;
    onerror: any;
    send(data: string): void;
    close(code?: number, reason?: string): void;
  };
}

export interface ConnectOptions {
  /** Default `globalThis.WebSocket`. */
  WebSocket?: WebSocketConstructor;
  /** Milliseconds: ceiling of the first wait, doubled with each failure. Default the server's `retry`, 1,000 before it said one. */
  reconnectionDelay?: number;
  /** Milliseconds: the highest ceiling. Default 30,000, or `reconnectionDelay` where that is longer. */
  reconnectionDelayMax?: number;
  /** Milliseconds for an attempt, the URL's function included. Default 10,000. */
  connectTimeout?: number;
  /** Milliseconds for anything to come after a ping; then the connection is dead. Default 10,000. */
  pongTimeout?: number;
  /** Milliseconds for a publication to be answered. Default 10,000. */
  timeout?: number;
  /** Publications that may wait while there is no connection; 0: they are refused. Default 64. */
  queue?: number;
  /** Whether to come back after this end. Default, and for undefined: not after 1000, 1002, 1003, 1007 to 1010, 4000 and up. */
  reconnect?(code: number, reason: string): boolean | undefined;
}

/**
 * What a request ended with: a code of the server, or `timeout`, `closed`, `queue`, `already`, `too_big`, `topic`,
 * `pattern`. A publication with `retry` was put off by the server, and a later one to the same topic was published meanwhile.
 */
export class PushError extends Error {
  constructor(code: string, message: string, retry?: number);
  readonly name: "PushError";
  readonly code: string;
  readonly retry?: number;
}

export interface OpenEvent extends Event {
  readonly hello: Hello;
}

export interface ClosedEvent extends Event {
  readonly code: number;
  readonly reason: string;
  readonly wasClean: boolean;
  /** Milliseconds until the next attempt; null: there is none. */
  readonly retry: number | null;
}

export interface FailureEvent extends Event {
  readonly error: Error;
}

export interface LaggedEvent extends Event {
  /** How many messages of this connection's topics the server gave up, since it read too slowly. */
  readonly messages: number;
}

export interface UnclaimedEvent extends Event {
  readonly topic: string;
  readonly offset: number;
  /** As a subscription's callback would get it. */
  readonly data: any;
}

export interface PushEventMap {
  open: OpenEvent;
  close: ClosedEvent;
  error: FailureEvent;
  lagged: LaggedEvent;
  /** A message that no subscription of this page is for: the application subscribed its connection. */
  message: UnclaimedEvent;
}

export interface Push extends EventTarget {
  /** 0 CONNECTING, also while it waits for the next attempt; 1 OPEN; 3 CLOSED. */
  readonly readyState: 0 | 1 | 3;
  /** Bytes that the socket has not written yet. */
  readonly bufferedAmount: number;
  /** What the server said first on this connection; empty where there is none. */
  readonly hello: Partial<Hello>;
  /**
   * Subscribes to a topic until `unsubscribe`; over all connections to come. A JSON message comes parsed, a text as
   * string, bytes as Uint8Array. Throws a PushError: `topic` for a pattern, `already` where there is a subscription.
   */
  subscribe<T = any>(
    topic: string,
    callback: (message: T, info: MessageInfo) => void,
    options?: SubscribeOptions,
  ): Subscription;
  /**
   * Subscribes to every topic below a prefix, `ticks/*`; otherwise as `subscribe`. Throws a PushError: `pattern` for what
   * does not end with that, `already` where there is a subscription.
   */
  subscribePattern<T = any>(
    pattern: string,
    callback: (message: T, info: MessageInfo) => void,
    options?: PatternOptions,
  ): PatternSubscription;
  /** Publishes a string as text, everything else as JSON. Rejects with a PushError. */
  publish(topic: string, data: unknown, options?: PublishOptions): Promise<Published>;
  /** Ends the connection there is and makes another at once, also after `close()`. */
  reconnect(): void;
  /** Ends it for good, until `reconnect()`. Publications without an answer are rejected. */
  close(code?: number, reason?: string): void;

  addEventListener<K extends keyof PushEventMap>(
    type: K,
    listener: (this: Push, event: PushEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
}

/**
 * Connects, and keeps connected until `close()`. The URL may be relative to the page and be one of http; a function is
 * asked before each attempt, for a token that is fresh. Default `/push`.
 */
export function connect(url?: string | URL | (() => string | URL | Promise<string | URL>), options?: ConnectOptions): Push;
