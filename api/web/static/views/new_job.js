// View: a form for a new job, made from the API's schemas, recipes and methods.

import { Problem, get, getAll, makeKey, post, url } from "../parts/api.js";
import { empty, h, heading, panel, replace } from "../parts/dom.js";
import { jobTitle } from "../parts/format.js";
import { SchemaForm } from "../parts/schema_form.js";
import { asCurl, asPython } from "../parts/snippets.js";
import { Vary } from "../parts/vary.js";

const FIRST = {
  pretrain: ["method", "epochs", "minutes", "batch_size", "image_size", "backbone"],
  linear_eval: ["label_fractions", "layer"], knn_eval: ["k", "layer"], finetune: ["label_fraction", "epochs"],
  supervised: ["label_fraction", "epochs", "backbone"], distill: ["temperature", "epochs", "backbone"],
  project: ["images", "methods", "layer"], export: ["formats", "layer"],
};
const TITLES = {
  pretrain: "Train without labels", linear_eval: "Linear evaluation", knn_eval: "kNN evaluation", finetune: "Fine-tune with labels",
  supervised: "Supervised baseline", distill: "Distil", project: "Map the features", export: "Export", embed_dataset: "Embed a dataset",
};
const WITHOUT_MODEL = ["pretrain", "supervised"];

export async function show(main, { parameters, signal }) {
  const [document_, datasets, models, methods, backbones, recipes] = await Promise.all([
    get("/openapi.json", { signal }), getAll("/datasets?status=ready", { signal }), getAll("/models", { signal }),
    get("/methods", { signal }), get("/backbones", { signal }), get("/recipes", { signal })]);
  if (datasets.length === 0) {
    replace(main, heading("New job"), empty("There is no dataset to train on yet", h("p", {}, "Upload one under ", h("a", { href: "#/datasets" }, "Datasets"), " first.")));
    return;
  }
  const running = await getAll("/jobs?status=running", { most: 100, signal });
  const queued = await getAll("/jobs?status=queued", { most: 100, signal });
  const cloned = parameters.get("clone") ? await get(`/jobs/${parameters.get("clone")}`, { signal }) : null;
  new NewJob(main, { document_, datasets, models, methods: methods.data, backbones: backbones.data, recipes: recipes.data,
    makers: [...running, ...queued].filter((job) => FIRST[job.kind] && !["linear_eval", "knn_eval", "project", "export"].includes(job.kind)) }, parameters, cloned, signal).show();
}

class NewJob {
  constructor(main, catalogue, parameters, cloned, signal) {
    Object.assign(this, { main, catalogue, cloned, signal });
    this.components = catalogue.document_.components.schemas;
    this.kinds = new Map(this.components.NewJob.properties.config.anyOf.map((option) => {
      const schema = this.components[option.$ref.split("/").at(-1)];
      return [schema.properties.kind.const, option];
    }));
    const select = (id, options, value) => {
      const control = h("select", { id, oninput: () => this.choose(id) }, options.map(([key, text]) => h("option", { value: key }, text)));
      if (value && !options.some(([key]) => key === value)) control.append(h("option", { value }, `${value}, which is not in the list`));
      if (value) control.value = value;
      return control;
    };
    const { datasets, models, makers } = catalogue;
    this.kind = select("kind", [...this.kinds.keys()].map((kind) => [kind, TITLES[kind] ?? kind]), cloned?.kind ?? parameters.get("kind"));
    this.dataset = select("dataset", datasets.map((dataset) => [dataset.id, dataset.name]), cloned?.dataset ?? parameters.get("dataset"));
    this.model = select("model", [...models.map((model) => [model.id, `${model.name} (${model.id.slice(-6)})`]),
      ...makers.map((job) => [job.id, `when it ends: ${jobTitle(job)}`])], cloned?.model ?? parameters.get("model"));
    this.recipe = select("recipe", []);
    this.name = h("input", { id: "name", type: "text", maxlength: "200", oninput: () => this.preview(), value: cloned?.name ? `${cloned.name} (clone)` : "" });
    this.priority = h("input", { id: "priority", type: "number", min: "-1000", max: "1000", value: String(cloned?.priority ?? 0), oninput: () => this.preview() });
    this.button = h("button", { class: "primary", type: "submit", id: "submit" }, "Start");
    this.fault = h("div", {});
    this.fields = h("div", {});
    const { metric } = this.components.NewSweep.properties;
    this.vary = new Vary({ pointers: [], metrics: metric.enum.filter((name) => name !== null), onChange: () => this.preview() });
    this.curl = h("pre", { tabindex: "0", id: "as-curl" });
    this.python = h("pre", { tabindex: "0", id: "as-python" });
  }

  show() {
    const field = (label, control, hint) => h("div", { class: "field" }, h("label", { for: control.id }, label), control, hint && h("p", { class: "hint" }, hint));
    this.modelField = field("Model", this.model, "The encoder to use; a job that has not ended is waited for.");
    this.recipeField = field("Recipe", this.recipe);
    this.recipeHint = h("p", { class: "hint" });
    this.recipeField.append(this.recipeHint);
    const form = h("form", { novalidate: true, onsubmit: (event) => (event.preventDefault(), this.submit()) },
      h("div", { class: "columns" },
        h("div", {},
          this.fault,
          panel("What", h("div", { class: "row" }, field("Kind", this.kind), field("Dataset", this.dataset)), this.modelField, this.recipeField,
            h("div", { class: "row" }, field("Name", this.name, "Optional."), field("Priority", this.priority, "Higher runs first among your jobs."))),
          panel("How", this.fields),
          panel("Try several", this.vary.element),
          h("p", {}, this.button)),
        h("div", {}, panel("As Python", this.python), panel("As curl", this.curl))));
    replace(this.main, heading(this.cloned ? `Clone of ${jobTitle(this.cloned)}` : "New job"), form,
      h("datalist", { id: "backbone-names" }, this.catalogue.backbones.map((network) => h("option", { value: network.name }, network.description))));
    this.chooseKind(this.cloned ? changes(this.cloned.config, this.schemaOf(this.cloned.kind), this.components) : {});
  }

