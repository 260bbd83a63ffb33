// View: one sweep: how far it is, its trials, and the metric by each field that it varies.

import { get, pause, post } from "../parts/api.js";
import { COLOURS, Chart } from "../parts/charts.js";
import { facts, h, notify, panel, replace, table } from "../parts/dom.js";
import { TERMINAL, inline, number, status, time } from "../parts/format.js";
import { deleteButton } from "../parts/removal.js";
import { fieldName, progress, sweepTitle } from "./sweeps.js";

const POLL_MILLISECONDS = 3000;
const COMPARED = 8;
const CONTROLS = [
  ["pause", "Pause", ["running"]],
  ["resume", "Resume", ["paused"]],
  ["cancel", "Cancel", ["running", "paused"]],
];
const STATES = { succeeded: "good", failed: "bad", pruned: "warn", cancelled: "warn" };

export async function show(main, { id, signal }) {
  const [sweep, trials] = await read(id, signal);
  const view = new SweepView(sweep, trials, signal);
  replace(main, h("p", { class: "crumbs" }, h("a", { href: "#/sweeps" }, "Sweeps"), ` / ${id}`),
    h("div", { class: "head" }, h("h1", {}, sweepTitle(sweep)), view.actions),
    h("div", { class: "columns" }, h("div", {}, view.state, view.plots, view.table), h("div", {}, view.about())));
  view.render();
  view.follow();
}

async function read(id, signal) {
  const [sweep, trials] = await Promise.all([get(`/sweeps/${id}`, { signal }), get(`/sweeps/${id}/trials?limit=1000`, { signal })]);
  return [sweep, trials.data];
}

class SweepView {
  constructor(sweep, trials, signal) {
    Object.assign(this, { sweep, trials, signal });
    this.actions = h("div", { class: "actions" });
    this.state = h("div", {});
    this.plots = h("div", {});
    this.table = h("div", {});
    this.charts = new Map();
  }

  about() {
    const { sweep } = this;
    const space = Object.entries(sweep.space).map(([pointer, choices]) => [fieldName(pointer), h("code", {}, describe(choices))]);
    return [
      panel("Space", facts(space)),
      panel("Config of all", h("pre", { tabindex: "0" }, JSON.stringify(sweep.config, null, 2))),
      panel("About", facts([["Search", sweep.search === "grid" ? "every combination" : `random draws, seed ${sweep.seed}`], ["At once", String(sweep.parallel)],
        ["Best by", `${sweep.metric}, ${sweep.goal === "maximize" ? "the highest" : "the lowest"}`], ["Stopped early", sweep.pruner ? sweep.pruner.name.replaceAll("_", " ") : "never"],
        ["Dataset", h("a", { href: `#/datasets/${sweep.dataset}` }, sweep.dataset)], ["Created", time(sweep.created_at)]])),
    ];
  }

  async follow() {
    while (!this.signal.aborted && !TERMINAL.includes(this.sweep.status)) {
      await pause(POLL_MILLISECONDS, this.signal);
      if (this.signal.aborted || document.hidden) continue;
      try {
        [this.sweep, this.trials] = await read(this.sweep.id, this.signal);
        this.render();
      } catch (error) {
        if (error.status === 404) return notify("This sweep was deleted.", "bad");
      }
    }
  }

  async control(verb) {
    try {
      this.sweep = await post(`/sweeps/${this.sweep.id}/${verb}`);
      this.render();
    } catch (error) {
      notify(error.message, "bad");
    }
  }

  render() {
    const { sweep } = this;
    const ranked = rank(this.trials, sweep.goal);
    const best = ranked.filter((trial) => trial.job !== null && trial.value !== null).slice(0, COMPARED).map((trial) => trial.job);
    replaceKeepingFocus(this.actions,
      CONTROLS.filter(([, , from]) => from.includes(sweep.status)).map(([verb, text]) => h("button", { type: "button", onclick: () => this.control(verb) }, text)),
      best.length > 1 && h("a", { class: "button", href: `#/compare?ids=${best.join(",")}` }, "Compare the best"),
      TERMINAL.includes(sweep.status) && deleteButton(`/sweeps/${sweep.id}`, "Delete this sweep? Its jobs stay.", "#/sweeps"));
    const counts = Object.entries(sweep.counts).filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`).join(", ");
    replace(this.state, panel("State", h("p", {}, status(sweep.status), " ", sweep.status_detail), h("p", {}, progress(sweep), h("span", { class: "hint" }, ` (${counts})`)),
      sweep.best && facts([[`Best ${sweep.metric}`, number(sweep.best.value)], ...Object.entries(sweep.best.params).map(([pointer, value]) => [fieldName(pointer), inline(value)]),
        ["Job", h("a", { href: `#/jobs/${sweep.best.job}` }, sweep.best.job)], ["Model", sweep.best.model && h("a", { href: `#/models/${sweep.best.model}` }, sweep.best.model)]])));
    if (!this.table.contains(document.activeElement)) this.renderTable(ranked);
    this.draw();
  }

