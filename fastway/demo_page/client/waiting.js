/**
 * Promises that somebody else keeps, and that a timeout or a signal ends.
 *
 * Rule: whatever ends one, its timer and its listener are gone.
 */
import { MAX_DELAY } from "./options.js";
/** Something that is waited for. Only the first of `resolve` and `reject` counts. */
export class Waiter {
    promise;
    resolve;
    reject;
    #settled = false;
    #release = () => { };
    constructor() {
        this.promise = new Promise((resolve, reject) => {
            this.resolve = (value) => this.#settle(() => resolve(value));
            this.reject = (error) => this.#settle(() => reject(error));
        });
    }
    get settled() {
        return this.#settled;
    }
    /**
     * Give up when it takes too long, or somebody wants it.
     *
     * @param late Makes the error of a timeout.
     * @param gone Called when it was given up.
     */
    within(clock, { signal, timeout }, late, gone = () => { }) {
        if (this.#settled)
            return this;
        const give = (error) => {
            if (this.#settled)
                return;
            this.reject(error);
            gone();
        };
        if (signal?.aborted) {
            give(signal.reason);
            return this;
        }
        const abort = () => give(signal?.reason);
        signal?.addEventListener("abort", abort);
        const timed = timeout !== undefined && timeout <= MAX_DELAY;
        const timer = timed ? clock.setTimeout(() => give(late()), timeout) : undefined;
        this.#release = () => {
            signal?.removeEventListener("abort", abort);
            if (timed)
                clock.clearTimeout(timer);
        };
        return this;
    }
    #settle(how) {
        if (this.#settled)
            return;
        this.#settled = true;
        this.#release();
        how();
    }
}
/** Call what a user gave. What it throws goes where uncaught errors go, and harms nothing here. */
export function call(handler, ...args) {
    if (!handler)
        return;
    try {
        handler(...args);
    }
    catch (error) {
        queueMicrotask(() => {
            throw error;
        });
    }
}
