// The frame of a map: draws what the page sends it, and sends back what is done on it.
//
// Plotly's WebGL scatter compiles its drawing commands from text, which the page's security policy refuses. So it runs
// here, in a sandbox of another origin, which has no key and cannot read or request anything.

const map = document.getElementById("map");
let isListening = false;

addEventListener("message", async (message) => {
  if (message.source !== parent) return;
  await Plotly.react(map, message.data.traces, message.data.layout, message.data.config);
  if (isListening) return;
  isListening = true;
  map.on("plotly_hover", (event) => send("hover", event.points, event.event));
  map.on("plotly_unhover", () => send("unhover", []));
  map.on("plotly_click", (event) => send("click", event.points));
  map.on("plotly_selected", (event) => event && send("selected", event.points));
  parent.postMessage({ name: "drawn", rows: [] }, "*");
});

function send(name, points, place) {
  const rows = points.map((point) => point.customdata);
  parent.postMessage({ name, rows, x: place?.clientX ?? 0, y: place?.clientY ?? 0 }, "*");
}

parent.postMessage({ name: "ready", rows: [] }, "*");
