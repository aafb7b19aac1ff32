// The screen of the calibration panel: a text beside its rubric and scores, and the figures. What it shows and where it goes is the
// kernel's; it sends what was typed.

const SCORE_KEYS = "0–9 score and go on · T is 10 · Backspace takes back · ↑ ↓ other line · Enter next text · Alt+PageDown, Alt+PageUp leaf";
const FIELD_KEYS = "Enter or ↓ accepts and goes on · ↑ goes back · Enter on the last line: next text · Alt+PageDown, Alt+PageUp leaf";

/** A labelled choice: options are pairs of value and text. */
function choice(label, { options, chosen }, onchange) {
  const select = make("select", { onchange: () => onchange(select.value) }, ...options.map(([value, text]) => make("option", { value }, text)));
  select.value = chosen;
  return make("label", {}, `${label} `, select);
}

class CalibrationScreen extends Panel {
  constructor(model, host) {
    super(model, host, { name: "calibration", label: "Scores of people and models side by side" });
    this.bar = make("div", { class: "bar" });
    this.texts = make("div", { class: "texts" });
    this.figures = make("div", { class: "figures", hidden: true });
    this.root.append(this.bar, this.texts, this.figures, this.status);
    this.root.addEventListener("keydown", (event) => this.leaf(event));
    this.hearers.changed = ({ view }) => view !== this.uid && this.again();
    this.hearers.agreement = (body) => this.paintFigures(body);
    this.chosen = {};
    this.begin();
  }

  async begin() {
    const { facts, ...record } = await this.ask("start");
    this.facts = facts;
    this.paintBar();
    this.paint(record);
    this.listen();
    this.root.dataset.painted = "true";
  }

  // Asking. A score that is under way belongs to the text it was typed for; while another text is fetched, nothing can be scored.

  async send(kind, body) {
    return this.ask(kind, { ...body, view: this.uid }).catch(() => null);
  }

  async again() {
    const record = await this.send("record", {});
    if (record) this.paint(record, false);
  }

  async go(to) {
    if (this.moving) return;
    for (const [name, { field }] of this.rows) if (field === document.activeElement && field.tagName === "INPUT") this.typed(name);
    const answer = await this.move("record", { to });
    if (!answer) return;
    if (answer.missing) return this.stay(answer.missing);
    this.paint(answer);
    if (answer.finished) this.say(`All ${answer.of} texts are scored. The figures say what came of it.`);
    else this.tellLost();
  }

  /** Ask for a text. Whoever types meanwhile has not seen it: those keys score nothing, which is said when it is there. */
  async move(kind, body) {
    Object.assign(this, { moving: true, lost: false });
    const answer = await this.send(kind, body);
    this.moving = false;
    if (this.lost && !answer?.text) this.paint(this.record, false); // what was chosen meanwhile counts for nothing
    return answer;
  }

  tellLost() {
    if (this.lost) this.say("What was typed before this text was in view has scored nothing: type it again.");
  }

  stay(missing) {
    const names = missing.map((name) => (name === "content_type" ? "the kind of text" : name));
    this.say(`Not scored yet: ${names.join(", ")}. Alt+PageDown leaves the text as it is.`);
    this.field(missing[0])?.focus();
  }

  async choose(body) {
    const answer = await this.move("choose", body);
    if (!answer) return;
    this.paint(answer);
    this.tellLost();
  }

  async score(field, value) {
    if (this.moving) {
      this.lost = true;
      return;
    }
    const { id } = this.record;
    const answer = await this.send("score", { id, field, value });
    if (answer?.id === this.record.id && id === answer.id) this.learn(answer);
    else if (!answer) this.again();
  }

  /** What a score has changed, without touching what is being typed. */
  learn(record) {
    const revealed = record.models && !this.record.models;
    Object.assign(this.record, record);
    this.paintScores();
    this.paintWhere();
    if (revealed) this.say("Your scores of this text are complete and saved; here are the others'.");
    else this.say(record.mine.complete ? "Saved." : `Saved; ${record.mine.missing.length} to go.`);
  }

  // The bar

