// The screen of the job board. What it shows is made in Python (panels.jobs); it asks once a second while it is in sight.

const EVERY_MS = 1000;
const COLUMNS = ["File", "State", "Confidence", "Flags", "Pages", "Seconds", "Reason and what to do"];
const SIGNS = { queued: "…", running: "▶", failed: "✕", "needs review": "✎", approved: "✓" };
const SPANS = { hour: "Hour", day: "Day", month: "30 days" };

class JobsScreen extends Panel {
  constructor(model, host) {
    super(model, host, { name: "jobs", label: "Job board" });
    Object.assign(this, { wanted: "all", places: [null], span: "hour", seen: null, inSight: true, closed: false, approved: null, stale: false, following: {} });
    this.build();
    this.sight = new IntersectionObserver(([entry]) => (this.inSight = entry.isIntersecting));
    this.sight.observe(this.root);
    this.poll();
    this.countGates(false);
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.sight.disconnect();
    super.close();
  }

  /** Ask how things stand, now and a second later, unless nobody looks. */
  async poll() {
    clearTimeout(this.timer);
    if (this.closed) return;
    if (this.inSight && document.visibilityState === "visible") {
      await this.latest("state").then((answer) => this.paint(answer), () => {});
    }
    this.timer = setTimeout(() => this.poll(), EVERY_MS);
  }

  /** Ask for something to be done; the answer says how things stand then. */
  act(kind, body = {}) {
    return this.ask(kind, body).then((answer) => this.paint(answer), () => {});
  }

  /** Look once more a second later for what is still being found out. */
  follow(what, found, again) {
    clearTimeout(this.following[what]);
    if (found.busy) this.following[what] = setTimeout(() => this.closed || again(), EVERY_MS);
  }

  field(label, input) {
    input.id = `${this.uid}-${label.toLowerCase()}`;
    return make("span", { class: "field" }, make("label", { for: input.id }, label), input);
  }

  build() {
    this.folder = make("input", { type: "text", size: 30, autocomplete: "off", spellcheck: "false", placeholder: "a folder with letters in it" });
    this.readers = make("input", { type: "number", min: 1, value: 1, size: 3 });
    this.engine = make("select");
    this.start = make("button", { type: "button", class: "main", onclick: () => this.begin() }, "Start");
    this.cancel = make("button", { type: "button", disabled: true, onclick: () => this.act("cancel") }, "Cancel");
    const form = make("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); this.act("folder", { folder: this.folder.value }); } },
      this.field("Folder", this.folder), make("button", { type: "submit" }, "Look"), make("span", { class: "grow" }),
      this.readersLabel = this.field("Readers", this.readers), this.engineLabel = this.field("Engine", this.engine), this.start, this.cancel);
    this.contents = make("p", { class: "contents" });
    this.others = make("ul");
    this.othersBox = make("details", { hidden: true }, this.othersTitle = make("summary"), this.others);
    this.problems = make("ul", { class: "problems", role: "alert" });
    this.bar = make("progress", { "aria-label": "Letters read of those in the queue", value: 0, max: 1 });
    this.share = make("span", { class: "share" });
    const head = make("div", { class: "head" }, this.contents, this.othersBox, this.problems, make("div", { class: "going" }, this.bar, this.share, this.status));
    this.root.append(form, head, make("div", { class: "panes" }, this.buildList(), make("div", { class: "side" }, this.buildChart(), this.buildGates(), this.buildOpening())));
  }

  buildList() {
    this.counts = make("div", { class: "counts", role: "group", "aria-label": "Letters by state" });
    this.rows = make("tbody");
    this.caption = make("caption", { class: "hidden" }, "Letters");
    const head = make("tr", {}, ...COLUMNS.map((name, n) => make("th", { scope: "col", class: [2, 4, 5].includes(n) ? "number" : null }, name)));
    this.newer = make("button", { type: "button", onclick: () => this.turn(-1) }, "‹ Back");
    this.older = make("button", { type: "button", onclick: () => this.turn(1) }, "Further ›");
    this.where = make("span", { class: "where" });
    this.retryAll = make("button", { type: "button", hidden: true, onclick: () => this.act("retry") }, "Retry all that may succeed");
    this.empty = make("p", { class: "empty", hidden: true });
    this.listNote = make("p", { class: "soft", hidden: true });
    const table = make("div", { class: "wide", tabindex: 0, role: "group", "aria-label": "List of letters" }, make("table", {}, this.caption, make("thead", {}, head), this.rows));
    return make("section", { class: "list" }, this.counts, this.listNote, table, this.empty,
      make("div", { class: "turn" }, this.newer, this.where, this.older, make("span", { class: "grow" }), this.retryAll));
  }

