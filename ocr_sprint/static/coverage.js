// The screen of the coverage panel: maps of a corpus, its gaps, the records of a cell. It shows what panels.coverage_desk answers and
// sends what was chosen. Text of records goes through text nodes only.

const SHOWS = [["before", "Before"], ["after", "After"], ["both", "Both"], ["change", "Change"]];
const MOVES = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -Infinity], End: [0, Infinity] };
const HINT = "Go to a cell with the mouse or the arrows; Enter lists its records.";
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;

class CoverageScreen extends Panel {
  constructor(model, host) {
    super(model, host, { name: "coverage", label: "Coverage of a labelled corpus" });
    Object.assign(this, { view: { rows: null, columns: null, only: null, show: "before", after: null }, cell: null, gaps: [], order: "price", gap: null });
    this.hearers.gaps = (body) => this.hearGaps(body);
    this.hearers.texts = (body) => this.hearTexts(body);
    this.build();
    this.start().catch(() => {}); // what went wrong is said already
  }

  button(label, action, attributes = {}) {
    return make("button", { type: "button", ...attributes, onclick: () => Promise.resolve(action()).catch(() => {}) }, label);
  }

  // ---------------------------------------------------------------- the frame

  build() {
    this.controls = make("div", { class: "bar", role: "group", "aria-label": "What is shown" });
    this.verdict = make("p", { class: "verdict" });
    this.compared = make("p", { class: "compared", hidden: true });
    this.maps = make("div", { class: "maps" });
    this.readout = make("p", { class: "readout", role: "status" }, HINT);
    this.legend = make("ul", { class: "legend", "aria-label": "Colours" });
    this.gapPart = make("section", { class: "gaps", "aria-label": "Gaps" });
    this.recordPart = make("section", { class: "records", "aria-label": "Records of a cell" });
    const lower = make("div", { class: "lower" }, this.gapPart, this.recordPart);
    this.root.append(this.controls, make("div", { class: "told" }, this.verdict, this.compared), this.maps, this.readout, this.legend, lower, this.status);
    this.emptyRecords();
  }

  emptyRecords() {
    this.recordPart.replaceChildren(make("h3", {}, "Records"), make("p", { class: "soft" }, "Choose a cell of the table: its records are listed here."));
  }

  async start() {
    this.opened = await this.ask("open");
    const { table, records } = this.opened.state;
    Object.assign(this.view, table);
    this.drawControls();
    this.listen();
    await this.showMaps();
    if (records) await this.list(records);
    this.root.dataset.painted = "true";
  }

  // ---------------------------------------------------------------- what is shown

  select(label, options, chosen, action) {
    const node = make("select", { onchange: () => action(JSON.parse(node.value)) });
    for (const [name, value] of options) {
      const children = Array.isArray(value) ? value : null;
      node.append(children ? make("optgroup", { label: name }, ...children.map(([word, one]) => this.option(word, one, chosen))) : this.option(name, value.is, chosen));
    }
    return make("label", {}, make("span", {}, label), node);
  }

  option(word, value, chosen) {
    const text = JSON.stringify(value);
    return make("option", { value: text, selected: text === JSON.stringify(chosen) }, word);
  }

  drawControls() {
    const { margins, dimensions, sets } = this.opened;
    const { rows, columns, only, show, after } = this.view;
    const names = margins.map((margin) => margin.name);
    const change = (part) => this.choose(part);
    const other = (name) => (columns && columns !== name ? columns : names.find((each) => each !== name) ?? null);
    const every = [["every dimension", { is: null }], ...names.map((name) => [name, { is: name }])];
    const parts = [this.select("Rows", every, rows, (name) => change({ rows: name, columns: name && other(name) }))];
    const against = rows === null ? [["scores", { is: null }]] : names.filter((name) => name !== rows).map((name) => [name, { is: name }]);
    parts.push(this.select("Columns", against, columns, (name) => change({ columns: name })));
    const groups = margins.filter((margin) => !dimensions.includes(margin.name)).map((margin) => [margin.name, margin.labels.map((label, n) => [label, [margin.name, n]])]);
    if (groups.length) parts.push(this.select("Only", [["all records", { is: null }], ...groups], only, (value) => change({ only: value })));
    if (sets.length > 1) {
      const buttons = SHOWS.map(([key, label]) => this.button(label, () => change({ show: key }), { "aria-pressed": String(show === key) }));
      parts.push(make("span", { class: "shows", role: "group", "aria-label": "Before and after" }, ...buttons));
      const others = sets.slice(1).map(({ name, records }) => [`${name} (${records.toLocaleString("en")})`, { is: name }]);
      parts.push(this.select("After", others, after ?? sets[1].name, (name) => change({ after: name, show: show === "before" ? "both" : show })));
    }
    this.controls.replaceChildren(...parts);
  }