  paintBar() {
    const { filter, description } = this.facts;
    const view = (name, label) => make("button", { "aria-pressed": String(name === "texts"), onclick: () => this.turnTo(name) }, label);
    this.views = { texts: view("texts", "Texts"), figures: view("figures", "Agreement") };
    const orders = [["disagreement", "greatest disagreement first"], ["random", "at random"]];
    this.order = choice("Order", { options: orders, chosen: "disagreement" }, (order) => this.choose({ order }));
    this.ahead = make("input", { type: "checkbox", onchange: () => this.choose({ ahead: this.ahead.checked }) });
    this.where = make("span", { class: "where" });
    const leaf = (to, text, label) => make("button", { "aria-label": label, title: label, onclick: () => this.go(to) }, text);
    this.way = make("span", { class: "way" }, this.order, make("label", {}, this.ahead, " Show the models’ scores before mine"),
      make("span", { class: "grow" }), make("span", { class: "leaves" }, this.where,
        leaf("before", "◀", "Text before this one (Alt+PageUp)"), leaf("after", "▶", "Text after this one (Alt+PageDown)")));
    this.bar.append(make("strong", { title: description }, filter), this.views.texts, this.views.figures, this.way);
  }

  paintWhere() {
    const { place, of, done, order, ahead } = this.record;
    this.where.textContent = `text ${place} of ${of} · ${done} scored by ${this.facts.person}`;
    this.order.querySelector("select").value = order;
    this.ahead.checked = ahead;
  }

  turnTo(name) {
    for (const [each, button] of Object.entries(this.views)) {
      button.setAttribute("aria-pressed", String(each === name));
      this[each].hidden = each !== name;
    }
    this.way.hidden = name === "figures";
    if (name === "figures") this.compute();
    else this.rest();
  }

  leaf(event) {
    const to = { PageDown: "after", PageUp: "before" }[event.key];
    if (!to || !event.altKey) return;
    event.preventDefault();
    this.go(to);
  }

  // A text

  paint(record, focus = true) {
    this.record = record;
    const { title, meta, text } = record.text;
    const told = meta.map(([name, value]) => make("span", {}, make("span", { class: "soft" }, `${name} `), value));
    const article = make("article", { "aria-label": "Text" }, title ? make("h3", {}, title) : null, make("p", { class: "meta" }, ...told),
      make("div", { class: "body", tabindex: 0, role: "region", "aria-label": "Words of the text" }, text));
    this.rows = new Map();
    this.texts.replaceChildren(article, this.scoring());
    this.paintScores();
    this.paintWhere();
    if (focus) this.rest();
    Object.assign(this.root.dataset, { text: record.id, order: record.order });
  }

  /** Put the cursor where the next score is due. */
  rest() {
    const [missing] = this.record.mine.missing;
    if (this.figures.hidden) (missing ? this.field(missing) : this.next).focus({ preventScroll: true });
  }

  scoring() {
    const { dimensions, types, keys, oracles, person, prompt, description } = this.facts;
    const head = ["Dimension", person, ...oracles].map((name, column) => make("th", { scope: "col", class: column ? "number" : null }, name));
    const body = make("tbody", {}, ...dimensions.map((each) => this.line(each)));
    if (types.length) body.append(this.kindLine(types));
    this.sums = { overall: this.sumLine("Overall", "weights, caps and gatekeepers of the filter"), tier: this.sumLine("Tier", "") };
    body.append(...Object.values(this.sums).map(({ row }) => row));
    this.next = make("button", { class: "next", onclick: () => this.go("next") }, "Next text ", make("kbd", {}, "Enter"));
    this.reasons = make("dl", { class: "reasons" });
    this.hint = make("p", { class: "hint" });
    const table = make("table", {}, make("caption", { class: "hidden" }, "Scores of this text"), make("thead", {}, make("tr", {}, ...head)), body);
    const parts = [
      description ? make("p", { class: "question" }, description) : null, make("p", { class: "soft" }, keys ? SCORE_KEYS : FIELD_KEYS),
      make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of scores" }, table),
      this.hint, make("p", {}, this.next), this.reasons,
      make("details", {}, make("summary", {}, "The whole prompt, as the models got it"), make("pre", { tabindex: 0 }, prompt)),
    ];
    return make("section", { class: "scores", "aria-label": "Scores" }, ...parts);
  }