  buildChart() {
    this.spans = Object.entries(SPANS).map(([span, name]) => make("button", { type: "button", "aria-pressed": String(span === this.span), onclick: () => this.choose(span) }, name));
    this.figure = make("div", { class: "figure" });
    this.figureText = make("p", { class: "soft" });
    return make("section", {}, make("div", { class: "title" }, make("h3", {}, "Throughput"), make("span", { class: "grow" }), ...this.spans), this.figure, this.figureText);
  }

  buildGates() {
    this.gates = make("tbody");
    this.ready = make("p");
    this.recount = make("button", { type: "button", onclick: () => this.countGates(true) }, "Count again");
    const head = make("tr", {}, ...["Enough for", "There are", "Wanted", "Verdict"].map((name) => make("th", { scope: "col" }, name)));
    this.gatesTable = make("table", { hidden: true }, make("caption", { class: "hidden" }, "Thresholds"), make("thead", {}, head), this.gates);
    return make("section", {}, make("div", { class: "title" }, make("h3", {}, "Ready for training?"), make("span", { class: "grow" }), this.recount), this.ready, this.gatesTable);
  }

  buildOpening() {
    this.call = make("code");
    const box = make("div", { hidden: true }, make("p", {}, "Run this in a cell, with your name:"), make("pre", { tabindex: 0 }, this.call));
    const copy = make("button", { type: "button", hidden: true, onclick: async () => {
      copy.textContent = (await this.copied(this.call.textContent, this.call)) ? "Copied" : "Marked: press Ctrl+C";
    } }, "Copy");
    const toggle = make("button", { type: "button", "aria-expanded": "false", onclick: () => {
      box.hidden = copy.hidden = !box.hidden;
      toggle.setAttribute("aria-expanded", String(!box.hidden));
    } }, "How to review these letters");
    return make("section", {}, make("div", { class: "title" }, toggle, copy), box);
  }

  /** Look at the folder that is named if that was not done, then start. */
  async begin() {
    const named = this.folder.value.trim();
    if (named && named !== this.looked) await this.act("folder", { folder: named });
    await this.act("start", { engine: this.engine.value, readers: Number(this.readers.value) });
  }

  paint(state) {
    const busy = ["sending", "reading", "stopping"].includes(state.phase);
    this.root.dataset.phase = state.phase;
    if (this.engine.options.length === 0) this.engine.append(...state.engines.map((name) => make("option", {}, name)));
    this.readers.max = state.cores;
    this.readersLabel.hidden = this.engineLabel.hidden = !state.reads;
    this.start.disabled = busy;
    this.start.textContent = state.reads ? "Start" : "Send";
    this.cancel.disabled = (!busy || state.phase === "stopping") && !state.retrying;
    this.retryAll.disabled = state.retrying;
    this.call.textContent = state.opening;
    this.paintFolder(state.folder);
    const lines = state.problems.join("\n");
    if (lines !== this.problemLines) this.problems.replaceChildren(...state.problems.map((line) => make("li", {}, line)));
    this.problemLines = lines;
    this.say(state.headline);
    if (this.stale && !state.note) { // it answers again: all that was missed is asked anew
      this.seen = null;
      this.countGates(true);
    }
    this.stale = Boolean(state.note);
    if (state.counts) this.paintCounts(state);
  }

  paintFolder(folder) {
    if (!folder) return this.contents.replaceChildren("Name a folder to see what is in it before anything is read.");
    if (folder.path !== this.looked) this.folder.value = this.looked = folder.path;
    this.contents.textContent = folder.line;
    this.contents.classList.toggle("wrong", folder.problem);
    this.othersBox.hidden = folder.others.length === 0;
    const text = JSON.stringify(folder.others);
    if (text === this.othersText) return undefined;
    this.othersText = text;
    const number = folder.others.reduce((sum, [, files]) => sum + files, 0);
    this.othersTitle.textContent = `${number} ${number === 1 ? "file is" : "files are"} no letter`;
    return this.others.replaceChildren(...folder.others.map(([why, files, example]) => make("li", {}, `${files} ${why}, such as ${example}`)));
  }

  paintCounts(state) {
    const buttons = Object.entries(state.counts).map(([name, number]) => [name, `${name} ${number.toLocaleString("en")}`]);
    const text = JSON.stringify([buttons, this.wanted]);
    if (text !== this.countsText) {
      this.countsText = text;
      const at = [...this.counts.children].indexOf(document.activeElement);
      this.counts.replaceChildren(...buttons.map(([name, label]) => make("button", { type: "button", "data-state": name, "aria-pressed": String(name === this.wanted), onclick: () => this.show(name) }, label)));
      if (at >= 0) this.counts.children[at].focus();
    }
    this.bar.hidden = this.share.hidden = !state.total;
    Object.assign(this.bar, { max: state.total || 1, value: state.done });
    this.share.textContent = `${state.done.toLocaleString("en")} of ${state.total.toLocaleString("en")}`;
    if (state.newest === this.seen) return;
    this.seen = state.newest;
    this.list();
    this.drawThroughput();
    if (this.approved !== null && this.approved !== state.approved) this.countGates(true);
    this.approved = state.approved;
  }

