// What is about to be sent, as a curl command and as Python.

/** path: `jobs` or `sweeps`. */
export function asCurl(body, root, path) {
  const json = JSON.stringify(body).replaceAll("'", "'\\''");
  return `curl -X POST "${root}${path}" -H "Authorization: Bearer $TWOVIEWS_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '${json}'`;
}

export function asPython(body, path) {
  const lines = Object.entries(body).map(([name, value]) => `    ${name}=${literal(value, 1)},`);
  const [call, result] = path === "jobs" ? ["jobs.submit", "jobs.wait(made).summary"] : ["sweeps.create", "sweeps.wait(made).best"];
  return `from twoviews import Client\n\nclient = Client()\nmade = client.${call}(\n${lines.join("\n")}\n)\nprint(client.${result})`;
}

function literal(value, depth) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (Array.isArray(value)) return `[${value.map((item) => literal(item, depth)).join(", ")}]`;
  if (typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value).map(([name, item]) => `${JSON.stringify(name)}: ${literal(item, depth + 1)}`);
  return `{${entries.join(", ")}}`;
}