  async choose(part) {
    const place = [...this.controls.querySelectorAll("select, button")].indexOf(document.activeElement);
    Object.assign(this.view, part);
    this.drawControls();
    [...this.controls.querySelectorAll("select, button")][place]?.focus();
    this.cell = null;
    this.readout.textContent = HINT;
    this.emptyRecords();
    await this.showMaps().catch(() => {});
  }

  async showMaps() {
    this.maps.setAttribute("aria-busy", "true");
    this.say("Gaps are being reckoned.");
    const wanted = { ...this.view };
    try {
      this.drawMaps(await this.latest("table", wanted));
    } finally {
      this.maps.removeAttribute("aria-busy");
    }
    this.showGaps({ only: wanted.only, after: wanted.after }).catch(() => {}); // the map is of use before them
  }

  /** Ask for gaps; those that take the kernel a while are told later, perhaps before the answer says so. */
  async showGaps(wanted) {
    const told = new Promise((resolve) => { this.gapsTold = resolve; });
    const answer = await this.latest("gaps", wanted);
    const { error, ...found } = answer.later ? await told : answer;
    if (error) this.say(error, true);
    else this.drawGaps(found);
  }

  hearGaps(told) {
    const same = JSON.stringify([told.asked.only, told.asked.after]) === JSON.stringify([this.view.only, this.view.after]);
    if (same) this.gapsTold?.(told);
  }

  // ---------------------------------------------------------------- maps

  drawMaps({ tables, signed }) {
    this.tables = tables;
    this.signed = signed;
    this.maps.replaceChildren(...tables.map((table, n) => this.drawMap(table, n)));
    const swatch = (words, n) => make("li", {}, make("span", { class: "swatch", "data-step": (signed ? -3 : 0) + n, "aria-hidden": "true" }), words);
    const selected = tables.length > 1 || this.view.show === "after";
    const shapes = signed ? [] : ["◇ gap: too few", "◆ gap: no record", ...(selected ? ["✕ gap: there are some, and they do not go together"] : [])];
    this.legend.replaceChildren(...tables[0].steps.map(swatch), ...shapes.map((words) => make("li", {}, words)));
  }

  drawMap(table, n) {
    const head = make("tr", {}, make("th", { scope: "col", class: "corner" }, table.corner), ...table.columns.map((label) => make("th", { scope: "col" }, label)));
    const body = table.rows.map((label, i) => make("tr", {}, make("th", { scope: "row" }, label), ...table.cells[i].map((spot, j) => this.drawCell(spot, n, i, j))));
    const tell = ({ target }) => this.tell(target);
    const acts = { onkeydown: (event) => this.steer(event), onclick: ({ target }) => this.open(target), onfocusin: tell, onmouseover: tell, onmouseleave: () => this.rest() };
    const parts = [make("caption", {}, table.caption), make("thead", {}, head), make("tbody", {}, ...body)];
    const grid = make("table", { role: "grid", class: this.view.rows === null && "single", "aria-label": table.caption, ...acts }, ...parts);
    for (const mark of table.marks) this.mark(grid, mark);
    grid.querySelector("td").tabIndex = 0;
    return make("div", { class: "scroll" }, grid);
  }

  drawCell([count, share, step], n, i, j) {
    const sign = this.signed && step ? (step > 0 ? "▲ " : "▼ ") : "";
    const lines = this.signed ? [sign + share, count] : [count, share];
    return make("td", { tabindex: -1, "data-map": n, "data-row": i, "data-column": j, "data-step": step }, make("b", {}, lines[0]), make("span", {}, lines[1]));
  }

