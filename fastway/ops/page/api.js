/**
 * The gateway's admin API: the token, requests, and the stream of events.
 *
 * Rule: the token is in this module's memory and in the header of requests, nowhere else. A page
 * that is loaded anew asks for it again.
 */

/** A stream that says nothing for so many milliseconds is dead: a comment comes every 15 s. */
const SILENCE = 25_000;

/** Milliseconds for the answer to a request. */
const PATIENCE = 15_000;

/** Characters of one event: far more than a status has. */
const MOST = 4_000_000;

/** The gateway answered, and not as wished. `status` is HTTP's; the text is its own, one line. */
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

let token = "";

export function setToken(text) {
  token = text;
}

export const hasToken = () => token !== "";

async function ask(path, { body, ...more } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  const asked = { headers, cache: "no-store", credentials: "omit", redirect: "error", ...more };
  if (body !== undefined) {
    asked.method = "POST";
    asked.body = JSON.stringify(body);
    headers["Content-Type"] = "application/json";
  }
  const answer = await fetch(path, asked);
  if (answer.ok) return answer;
  let text = `the gateway answered with status ${answer.status}`;
  try {
    text = (await answer.json()).error ?? text;
  } catch {
    // Somebody between: the status says it.
  }
  throw new Refused(answer.status, text);
}

function within(signal) {
  const limit = AbortSignal.timeout(PATIENCE);
  return signal ? AbortSignal.any([signal, limit]) : limit;
}

/** What is at a path, with these words of a query; those that are empty are left out. */
export async function get(path, words = {}, signal = undefined) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(words)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, String(value));
  }
  const answer = await ask(query.size ? `${path}?${query}` : path, { signal: within(signal) });
  return answer.json();
}

/** Have the gateway do something; what it says about it. */
export async function post(path, body) {
  const answer = await ask(path, { body, signal: within() });
  return (await answer.json()).text ?? "";
}

/** One line of what went wrong, for people. */
export function problem(error) {
  if (error instanceof Refused) return error.message;
  if (error?.name === "TimeoutError") return "the gateway does not answer in time";
  return "the gateway cannot be reached";
}

/** The events of the gateway as they come, each {kind, data}. It ends when the gateway ends it. */
export async function* events(signal) {
  const silent = new AbortController();
  const answer = await ask("v1/events", { signal: AbortSignal.any([signal, silent.signal]) });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let timer = 0;
  try {
    for (;;) {
      timer = setTimeout(() => silent.abort(), SILENCE);
      const { done, value } = await reader.read();
      clearTimeout(timer);
      if (done) return;
      rest += value;
      if (rest.length > MOST) throw new Error("an event has no end");
      const blocks = rest.split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parse(block);
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

function parse(block) {
  let kind = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (field === "event") kind = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { kind, data: JSON.parse(data.join("\n")) } : null;
}
