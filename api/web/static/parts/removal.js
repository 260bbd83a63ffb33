// Deletion, after a question; the API refuses what is used, and says by what.

import { request } from "./api.js";
import { h, notify } from "./dom.js";

/** A button that deletes what is at `path` of the API, then shows the view `next`. */
export function deleteButton(path, question, next) {
  async function remove() {
    if (!confirm(question)) return;
    try {
      await request("DELETE", path);
      location.hash = next;
    } catch (error) {
      notify(error.message, "bad");
    }
  }
  return h("button", { class: "danger", type: "button", onclick: remove }, "Delete");
}