  mark(grid, [i, j, shape, words, draws, cost]) {
    const cell = grid.querySelector(`[data-row="${i}"][data-column="${j}"]`);
    if (!cell) return;
    cell.querySelector(".mark")?.remove();
    cell.append(make("em", { class: "mark", title: words }, `${shape} ${words.split(":")[0]}`));
    Object.assign(cell.dataset, { gap: words, draws, cost });
  }

  steer(event) {
    const cell = event.target.closest("td");
    if (!cell || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.open(cell);
    }
    const move = MOVES[event.key];
    if (!move) return;
    event.preventDefault();
    const rows = [...cell.closest("tbody").rows];
    const row = rows[Math.min(rows.length - 1, Math.max(0, Number(cell.dataset.row) + move[0]))];
    const cells = [...row.querySelectorAll("td")];
    cells[Math.min(cells.length - 1, Math.max(0, Number(cell.dataset.column) + move[1]))].focus();
  }

  called(cell) {
    const table = this.tables[cell.dataset.map];
    const words = [table.rows[cell.dataset.row], table.columns[cell.dataset.column]];
    return this.view.rows === null ? words.join(" ") : `${this.view.rows} ${words[0]}, ${this.view.columns} ${words[1]}`;
  }

  /** Speak of the cell in hand again, once the mouse has left the table. */
  rest() {
    const cell = this.maps.contains(document.activeElement) ? document.activeElement : this.maps.querySelector("[aria-selected]");
    if (cell) this.tell(cell);
    else this.readout.textContent = HINT;
  }

  tell(target) {
    const cell = target.closest?.("td");
    if (!cell) return;
    if (document.activeElement === cell) {
      for (const other of cell.closest("table").querySelectorAll("td[tabindex='0']")) other.tabIndex = -1;
      cell.tabIndex = 0;
    }
    const { gap, draws, cost } = cell.dataset;
    const [first, second] = [...cell.children].map((part) => part.textContent);
    const price = draws ? ` To fill it by more labels drawn alike: ${draws}${cost ? `, ${cost}` : ""}.` : "";
    this.readout.textContent = `${this.called(cell)}: ${this.signed ? `${first} points (${second} records)` : `${first} records, ${second}`}.${gap ? ` ${gap}.` : ""}${price}`;
  }

  open(target) {
    const cell = target.closest("td");
    if (!cell) return;
    const { rows, columns, only } = this.view;
    const { map, row, column } = cell.dataset;
    this.list({ set: this.tables[map].set, rows, columns, only, row: Number(row), column: Number(column), page: 0 }).catch(() => {});
  }

  // ---------------------------------------------------------------- gaps

  drawGaps({ verdict, even, gaps, marks, compared }) {
    this.verdict.textContent = `${verdict} ${even}`;
    this.compared.textContent = compared;
    this.compared.hidden = !compared;
    this.gaps = gaps.map((gap, place) => ({ ...gap, place }));
    this.gap = null;
    const grid = this.maps.querySelector("table");
    if (this.view.rows === null && this.tables[0].set === this.opened.sets[0].name && !this.signed) for (const mark of marks) this.mark(grid, mark);
    this.listGaps();
    this.say(this.opened.account);
  }

  heading(key, label, title) {
    const sort = this.order !== key ? "none" : key === "missing" || key === "worth" ? "descending" : "ascending";
    const choose = () => {
      this.order = key;
      this.listGaps();
      this.gapPart.querySelector(`[data-key="${key}"]`).focus();
    };
    return make("th", { scope: "col", class: "number", "aria-sort": sort }, this.button(label, choose, { title, "data-key": key }));
  }

