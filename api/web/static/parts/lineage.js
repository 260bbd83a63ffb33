// The lineage of a job: its dataset, the job that made its model, and the jobs that use the model it makes.

import { get, getAll } from "./api.js";
import { h } from "./dom.js";
import { jobTitle, status } from "./format.js";

const MAX_ANCESTORS = 10;

/** The tree from the dataset down, with this job marked. */
export async function lineage(job, signal) {
  const ancestors = await findAncestors(job, signal);
  const root = ancestors[0] ?? job;
  const jobs = job.dataset === null ? [] : await getAll(`/jobs?dataset=${job.dataset}`, { most: 300, signal });
  const dataset = job.dataset === null ? null : await get(`/datasets/${job.dataset}`, { signal }).catch(() => null);
  const tree = branch(root, job, jobs, new Set());
  return h("ul", { class: "lineage" }, h("li", {},
    dataset === null ? "No dataset" : ["Dataset ", h("a", { href: `#/datasets/${dataset.id}` }, dataset.name)],
    h("ul", { class: "lineage" }, tree)));
}

async function findAncestors(job, signal) {
  const found = [];
  let source = job.model;
  while (source && found.length < MAX_ANCESTORS) {
    const jobId = source.startsWith("job_") ? source : (await get(`/models/${source}`, { signal }).catch(() => null))?.job_id;
    const parent = jobId ? await get(`/jobs/${jobId}`, { signal }).catch(() => null) : null;
    if (parent === null) break;
    found.unshift(parent);
    source = parent.model;
  }
  return found;
}

function branch(job, current, jobs, seen) {
  seen.add(job.id);
  const isCurrent = job.id === current.id;
  const users = jobs.filter((other) => !seen.has(other.id) && other.model !== null && [job.id, job.model_id].includes(other.model));
  return h("li", {},
    isCurrent ? h("strong", { "aria-current": "true" }, jobTitle(job)) : h("a", { href: `#/jobs/${job.id}` }, jobTitle(job)), " ", status(job.status),
    users.length > 0 && h("ul", { class: "lineage" }, users.reverse().map((user) => branch(user, current, jobs, seen))));
}
