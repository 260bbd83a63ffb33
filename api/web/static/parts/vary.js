// The fields that a sweep varies: rows of a field and its values or range, and how the sweep searches.

import { h, replace, uniqueId } from "./dom.js";

const RANGE = /^(-?[\d.]+(?:e-?\d+)?)\.\.(-?[\d.]+(?:e-?\d+)?)((?::(?:log|int|\d+))*)$/i;
const PRUNERS = [["", "none"], ["median", "below the median"], ["successive_halving", "by successive halving"]];

export class Vary {
  /** pointers: the fields of the config, as suggestions; metrics: names; onChange is called after each change. */
  constructor({ pointers, metrics, onChange }) {
    this.onChange = onChange;
    this.rows = [];
    this.list = h("div", {});
    this.pointers = h("datalist", { id: uniqueId("pointers") });
    this.trials = this.input("number", { min: "1", max: "1000", placeholder: "none" });
    this.parallel = this.input("number", { min: "1", max: "100", value: "2" });
    this.metric = h("select", { id: uniqueId("metric"), oninput: onChange }, h("option", { value: "" }, "accuracy"), metrics.map((name) => h("option", { value: name }, name)));
    this.pruner = h("select", { id: uniqueId("pruner"), oninput: onChange }, PRUNERS.map(([name, text]) => h("option", { value: name }, text)));
    this.options = h("div", { class: "row top", hidden: true },
      field("Random draws", this.trials, "How many; empty: every combination."), field("At once", this.parallel, "Jobs, at most."),
      field("Best by", this.metric, "The last value decides."), field("Stop early", this.pruner, "Trials that do worse than others."));
    const add = h("button", { type: "button", id: "vary", onclick: () => this.add().focus() }, "Vary a field");
    this.element = h("div", {}, h("p", { class: "hint" }, "Start a sweep: several jobs that differ in some fields."), this.list, h("p", {}, add), this.options, this.pointers);
    this.suggest(pointers);
  }

  suggest(pointers) {
    replace(this.pointers, pointers.map((pointer) => h("option", { value: pointer })));
  }

  get isActive() {
    return this.rows.length > 0;
  }

  input(type, options = {}) {
    return h("input", { id: uniqueId("vary"), type, oninput: () => this.onChange(), ...options });
  }

  add() {
    const row = { pointer: this.input("text", { list: this.pointers.id, placeholder: "/method/temperature" }), values: this.input("text", { placeholder: "0.1, 0.2, 0.5" }) };
    row.fault = h("p", { class: "fault", role: "alert", id: uniqueId("fault") });
    row.values.setAttribute("aria-describedby", row.fault.id);
    const remove = h("button", { type: "button", class: "quiet", "aria-label": "Do not vary this field", onclick: () => this.remove(row) }, "✕");
    row.element = h("div", {}, h("div", { class: "row top" }, field("Field", row.pointer), field("Values", row.values, "With commas, or a range: 0.01..1:log, 64..512:int."), h("div", { class: "beside" }, remove)), row.fault);
    this.rows.push(row);
    this.list.append(row.element);
    this.changed();
    return row.pointer;
  }

  remove(row) {
    this.rows = this.rows.filter((other) => other !== row);
    row.element.remove();
    this.changed();
  }

  changed() {
    this.options.hidden = !this.isActive;
    this.onChange();
  }

  /** The fields of `POST /sweeps` beside those of a job. */
  body() {
    const space = Object.fromEntries(this.rows.map((row) => [row.pointer.value.trim(), parseChoices(row.values.value.trim())]));
    const body = { space, parallel: Number(this.parallel.value) };
    if (this.metric.value) body.metric = this.metric.value;
    if (this.trials.value) Object.assign(body, { search: "random", trials: Number(this.trials.value) });
    if (this.pruner.value) body.pruner = { name: this.pruner.value };
    return body;
  }

  /** Show a fault at each row whose field is empty or given twice; return whether there is none. */
  check() {
    const names = this.rows.map((row) => row.pointer.value.trim());
    for (const [place, row] of this.rows.entries()) {
      row.fault.textContent = names[place] === "" ? "Name a field, such as /seed." : names.indexOf(names[place]) < place ? "This field is varied above." : "";
    }
    return this.rows.every((row) => row.fault.textContent === "");
  }

  /** Show the faults that lie in the space at their rows; return the others. */
  showErrors(errors) {
    for (const row of this.rows) {
      row.fault.textContent = "";
      row.values.removeAttribute("aria-invalid");
    }
    return errors.filter((error) => {
      const match = /^\/space\/([^/]+)/.exec(error.pointer);
      const pointer = match?.[1].replaceAll("~1", "/").replaceAll("~0", "~");
      const row = this.rows.find((candidate) => candidate.pointer.value.trim() === pointer);
      if (row === undefined) return true;
      row.fault.textContent = error.detail;
      row.values.setAttribute("aria-invalid", "true");
      return false;
    });
  }
}

function field(label, control, hint) {
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("p", { class: "hint" }, hint));
}

/** `0.1, 0.2` and `[0.1, 0.2]` are values, `0.01..1:log` is a range, as in `twoviews sweeps create --vary`. */
export function parseChoices(text) {
  const range = RANGE.exec(text);
  if (range !== null) {
    const choices = { low: Number(range[1]), high: Number(range[2]) };
    for (const flag of range[3].split(":").filter(Boolean)) {
      if (flag === "log") choices.log = true;
      else if (flag === "int") choices.integer = true;
      else choices.points = Number(flag);
    }
    return choices;
  }
  const whole = parse(text.startsWith("[") ? text : `[${text}]`);
  return { values: Array.isArray(whole) ? whole : text.split(",").map((part) => parse(part.trim())).filter((part) => part !== "") };
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