  /** A line of the table: what it is about, one's own field, and a cell for each oracle. */
  row(name, label, rubric, field) {
    const cells = this.facts.oracles.map(() => make("td", { class: "number" }));
    const about = make("th", { scope: "row" }, label, rubric ? make("span", { class: "rubric", id: `${this.uid}-${name}-rubric` }, rubric) : null);
    const row = make("tr", {}, about, make("td", { class: "number" }, field), ...cells);
    return { row, field, cells };
  }

  line({ name, weight, rubric }) {
    const { minimum, maximum } = this.facts.scale;
    const id = `${this.uid}-${name}`;
    const field = make("input", { id, inputmode: "decimal", autocomplete: "off", size: 4, "aria-describedby": `${id}-rubric`, title: `${minimum} to ${maximum}`,
      onkeydown: (event) => this.key(event, name), onchange: () => this.typed(name), onfocus: () => field.select() });
    field.value = this.record.mine.scores[name] ?? "";
    const label = make("label", { for: id }, name.replaceAll("_", " "), make("span", { class: "soft" }, ` ${weight}`));
    this.rows.set(name, this.row(name, label, rubric || "The filter says nothing about it.", field));
    return this.rows.get(name).row;
  }

  kindLine(types) {
    const id = `${this.uid}-content_type`;
    const options = [["", "–"], ...types.map((type) => [type, type.replaceAll("_", " ")])];
    const field = make("select", { id, onchange: () => this.score("content_type", field.value || null), onkeydown: (event) => this.key(event, "content_type") },
      ...options.map(([value, text]) => make("option", { value }, text)));
    field.value = this.record.mine.content_type ?? "";
    const label = make("span", { class: "kind" }, make("label", { for: id }, "kind of text"), field);
    const { row, cells } = this.row("content_type", label, "", make("span", {}));
    this.rows.set("content_type", { row, field, cells });
    return row;
  }

  sumLine(label, rubric) {
    return this.row(label, label, rubric, make("span", {}));
  }

  // Keys

  field(name) {
    return this.rows.get(name)?.field;
  }

  step(name, by) {
    const names = [...this.rows.keys()];
    const place = names.indexOf(name) + by;
    if (place >= names.length) this.next.focus();
    else this.field(names[Math.max(place, 0)]).focus();
  }

  key(event, name) {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const select = name === "content_type";
    const { keys, scale } = this.facts;
    const writes = event.key.length === 1 || event.key === "Backspace" || event.key === "Delete";
    if (this.moving && writes) {
      event.preventDefault();
      this.lost = true;
    } else if (event.key === "Enter") {
      event.preventDefault();
      this.entered(name);
    } else if (!select && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      this.step(name, event.key === "ArrowUp" ? -1 : 1);
    } else if (!select && keys && writes) {
      event.preventDefault();
      this.pressed(event.key, name, scale);
    }
  }

  pressed(key, name, { minimum, maximum }) {
    const value = /^\d$/.test(key) ? Number(key) : key.toLowerCase() === "t" && maximum === 10 ? 10 : null;
    if (key === "Backspace" || key === "Delete") {
      if (this.field(name).value !== "") this.score(name, null);
      this.field(name).value = "";
    } else if (value === null || value < minimum || value > maximum) {
      this.say(`${key} is no score here; give ${minimum} to ${maximum}${maximum === 10 ? ", T for 10" : ""}.`);
    } else {
      this.field(name).value = value;
      this.step(name, 1);
      this.score(name, value);
    }
  }

  /** Enter: on to the next text with keys alone; with typed numbers, on to the next line first. */
  entered(name) {
    const last = [...this.rows.keys()].at(-1) === name;
    if (this.facts.keys || last) this.go("next");
    else this.step(name, 1);
  }

  /** A number that was typed or pasted. The kernel says what is wrong with it. */
  typed(name) {
    const text = this.field(name).value.trim().replace(",", ".");
    const value = text === "" ? null : Number.isNaN(Number(text)) ? text : Number(text);
    if (value !== (this.record.mine.scores[name] ?? null)) this.score(name, value);
  }

  // Scores

