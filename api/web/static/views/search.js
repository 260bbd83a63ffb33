// View: search an index by an image or a row; near-duplicates, outliers, images worth labelling, labels by neighbours.

import { get, getAll, pause, post, request } from "../parts/api.js";
import { empty, h, heading, notify, panel, replace, waiting } from "../parts/dom.js";
import { count, jobTitle, number, percent } from "../parts/format.js";
import { gallery, load } from "../parts/images.js";

const POLL_MILLISECONDS = 1500;
const RESULTS = 24;
const LISTS = [
  ["duplicates", "Near-duplicates", "Pairs of images that are nearly the same, the most similar first."],
  ["outliers", "Outliers", "Images that are farthest from their nearest others: often damaged, mislabelled or rare."],
  ["select", "Worth labelling", "A selection that covers the dataset: each image is the farthest from those before it (k-centre)."],
  ["labels", "Labels by neighbours", "The label that the nearest labelled images give, with its share of their votes."],
];

export async function show(main, { parameters, signal }) {
  const [indexes, jobs] = await Promise.all([getAll("/indexes", { signal }), getAll("/jobs?kind=embed_dataset", { signal })]);
  const ready = indexes.filter((index) => index.status === "ready");
  replace(main, heading("Search"));
  const search = ready.length > 0 ? new Search(main, ready, parameters, signal) : null;
  search?.show();
  const box = h("div", {});
  main.append(box);
  const refresh = async () => {
    const [newIndexes, newJobs] = await Promise.all([getAll("/indexes", { signal }), getAll("/jobs?kind=embed_dataset", { signal })]);
    if (search === null && newIndexes.some((index) => index.status === "ready")) await show(main, { parameters, signal });
    else {
      search?.offer(newIndexes.filter((index) => index.status === "ready"));
      replace(box, builder(newIndexes, newJobs, refresh));
      if (newIndexes.some((index) => index.status === "building")) follow(refresh, signal);
    }
  };
  replace(box, builder(indexes, jobs, refresh));
  if (indexes.some((index) => index.status === "building")) follow(refresh, signal);
}

/** Refresh after a while; again when the service cannot be reached. */
async function follow(refresh, signal) {
  await pause(POLL_MILLISECONDS, signal);
  if (signal.aborted) return;
  await refresh().catch(() => follow(refresh, signal));
}

class Search {
  constructor(main, indexes, parameters, signal) {
    Object.assign(this, { main, signal, indexes });
    this.select = h("select", { id: "index" }, indexes.map((index) => h("option", { value: index.id }, title(index))));
    if (indexes.some((index) => index.id === parameters.get("index"))) this.select.value = parameters.get("index");
    this.row = h("input", { id: "row", type: "number", min: "0", placeholder: "a row of the dataset" });
    this.query = h("div", { class: "figure" });
    this.results = h("div", { id: "results", role: "region", "aria-label": "Results", "aria-live": "polite" });
    this.shownRow = parameters.get("row");
  }

  /** Add those that were built meanwhile to the choice. */
  offer(ready) {
    const known = new Set(this.indexes.map((index) => index.id));
    for (const index of ready.filter((candidate) => !known.has(candidate.id))) {
      this.indexes.push(index);
      this.select.append(h("option", { value: index.id }, title(index)));
    }
  }

  get index() {
    return this.indexes.find((index) => index.id === this.select.value);
  }

  show() {
    const input = h("input", { type: "file", accept: "image/*", hidden: true, id: "query-file", onchange: () => input.files[0] && this.byImage(input.files[0]) });
    const area = h("div", {
      class: "drop", ondragover: (event) => (event.preventDefault(), area.classList.add("over")), ondragleave: () => area.classList.remove("over"),
      ondrop: (event) => {
        event.preventDefault();
        area.classList.remove("over");
        if (event.dataTransfer.files[0]) this.byImage(event.dataTransfer.files[0]);
      },
    }, h("p", {}, h("button", { class: "primary", type: "button", onclick: () => input.click() }, "Choose an image"), " or drop it here."),
    input);
    const byRow = h("form", { class: "row", onsubmit: (event) => (event.preventDefault(), this.byRow(this.row.value)) },
      h("div", { class: "field" }, h("label", { for: "row" }, "Or by row"), this.row), h("div", { class: "field" }, h("button", { type: "submit" }, "Find")));
    const lists = LISTS.map(([name, label, text]) => h("button", { type: "button", title: text, onclick: () => this.list(name, text) }, label));
    this.main.append(
      panel("Query", h("div", { class: "row" }, h("div", { class: "field" }, h("label", { for: "index" }, "Index"), this.select)), area, byRow, this.query),
      h("p", { class: "head" }, lists), this.results);
    if (this.shownRow !== null) this.byRow(this.shownRow);
  }

