// View: the list of sweeps.

import { getAll, pause } from "../parts/api.js";
import { empty, h, heading, panel, replace, table } from "../parts/dom.js";
import { number, status, time } from "../parts/format.js";

const POLL_MILLISECONDS = 4000;
const COLUMNS = [["Name"], ["Status"], ["Trials that have ended"], ["Best", "number"], ["By"], ["Created"]];

export async function show(main, { signal }) {
  const list = h("div", {});
  replace(main, heading("Sweeps"), list);
  await refresh();
  follow();

  async function refresh() {
    const sweeps = await getAll("/sweeps", { signal });
    replace(list, sweeps.length > 0 ? panel("All sweeps", table("Sweeps", COLUMNS, sweeps.map(toRow)))
      : empty("No sweeps yet", h("p", {}, "A sweep tries configs that differ in some fields: start a ", h("a", { href: "#/new" }, "new job"), " and vary a field.")));
  }

  async function follow() {
    while (!signal.aborted) {
      await pause(POLL_MILLISECONDS, signal);
      if (!signal.aborted && !document.hidden && !list.contains(document.activeElement)) await refresh().catch(() => {});
    }
  }
}

function toRow(sweep) {
  return [
    h("a", { href: `#/sweeps/${sweep.id}` }, sweepTitle(sweep)),
    status(sweep.status),
    progress(sweep),
    sweep.best === null ? "–" : number(sweep.best.value),
    sweep.metric,
    time(sweep.created_at),
  ];
}

export function sweepTitle(sweep) {
  return sweep.name || `${sweep.kind} over ${Object.keys(sweep.space).map(fieldName).join(", ")}`;
}

/** `/method/temperature` as people say it. */
export function fieldName(pointer) {
  return pointer.slice(1).replaceAll("/", " ").replaceAll("_", " ");
}

/** How many trials have ended, as a bar. */
export function progress(sweep) {
  const ended = sweep.trials - sweep.counts.planned - sweep.counts.running;
  return [h("progress", { max: String(sweep.trials), value: String(ended), "aria-label": "Progress" }), h("span", { class: "hint" }, ` ${ended} of ${sweep.trials}`)];
}
