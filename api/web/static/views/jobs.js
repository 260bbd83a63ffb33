// View: the list of jobs.

import { getAll, pause } from "../parts/api.js";
import { empty, h, heading, panel, replace, table } from "../parts/dom.js";
import { duration, jobTitle, percent, status, time } from "../parts/format.js";

const POLL_MILLISECONDS = 3000;
const PAGE = 100;
const STATUSES = ["waiting", "queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"];
const COLUMNS = [["Name"], ["Kind"], ["Status"], ["Progress"], ["Result", "number"], ["Created"]];

export async function show(main, { parameters, signal }) {
  const list = h("div", {});
  const filter = h("select", { id: "status", onchange: () => refresh().catch(explain) },
    h("option", { value: "" }, "Any status"), STATUSES.map((name) => h("option", { value: name }, name)));
  filter.value = parameters.get("status") ?? "";
  const more = h("button", { type: "button", onclick: () => ((most += PAGE), refresh().catch(explain)) }, "Show more");
  let most = PAGE;

  async function refresh() {
    const jobs = await getAll(`/jobs${filter.value ? `?status=${filter.value}` : ""}`, { most, signal });
    more.hidden = jobs.length < most;
    replace(list, jobs.length > 0 ? panel("All jobs", table("Jobs", COLUMNS, jobs.map(toRow)))
      : filter.value ? empty("No such jobs", "None has this status.")
        : empty("No jobs yet", h("p", {}, "Upload images under ", h("a", { href: "#/datasets" }, "Datasets"), ", then start a ",
          h("a", { href: "#/new" }, "new job"), ".")));
  }

  function explain(error) {
    if (error.name !== "AbortError") replace(list, h("div", { class: "note bad", role: "alert" }, error.message));
  }

  replace(main, heading("Jobs", h("label", { for: "status", class: "dim" }, "Status"), h("div", {}, filter)), list, more);
  await refresh();
  follow();

  async function follow() {
    while (!signal.aborted) {
      await pause(POLL_MILLISECONDS, signal);
      if (!signal.aborted && !document.hidden && !list.contains(document.activeElement)) await refresh().catch(() => {});
    }
  }
}

function toRow(job) {
  return [
    h("a", { href: `#/jobs/${job.id}` }, jobTitle(job)),
    job.kind,
    status(job.status),
    job.status === "running" && job.progress
      ? [h("progress", { max: "100", value: String(job.progress.percent), "aria-label": "Progress" }),
        h("span", { class: "hint" }, `${job.progress.percent.toFixed(0)} %, ${duration(job.progress.eta_seconds)} left`)]
      : h("span", { class: "dim" }, job.status_detail ?? ""),
    percent(result(job)),
    time(job.created_at),
  ];
}

/** The accuracy of a job's summary, from 0 to 1, or null. */
export function result(job) {
  const summary = job.summary ?? {};
  return summary.top1 ?? summary.knn ?? null;
}
