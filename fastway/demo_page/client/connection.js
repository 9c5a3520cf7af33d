/**
 * A virtual connection: messages to and from one game server.
 *
 * Rule: what is unread is bounded, in messages and in bytes, of one and of all together; past that
 * a connection is closed, and its siblings do not notice.
 */
import { BadText, ConnectionClosed, FastwayError, MessageTooLarge, ReceiveQueueFull, } from "./errors.js";
import { call, Waiter } from "./waiting.js";
const ENCODER = new TextEncoder();
const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** What a message that waits costs beside its bytes, about. */
const OVERHEAD = 64;
/** What is unread on all virtual connections of a gateway, in bytes. */
export class Unread {
    limit;
    #size = 0;
    #holders = new Set();
    constructor(limit) {
        this.limit = limit;
    }
    get size() {
        return this.#size;
    }
    /** @internal */
    changed(conn, by) {
        this.#size += by;
        if (conn.unread)
            this.#holders.add(conn);
        else
            this.#holders.delete(conn);
        while (this.#size > this.limit && this.#holders.size)
            this.#worst().drop();
    }
    /** What closed ones left goes first, then the one that holds most pays. */
    #worst() {
        let worst;
        for (const one of this.#holders) {
            if (!worst ||
                (one.open === worst.open ? one.unreadBytes > worst.unreadBytes : !one.open)) {
                worst = one;
            }
        }
        return worst;
    }
}
/**
 * A message channel to a game server, over the connection to the gateway.
 *
 * `for await (const message of conn)` yields its messages as bytes, and ends when it is closed in
 * good order, by either end; otherwise it throws why.
 */