  listGaps() {
    const keys = { price: (gap) => gap.place, available: (gap) => gap.available, missing: (gap) => -gap.missing, worth: (gap) => -Number(gap.worth) };
    const head = make("tr", {}, make("th", { scope: "col" }, "gap"), this.heading("available", "there are", "Records with these scores"),
      this.heading("missing", "missing", "Records up to an even selection"),
      this.heading("price", "labels it takes", "More labels from the same source, drawn alike; in brackets an interval that holds 19 times of 20"),
      make("th", { scope: "col", class: "number" }, "cost"),
      this.heading("worth", "worth", "What one more would earn in an even selection, in records in place"));
    const sorted = [...this.gaps].sort((one, other) => keys[this.order](one) - keys[this.order](other));
    const table = make("table", { "aria-label": "Gaps" }, make("thead", {}, head), make("tbody", {}, ...sorted.map((gap) => this.gapRow(gap))));
    const cost = this.opened.cost ? `Cost: ${this.opened.cost}.` : "No cost is known: say with llm= who would label.";
    const note = make("p", { class: "soft" }, `One more label serves every gap: whoever labels for the dearest has the others. ${cost}`);
    const none = make("p", {}, "There is no gap: an even selection can be made of these records.");
    this.detail = make("div", { class: "detail", role: "status" });
    const parts = this.gaps.length ? [note, make("div", { class: "scroll" }, table), this.detail] : [none];
    this.gapPart.replaceChildren(make("h3", {}, this.order === "price" ? "Gaps, the cheapest first" : "Gaps"), ...parts);
    this.drawDetail();
  }

  gapRow(gap) {
    const name = this.button(`${gap.dimension} ${gap.scores}`, () => this.showGap(gap), { "aria-expanded": String(this.gap === gap) });
    const parts = [gap.available.toLocaleString("en"), gap.missing.toLocaleString("en"), this.interval(gap.draws), gap.cost || "–", gap.worth];
    return make("tr", {}, make("th", { scope: "row" }, name), ...parts.map((part) => make("td", { class: "number" }, part)));
  }

  interval(words) {
    const [number, ends] = words.split(" (");
    return make("span", {}, number, ...(ends ? [make("span", { class: "ends" }, ` (${ends}`)] : []));
  }

  showGap(gap) {
    this.gap = this.gap === gap ? null : gap;
    this.listGaps();
    [...this.gapPart.querySelectorAll("tbody button")].find((each) => each.textContent === `${gap.dimension} ${gap.scores}`)?.focus();
  }

  drawDetail() {
    if (!this.gap) return;
    const { dimension, scores, missing, command, student, student_cost: cost } = this.gap;
    this.detail.append(make("p", {}, `To get ${plural(missing, "record")} with ${dimension} ${scores}; without the last word it labels:`), this.code(command));
    if (!student) return;
    const name = make("input", { value: `${dimension}_${scores}.jsonl`.replace(/[^\w.]+/g, "_"), size: 22, "aria-label": "File of texts" });
    const write = () => this.writeTexts({ only: this.view.only, gap: this.gap.place, file: name.value });
    this.wrote = make("div", {});
    this.detail.append(make("p", {}, `With the student's help: label ${student}${cost ? `, ${cost}` : ""}.`), make("div", { class: "files" }, name, this.button("Write these texts", write)), this.wrote);
  }

  async writeTexts(wanted) {
    this.say("The texts are being written.");
    this.writing = JSON.stringify(wanted);
    const told = new Promise((resolve) => { this.textsTold = resolve; });
    await this.ask("texts", wanted);
    const { error, said, command } = await told;
    this.say(this.opened.account);
    if (error) this.say(error, true);
    else this.wrote.replaceChildren(make("p", {}, `${said}; it goes to:`), this.code(command));
  }

  hearTexts(told) {
    if (JSON.stringify(told.asked) === this.writing) this.textsTold?.(told); // otherwise another view asked
  }

  code(command) {
    return make("div", { class: "command" }, make("code", {}, command), this.button("Copy", () => this.copy(command, "the command")));
  }

  async copy(text, what) {
    if (await this.copied(text)) this.say(`${what} copied`);
    else this.say(`${what} cannot be copied from this page; mark the text and copy it by hand, or write a file`, true);
  }

  // ---------------------------------------------------------------- records

  async list(cell, focus = null) {
    const answer = await this.latest("records", cell);
    this.cell = cell;
    for (const each of this.maps.querySelectorAll("[aria-selected]")) each.removeAttribute("aria-selected");
    const map = this.tables.findIndex((table) => table.set === cell.set);
    this.maps.querySelector(`td[data-map="${map}"][data-row="${cell.row}"][data-column="${cell.column}"]`)?.setAttribute("aria-selected", "true");
    this.drawRecords(answer);
    if (focus) this.recordPart.querySelector(focus)?.focus();
  }

