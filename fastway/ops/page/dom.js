/**
 * Elements, and how values look.
 *
 * Rule: what is shown goes in as text. Nothing here, and nothing that uses it, makes markup of a
 * string: names of players and hosts are whatever a stranger sent.
 */

export const find = (id) => document.getElementById(id);

/** Nobody looks, or there is no gateway: what is asked now and then need not be. */
export const resting = () => document.hidden || document.body.dataset.phase === "lost";

/** A new element: its class, attributes, and children, of which strings are text. */
export function make(tag, kind = "", attributes = {}, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Show that text; the document is touched only if it is another. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute, or take it off. */
export function mark(element, name, value) {
  if (value === null || value === undefined || value === false || value === "") {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, String(value));
  }
}

/** Make the children as many as the items, and let `fill` show each in its place. */
export function each(place, items, build, fill) {
  while (place.childElementCount > items.length) place.lastElementChild.remove();
  while (place.childElementCount < items.length) place.append(build());
  items.forEach((item, number) => fill(place.children[number], item, number));
}

/** Names and values as a list of definitions, which keeps its elements. */
export function facts(place, rows) {
  each(
    place,
    rows,
    () => make("div", "", {}, make("dt"), make("dd")),
    (row, [name, value, title = ""]) => {
      put(row.children[0], name);
      put(row.children[1], String(value));
      mark(row.children[1], "title", title || (String(value).length > 16 ? value : ""));
    },
  );
}

const grouped = new Intl.NumberFormat("en");
const STEPS = ["", " k", " M", " G", " T"];
const SIZES = [" B", " KiB", " MiB", " GiB", " TiB"];

function scaled(number, step, words) {
  let power = 0;
  while (number >= step * 0.99995 && power < words.length - 1) {
    number /= step;
    power += 1;
  }
  const digits = power === 0 ? 0 : number < 10 ? 2 : number < 100 ? 1 : 0;
  return number.toFixed(digits) + words[power];
}

/** A count: whole as long as it is short. */
export const count = (number) =>
  number < 1e6 ? grouped.format(number) : scaled(number, 1000, STEPS);

/** So many a second. */
export const rate = (number) =>
  number > 0 && number < 10 ? number.toFixed(1) : scaled(number, 1000, STEPS);

export const bytes = (number) => scaled(number, 1024, SIZES);

export const percent = (number) => `${number < 10 ? number.toFixed(1) : number.toFixed(0)} %`;

/** Seconds as milliseconds. */
export function millis(seconds) {
  const value = seconds * 1000;
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)} ms`;
}

const two = (number) => String(number).padStart(2, "0");

/** How long something lasted. */
export function span(seconds) {
  const all = Math.max(0, Math.floor(seconds));
  if (all < 60) return `${all}s`;
  if (all < 3600) return `${Math.floor(all / 60)}m ${two(all % 60)}s`;
  if (all < 86400) return `${Math.floor(all / 3600)}h ${two(Math.floor((all % 3600) / 60))}m`;
  return `${Math.floor(all / 86400)}d ${two(Math.floor((all % 86400) / 3600))}h`;
}

/** The time of day of seconds since 1970. */
export function clock(time) {
  const when = new Date(time * 1000);
  return `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}`;
}

/** The same with the day. */
export function moment(time) {
  const when = new Date(time * 1000);
  const day = `${when.getFullYear()}-${two(when.getMonth() + 1)}-${two(when.getDate())}`;
  return `${day} ${clock(time)}`;
}