  schemaOf(kind) {
    return this.components[this.kinds.get(kind).$ref.split("/").at(-1)];
  }

  choose(id) {
    if (id === "kind") this.chooseKind({});
    else if (id === "recipe") this.chooseRecipe();
    else if (id === "dataset") this.chooseKind(this.form.value());
    else this.preview();
  }

  chooseKind(config) {
    const kind = this.kind.value;
    this.modelField.hidden = WITHOUT_MODEL.includes(kind);
    const recipes = this.catalogue.recipes.filter((recipe) => recipe.kind === kind);
    this.recipeField.hidden = recipes.length === 0;
    replace(this.recipe, h("option", { value: "" }, "Defaults: chosen for the dataset and the device"), recipes.map((recipe) => h("option", { value: recipe.name }, recipe.name)));
    this.recipeHint.textContent = "";
    this.build(config);
  }

  chooseRecipe() {
    const recipe = this.catalogue.recipes.find((candidate) => candidate.name === this.recipe.value);
    this.recipeHint.textContent = recipe === undefined ? "" : `${recipe.description} ${recipe.result} (${recipe.hardware}, ${recipe.duration}; ${recipe.source})`;
    this.build(recipe?.config ?? {});
  }

  async build(config) {
    const kind = this.kind.value;
    const texts = new Map(this.catalogue.methods.map((method) => [method.name, method.description]));
    const options = { value: config, first: FIRST[kind] ?? [], texts, onChange: () => this.preview() };
    this.form = new SchemaForm(this.kinds.get(kind), this.components, options);
    replace(this.fields, this.form.element);
    this.preview();
    const jobs = await get(`/jobs?kind=${kind}&dataset=${this.dataset.value}&limit=5`, { signal: this.signal }).catch(() => ({ data: [] }));
    const earlier = jobs.data.find((job) => job.resolved !== null); // only a hint: the form works without it
    if (earlier === undefined || this.kind.value !== kind || this.fields.contains(document.activeElement)) return;
    this.form = new SchemaForm(this.kinds.get(kind), this.components, { ...options, value: this.form.value(), resolved: earlier.resolved });
    replace(this.fields, this.form.element);
  }

  body() {
    const body = { kind: this.kind.value, dataset: this.dataset.value };
    if (!this.modelField.hidden) body.model = this.model.value;
    if (this.name.value.trim()) body.name = this.name.value.trim();
    if (Number(this.priority.value) !== 0) body.priority = Number(this.priority.value);
    if (this.cloned?.max_runtime) body.max_runtime = this.cloned.max_runtime;
    if (Object.keys(this.cloned?.metadata ?? {}).length > 0) body.metadata = this.cloned.metadata;
    body.config = this.form.value();
    return this.vary.isActive ? { ...body, ...this.vary.body() } : body;
  }

  get path() {
    return this.vary.isActive ? "sweeps" : "jobs";
  }

  preview() {
    if (this.form === undefined) return;
    this.vary.suggest(this.form.pointers());
    const body = this.body();
    this.button.textContent = this.vary.isActive ? "Start the sweep" : "Start";
    this.curl.textContent = asCurl(body, url(""), this.path);
    this.python.textContent = asPython(body, this.path);
  }

  async submit() {
    replace(this.fault);
    this.form.showErrors([]);
    this.vary.showErrors([]);
    if (!this.vary.check()) return;
    const body = this.body();
    if (this.sent?.text !== JSON.stringify(body)) this.sent = { text: JSON.stringify(body), key: makeKey() };
    this.button.disabled = true;
    try {
      const made = await post(`/${this.path}`, body, { key: this.sent.key });
      location.hash = `#/${this.path}/${made.id}`;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (error.status < 500) this.sent = null;
      const others = this.form.showErrors(this.vary.showErrors(error.errors));
      const text = others.length > 0 || error.errors.length === 0 ? error.message : `${error.errors.length} ${error.errors.length === 1 ? "field needs" : "fields need"} a change; see below.`;
      replace(this.fault, h("div", { class: "note bad", role: "alert", tabindex: "-1" }, text));
      (this.main.querySelector("[aria-invalid]") ?? this.fault.firstElementChild).focus();
    } finally {
      this.button.disabled = false;
    }
  }
}

/** The values of a complete config that differ from the defaults of its schema. */
function changes(config, schema, components) {
  const changed = {};
  for (const [name, value] of Object.entries(config)) {
    const property = schema.properties?.[name];
    if (name === "kind" || property === undefined) continue;
    if (JSON.stringify(value) === JSON.stringify(property.default ?? null)) continue;
    changed[name] = isObject(value) ? prune(value, find(property, value, components), components) : value;
  }
  return changed;
}

function prune(value, schema, components) {
  if (schema === null) return value;
  const kept = changes(value, schema, components);
  return value.name === undefined ? kept : { name: value.name, ...kept };
}

function find(property, value, components) {
  const resolve = (option) => (option.$ref ? components[option.$ref.split("/").at(-1)] : option);
  const options = [property, ...(property.anyOf ?? []), ...(property.oneOf ?? []), ...(property.anyOf ?? []).flatMap((option) => option.oneOf ?? [])].map(resolve);
  return options.find((option) => option.properties !== undefined && (value.name === undefined || [option.properties.name?.const, undefined].includes(value.name) || option.properties.name?.const === undefined)) ?? null;
}

function isObject(value) {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