  drawRecords({ title, total, page, pages, note, file, dimensions, columns, records }) {
    const heading = make("h3", {}, `${this.cell.set}: ${title}, ${plural(total, "record")}`);
    this.record = make("article", { class: "record", hidden: true, "aria-label": "Record", onkeydown: (event) => event.key === "Escape" && this.closeRecord() });
    if (!total) return this.recordPart.replaceChildren(heading, make("p", { class: "soft" }, "No record is of this kind. The gaps beside say what it takes to have some."));
    const to = (step, key) => this.list({ ...this.cell, page: page + step }, `[data-turn="${key}"]:enabled, [data-turn]:enabled`);
    const ends = (step) => page + step < 0 || page + step >= pages;
    const turn = (label, step, key) => this.button(label, () => to(step, key), { disabled: ends(step), "data-turn": key, "aria-label": key });
    const pager = make("div", { class: "pager" }, turn("←", -1, "Previous page"), make("span", {}, `page ${page + 1} of ${pages.toLocaleString("en")}`), turn("→", 1, "Next page"));
    const slim = (each) => make("th", { scope: "col", class: "slim" }, make("span", {}, each));
    const head = make("tr", {}, make("th", { scope: "col" }, "record"), ...dimensions.map(slim), ...columns.map((each) => make("th", { scope: "col" }, each)));
    const name = ({ head: title, id, row }) => make("th", { scope: "row" }, this.button(title || id, () => this.showRecord(row), { "data-record": row }), make("span", { class: "id" }, title ? id : ""));
    const cells = ({ scores, about }) => [...scores.map((score) => make("td", { class: "number" }, score)), ...about.map((text) => make("td", {}, text))];
    const rows = records.map((one) => make("tr", {}, name(one), ...cells(one)));
    const table = make("table", { "aria-label": "Records" }, make("thead", {}, head), make("tbody", {}, ...rows));
    return this.recordPart.replaceChildren(heading, ...(note ? [make("p", { class: "soft" }, note)] : []), this.fileBar(file, total, pager), this.record, make("div", { class: "scroll" }, table));
  }

  fileBar(file, total, pager) {
    const name = make("input", { value: `${file}_ids.txt`, size: 22, "aria-label": "Name of the file" });
    const write = (what) => async () => {
      if (what === "records") name.value = name.value.replace(/(_ids)?\.txt$/, ".jsonl");
      else name.value = name.value.replace(/\.jsonl$/, "_ids.txt");
      const { said, command } = await this.ask("write", { ...this.cell, page: 0, what, file: name.value });
      wrote.replaceChildren(make("p", {}, `${said}; it goes to, for instance:`), this.code(command));
    };
    const copy = async () => {
      const { buffers: [ids] } = await this.ask("ids", { ...this.cell, page: 0 });
      await this.copy(new TextDecoder().decode(ids), plural(total, "id"));
    };
    const wrote = make("div", { class: "detail", role: "status" });
    return make("div", {}, make("div", { class: "files" }, pager, this.button("Copy ids", copy), name, this.button("Write ids", write("ids")), this.button("Write records", write("records"))), wrote);
  }

  async showRecord(row) {
    const { id, where, head, text, scores, about, raw } = await this.latest("record", { set: this.cell.set, row });
    const facts = [...scores, ...about].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value)));
    const close = this.button("Close", () => this.closeRecord(), { title: "Esc" });
    this.record.replaceChildren(make("header", {}, make("h4", {}, head || id), close), make("p", { class: "soft" }, `${id} · ${where}`), make("dl", {}, ...facts),
      make("div", { class: "text", tabindex: 0, role: "group", "aria-label": "Text" }, text || "This record has no text under a usual name."),
      make("details", {}, make("summary", {}, "As it stands in the file"), make("pre", { tabindex: 0 }, raw)));
    this.record.hidden = false;
    this.shown = row;
    close.focus();
  }

  closeRecord() {
    this.record.hidden = true;
    this.recordPart.querySelector(`[data-record="${this.shown}"]`)?.focus();
  }
}

export default face(CoverageScreen);
