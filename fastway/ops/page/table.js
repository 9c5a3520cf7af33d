/**
 * A table that keeps its elements, and questions that are asked twice.
 *
 * Rule: columns have a width of their own, so nothing moves when other values come.
 */

import { each, make, mark, put } from "./dom.js";

/**
 * @typedef {object} Column
 * @property {string} name what its head says
 * @property {(row: any) => string} of what a cell shows
 * @property {string} [width] CSS; without it the column takes what is left
 * @property {string} [sort] what the gateway calls it when it sorts
 * @property {boolean} [number] aligned by its end
 * @property {string} [at] "wide": only where there is room; "mid": not on a phone; "wrap": all of it there
 * @property {(row: any) => string} [title] the whole of what a cell may cut off
 * @property {(row: any) => string} [kind] a class for the cell
 */

export class Table {
  /**
   * @param element a <table> with a caption
   * @param {Column[]} columns
   * @param opened called with the row that was chosen; without it rows cannot be
   * @param sorted called with (sort, order) when a head was pressed
   */
  constructor(element, columns, { opened = null, sorted = null } = {}) {
    Object.assign(this, { element, columns, opened });
    this.rows = [];
    this.sort = "";
    this.order = "asc";
    const group = make("colgroup");
    this.heads = make("tr");
    for (const column of columns) {
      const col = make("col", column.at ?? "");
      if (column.width) col.style.width = column.width;
      group.append(col);
      const head = make("th", this.kind(column), { scope: "col" });
      if (column.sort && sorted) {
        const button = make("button", "sort", { type: "button" }, column.name);
        button.addEventListener("click", () => {
          const first = column.number ? "desc" : "asc";
          const other = this.order === "asc" ? "desc" : "asc";
          this.mark(column.sort, this.sort === column.sort ? other : first);
          sorted(this.sort, this.order);
        });
        head.append(button);
      } else {
        head.append(column.name);
      }
      this.heads.append(head);
    }
    this.body = make("tbody");
    element.append(group, make("thead", "", {}, this.heads), this.body);
    if (opened) this.listen();
  }

  kind(column) {
    return [column.number ? "number" : "", column.at ?? ""].filter(Boolean).join(" ");
  }

  /** Show by what the rows are sorted. */
  mark(sort, order) {
    this.sort = sort;
    this.order = order;
    this.columns.forEach((column, number) => {
      const told = column.sort === sort ? `${order}ending` : null;
      mark(this.heads.children[number], "aria-sort", told);
    });
  }

  listen() {
    const row = (event) => {
      const found = event.target.closest("tbody tr");
      return found ? this.rows[[...this.body.children].indexOf(found)] : undefined;
    };
    this.body.addEventListener("click", (event) => {
      const chosen = row(event);
      if (chosen && !String(getSelection())) this.opened(chosen);
    });
    this.body.addEventListener("keydown", (event) => {
      const line = event.target.closest("tr");
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        this.opened(row(event));
      } else if (event.key === "ArrowDown") {
        event.preventDefault();
        line.nextElementSibling?.focus();
      } else if (event.key === "ArrowUp") {
        event.preventDefault();
        line.previousElementSibling?.focus();
      }
    });
  }

  /** Show these rows, and which of them is chosen. */
  fill(rows, chosen = () => false) {
    this.rows = rows;
    each(
      this.body,
      rows,
      () => {
        const row = make("tr", "", this.opened ? { tabindex: "0" } : {});
        row.append(...this.columns.map((column) => make("td", this.kind(column))));
        return row;
      },
      (row, item) => {
        mark(row, "aria-current", chosen(item) ? "true" : null);
        this.columns.forEach((column, number) => {
          const cell = row.children[number];
          const text = column.of(item);
          put(cell, text);
          mark(cell, "title", column.title ? column.title(item) : text.length > 14 ? text : "");
          if (column.kind) {
            const kind = `${this.kind(column)} ${column.kind(item)}`.trim();
            if (cell.className !== kind) cell.className = kind;
          }
        });
      },
    );
  }
}

/**
 * A button for what cannot be taken back: pressed, it asks; answered, it asks once more.
 *
 * @param place an element of its own
 * @param word what the button says
 * @param first the first question
 * @param second the second
 * @param act does it; what it returns is told
 * @param told makes a text of what it throws
 * @param kind a class for the button
 */
export function askTwice(place, { word, first, second, act, told, kind = "danger" }) {
  const text = make("p", "", { role: "status" });
  const yes = make("button", `yes ${kind}`, { type: "button" });
  const no = make("button", "no", { type: "button" }, "Keep");
  let step = 0;
  const show = (to, said = "") => {
    step = to;
    mark(place, "data-step", to);
    put(text, ["", first(), second()][to] || said);
    put(yes, [`${word}…`, word, `Yes, ${word.toLowerCase()}`][to]);
    yes.disabled = false;
    no.hidden = to === 0;
  };
  yes.addEventListener("click", async (event) => {
    if (event.detail > 1) return; // a double click is one answer
    if (step < 2) {
      show(step + 1);
      return;
    }
    yes.disabled = true;
    try {
      show(0, (await act()) || "Done.");
    } catch (error) {
      show(0, told(error));
    }
  });
  no.addEventListener("click", () => {
    show(0);
    yes.focus();
  });
  place.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && step) {
      event.stopPropagation();
      show(0);
      yes.focus();
    }
  });
  place.classList.add("ask");
  place.replaceChildren(text, make("div", "buttons", {}, yes, no));
  show(0);
  return { reset: () => step && show(0), disable: (off) => (yes.disabled = off) };
}
