// View: one model: its card, evaluations, downloads, and how to load it.

import { download, get, getAll, request } from "../parts/api.js";
import { facts, h, heading, notify, panel, replace, table } from "../parts/dom.js";
import { bytes, count, inline, jobTitle, number, percent, status } from "../parts/format.js";
import { deleteButton } from "../parts/removal.js";
import { result } from "./jobs.js";

const FILES = [["weights", "model.safetensors"], ["heads", "heads.safetensors"], ["card", "card.json"], ["readme", "README.md"]];

export async function show(main, { id, signal }) {
  const model = await get(`/models/${id}`, { signal });
  const source = await get(`/jobs/${model.job_id}`, { signal }).catch(() => null);
  const users = source?.dataset ? (await getAll(`/jobs?dataset=${source.dataset}`, { most: 300, signal })).filter((job) => [model.id, model.job_id].includes(job.model)) : [];
  const train = (kind, label) => h("a", { class: "button", href: `#/new?kind=${kind}&model=${model.id}${source?.dataset ? `&dataset=${source.dataset}` : ""}` }, label);
  replace(
    main,
    h("p", { class: "crumbs" }, h("a", { href: "#/models" }, "Models"), ` / ${model.id}`),
    heading(model.name, train("linear_eval", "Evaluate"), train("finetune", "Fine-tune"), train("project", "Map"), train("export", "Export"),
      deleteButton(`/models/${model.id}`, `Delete the model ${model.name} for ever?`, "#/models")),
    h("div", { class: "columns" },
      h("div", {},
        panel("Evaluations", evaluations(users)),
        panel("How to load it", h("h3", {}, "As features, from the service"), code(embedSnippet(model)),
          readme(model))),
      h("div", {},
        panel("Card", facts([
          ["Method", model.method], ["Backbone", model.backbone && `${model.backbone.name}, width ${inline(model.backbone.width)}`],
          ["Features", `${count(model.dim)} numbers for each image`], ["Aliases", (model.aliases ?? []).join(", ")],
          ["Made by", h("a", { href: `#/jobs/${model.job_id}` }, source ? jobTitle(source) : model.job_id)],
          ["Size", bytes(model.size_bytes)], ["SHA-256", h("code", {}, model.sha256)],
          ...Object.entries(model.metrics ?? {}).filter(([, value]) => typeof value === "number").map(([name, value]) => [name, number(value)]),
        ]), h("details", {}, h("summary", {}, "The whole card as JSON"), h("pre", { tabindex: "0" }, JSON.stringify(model.card, null, 2)))),
        panel("Downloads", h("div", { class: "row" }, FILES.map(([file, name]) =>
          h("button", { type: "button", onclick: () => download(`/models/${model.id}/download?file=${file}`, name).catch((error) => notify(error.message, "bad")) }, name)))))),
  );
}

function evaluations(jobs) {
  const shown = jobs.filter((job) => result(job) !== null || job.kind.endsWith("_eval"));
  if (shown.length === 0) return h("p", { class: "dim" }, "None yet: Evaluate starts a linear evaluation.");
  return table("Evaluations", [["Job"], ["Protocol"], ["Status"], ["Labels", "number"], ["Top-1", "number"], ["95 % interval"]], shown.map((job) => [
    h("a", { href: `#/jobs/${job.id}` }, jobTitle(job)), job.kind, status(job.status), count(job.summary?.labels), percent(result(job)),
    job.summary?.top1_interval ? job.summary.top1_interval.map(percent).join(" – ") : "–"]));
}

function code(text) {
  return h("pre", { tabindex: "0" }, text);
}

function embedSnippet(model) {
  return `from twoviews import Client\n\nvectors = Client().embed("${model.id}", ["cat.jpg", "dog.jpg"])  # 2 × ${model.dim}`;
}

/** The section of the model's README that loads it; it is read when it is opened, as a download is recorded. */
function readme(model) {
  const box = h("details", { ontoggle: () => box.open && fill() }, h("summary", {}, "In Python, with torchvision or timm, from the downloaded files"));
  const text = h("pre", { tabindex: "0" }, "Loading …");
  box.append(text);
  let isRead = false;
  async function fill() {
    if (isRead) return;
    isRead = true;
    try {
      const whole = await (await request("GET", `/models/${model.id}/download?file=readme`)).text();
      const section = whole.split(/^## /m).find((part) => part.startsWith("Loading")) ?? whole;
      text.textContent = section.replace(/^Loading\s*/, "").replaceAll(/^```\w*$/gm, "").replaceAll(/\n{3,}/g, "\n\n").trim();
    } catch (error) {
      text.textContent = error.message;
    }
  }
  return box;
}
