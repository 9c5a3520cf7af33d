/**
 * A gateway as an application sees it: connect, dial, be dialled, come back.
 *
 * Rule: there is one link at a time. What one link carried ends with it; only the gateway itself
 * goes on.
 */
import { Unread } from "./connection.js";
import { ConnectFailed, ConnectTimeout, DialTimeout, FastwayError, GatewayClosed, } from "./errors.js";
import { Link } from "./link.js";
import { checkedId, settings } from "./options.js";
import { call, Waiter } from "./waiting.js";
/** Failures that a delay still grows by. */
const MOST_GROWTH = 100;
/** How long `close` waits for the far end. */
const GOODBYE = 5000;
/** A connection to a gateway; with the option `reconnect` one after the other. */
export class Gateway {
    /** There is a connection, for the first time or again. */
    onup = null;
    /** The connection is lost, or an attempt has failed; the next begins in `delay` ms. */
    ondown = null;
    /** It is over, for good. */
    onclose = null;
    url;
    #settings;
    #unread;
    #link;
    #up = false;
    #closed;
    #goodbye;
    #onaccept = null;
    #failures = 0;
    #began = 0;
    #retry;
    #uppers = new Set();
    #watchers = [];
    #waiting = []; // to be accepted
    #acceptors = [];
    /**
     * Begins to connect at once.
     *
     * @throws SyntaxError: the URL is none of a WebSocket; RangeError, TypeError: an option.
     */
    constructor(url, options = {}) {
        this.url = String(url);
        this.#settings = settings(options);
        this.#unread = new Unread(this.#settings.receiveTotal);
        this.#connect();
    }
    /** There is a connection now. */
    get up() {
        return this.#up;
    }
    /** Why it is over for good; undefined while it lives. */
    get closed() {
        return this.#closed;
    }
    /** Bytes of the largest message. */
    get maxMessage() {
        return this.#settings.maxPacket - 4;
    }
    /** Bytes that wait to be sent, on all virtual connections together. */
    get bufferedAmount() {
        return this.#link?.waiting ?? 0;
    }
    /** The open virtual connections. */
    get connections() {
        return this.#link?.connections ?? [];
    }
    /**
     * Until there is a connection.
     *
     * @throws why it is over for good; ConnectTimeout after `timeout`.
     */
    async whenUp(waiting = {}) {
        waiting.signal?.throwIfAborted();
        if (this.#up)
            return;
        if (this.#closed)
            throw this.#closed;
        const waiter = new Waiter();
        this.#uppers.add(waiter);
        const late = () => new ConnectTimeout(this.url, waiting.timeout);
        waiter.within(this.#settings.clock, waiting, late, () => this.#uppers.delete(waiter));
        return waiter.promise;
    }
    /** Why it is over for good, when it is. */
    whenClosed() {
        if (this.#closed)
            return Promise.resolve(this.#closed);
        return new Promise((resolve) => this.#watchers.push(resolve));
    }
    /**
     * A virtual connection to a game server. While there is no gateway and it will come back, that is
     * waited for; `timeout` is for both together.
     *
     * @throws DialRefused, DialTimeout; RangeError: that is no id; why there is no gateway.
     */
    async dial(serverId, waiting = {}) {
        checkedId(serverId);
        const { clock, dialTimeout } = this.#settings;
        const { signal, timeout = dialTimeout } = waiting;
        const begun = clock.now();
        try {
            await this.whenUp({ signal, timeout });
        }
        catch (error) {
            if (error instanceof ConnectTimeout && !this.#closed) {
                throw new DialTimeout(serverId, timeout);
            }
            throw error;
        }
        if (!this.#link)
            throw this.#closed ?? new FastwayError("the gateway is down");
        const left = Math.max(timeout - (clock.now() - begun), 0);
        const late = () => new DialTimeout(serverId, timeout);
        return this.#link.dial(serverId, { signal, timeout: left }, late);
    }
    /**
     * Milliseconds until the gateway answers a ping.
     *
     * @throws PingTimeout; why there is no gateway.
     */
    async ping(waiting = {}) {
        const { signal, timeout = this.#settings.pingTimeout } = waiting;
        signal?.throwIfAborted();
        if (!this.#link || !this.#up)
            throw this.#closed ?? new FastwayError("the gateway is down");
        return this.#link.ping({ signal, timeout });
    }
    /**
     * Called with each connection that a game server dials. Without it they wait for `accept`, up to
     * `acceptQueue`.
     */
    get onaccept() {
        return this.#onaccept;
    }
    set onaccept(handler) {
        this.#onaccept = handler;
        if (handler)
            for (const conn of this.#waiting.splice(0))
                call(handler, conn);
    }
    /**
     * The next connection that a game server dials.
     *
     * @throws why the gateway is over for good; a FastwayError after `timeout`.
     */
    async accept(waiting = {}) {
        waiting.signal?.throwIfAborted();
        const conn = this.#waiting.shift();
        if (conn)
            return conn;
        if (this.#closed)
            throw this.#closed;
        const waiter = new Waiter();
        this.#acceptors.push(waiter);
        waiter.within(this.#settings.clock, waiting, () => new FastwayError(`nobody dialled within ${waiting.timeout} ms`), () => this.#acceptors.splice(this.#acceptors.indexOf(waiter), 1));
        return waiter.promise;
    }
    /**
     * The connections that game servers dial, over all reconnects. Ends after `close()`; throws why
     * when it is over otherwise.
     */
    async *accepts() {
        while (true) {
            let conn;
            try {
                conn = await this.accept();
            }
            catch (error) {
                if (error instanceof GatewayClosed)
                    return;
                throw error;
            }
            yield conn;
        }
    }
    /** Try at once, where the next attempt is waited for: the network is there again, say. */
    retry() {
        if (this.#retry === undefined)
            return;
        this.#settings.clock.clearTimeout(this.#retry);
        this.#connect();
    }
    /**
     * End it. What was sent still leaves; what waits fails with GatewayClosed.
     *
     * @returns Done when the far end agreed, or after 5 s.
     */
    close() {
        if (this.#goodbye)
            return this.#goodbye;
        const { clock } = this.#settings;
        const gone = new Waiter();
        this.#goodbye = gone.promise;
        const link = this.#link;
        this.#link = undefined;
        const error = new GatewayClosed();
        this.#over(error);
        if (link) {
            const timer = clock.setTimeout(() => gone.resolve(), GOODBYE);
            link.close(error, () => {
                clock.clearTimeout(timer);
                gone.resolve();
            });
        }
        else {
            gone.resolve();
        }
        return this.#goodbye;
    }
    // The link.
    #connect() {
        this.#retry = undefined;
        let link;
        const owner = {
            opened: () => this.#opened(),
            ended: (error) => {
                if (this.#link === link)
                    this.#ended(error);
            },
            accepted: (conn) => this.#accepted(conn),
        };
        this.#link = link = new Link(this.url, this.#settings, this.#unread, owner);
    }
    #opened() {
        this.#began = this.#settings.clock.now();
        this.#up = true;
        for (const waiter of this.#uppers)
            waiter.resolve();
        this.#uppers.clear();
        call(this.onup);
    }
    #ended(error) {
        const { clock, reconnect } = this.#settings;
        const steady = this.#up && clock.now() - this.#began >= (reconnect?.steady ?? 0);
        this.#up = false;
        this.#link = undefined;
        this.#failures = steady ? 0 : this.#failures + 1;
        if (!reconnect || this.#failures >= reconnect.attempts || !this.#wanted(error)) {
            this.#over(error);
            return;
        }
        const { first, most, factor } = reconnect;
        const grown = first * factor ** Math.min(Math.max(this.#failures - 1, 0), MOST_GROWTH);
        // The chance keeps those who were lost in one instant from coming back in one.
        const delay = Math.min(grown, most / 2) * (1 + clock.random());
        this.#retry = clock.setTimeout(() => this.#connect(), delay);
        call(this.ondown, error, delay);
    }
    /** What the user says to coming back; what it throws is a no. */
    #wanted(error) {
        let wanted = false;
        call(() => {
            wanted = this.#settings.reconnect.when(error);
        });
        return wanted;
    }
    #over(error) {
        if (this.#closed)
            return;
        this.#closed = error;
        this.#up = false;
        this.#settings.clock.clearTimeout(this.#retry);
        this.#retry = undefined;
        for (const waiter of [...this.#uppers, ...this.#acceptors.splice(0)])
            waiter.reject(error);
        this.#uppers.clear();
        for (const watcher of this.#watchers.splice(0))
            watcher(error);
        call(this.onclose, error);
    }
    #accepted(conn) {
        const acceptor = this.#acceptors.shift();
        if (acceptor) {
            acceptor.resolve(conn);
        }
        else if (this.#onaccept) {
            call(this.#onaccept, conn);
        }
        else {
            this.#forget();
            if (this.#waiting.length >= this.#settings.acceptQueue)
                return false;
            this.#waiting.push(conn);
        }
        return true;
    }
    /** Those that ended while they waited make room. */
    #forget() {
        if (this.#waiting.length < this.#settings.acceptQueue)
            return;
        const open = this.#waiting.filter((conn) => conn.open);
        for (const conn of this.#waiting)
            if (!conn.open)
                conn.close();
        this.#waiting.splice(0, Infinity, ...open);
    }
}
/**
 * Connect to a gateway.
 *
 * With `reconnect` it goes on trying until it succeeds, the signal gives up, or `attempts` are
 * made; without, one attempt is made.
 *
 * @throws ConnectFailed, ConnectTimeout; the signal's reason; SyntaxError, RangeError, TypeError:
 * the URL or an option cannot be used.
 */
export async function connect(url, options = {}) {
    const { signal } = options;
    signal?.throwIfAborted();
    const gateway = new Gateway(url, options);
    try {
        await gateway.whenUp({ signal });
    }
    catch (error) {
        void gateway.close();
        throw error;
    }
    return gateway;
}
