// Sorting, filtering and copying for the tables of the leaderboard. Without this script the tables are all there.
(() => {
  "use strict";
  const tables = [...document.querySelectorAll(".leaderboard table")];
  if (tables.length === 0) return;

  // The state is in the address, so that a view can be linked to.
  const state = new URLSearchParams(location.search);
  const hidden = new Set((state.get("hide") || "").split(",").filter(Boolean));
  const kinds = ["model", "baseline", "published"];
  const headings = (table) => [...table.tHead.rows[0].cells];
  const column = (table, name) => headings(table).findIndex((cell) => cell.dataset.name === name);

  const number = (text) => {
    const found = text.replace(/,/g, "").match(/^(?:≤\s*)?(-?\d+(?:\.\d+)?)/);
    return found ? parseFloat(found[1]) : null;
  };

  const compare = (a, b) => {
    const [x, y] = [number(a), number(b)];
    if (x !== null && y !== null) return x - y;
    return a.localeCompare(b);
  };

  const sort = (table, name, descending) => {
    const index = column(table, name);
    if (index < 0) return;
    const text = (row) => row.cells[index].dataset.text;
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [text(a), text(b)];
      if ((x === "-") !== (y === "-")) return x === "-" ? 1 : -1; // what is not known stays last
      return descending ? compare(y, x) : compare(x, y);
    });
    table.tBodies[0].append(...rows);
    headings(table).forEach((cell, i) => {
      if (i === index) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    });
  };

  const apply = () => {
    const words = (state.get("find") || "").toLowerCase().split(/\s+/).filter(Boolean);
    for (const table of tables) {
      const kind = column(table, "row");
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = hidden.has(row.cells[kind].dataset.text) || !words.every((word) => text.includes(word));
        shown += row.hidden ? 0 : 1;
      }
      table.closest(".leaderboard").dataset.shown = shown;
      const name = state.get("sort");
      if (name) sort(table, name, state.get("order") === "descending");
    }
  };

  const remember = () => {
    if (hidden.size) state.set("hide", [...hidden].join(","));
    else state.delete("hide");
    for (const key of ["find", "sort", "order"]) if (!state.get(key)) state.delete(key);
    const query = state.toString();
    history.replaceState(null, "", location.pathname + (query ? `?${query}` : "") + location.hash);
    apply();
  };

  const element = (name, properties, ...children) => {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  };

  // Two lines of a long text, and the rest on a click.
  const fold = (cell) => {
    cell.classList.add("long");
    const text = element("summary", { title: "Click for all of it" }, ...cell.childNodes);
    cell.append(element("details", {}, text));
  };

  const prepare = (table) => {
    headings(table).forEach((cell) => {
      cell.dataset.name = cell.textContent.trim();
      const name = cell.dataset.name;
      const button = element("button", { type: "button", title: `Sort by ${name}` }, name);
      button.addEventListener("click", () => {
        const again = state.get("sort") === name && state.get("order") !== "descending";
        state.set("sort", name);
        state.set("order", again ? "descending" : "");
        remember();
      });
      cell.replaceChildren(button);
    });
    const commands = column(table, "command");
    const kind = column(table, "row");
    for (const row of table.tBodies[0].rows) {
      for (const cell of row.cells) {
        cell.dataset.text = cell.textContent.trim();
        if (number(cell.dataset.text) !== null && cell.dataset.text.length < 24) cell.classList.add("number");
        if (cell.dataset.text.length > 60 && !cell.querySelector("a")) fold(cell);
      }
      row.dataset.kind = row.cells[kind].dataset.text;
      const code = commands >= 0 ? row.cells[commands].querySelector("code") : null;
      if (code) row.cells[commands].append(copyButton(code.textContent));
    }
  };

  const copyButton = (text) => {
    const button = element("button", { type: "button", className: "copy", title: "Copy the command" }, "copy");
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "copied";
      } catch {
        button.textContent = "not allowed"; // a page that was not served over https or from this machine
      }
      setTimeout(() => { button.textContent = "copy"; }, 1500);
    });
    return button;
  };

  const controls = () => {
    const find = element("input", {
      type: "search", placeholder: "Filter all tables", value: state.get("find") || "", id: "leaderboard-find",
    });
    find.setAttribute("aria-label", "Filter all tables");
    find.addEventListener("input", () => { state.set("find", find.value); remember(); });
    const boxes = kinds.map((kind) => {
      const box = element("input", { type: "checkbox", checked: !hidden.has(kind) });
      box.addEventListener("change", () => {
        if (box.checked) hidden.delete(kind);
        else hidden.add(kind);
        remember();
      });
      return element("label", {}, box, ` ${kind}`);
    });
    return element("div", { className: "leaderboard-controls" }, find, ...boxes);
  };

  tables.forEach(prepare);
  const first = tables[0].closest(".leaderboard");
  let heading = first;
  while (heading && heading.tagName !== "H2") heading = heading.previousElementSibling;
  (heading || first).before(controls());
  apply();
})();
