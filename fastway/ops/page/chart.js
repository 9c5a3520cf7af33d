/**
 * Small charts of the last five minutes, with one cursor for all of a group.
 *
 * Rule: a chart has the same size whatever is in it, and its scale only changes in steps.
 */

import { make, mark, put, span } from "./dom.js";
import { SPAN } from "./series.js";

const NS = "http://www.w3.org/2000/svg";
const HEIGHT = 100;

function draw(tag, kind, attributes = {}) {
  const element = document.createElementNS(NS, tag);
  element.setAttribute("class", kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const STEPS = [1, 2, 3, 5, 7.5];

/** The least that is not below the value, of 1, 2, 3, 5, 7.5, 10, 20, ... times the base. */
function nice(value, base) {
  for (let power = base; ; power *= 10) {
    const step = STEPS.find((one) => one * power >= value);
    if (step) return step * power;
  }
}

/** Charts that show the same moment when the pointer is on one of them. */
export class Charts {
  constructor() {
    this.all = [];
    this.samples = [];
    this.now = 0;
    /** Seconds before now that the cursor is at, or null. */
    this.back = null;
  }

  add(...charts) {
    for (const chart of charts) {
      this.all.push(chart);
      chart.listen((back) => this.point(back));
    }
    return this;
  }

  /** Draw samples {time, gap, ...}, the last of which is now. */
  show(samples) {
    this.samples = samples;
    this.now = samples.at(-1)?.time ?? 0;
    for (const chart of this.all) chart.draw(samples, this.now);
    this.point(this.back);
  }

  point(back) {
    this.back = back;
    let sample = this.samples.at(-1);
    if (back !== null) {
      const time = this.now - back;
      for (const one of this.samples) {
        if (Math.abs(one.time - time) < Math.abs(sample.time - time)) sample = one;
      }
    }
    for (const chart of this.all)
      chart.tell(sample, back === null ? null : this.now - sample.time);
  }
}

export class Chart {
  /**
   * @param title what it shows
   * @param lines [{of: the figure's name, name: what the second is called}], at most two
   * @param show how a value looks
   * @param least the least top of its scale
   * @param binary its scale is of KiB and MiB
   */
  constructor(title, lines, show, { least = 1, binary = false, unit = "" } = {}) {
    Object.assign(this, { title, lines, show, least, binary, unit });
    this.svg = draw("svg", "", {
      viewBox: `0 0 ${SPAN} ${HEIGHT}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    });
    const grid = [60, 120, 180, 240].map((x) => `M${x} 0V${HEIGHT}`).join("");
    this.svg.append(draw("path", "grid", { d: `${grid}M0 0H${SPAN}M0 ${HEIGHT / 2}H${SPAN}` }));
    this.area = draw("path", "area");
    this.svg.append(this.area);
    this.paths = lines.map((_, number) => draw("path", `line line${number}`));
    this.svg.append(...this.paths.toReversed());
    this.value = make("b", "value", {}, "–");
    this.second = make("span", "second");
    this.when = make("span", "when");
    this.top = make("span", "top");
    this.cursor = make("i", "cursor", { hidden: "" });
    this.plot = make("div", "plot", {}, this.svg, this.cursor);
    const head = make("figcaption", "", {}, make("span", "name", {}, title), this.when);
    const now = make("p", "", {}, this.value);
    if (unit) now.append(make("span", "unit", {}, unit));
    now.append(this.second);
    this.element = make(
      "figure",
      "chart card",
      { tabindex: "0", role: "img" },
      head,
      now,
      this.top,
      this.plot,
    );
    this.scale = least;
  }

  /** Say where the pointer, or the arrow keys, are: seconds before now, or null. */
  listen(point) {
    let key = null;
    const at = (event) => {
      const box = this.plot.getBoundingClientRect();
      const part = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
      point((1 - part) * SPAN);
    };
    this.element.addEventListener("pointermove", at);
    this.element.addEventListener("pointerdown", at);
    this.element.addEventListener("pointerleave", () => point(null));
    this.element.addEventListener("blur", () => point((key = null)));
    this.element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
      if (!step || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      key = Math.min(SPAN, Math.max(0, (key ?? 0) + step * (event.shiftKey ? 30 : 1)));
      point(key);
    });
  }

  draw(samples, now) {
    let most = 0;
    for (const { of } of this.lines) {
      for (const sample of samples) if (sample[of] > most) most = sample[of];
    }
    this.most = most;
    // A little room above, and no step down before it is well below.
    const base = this.binary ? 2 ** (10 * Math.floor(Math.log2(Math.max(most, 1)) / 10)) : 1;
    const wanted = nice(most * 1.08, this.binary ? Math.max(base, this.least) : this.least);
    if (wanted > this.scale || wanted <= this.scale * 0.6) this.scale = wanted;
    put(
      this.top,
      this.show(this.scale)
        .replace(/(\.\d*?)0+(?= |$)/, "$1")
        .replace(/\.(?= |$)/, ""),
    );
    this.lines.forEach(({ of }, number) => this.line(samples, now, of, number));
  }

  line(samples, now, of, number) {
    let line = "";
    let area = "";
    let from = null;
    let last = 0;
    const end = () => {
      if (from !== null) area += `L${last} ${HEIGHT}L${from} ${HEIGHT}Z`;
      from = null;
    };
    for (const sample of samples) {
      const value = sample[of];
      if (value === undefined) {
        end();
        continue;
      }
      if (sample.gap) end();
      const x = (SPAN - (now - sample.time)).toFixed(1);
      const y = (HEIGHT - (HEIGHT * value) / this.scale).toFixed(1);
      const step = `${from === null ? "M" : "L"}${x} ${y}`;
      line += step;
      area += step;
      from ??= x;
      last = x;
    }
    end();
    this.paths[number].setAttribute("d", line);
    if (number === 0) this.area.setAttribute("d", area);
  }

  /** Show a sample's values, so many seconds ago; null: now. */
  tell(sample, ago) {
    const [first, second] = this.lines;
    const text = (of) => (sample?.[of] === undefined ? "–" : this.show(sample[of]));
    put(this.value, text(first.of));
    put(this.second, second ? `${second.name} ${text(second.of)}` : "");
    put(this.when, ago === null ? "" : `${span(ago)} ago`);
    this.cursor.hidden = ago === null;
    if (ago !== null) this.cursor.style.left = `${Math.max(0, 100 - (100 * ago) / SPAN)}%`;
    const most = this.most ? `, at most ${this.show(this.most)} in five minutes` : "";
    mark(this.element, "aria-label", `${this.title}: ${text(first.of)}${this.unit}${most}`);
  }
}