  paintScores() {
    const { mine, models } = this.record;
    for (const [name, { cells }] of this.rows) cells.forEach((cell, place) => cell.replaceChildren(...this.said(models?.[place], name, mine)));
    for (const [name, { field, cells }] of Object.entries(this.sums)) {
      field.textContent = mine[name] ?? "–";
      cells.forEach((cell, place) => { cell.textContent = models ? models[place][name] ?? "–" : "·"; });
    }
    this.hint.textContent = models ? this.remark(mine) : "The others’ scores are shown when yours are complete, so that they do not draw yours towards them.";
    this.reasons.replaceChildren(...(models ?? []).flatMap(({ name, failed, reasoning, held_by: limits }) =>
      failed || reasoning || limits.length ? [make("dt", {}, name), make("dd", {}, failed ? `No scores: ${failed}` : reasoning, limits.length ? make("span", { class: "soft" }, ` Held by: ${limits.join(", ")}.`) : null)] : []));
  }

  remark({ complete, seen, held_by: limits }) {
    const held = limits.length ? `Your overall score is held by ${limits.join(", ")}. ` : "";
    if (!complete) return `${held}The others’ scores are in view; what you give here is marked so.`;
    return seen ? `${held}Some of your scores were given with the others’ in view, and are marked so.` : `${held}Signed figures: how far the others are from you.`;
  }

  /** What an oracle says in one line: the score, how far it is from one's own, and the evidence. */
  said(model, name, mine) {
    if (!model) return [make("span", { class: "soft", "aria-label": "hidden" }, "·")];
    if (model.failed) return [make("span", { "aria-label": "no score" }, "–")];
    if (name === "content_type") return [make("span", { class: "small" }, (model.content_type ?? "–").replaceAll("_", " "))];
    const score = model.scores[name], own = mine.scores[name];
    const apart = own === undefined ? 0 : score - own;
    const { minimum, maximum } = this.facts.scale;
    const far = Math.abs(apart) >= 0.3 * (maximum - minimum);
    const sign = make("span", { class: far ? "apart far" : "apart" }, apart ? `${apart > 0 ? "+" : "−"}${+Math.abs(apart).toFixed(2)}` : "");
    const evidence = model.evidence[name];
    return [`${score} `, sign, evidence ? make("q", { class: "evidence" }, evidence) : null].filter(Boolean);
  }

  // Figures

  async compute() {
    this.say("Computing the figures …");
    const answer = await this.send("agreement", this.chosen);
    if (answer) this.awaited = answer.number;
    if (answer && this.told?.number >= answer.number) this.paintFigures(this.told);
  }

  async paintFigures(body) {
    this.told = body;
    if (this.figures.hidden || !(body.number >= this.awaited)) return;
    if (body.error) return this.say(body.error, true);
    const pick = (name) => (value) => { this.chosen = { ...this.chosen, [name]: value }; this.compute(); };
    const { reference, on, close, told, table, figures, command } = body;
    for (const node of this.charts.keys()) this.forget(node);
    const drawn = figures.map((figure) => [figure, make("div", { class: "chart" })]);
    this.figures.replaceChildren(
      make("div", { class: "bar" }, choice("Against", reference, pick("reference")), choice("On", on, pick("on")), close.options.length ? choice("Look closely at", close, pick("close")) : null),
      ...told.map((line) => make("p", { class: "told" }, line)), this.tableOf(table),
      make("div", { class: "grid" }, ...drawn.map(([{ caption }, node]) => make("figure", {}, node, make("figcaption", {}, caption)))),
      this.commandOf(command));
    this.say("");
    await Promise.all(drawn.map(([figure, node]) => this.chart(node, figure, figure.caption)));
    this.root.dataset.figures = String(body.number);
  }

  forget(node) {
    this.charts.get(node).sizes.disconnect();
    window.Plotly?.purge(node);
    this.charts.delete(node);
  }

  tableOf(table) {
    if (!table) return make("p", {}, "There is nobody to compare with: one oracle, and too few scores of yours.");
    const head = table.columns.map((name, column) => make("th", { scope: "col", class: column ? "number" : null }, name));
    const rows = table.rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", { class: "number" }, cell))));
    return make("div", { class: "wide", tabindex: 0, role: "region", "aria-label": "Table of agreement" },
      make("table", {}, make("caption", {}, table.caption), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)));
  }

  commandOf(command) {
    const { labels, person } = this.facts;
    if (!command) return make("p", { class: "soft" }, `Your scores are kept in ${labels}. With ten texts they can go into the report.`);
    return make("div", { class: "command" }, make("p", {}, `The whole report with ${person} in it; the models are not asked again:`), make("pre", { tabindex: 0 }, command));
  }
}

export default face(CalibrationScreen);
