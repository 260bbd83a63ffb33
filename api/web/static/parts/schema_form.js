// A form made from a JSON schema: each field with its description, bounds and default; its value has the changes only.

import { h, replace, uniqueId } from "./dom.js";
import { inline } from "./format.js";

/** One field of the form, at a JSON pointer below `/config`. */
class Field {
  constructor(form, pointer, name, schema, value) {
    Object.assign(this, { form, pointer, name, schema, id: uniqueId("field") });
    this.fault = h("p", { class: "fault", role: "alert", id: `${this.id}-fault` });
    this.control = this.makeControl(value);
  }

  get kinds() {
    return (this.schema.anyOf ?? [this.schema]).map((option) => this.form.resolve(option));
  }

  makeControl(value) {
    const options = listOptions(this.kinds);
    const common = { id: this.id, name: this.name, "aria-describedby": `${this.id}-hint ${this.id}-fault`, oninput: () => this.form.changed() };
    if (options !== null) {
      const select = h("select", common, h("option", { value: "" }, `default: ${inline(this.schema.default)}`),
        options.map((option) => h("option", { value: JSON.stringify(option) }, inline(option))));
      select.value = value === undefined ? "" : JSON.stringify(value);
      return select;
    }
    const placeholder = this.schema.default === undefined || this.schema.default === null ? "" : `default: ${inline(this.schema.default)}`;
    if (this.kinds.some((kind) => ["array", "object"].includes(kind.type))) {
      return h("textarea", { ...common, rows: "2", placeholder, class: "mono", value: value === undefined ? "" : JSON.stringify(value) });
    }
    return h("input", { ...common, type: "text", placeholder, value: value === undefined ? "" : inline(value),
      list: this.name === "name" && this.pointer.startsWith("/backbone") ? "backbone-names" : null });
  }

  element() {
    const resolved = this.form.lookup(this.pointer);
    const asks = [this.schema.default, this.read()].includes("auto") && resolved !== undefined && resolved !== "auto";
    return h("div", { class: "field" },
      h("label", { for: this.id }, this.name.replaceAll("_", " ")),
      this.control,
      h("p", { class: "hint", id: `${this.id}-hint` }, this.schema.description ?? "", bounds(this.kinds),
        asks ? h("span", {}, " Last time auto became ", h("code", {}, inline(resolved)), ".") : null),
      this.fault);
  }

  /** The value, or undefined when the field is empty: the default applies. Text that is no JSON is a string. */
  read() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch {
      return text;
    }
  }

  showFault(text) {
    this.fault.textContent = text;
    if (text) this.control.setAttribute("aria-invalid", "true");
    else this.control.removeAttribute("aria-invalid");
  }
}

/** The form of an object schema; `components` are the schemas that `$ref` names. */
export class SchemaForm {
  /**
   * value: the config to start from; resolved: the `resolved` config of an earlier job, for what `auto` becomes;
   * first: names of the fields that are shown at once; texts: descriptions of named options, by name.
   */
  constructor(schema, components, { value = {}, resolved = null, first = [], texts = new Map(), onChange = () => {} } = {}) {
    Object.assign(this, { components, resolved, first, texts, onChange });
    this.schema = this.resolve(schema);
    this.fields = [];
    this.choices = new Map(); // pointer -> select of a union's member
    this.element = h("div", {});
    this.build(value);
  }

  resolve(schema) {
    if (schema.$ref === undefined) return schema;
    return { ...this.components[schema.$ref.split("/").at(-1)], ...(schema.description ? { description: schema.description } : {}) };
  }

  lookup(pointer) {
    return pointer.split("/").slice(1).reduce((value, name) => value?.[name], this.resolved ?? undefined);
  }

  build(value) {
    this.fields = [];
    this.choices = new Map();
    const names = Object.keys(this.schema.properties).filter((name) => name !== "kind");
    const shown = names.filter((name) => this.first.includes(name)).sort((a, b) => this.first.indexOf(a) - this.first.indexOf(b));
    const others = names.filter((name) => !this.first.includes(name));
    const make = (name) => this.property(`/${name}`, name, this.schema.properties[name], value[name]);
    replace(this.element, shown.map(make), others.length > 0 && h("details", { class: "others" }, h("summary", {}, `All other fields (${others.length})`), others.map(make)));
  }

  property(pointer, name, schema, value) {
    const resolved = this.resolve(schema);
    const union = schema.oneOf ?? schema.anyOf?.find((option) => option.oneOf !== undefined)?.oneOf;
    const members = (union ?? (schema.discriminator ? schema.anyOf : undefined))?.map((option) => this.resolve(option));
    if (members?.every((member) => member.properties?.name !== undefined)) return this.union(pointer, name, schema, members, value);
    if (resolved.properties !== undefined) return this.section(pointer, name, resolved, value ?? {});
    const object = schema.anyOf?.map((option) => this.resolve(option)).find((option) => option.properties !== undefined);
    if (object !== undefined && !Array.isArray(value)) return this.section(pointer, name, { ...object, description: schema.description }, value ?? {});
    const field = new Field(this, pointer, name, { ...resolved, ...schema }, value);
    this.fields.push(field);
    return field.element();
  }