  show(name) {
    this.wanted = name;
    this.places = [null];
    this.countsText = this.seen = null;
    this.poll();
  }

  turn(step) {
    if (step < 0) this.places.pop();
    else this.places.push(this.after);
    this.list();
  }

  /** Show letters in a state, as they are known; `renew` has them asked for anew. */
  async list(renew = true) {
    const wanted = this.wanted;
    const found = await this.latest("rows", { wanted, after: this.places.at(-1), renew }).catch(() => null);
    if (!found) return;
    this.follow("rows", found, () => this.list(false));
    this.paintRows(found);
    this.caption.textContent = `Letters: ${wanted}`;
    this.root.dataset.painted = wanted;
  }

  paintRows({ rows, after, note, problem }) {
    this.after = after;
    const focused = document.activeElement?.dataset?.job;
    this.rows.replaceChildren(...(rows ?? []).map((row) => this.row(row)));
    if (focused) this.rows.querySelector(`[data-job="${focused}"]`)?.focus();
    this.listNote.textContent = note;
    this.listNote.hidden = !note || !rows;
    this.newer.disabled = this.places.length === 1;
    this.older.disabled = after === null;
    this.where.textContent = `page ${this.places.length}`;
    this.newer.hidden = this.where.hidden = this.older.hidden = this.newer.disabled && this.older.disabled;
    this.retryAll.hidden = this.wanted !== "failed" || !rows?.some((each) => each.retry);
    this.empty.hidden = rows !== null && rows.length > 0;
    const none = this.wanted === "all" ? "No letters yet. Name a folder above, look, and start." : `No letter is in the state “${this.wanted}”.`;
    this.empty.textContent = rows ? none : note || problem || "Asking for the letters …";
  }

  row(row) {
    const number = (value, digits = 0) => (value === null ? "–" : value.toFixed(digits));
    const retry = row.retry ? make("button", { type: "button", "data-job": row.job_id, onclick: () => this.act("retry", { job_id: row.job_id }) }, "Retry") : null;
    const why = row.error ? [make("span", { class: "why" }, row.error), make("span", { class: "soft" }, `→ ${row.advice}`), retry] : [];
    return make("tr", { "data-state": row.state },
      make("th", { scope: "row" }, row.filename),
      make("td", { class: "state" }, make("span", { "aria-hidden": "true" }, `${SIGNS[row.state]} `), row.state),
      make("td", { class: "number" }, row.confidence === null ? "–" : `${Math.floor(100 * row.confidence)} %`),
      make("td", { class: "flags", title: row.flags.join("\n") }, row.flag_line || "–"),
      make("td", { class: "number" }, number(row.pages || null)),
      make("td", { class: "number" }, number(row.seconds, 1)),
      make("td", { class: "reason" }, ...why));
  }

  choose(span) {
    this.span = span;
    this.spans.forEach((button, n) => button.setAttribute("aria-pressed", String(Object.keys(SPANS)[n] === span)));
    this.drawThroughput();
  }

  async drawThroughput(renew = true) {
    const span = this.span;
    const found = await this.latest("throughput", { span, renew }).catch(() => null);
    if (!found) return;
    this.follow("throughput", found, () => this.drawThroughput(false));
    this.figureText.textContent = [found.caption, found.note].filter(Boolean).join(" ") || found.problem || "Asking how much was read …";
    if (!found.figure) return;
    await this.chart(this.figure, found.figure, found.caption);
    this.figure.dataset.drawn = span;
  }

  /** Have the gates counted, and ask again until they are. */
  async countGates(renew) {
    const found = await this.latest("readiness", { renew }).catch(() => null);
    if (!found || this.closed) return;
    this.follow("readiness", found, () => this.countGates(false));
    this.recount.disabled = found.busy;
    this.ready.textContent = [found.problem ?? found.summary ?? "Counting what there is to train on.", found.note].filter(Boolean).join(" ");
    this.gatesTable.hidden = !found.gates;
    this.gates.replaceChildren(...(found.gates ?? []).map((gate) => make("tr", { class: gate.passed ? "passed" : "short" },
      make("th", { scope: "row" }, gate.name), make("td", {}, gate.counted), make("td", {}, gate.wanted),
      make("td", {}, `${gate.passed ? "✓" : "✕"} ${gate.verdict}${gate.days ? `, ${gate.days} days at this rate` : ""}`))));
  }
}

export default face(JobsScreen);
