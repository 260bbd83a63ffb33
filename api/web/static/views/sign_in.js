// View: sign in with a key.

import { Problem, url } from "../parts/api.js";
import { h, replace } from "../parts/dom.js";
import { begin } from "../parts/session.js";

export function show(main, onSignedIn) {
  const input = h("input", {
    id: "key", type: "password", autocomplete: "off", required: true, placeholder: "tv_…", "aria-describedby": "key-hint",
  });
  const fault = h("p", { class: "fault", role: "alert" });
  const form = h(
    "form",
    { class: "panel", onsubmit: (event) => (event.preventDefault(), signIn(input, fault, onSignedIn)) },
    h("h1", {}, "Sign in to Twoviews"),
    h("p", { class: "dim" }, "Train image encoders without labels, watch them learn, search your images by them."),
    h("div", { class: "field" }, h("label", { for: "key" }, "Key"), input, fault,
      h("p", { class: "hint", id: "key-hint" },
        "It is kept until this tab is closed. On your own machine, ", h("code", {}, "twoviews up"),
        " prints an address that signs in by itself, and ", h("code", {}, "twoviews sign-in"), " another one.")),
    h("button", { class: "primary", type: "submit" }, "Sign in"),
  );
  replace(main, form);
  input.focus();
}

async function signIn(input, fault, onSignedIn) {
  const key = input.value.trim();
  try {
    const response = await fetch(url("/usage"), { headers: { Authorization: `Bearer ${key}` } });
    if (!response.ok && response.status !== 403) throw new Problem(await response.json(), response.status);
    begin(key);
    onSignedIn();
  } catch (error) {
    fault.textContent = error instanceof Problem ? error.message : "The service cannot be reached, or this is not a key.";
    input.setAttribute("aria-invalid", "true");
    input.focus();
  }
}