  section(pointer, name, schema, value) {
    const inner = Object.entries(schema.properties).map(([inside, property]) => this.property(`${pointer}/${inside}`, inside, property, value?.[inside]));
    return h("details", {}, h("summary", {}, name.replaceAll("_", " ")),
      h("p", { class: "hint" }, schema.description ?? ""), h("fieldset", {}, h("legend", {}, name.replaceAll("_", " ")), inner));
  }

  /** A section whose fields depend on its `name`, such as a method or an optimizer. */
  union(pointer, name, schema, members, value) {
    const nameOf = (member) => member.properties.name.const ?? member.properties.name.enum?.[0] ?? member.properties.name.default;
    const select = h("select", { id: uniqueId("choice"), name, oninput: () => (fill({}), this.changed()) },
      schema.default !== undefined && h("option", { value: "" }, `default: ${inline(schema.default)}`),
      members.map((member) => h("option", { value: nameOf(member) }, member.title ?? nameOf(member))));
    const text = h("p", { class: "hint" });
    const fault = h("p", { class: "fault", role: "alert" });
    const inner = h("fieldset", {});
    const box = h("details", {}, h("summary", {}, `Fields of the ${name.replaceAll("_", " ")}`), inner);
    this.choices.set(pointer, { select, fault });
    const fill = (given) => {
      this.fields = this.fields.filter((field) => !field.pointer.startsWith(`${pointer}/`));
      const member = members.find((option) => nameOf(option) === select.value);
      text.textContent = member === undefined ? (schema.description ?? "") : (this.texts.get(select.value) ?? member.description ?? "");
      box.hidden = member === undefined;
      replace(inner, h("legend", {}, select.value), Object.entries(member?.properties ?? {}).filter(([inside]) => inside !== "name")
        .map(([inside, property]) => this.property(`${pointer}/${inside}`, inside, property, given[inside])));
    };
    select.value = value?.name ?? (schema.default === undefined ? nameOf(members[0]) : "");
    fill(value ?? {});
    return h("div", { class: "field" }, h("label", { for: select.id }, name.replaceAll("_", " ")), select, text, fault, box);
  }

  changed() {
    this.onChange(this.value());
  }

  /** The JSON pointers of the fields, sorted. */
  pointers() {
    return [...[...this.choices.keys()].map((pointer) => `${pointer}/name`), ...this.fields.map((field) => field.pointer)].sort();
  }

  /** The config with the fields that were filled in. */
  value() {
    const config = {};
    for (const [pointer, { select }] of this.choices) if (select.value !== "") set(config, `${pointer}/name`, select.value);
    for (const field of this.fields) {
      const value = field.read();
      if (value !== undefined) set(config, field.pointer, value);
    }
    return config;
  }

  /** Show the errors of a problem at their fields; returns those that belong to none. */
  showErrors(errors) {
    for (const field of this.fields) field.showFault("");
    for (const { fault } of this.choices.values()) fault.textContent = "";
    const places = errors.map((error) => [error, error.pointer.replace(/^\/config/, "")]);
    return places.filter(([error, pointer]) => {
      if (!error.pointer.startsWith("/config")) return true;
      const field = this.fields.find((candidate) => pointer === candidate.pointer) ?? this.fields.find((candidate) => pointer.startsWith(`${candidate.pointer}/`));
      const choice = this.choices.get(pointer.replace(/\/name$/, ""));
      if (field !== undefined) field.showFault(error.detail);
      else if (choice !== undefined) choice.fault.textContent = error.detail;
      reveal(field?.control ?? choice?.select);
      return field === undefined && choice === undefined;
    }).map(([error]) => error);
  }
}

function reveal(control) {
  for (let box = control?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
}

function set(object, pointer, value) {
  const names = pointer.split("/").slice(1);
  const last = names.pop();
  for (const name of names) object = object[name] ??= {};
  object[last] = value;
}

/** The values of a field that can only have a few, or null. */
function listOptions(kinds) {
  const values = kinds.map((kind) => kind.enum ?? (kind.const !== undefined ? [kind.const] : kind.type === "boolean" ? [true, false] : null));
  return values.includes(null) ? null : values.flat();
}

function bounds(kinds) {
  for (const kind of kinds) {
    const low = kind.minimum !== undefined ? `from ${kind.minimum}` : kind.exclusiveMinimum !== undefined ? `above ${kind.exclusiveMinimum}` : "";
    const high = kind.maximum !== undefined ? `to ${kind.maximum}` : kind.exclusiveMaximum !== undefined ? `below ${kind.exclusiveMaximum}` : "";
    if (low || high) return ` (${[low, high].filter(Boolean).join(" ")})`;
  }
  return "";
}