export class Connection {
    connId;
    remoteId;
    incoming;
    /** Called once, as soon as it is closed; what is unread may then still be read. */
    onclose = null;
    #carrier;
    #queue = [];
    #next = 0; // of the queue
    #bytes = 0;
    #closed;
    #readers = [];
    #watchers = [];
    /** @internal */
    constructor(carrier, 
    /** The gateway's number of it. */
    connId, 
    /** The game server's id. */
    remoteId, 
    /** The game server dialled. */
    incoming) {
        this.connId = connId;
        this.remoteId = remoteId;
        this.incoming = incoming;
        this.#carrier = carrier;
    }
    /** It can be sent to. */
    get open() {
        return !this.#closed;
    }
    /** Why it is closed; undefined while it is open. */
    get closed() {
        return this.#closed;
    }
    /** Messages that wait to be received. */
    get unread() {
        return this.#queue.length - this.#next;
    }
    /** Bytes of them. */
    get unreadBytes() {
        return this.#bytes;
    }
    /** Why it was closed, when it is. */
    whenClosed() {
        if (this.#closed)
            return Promise.resolve(this.#closed);
        return new Promise((resolve) => this.#watchers.push(resolve));
    }
    /**
     * Send a message. It leaves at once; what is returned is done when not too much waits to be sent
     * (`sendHigh`), so that a sender who awaits it is no faster than the network.
     *
     * @throws MessageTooLarge, SendQueueFull: it was not sent; why it is closed.
     */
    async send(message, waiting = {}) {
        waiting.signal?.throwIfAborted();
        if (this.#closed)
            throw this.#closed;
        this.#carrier.send(this.connId, checked(message, this.#carrier.settings.maxPacket - 4));
        await this.#carrier.drained(waiting);
    }
    /**
     * Send a message and wait for nothing.
     *
     * @returns Whether it was sent: false where it is closed or too much waits.
     * @throws MessageTooLarge
     */
    tell(message) {
        const bytes = checked(message, this.#carrier.settings.maxPacket - 4);
        if (this.#closed)
            return false;
        try {
            this.#carrier.send(this.connId, bytes);
        }
        catch (error) {
            if (error instanceof FastwayError)
                return false;
            throw error;
        }
        return true;
    }
    /**
     * The next message.
     *
     * @throws why it is closed, when all has been read; a FastwayError after `timeout`.
     */
    async receive(waiting = {}) {
        waiting.signal?.throwIfAborted();
        const message = this.#take();
        if (message)
            return message;
        if (this.#closed)
            throw this.#closed;
        const reader = new Waiter();
        this.#readers.push(reader);
        reader.within(this.#carrier.settings.clock, waiting, () => new FastwayError(`no message within ${waiting.timeout} ms`), () => this.#readers.splice(this.#readers.indexOf(reader), 1));
        return reader.promise;
    }
    /**
     * The next message as text.
     *
     * @throws BadText: it is no UTF-8, and closes the connection; else as `receive`.
     */
    async receiveText(waiting = {}) {
        const message = await this.receive(waiting);
        try {
            return DECODER.decode(message);
        }
        catch (error) {
            const bad = new BadText(error);
            if (this.#closed)
                this.#closed = bad;
            this.#hangUp(bad);
            this.#empty();
            throw bad;
        }
    }
    [Symbol.asyncIterator]() {
        return this.#iterate(() => this.receive());
    }
    /** Its messages as text, as `for await` over itself yields bytes. */
    texts() {
        return this.#iterate(() => this.receiveText());
    }
    /** Close it, in good order. What is unread is gone. Again does nothing. */
    close() {
        this.#hangUp(new ConnectionClosed("closed here"));
        this.#empty();
    }
    async *#iterate(receive) {
        while (true) {
            let message;
            try {
                message = await receive();
            }
            catch (error) {
                if (error === this.#closed && this.#closed?.orderly)
                    return;
                throw error;
            }
            yield message;
        }
    }
    // What its gateway tells it.
    /** @internal A message has come. */
    deliver(message) {
        const reader = this.#readers.shift();
        if (reader) {
            reader.resolve(message);
            return;
        }
        const { receiveQueue, receiveBuffer } = this.#carrier.settings;
        const size = this.#bytes + message.length;
        if (this.unread >= receiveQueue || (this.unread > 0 && size > receiveBuffer)) {
            this.#hangUp(new ReceiveQueueFull(this.unread + 1, size));
            return;
        }
        this.#queue.push(message);
        this.#bytes = size;
        this.#carrier.unread.changed(this, message.length + OVERHEAD);
    }
    /** @internal It is over, as the gateway knows. */
    end(why) {
        if (this.#closed)
            return;
        this.#closed = why;
        for (const reader of this.#readers.splice(0))
            reader.reject(why);
        for (const watcher of this.#watchers.splice(0))
            watcher(why);
        call(this.onclose, why);
    }
    /** @internal What it holds is too much for all together. */
    drop() {
        const full = new ReceiveQueueFull(this.unread, this.#bytes);
        if (this.#closed)
            this.#closed = full;
        this.#hangUp(full);
        this.#empty();
    }
    #hangUp(why) {
        if (this.#closed)
            return;
        this.#carrier.hangUp(this.connId);
        this.end(why);
    }
    #take() {
        const message = this.#queue[this.#next];
        if (!message)
            return undefined;
        this.#next += 1;
        if (this.#next === this.#queue.length || this.#next >= 64) {
            this.#queue.splice(0, this.#next);
            this.#next = 0;
        }
        this.#bytes -= message.length;
        this.#carrier.unread.changed(this, -message.length - OVERHEAD);
        return message;
    }
    #empty() {
        const size = this.#bytes + this.unread * OVERHEAD;
        this.#queue = [];
        this.#next = this.#bytes = 0;
        this.#carrier.unread.changed(this, -size);
    }
}
/**
 * A message's bytes.
 *
 * @throws TypeError: it is none; MessageTooLarge.
 */
function checked(message, limit) {
    let bytes;
    if (typeof message === "string") {
        bytes = ENCODER.encode(message);
    }
    else if (ArrayBuffer.isView(message)) {
        bytes = new Uint8Array(message.buffer, message.byteOffset, message.byteLength);
    }
    else if (message instanceof ArrayBuffer) {
        bytes = new Uint8Array(message);
    }
    else {
        throw new TypeError(`a message is text or bytes, not ${message}`);
    }
    if (bytes.length > limit)
        throw new MessageTooLarge(bytes.length, limit);
    return bytes;
}
