/** What programs in TypeScript rely on: this is compiled, not run. */

import {
  connect,
  Connection,
  type ConnectionClosed,
  DialRefused,
  type Ended,
  Gateway,
  type Options,
  type WebSocketConstructor,
} from "../dist/index.js";

export async function program(signal: AbortSignal): Promise<string[]> {
  const options: Options = { reconnect: { first: 100 }, pingInterval: 5000 };
  const gateway: Gateway = await connect(new URL("wss://game.example/"), { ...options, signal });
  gateway.onup = () => {};
  gateway.ondown = (error: Ended, delay: number) => console.log(error.code, delay);
  gateway.onaccept = async (conn) => conn.send(new Uint8Array(3));
  const seen: string[] = [];
  try {
    const conn: Connection = await gateway.dial(1, { signal, timeout: 5000 });
    conn.onclose = ({ code, reason }: ConnectionClosed) => seen.push(`${code} ${reason}`);
    await conn.send("text");
    const told: boolean = conn.tell(new ArrayBuffer(1));
    for await (const message of conn) seen.push(String(message.length), String(told));
    for await (const message of conn.texts()) seen.push(message);
    for await (const incoming of gateway.accepts()) incoming.close();
  } catch (error) {
    if (error instanceof DialRefused) seen.push(String(error.remoteId));
  }
  const trip: number = await gateway.ping();
  await gateway.close();
  return [...seen, String(trip)];
}

/** A browser's WebSocket is one. */
export const own: WebSocketConstructor = WebSocket;

// @ts-expect-error An option that is none.
connect("ws://game.example/", { reconect: true });
// @ts-expect-error A number is no message.
export const wrong = (conn: Connection) => conn.send(5);
// @ts-expect-error What is internal cannot be seen.
export const internal = (conn: Connection) => conn.deliver(new Uint8Array());
