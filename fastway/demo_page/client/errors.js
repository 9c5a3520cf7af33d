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
    name = "FastwayError";
}
function told({ code, reason }) {
    return reason ? `${code}, ${reason}` : `${code}`;
}
/** No connection to the gateway is to be had. A browser does not tell why: `code` is 1006. */
export class ConnectFailed extends FastwayError {
    url;
    name = "ConnectFailed";
    code;
    reason;
    constructor(url, close, text = `no connection to ${url} (${told(close)})`) {
        super(text);
        this.url = url;
        this.code = close.code;
        this.reason = close.reason;
    }
}
/** The gateway did not answer in time. */
export class ConnectTimeout extends ConnectFailed {
    timeout;
    name = "ConnectTimeout";
    constructor(url, timeout) {
        super(url, { code: 1006, reason: "" }, `no connection to ${url} within ${timeout} ms`);
        this.timeout = timeout;
    }
}
/** A dial got no virtual connection. */
export class DialFailed extends FastwayError {
    remoteId;
    name = "DialFailed";
    constructor(remoteId, problem) {
        super(`dial of ${remoteId}: ${problem}`);
        this.remoteId = remoteId;
    }
}
/** The gateway refused: no server has that id, or a limit is reached. */
export class DialRefused extends DialFailed {
    name = "DialRefused";
    constructor(remoteId) {
        super(remoteId, "refused by the gateway");
    }
}
/** The gateway did not answer in time. */
export class DialTimeout extends DialFailed {
    timeout;
    name = "DialTimeout";
    constructor(remoteId, timeout) {
        super(remoteId, `no answer within ${timeout} ms`);
        this.timeout = timeout;
    }
}
/**
 * A virtual connection is closed. The wire has no reasons for that: those of this very class are in
 * good order, by either end, with code 1000.
 */
export class ConnectionClosed extends FastwayError {
    code;
    reason;
    name = "ConnectionClosed";
    constructor(text, code = 1000, reason = "", options) {
        super(text, options);
        this.code = code;
        this.reason = reason;
    }
    /** It was closed because somebody wanted it so. */
    get orderly() {
        return this.code === 1000;
    }
}
/** Too much was unread: the connection was closed. */
export class ReceiveQueueFull extends ConnectionClosed {
    messages;
    size;
    name = "ReceiveQueueFull";
    /**
     * @param messages How many were unread, with the one too many,
     * @param size and their bytes.
     */
    constructor(messages, size) {
        super(`too much was unread: ${messages} messages, ${size} bytes`, 1008, "receive queue full");
        this.messages = messages;
        this.size = size;
    }
}
/** A message that was to be text is no UTF-8: the connection was closed. */
export class BadText extends ConnectionClosed {
    name = "BadText";
    constructor(cause) {
        super("a message is no UTF-8", 1007, "no UTF-8", { cause });
    }
}
/** The connection to the gateway is gone, and with it its virtual connections. */
export class GatewayLost extends ConnectionClosed {
    name = "GatewayLost";
    constructor(close, cause, text) {
        super(text ?? `the gateway is lost (${told(close)})`, close.code, close.reason, cause === undefined ? undefined : { cause });
    }
    get orderly() {
        return false;
    }
}
/** The gateway did not answer a ping in time. */
export class PingTimeout extends GatewayLost {
    timeout;
    name = "PingTimeout";
    constructor(timeout) {
        super({ code: 4408, reason: "no answer to a ping" }, undefined, `the gateway did not answer a ping within ${timeout} ms`);
        this.timeout = timeout;
    }
}
/** `gateway.close()` was called. */
export class GatewayClosed extends GatewayLost {
    name = "GatewayClosed";
    constructor() {
        super({ code: 1000, reason: "" }, undefined, "the connection to the gateway was closed here");
    }
    get orderly() {
        return true;
    }
}
/** The gateway sent what a gateway does not send. */
export class ProtocolError extends FastwayError {
    name = "ProtocolError";
}
/** A message of `size` bytes does not fit a packet; `limit` would. */
export class MessageTooLarge extends FastwayError {
    size;
    limit;
    name = "MessageTooLarge";
    constructor(size, limit) {
        super(`a message of ${size} bytes is over ${limit}`);
        this.size = size;
        this.limit = limit;
    }
}
/** `waiting` bytes wait to be sent, and over `limit` may not: await what `send` returns. */
export class SendQueueFull extends FastwayError {
    waiting;
    limit;
    name = "SendQueueFull";
    constructor(waiting, limit) {
        super(`${waiting} bytes wait to be sent, over ${limit} may not`);
        this.waiting = waiting;
        this.limit = limit;
    }
}
