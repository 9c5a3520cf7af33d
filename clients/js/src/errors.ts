/**
 * What can go wrong, each as a class of its own.
 *
 *     FastwayError
 *      +-- ConnectFailed         no connection to the gateway is to be had
 *      |    +-- ConnectTimeout
 *      +-- DialFailed            a dial got no virtual connection
 *      |    +-- DialRefused
 *      |    +-- DialTimeout
 *      +-- ConnectionClosed      a virtual connection is closed; this very class: in good order
 *      |    +-- ReceiveQueueFull too much of it was unread
 *      |    +-- BadText          a message was no UTF-8
 *      |    +-- GatewayLost      the connection to the gateway is gone
 *      |         +-- PingTimeout
 *      |         +-- GatewayClosed  by `gateway.close()`
 *      +-- ProtocolError         the gateway broke the protocol; the cause of a GatewayLost
 *      +-- MessageTooLarge
 *      +-- SendQueueFull         a sender that does not wait
 *
 * Rule: an error carries its values, not only a text. Times are in milliseconds.
 */

/** The root of all errors of this package. */
export class FastwayError extends Error {
  override name: string = "FastwayError";
}

/** What a WebSocket's close says: RFC 6455, section 7.4, and the gateway's own codes. */
export interface CloseCode {
  /** 1006: it ended without a code. */
  readonly code: number;
  readonly reason: string;
}

function told({ code, reason }: CloseCode): string {
  return reason ? `${code}, ${reason}` : `${code}`;
}

/** No connection to the gateway is to be had. A browser does not tell why: `code` is 1006. */
export class ConnectFailed extends FastwayError implements CloseCode {
  override name: string = "ConnectFailed";
  readonly code: number;
  readonly reason: string;

  constructor(
    readonly url: string,
    close: CloseCode,
    text = `no connection to ${url} (${told(close)})`,
  ) {
    super(text);
    this.code = close.code;
    this.reason = close.reason;
  }
}

/** The gateway did not answer in time. */
export class ConnectTimeout extends ConnectFailed {
  override name: string = "ConnectTimeout";

  constructor(
    url: string,
    readonly timeout: number,
  ) {
    super(url, { code: 1006, reason: "" }, `no connection to ${url} within ${timeout} ms`);
  }
}

/** A dial got no virtual connection. */
export class DialFailed extends FastwayError {
  override name: string = "DialFailed";

  constructor(
    readonly remoteId: number,
    problem: string,
  ) {
    super(`dial of ${remoteId}: ${problem}`);
  }
}

/** The gateway refused: no server has that id, or a limit is reached. */
export class DialRefused extends DialFailed {
  override name: string = "DialRefused";

  constructor(remoteId: number) {
    super(remoteId, "refused by the gateway");
  }
}

/** The gateway did not answer in time. */
export class DialTimeout extends DialFailed {
  override name: string = "DialTimeout";

  constructor(
    remoteId: number,
    readonly timeout: number,
  ) {
    super(remoteId, `no answer within ${timeout} ms`);
  }
}

/**
 * A virtual connection is closed. The wire has no reasons for that: those of this very class are in
 * good order, by either end, with code 1000.
 */
export class ConnectionClosed extends FastwayError implements CloseCode {
  override name: string = "ConnectionClosed";

  constructor(
    text: string,
    readonly code: number = 1000,
    readonly reason: string = "",
    options?: ErrorOptions,
  ) {
    super(text, options);
  }

  /** It was closed because somebody wanted it so. */
  get orderly(): boolean {
    return this.code === 1000;
  }
}

/** Too much was unread: the connection was closed. */
export class ReceiveQueueFull extends ConnectionClosed {
  override name: string = "ReceiveQueueFull";

  /**
   * @param messages How many were unread, with the one too many,
   * @param size and their bytes.
   */
  constructor(
    readonly messages: number,
    readonly size: number,
  ) {
    super(`too much was unread: ${messages} messages, ${size} bytes`, 1008, "receive queue full");
  }
}

/** A message that was to be text is no UTF-8: the connection was closed. */
export class BadText extends ConnectionClosed {
  override name: string = "BadText";

  constructor(cause: unknown) {
    super("a message is no UTF-8", 1007, "no UTF-8", { cause });
  }
}

/** The connection to the gateway is gone, and with it its virtual connections. */
export class GatewayLost extends ConnectionClosed {
  override name: string = "GatewayLost";

  constructor(close: CloseCode, cause?: unknown, text?: string) {
    super(
      text ?? `the gateway is lost (${told(close)})`,
      close.code,
      close.reason,
      cause === undefined ? undefined : { cause },
    );
  }

  override get orderly(): boolean {
    return false;
  }
}

/** The gateway did not answer a ping in time. */
export class PingTimeout extends GatewayLost {
  override name: string = "PingTimeout";

  constructor(readonly timeout: number) {
    super(
      { code: 4408, reason: "no answer to a ping" },
      undefined,
      `the gateway did not answer a ping within ${timeout} ms`,
    );
  }
}

/** `gateway.close()` was called. */
export class GatewayClosed extends GatewayLost {
  override name: string = "GatewayClosed";

  constructor() {
    super({ code: 1000, reason: "" }, undefined, "the connection to the gateway was closed here");
  }

  override get orderly(): boolean {
    return true;
  }
}

/** The gateway sent what a gateway does not send. */
export class ProtocolError extends FastwayError {
  override name: string = "ProtocolError";
}

/** A message of `size` bytes does not fit a packet; `limit` would. */
export class MessageTooLarge extends FastwayError {
  override name: string = "MessageTooLarge";

  constructor(
    readonly size: number,
    readonly limit: number,
  ) {
    super(`a message of ${size} bytes is over ${limit}`);
  }
}

/** `waiting` bytes wait to be sent, and over `limit` may not: await what `send` returns. */
export class SendQueueFull extends FastwayError {
  override name: string = "SendQueueFull";

  constructor(
    readonly waiting: number,
    readonly limit: number,
  ) {
    super(`${waiting} bytes wait to be sent, over ${limit} may not`);
  }
}