  renderTable(ranked) {
    const pointers = Object.keys(this.sweep.space);
    const columns = [["Trial"], ["State"], [this.sweep.metric, "number"], ...pointers.map((pointer) => [fieldName(pointer)])];
    const rows = ranked.map((trial) => [
      trial.job === null ? `${trial.number}` : h("a", { href: `#/jobs/${trial.job}`, "aria-label": `Job of trial ${trial.number}` }, `${trial.number}`),
      [h("span", { class: `tag ${STATES[trial.state] ?? ""}` }, trial.state), trial.error && h("span", { class: "hint" }, ` ${trial.error.detail}`)],
      number(trial.value), ...pointers.map((pointer) => inline(trial.params[pointer]))]);
    replace(this.table, panel("Trials", table("Trials", columns, rows)));
  }

  draw() {
    const shown = this.trials.filter((trial) => trial.value !== null);
    if (shown.length < 2) return;
    const pointers = Object.keys(this.sweep.space);
    if (this.charts.size === 0) {
      const plots = pointers.map((pointer) => {
        const plot = h("div", { class: "plot", role: "img", "aria-label": `Chart: ${this.sweep.metric} by ${fieldName(pointer)}` });
        this.charts.set(pointer, new Chart(plot, this.signal));
        return h("div", {}, h("h3", {}, fieldName(pointer)), plot);
      });
      replace(this.plots, panel(`${this.sweep.metric} by each field`, h("div", { class: "curves" }, plots)));
    }
    const isBest = (trial) => trial.number === this.sweep.best?.number;
    for (const pointer of pointers) {
      const numeric = shown.every((trial) => typeof trial.params[pointer] === "number");
      const x = shown.map((trial) => (numeric ? trial.params[pointer] : inline(trial.params[pointer]).replaceAll("<", "&lt;")));
      const isLog = numeric && (this.sweep.space[pointer].log === true || spread(x) > 50);
      const colours = shown.map((trial) => (isBest(trial) ? COLOURS[1] : COLOURS[0]));
      this.charts.get(pointer).draw([{ type: "scatter", mode: "markers", x, y: shown.map((trial) => trial.value), text: shown.map((trial) => `trial ${trial.number}, ${trial.state}`),
        marker: { color: colours, size: shown.map((trial) => (isBest(trial) ? 13 : 9)), opacity: shown.map((trial) => (trial.state === "succeeded" ? 0.9 : 0.4)) } }],
      { xaxis: { type: numeric ? (isLog ? "log" : "linear") : "category" }, yaxis: { title: { text: this.sweep.metric } } });
    }
  }
}

function rank(trials, goal) {
  const order = (trial) => (trial.value === null ? Infinity : goal === "maximize" ? -trial.value : trial.value);
  const place = (trial) => (trial.state === "succeeded" ? 0 : trial.state === "planned" ? 2 : 1);
  return [...trials].sort((one, other) => place(one) - place(other) || (order(one) === order(other) ? one.number - other.number : order(one) - order(other)));
}

function spread(numbers) {
  const least = Math.min(...numbers);
  return least > 0 ? Math.max(...numbers) / least : 0;
}

function describe(choices) {
  if (choices.values !== undefined) return choices.values.map(inline).join(", ");
  return `${choices.low} to ${choices.high}${choices.log ? ", logarithmic" : ""}${choices.integer ? ", whole" : ""}${choices.points ? `, ${choices.points} points` : ""}`;
}

/** Replace the buttons, unless one of them has the focus and stays the same. */
function replaceKeepingFocus(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement.textContent : null;
  replace(element, ...children);
  if (focused !== null) ([...element.children].find((child) => child.textContent === focused) ?? element.firstElementChild)?.focus();
}
