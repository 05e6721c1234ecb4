// The API for people to read: /openapi.json laid out by tag. Everything goes into the page as text.

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// `code` in backquotes is all the markup that the descriptions use.
function prose(tag, text, className = "") {
  const element = make(tag, { className });
  (text ?? "").split("`").forEach((part, index) => element.append(index % 2 ? make("code", {}, part) : part));
  return element;
}

function typeOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.oneOf) return schema.oneOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items)}`;
  return [schema.type].flat().join(" or ");
}

function operation(method, path, described) {
  const section = make("details", { className: "operation" });
  const summary = make("summary", {}, make("code", { className: "method" }, method.toUpperCase()), " ", make("code", {}, path), " ");
  summary.append(prose("span", described.summary, "quiet"));
  section.append(summary);
  if (described.description) section.append(prose("p", described.description));
  if (described.parameters?.length) {
    const rows = described.parameters.map((parameter) => make("tr", {},
      make("td", { className: "tight" }, make("code", {}, parameter.name)),
      make("td", { className: "tight" }, parameter.in + (parameter.required ? ", needed" : "")),
      prose("td", parameter.description)));
    section.append(make("table", {}, make("tbody", {}, ...rows)));
  }
  for (const [type, content] of Object.entries(described.requestBody?.content ?? {})) {
    section.append(make("p", {}, "Body: ", make("code", {}, type), " ", typeOf(content.schema)));
  }
  const rows = Object.entries(described.responses).map(([code, answer]) => {
    const kinds = Object.entries(answer.content ?? {}).map(([type, content]) => `${type} ${typeOf(content.schema)}`);
    return make("tr", {},
      make("td", { className: "tight" }, make("code", {}, code)),
      prose("td", answer.$ref ? "A problem: see its `type`." : answer.description),
      make("td", { className: "quiet" }, kinds.join(", ")));
  });
  section.append(make("table", {}, make("tbody", {}, ...rows)));
  return section;
}

function schema(name, described) {
  const section = make("details", { className: "operation" }, make("summary", {}, make("code", {}, name)));
  if (described.description) section.append(prose("p", described.description));
  const rows = Object.entries(described.properties ?? {}).map(([member, property]) => make("tr", {},
    make("td", { className: "tight" }, make("code", {}, member)),
    make("td", { className: "tight" }, typeOf(property)),
    prose("td", property.description)));
  section.append(make("table", {}, make("tbody", {}, ...rows)));
  return section;
}

const described = await (await fetch("/openapi.json")).json();
const docs = document.getElementById("docs");
docs.append(make("h1", {}, `${described.info.title} ${described.info.version}`));
for (const paragraph of described.info.description.split("\n\n")) docs.append(prose("p", paragraph));
for (const tag of described.tags) {
  docs.append(make("h2", {}, tag.name), prose("p", tag.description, "quiet"));
  for (const [path, item] of Object.entries(described.paths)) {
    for (const [method, one] of Object.entries(item)) {
      if (one.tags?.includes(tag.name)) docs.append(operation(method, path, one));
    }
  }
}
docs.append(make("h2", {}, "forms"));
for (const [name, one] of Object.entries(described.components.schemas)) docs.append(schema(name, one));
