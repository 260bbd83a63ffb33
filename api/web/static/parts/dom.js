// DOM elements. Text always becomes a text node: no function of the page parses HTML.

export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  append(element, children);
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

export function heading(title, ...actions) {
  return h("div", { class: "head" }, h("h1", {}, title), h("div", { class: "actions" }, actions));
}

export function panel(title, ...children) {
  return h("section", { class: "panel", "aria-label": title }, h("h2", {}, title), children);
}

export function waiting(text) {
  return h("p", { class: "wait", role: "status" }, text);
}

export function empty(title, ...children) {
  return h("div", { class: "empty" }, h("strong", {}, title), children);
}

export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: "facts" }, shown.map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** A table; `columns` are [title, class], `rows` lists of cells. */
export function table(label, columns, rows) {
  const head = columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell, place) => h("td", { class: columns[place][1] }, cell))));
  return h(
    "div",
    { class: "table", tabindex: "0", role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

let nextId = 0;
export function uniqueId(prefix) {
  nextId += 1;
  return `${prefix}-${nextId}`;
}

export function notify(text, kind = "") {
  const note = h("div", { class: `note ${kind}` }, text);
  document.getElementById("notices").append(note);
  setTimeout(() => note.remove(), kind === "bad" ? 12000 : 5000);
}
