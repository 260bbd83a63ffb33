// The page: signs in, and shows the view that the address names after `#`.

import { Problem, post, request } from "./parts/api.js";
import { h, notify, replace, waiting } from "./parts/dom.js";
import { begin, end, getKey, getKeyId, takeToken } from "./parts/session.js";

const VIEWS = {
  datasets: (id) => import(id ? "./views/dataset.js" : "./views/datasets.js"),
  jobs: (id) => import(id ? "./views/job.js" : "./views/jobs.js"),
  sweeps: (id) => import(id ? "./views/sweep.js" : "./views/sweeps.js"),
  models: (id) => import(id ? "./views/model.js" : "./views/models.js"),
  new: () => import("./views/new_job.js"),
  compare: () => import("./views/compare.js"),
  map: () => import("./views/map.js"),
  search: () => import("./views/search.js"),
};
const main = document.getElementById("main");
let current = new AbortController();

/** Where the address points to: `#/jobs/job_1?tab=log` is view `jobs`, id `job_1` and the parameters. */
export function parseAddress(hash) {
  const [path, query = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view, id] = path.split("/");
  return { view: Object.hasOwn(VIEWS, view) ? view : "jobs", id: id || null, parameters: new URLSearchParams(query) };
}

async function show() {
  current.abort();
  current = new AbortController();
  const { signal } = current;
  const isSignedIn = getKey() !== null;
  document.getElementById("nav").hidden = !isSignedIn;
  document.getElementById("sign-out").hidden = !isSignedIn;
  if (!isSignedIn) {
    (await import("./views/sign_in.js")).show(main, show);
    return;
  }
  const place = parseAddress(location.hash);
  markLink(place.view);
  replace(main, waiting("Loading …"));
  try {
    const view = await VIEWS[place.view](place.id);
    if (!signal.aborted) await view.show(main, { ...place, signal });
    if (!signal.aborted) document.title = `${main.querySelector("h1")?.textContent ?? "Twoviews"} · Twoviews`;
  } catch (error) {
    if (!signal.aborted) showError(error);
  }
}

function markLink(view) {
  for (const link of document.querySelectorAll("#nav a")) {
    if (link.hash === `#/${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function showError(error) {
  if (error.name === "AbortError") return;
  if (error.status === 401) return; // `signedout`
  if (!(error instanceof Problem)) console.error(error);
  const again = h("button", { type: "button", onclick: show }, "Try again");
  const title = error.status === 404 ? "Not found" : "This did not work";
  replace(main, h("h1", {}, title), h("div", { class: "note bad", role: "alert" }, h("p", {}, error.message)), again);
}

/** Replace the session by that of the token. Another session is kept unless its user agrees: the link may be anyone's. */
async function signInByToken(token) {
  if (getKey() !== null && !confirm("Sign in by this address, and end the session of this tab?")) return;
  if (getKeyId() !== null) await request("DELETE", `/keys/${getKeyId()}`).catch(() => {});
  end();
  replace(main, waiting("Signing in …"));
  try {
    const { key, id } = await post("/sessions", { token });
    begin(key, id);
  } catch (error) {
    notify(error.message, "bad");
  }
}

async function signOut() {
  const id = getKeyId();
  try {
    if (id !== null) await request("DELETE", `/keys/${id}`);
  } catch (error) {
    notify(`The key of this session could not be revoked: ${error.message}`, "bad");
  }
  end();
  location.hash = "";
  show();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("twoviews.theme", theme);
  dispatchEvent(new Event("themechange"));
}

const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.documentElement.dataset.theme = localStorage.getItem("twoviews.theme") ?? preferred;
document.getElementById("theme").addEventListener("click", () =>
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark"),
);
document.getElementById("sign-out").addEventListener("click", signOut);
document.getElementById("skip").addEventListener("click", () => main.focus());
addEventListener("signedout", () => {
  end();
  notify("The session has ended: sign in again.", "bad");
  show();
});
addEventListener("hashchange", async () => {
  const token = takeToken();
  if (token !== null) await signInByToken(token);
  main.focus();
  show();
});

const token = takeToken();
if (token !== null) await signInByToken(token);
show();
