// View: the list of datasets, and the upload of another one.

import { getAll, pause, upload } from "../parts/api.js";
import { empty, h, heading, notify, panel, replace, table } from "../parts/dom.js";
import { bytes, count, percent, status, time } from "../parts/format.js";
import { countImages } from "./dataset.js";

const POLL_MILLISECONDS = 2000;

export async function show(main, { signal }) {
  const list = h("div", {});
  replace(main, heading("Datasets"), uploader(signal, () => refresh(list, signal)), list);
  await refresh(list, signal);
  poll(list, signal);
}

async function poll(list, signal) {
  while (!signal.aborted) {
    await pause(POLL_MILLISECONDS, signal);
    if (list.querySelector("[data-open]")) await refresh(list, signal).catch(() => {});
  }
}

async function refresh(list, signal) {
  const datasets = await getAll("/datasets", { signal });
  replace(list, datasets.length === 0
    ? empty("No datasets yet", "Drop an archive of images above: labels are optional, and folders become classes.")
    : panel("All datasets", table("Datasets", COLUMNS, datasets.map(toRow))));
}

const COLUMNS = [["Name"], ["Status"], ["Images", "number"], ["Classes", "number"], ["Size", "number"], ["Warnings", "number"], ["Uploaded"]];

function toRow(dataset) {
  const report = dataset.report ?? {};
  return [
    h("a", { href: `#/datasets/${dataset.id}`, "data-open": dataset.status === "validating" }, dataset.name),
    status(dataset.status),
    dataset.report ? count(countImages(report)) : "–",
    count(report.classes?.length),
    bytes(dataset.size_bytes),
    report.warnings?.length ? h("span", { class: "tag warn" }, report.warnings.length) : "",
    time(dataset.created_at),
  ];
}

function uploader(signal, onDone) {
  const input = h("input", { type: "file", id: "file", hidden: true, onchange: () => input.files[0] && start(input.files[0]) });
  const state = h("div", { role: "status", "aria-live": "polite" });
  const strict = h("input", { type: "checkbox", id: "strict" });
  const skip = h("input", { type: "checkbox", id: "skip-bad" });
  const area = h("div", {
    class: "drop",
    ondragover: (event) => (event.preventDefault(), area.classList.add("over")),
    ondragleave: () => area.classList.remove("over"),
    ondrop: (event) => {
      event.preventDefault();
      area.classList.remove("over");
      if (event.dataTransfer.files[0]) start(event.dataTransfer.files[0]);
    },
  },
  h("p", {}, h("button", { class: "primary", type: "button", onclick: () => input.click() }, "Choose an archive"), " or drop it here."),
  h("p", { class: "hint" }, "zip, tar, Parquet, WebDataset, npz, idx and more; folders such as ", h("code", {}, "train/cat/1.jpg"), " become splits and classes."),
  h("p", { class: "hint" },
    h("label", {}, skip, " leave out damaged files"), " · ", h("label", {}, strict, " refuse data with warnings")),
  input, state);

  async function start(file) {
    const form = new FormData();
    form.append("name", file.name);
    if (skip.checked) form.append("on_bad_file", "skip");
    if (strict.checked) form.append("strict", "true");
    form.append("file", file);
    const bar = h("progress", { max: "1", value: "0", "aria-label": `Upload of ${file.name}` });
    const text = h("span", {}, "0.0 %");
    replace(state, h("p", {}, `${file.name} (${bytes(file.size)}): `, text), bar);
    try {
      const dataset = await upload("/datasets", form, (fraction) => {
        bar.value = fraction;
        text.textContent = fraction < 1 ? percent(fraction) : "sent; it is stored and checked";
      }, signal);
      replace(state);
      notify(`${dataset.name} was uploaded and is being read.`, "good");
      await onDone();
    } catch (error) {
      replace(state, h("div", { class: "note bad", role: "alert" }, error.message));
    }
    input.value = "";
  }
  return h("section", { class: "panel", "aria-label": "Upload" }, area);
}
