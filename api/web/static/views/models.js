// View: the list of models.

import { getAll } from "../parts/api.js";
import { empty, h, heading, panel, replace, table } from "../parts/dom.js";
import { bytes, count, percent, time } from "../parts/format.js";

const COLUMNS = [["Name"], ["Method"], ["Backbone"], ["Features", "number"], ["kNN", "number"], ["Size", "number"], ["Made"]];

export async function show(main, { signal }) {
  const models = await getAll("/models", { signal });
  replace(main, heading("Models"), models.length === 0
    ? empty("No models yet", h("p", {}, "A training job that succeeds leaves one: start a ", h("a", { href: "#/new" }, "new job"), "."))
    : panel("All models", table("Models", COLUMNS, models.map((model) => [
      [h("a", { href: `#/models/${model.id}` }, model.name), (model.aliases ?? []).map((alias) => [" ", h("span", { class: "tag" }, alias)])],
      model.method ?? "–",
      model.backbone?.name ?? "–",
      count(model.dim),
      percent(model.metrics?.["online/knn"] ?? model.metrics?.knn ?? null),
      bytes(model.size_bytes),
      time(model.created_at),
    ]))));
}