  async byImage(file) {
    const image = h("img", { alt: `The query, ${file.name}`, width: "160" });
    image.src = URL.createObjectURL(file);
    replace(this.query, h("p", {}, image));
    const form = new FormData();
    form.append("image", file);
    form.append("k", String(RESULTS));
    await this.fill("Nearest images", async () => this.found(await (await request("POST", `/indexes/${this.index.id}/search`, { body: form, signal: this.signal })).json()));
  }

  async byRow(row) {
    if (row === "") return;
    const image = h("img", { alt: `The query, row ${row}`, width: "160" });
    replace(this.query, h("p", {}, image));
    load(image, `/datasets/${this.index.dataset}/images/${row}?size=256`, this.signal);
    const body = { row: Number(row), k: RESULTS, exclude_self: true };
    await this.fill(`Nearest to row ${row}`, async () => this.found(await post(`/indexes/${this.index.id}/search`, body, { signal: this.signal })));
  }

  found(answer) {
    const rows = answer.data.map((image) => image.row).join(",");
    return [this.images(answer.data, (image) => `${image.label ?? "–"} · ${image.similarity.toFixed(3)}`),
      h("p", {}, h("a", { href: `#/map?dataset=${this.index.dataset}&rows=${rows}` }, "Show them on a map"))];
  }

  async list(name, text) {
    replace(this.query);
    await this.fill(text, async () => {
      const answer = await get(`/indexes/${this.index.id}/${name}?${name === "select" ? "n" : "limit"}=${RESULTS}`, { signal: this.signal });
      if (answer.data.length === 0) return empty("None", name === "labels" ? "Every image has a label already." : "There are no such images.");
      if (name === "duplicates") return answer.data.map((pair) => h("div", { class: "pair" }, h("p", { class: "hint" }, `similarity ${pair.similarity.toFixed(4)}`), this.images(pair.images, (image) => `${image.label ?? "–"} · ${image.split}`)));
      const caption = { outliers: (image) => `${image.label ?? "–"} · ${number(image.distance)}`, select: (image) => `${image.label ?? "–"} · radius ${number(image.radius)}`, labels: (image) => `${image.predicted ?? "–"} · ${percent(image.confidence)}` }[name];
      return this.images(answer.data, caption);
    });
  }

  images(data, caption) {
    const shown = data.map((image) => ({ ...image, name: image.path, url: image.urls.thumbnail }));
    return gallery(shown, { signal: this.signal, caption, onPick: (image) => ((this.row.value = image.row), this.byRow(image.row), this.main.scrollIntoView()) });
  }

  async fill(label, read) {
    replace(this.results, waiting("Searching …"));
    try {
      const content = await read();
      replace(this.results, panel(label, content));
    } catch (error) {
      if (!this.signal.aborted) replace(this.results, h("div", { class: "note bad", role: "alert" }, error.message));
    }
  }
}

function title(index) {
  return `${index.name ?? index.id} (${count(index.report?.vectors)} images, ${index.report?.method === "exact" ? "exact" : `recall ${percent(index.report?.recall_at_10)}`})`;
}

/** What to do for an index: embed a dataset, then build it. */
function builder(indexes, jobs, refresh) {
  const indexed = new Set(indexes.map((index) => index.job));
  const open = jobs.filter((job) => job.status === "succeeded" && !indexed.has(job.id));
  const building = indexes.filter((index) => index.status === "building");
  const failed = indexes.filter((index) => index.status === "failed");
  const build = async (job, button) => {
    button.disabled = true;
    try {
      await post("/indexes", { job: job.id, name: job.name ?? `Index of ${job.id.slice(-6)}` });
      await refresh();
    } catch (error) {
      notify(error.message, "bad");
      button.disabled = false;
    }
  };
  return panel("Indexes",
    building.map((index) => h("p", { class: "wait", role: "status" }, `${index.name ?? index.id} is being built.`)),
    failed.map((index) => h("div", { class: "note bad" }, `${index.name ?? index.id}: ${index.error?.detail ?? "failed"}`)),
    open.map((job) => h("p", {}, `${jobTitle(job)} (${count(job.summary?.rows)} images) `, h("button", { type: "button", onclick: (event) => build(job, event.currentTarget) }, "Build an index"))),
    indexes.length === 0 && open.length === 0 && h("p", { class: "dim" }, "Searching takes two steps: embed a dataset by a model, then build an index of the vectors."),
    h("p", {}, h("a", { class: "button", href: "#/new?kind=embed_dataset" }, "Embed a dataset")));
}
