// The leaderboard of a dataset: models by accuracy, in groups that can be compared.

import { get } from "./api.js";
import { h, panel, table } from "./dom.js";
import { count, percent } from "./format.js";

const COLUMNS = [["Rank", "number"], ["Model"], ["Method"], ["Top-1", "number"], ["95 % interval"], ["Judged by"]];

/** The panel, or null when no model was evaluated on the dataset. */
export async function leaderboard(datasetId, signal) {
  const { data } = await get(`/leaderboard?dataset=${datasetId}`, { signal });
  if (data.length === 0) return null;
  return panel("Leaderboard", data.map((group) => {
    const title = `${group.protocol}, ${group.labels === null ? "all labels" : `${count(group.labels)} labels`}`;
    return [h("h3", {}, title), h("p", { class: "hint" }, group.description), table(title, COLUMNS, group.entries.map(toRow))];
  }));
}

function toRow(entry) {
  return [
    String(entry.rank),
    h("a", { href: `#/models/${entry.model}` }, entry.name),
    entry.method ?? "–",
    percent(entry.top1),
    entry.top1_interval ? entry.top1_interval.map(percent).join(" – ") : "–",
    h("a", { href: `#/jobs/${entry.job}` }, entry.job.slice(-6)),
  ];
}
