
/** A training set of labels: what is asked for on the left, what came of it on the right, how to have its files above. */
class SelectionScreen extends Panel {
  constructor(model, host) {
    super(model, host, { name: "selection", label: "Select a training set" });
    Object.assign(this, { controls: new Map(), pending: new Map(), waiting: 0, toWrite: null, state: { turn: 0 }, shown: 0 });
    this.hearers = {
      state: (state) => this.showState(state),
      result: (result) => this.showResult(result),
      floors: (result) => this.showResult(result),
      problem: (told) => this.showProblem(told),
      grouping: (told) => this.showWork(told),
      solving: (told) => this.showWork(told),
      bound: (told) => this.showWork(told),
      writing: (told) => this.showWriting(told),
      written: (told) => this.showWritten(told),
    };
    this.ask("open").then((opened) => this.open(opened)).catch(() => {});
  }

  close() {
    clearTimeout(this.timer);
    super.close();
  }

  open({ controls, facts, account, state, result }) {
    this.undo = make("button", { type: "button", onclick: () => this.move("undo") }, "Undo");
    this.redo = make("button", { type: "button", onclick: () => this.move("redo") }, "Redo");
    const bar = make("div", { class: "bar" }, make("span", { class: "grow", title: account }, facts), this.status, this.undo, this.redo);
    const of = (group) => controls.filter((control) => control.group === group).map((control) => this.control(control));
    const fields = (title, group) => make("fieldset", {}, make("legend", {}, title), ...of(group));
    const form = make("form", { class: "controls", "aria-label": "What is asked for", onsubmit: (event) => event.preventDefault() },
      fields("Selection", "selection"), this.weights(of("weights")), fields("Splits", "splits"));
    this.problem = make("p", { class: "problem", role: "status" });
    this.result = make("div", { class: "result" });
    const files = this.files(controls.filter((control) => control.group === "files"));
    this.root.append(bar, files, make("div", { class: "columns" }, form, make("div", { class: "outcome" }, this.problem, this.result)));
    this.buildResult();
    this.showState(state);
    if (result) this.showResult(result);
    this.listen();
  }

  /** Ask for something to be done; null when it was refused. Until the answer is there, what is shown is not what was asked for. */
  async act(kind, body = {}) {
    this.waiting += 1;
    this.mark();
    const answer = await this.ask(kind, body).catch(() => null);
    this.waiting -= 1;
    this.mark();
    return answer;
  }

  // Controls

  weights(controls) {
    const told = "What a place in each counts against the others, from 0.01 to 100; 1 when empty. The score is then the weighted share of places filled.";
    return make("details", { class: "weights" }, make("summary", {}, "Weights"),
      make("fieldset", { "aria-label": "Weights" }, make("p", { class: "hint" }, told), ...controls));
  }

  control(control) {
    const id = `${this.uid}-${this.controls.size}`; // names of dimensions may hold anything
    const change = (event) => this.change(control.name, event.target.value, event.type === "change");
    const events = { oninput: change, onchange: change, disabled: control.idle !== "" };
    const inputs = control.kind === "choice" ? [this.choice(control, id, events)] : this.entries(control, id, events);
    const hint = make("span", { class: "hint", id: `${id}-hint` }, control.idle || control.help);
    inputs[0].setAttribute("aria-describedby", hint.id);
    this.controls.set(control.name, { ...control, inputs, hint });
    return make("div", { class: "control" }, make("label", { for: id }, control.label), make("span", { class: "inputs" }, ...inputs), hint);
  }

  choice({ choices }, id, events) {
    return make("select", { id, ...events }, ...choices.map(([value, meaning, why]) =>
      make("option", { value, disabled: why !== "" }, (value || meaning).replaceAll("_", " ") + (why ? ` (${why})` : ""))));
  }

  entries({ label, kind, least, most, step }, id, events) {
    if (kind === "text") return [make("input", { id, type: "text", spellcheck: "false", autocomplete: "off", ...events })];
    const number = make("input", { id, type: "number", min: least, step: kind === "whole" ? step : "any", ...events });
    if (most === null) return [number];
    return [number, make("input", { type: "range", min: least, max: most, step, "aria-label": `${label}, slider`, ...events })];
  }

  async change(name, text, settled) {
    this.pending.set(name, (this.pending.get(name) ?? 0) + 1);
    for (const input of this.controls.get(name).inputs) if (input.value !== text) input.value = text;
    const state = await this.act("change", { name, text, settled });
    this.pending.set(name, this.pending.get(name) - 1);
    if (state) this.showState(state);
  }

  async move(way) {
    if (this[way].getAttribute("aria-disabled") === "true") return;
    const state = await this.act(way);
    if (state) this.showState(state);
  }

  showState(state) {
    if (state.turn < this.state.turn) return;
    if (state.turn > this.state.turn) this.state = state; // the same turn again knows nothing of what was told since
    for (const [name, { inputs, hint, choices, idle }] of this.controls) {
      if (this.pending.get(name)) continue;
      const text = state.settings[name];
      for (const input of inputs) if (input.value !== text) input.value = text;
      if (choices.length && !idle) hint.textContent = choices.find(([value]) => value === text)?.[1] ?? "";
    }
    this.undo.setAttribute("aria-disabled", !state.undo); // disabled, they would lose the focus
    this.redo.setAttribute("aria-disabled", !state.redo);
    this.command.textContent = state.command ?? "There is no command for settings that contradict each other.";
    this.copy.disabled = state.command === null;
    this.controls.get("output_dir").inputs[0].placeholder = state.folder ?? "";
    this.withdraw();
    this.mark();
  }

  /** Say whether what is shown belongs to the settings. */
  mark() {
    const { turn, problem, busy, writing } = this.state;
    const current = this.shown === turn;
    if (busy && !current) this.sayWork();
    else if (problem) this.say("");
    this.problem.textContent = problem && this.shown ? `${problem}. Below stands the last good result, of other settings.` : problem;
    this.root.toggleAttribute("data-stale", Boolean(problem));
    this.write.setAttribute("aria-disabled", Boolean(problem || writing)); // disabled, it would lose the focus, and the click that ends typing
    this.root.toggleAttribute("data-current", current && !this.waiting);
    this.writeWhenCurrent();
  }

  /** Keep what is known of the work on these settings: how many texts are compared, or the bound. */
  showWork({ turn, line }) {
    if (turn === this.state.turn) this.state.line = line;
    this.mark();
  }

  /** Say how the work goes, once it takes longer than a moment. */
  sayWork() {
    const { turn, line } = this.state;
    if (this.timed !== turn) {
      clearTimeout(this.timer);
      Object.assign(this, { timed: turn, late: false, timer: setTimeout(() => { this.late = true; this.mark(); }, 300) });
    }
    if (this.late) this.say(line ?? "solving …");
  }

  showProblem({ turn, problem }) {
    if (turn === this.state.turn) Object.assign(this.state, { problem, busy: false });
    this.mark();
  }

  // Result

  buildResult() {
    this.grid = make("div", { class: "charts" });
    this.maps = make("details", { ontoggle: () => this.drawMaps() }, make("summary", {}, "What is filled, and what one more record would earn"), make("div", { class: "maps" }));
    this.parts = Object.fromEntries(["verdict", "tiles", "unmet", "floors", "splits", "steps", "notes"].map((name) => [name, make("div", { class: name })]));
    const { verdict, tiles, unmet, floors, splits, steps, notes } = this.parts;
    const legend = make("p", { class: "legend" }, ...["corpus", "asked", "selected"].flatMap((name) => [make("span", { class: `swatch ${name}`, "aria-hidden": "true" }), `${name} `]), "(share of records by score)");
    this.result.append(verdict, tiles, unmet, legend, this.grid, floors, this.maps, make("div", { class: "beside" }, splits, steps), notes);
    this.result.hidden = true;
  }

  showResult(result) {
    if (result.turn < this.state.turn) return;
    this.shown = result.turn;
    Object.assign(this.state, { problem: "", busy: false });
    this.result.hidden = false;
    const { verdict, tiles, unmet, floors, splits, steps, notes } = this.parts;
    verdict.replaceChildren(make("p", {}, result.verdict));
    tiles.replaceChildren(make("dl", {}, ...result.tiles.map(({ label, value, note }) =>
      make("div", {}, make("dt", {}, label), make("dd", { class: "value" }, value), make("dd", { class: "hint" }, note)))));
    unmet.replaceChildren(...(result.unmet ? [make("p", { class: "problem" }, result.unmet)] : []));
    floors.replaceChildren(...(result.floors ? [result.floors.rows.length ? table(result.floors.line, result.floors, 2) : make("p", {}, result.floors.line)] : []));
    splits.replaceChildren(table("Splits", result.splits, 1), make("p", { class: result.splits.leaks ? "problem" : "" }, result.splits.leak));
    steps.replaceChildren(make("h3", {}, "What to do next"), make("ul", {}, ...result.steps.map((runs) => make("li", {}, ...runs.map(run)))));
    notes.replaceChildren(make("p", { class: "hint" }, result.notes.join(" ")));
    this.say(`solved in ${result.seconds.toFixed(2)} s`);
    this.mark();
    this.mapFigures = result.maps;
    this.drawCharts(result);
    this.drawMaps();
  }

  async drawCharts({ turn, charts }) {
    if (this.grid.children.length !== charts.length) {
      this.grid.replaceChildren(...charts.map(() => make("div", { class: "one" }, make("h3"), make("p", { class: "hint" }), make("div", { class: "plot" }))));
    }
    for (const [place, { name, line, title, figure }] of charts.entries()) {
      if (turn !== this.shown) return;
      const [heading, hint, plot] = this.grid.children[place].children;
      heading.textContent = name;
      hint.textContent = line;
      await this.chart(plot, figure, title).catch(() => {});
    }
    this.root.dataset.painted = turn;
  }

  drawMaps() {
    if (!this.maps.open || !this.mapFigures) return;
    const place = this.maps.lastElementChild;
    if (!place.children.length) place.append(...this.mapFigures.map(() => make("figure", {}, make("div"), make("figcaption", { class: "hint" }))));
    for (const [at, { title, figure }] of this.mapFigures.entries()) {
      const [plot, caption] = place.children[at].children;
      caption.textContent = title;
      this.chart(plot, figure, title).catch(() => {});
    }
  }

  /** Numbers in a heat map in the colour of all text: plotly's own choice looks at the colours, not at what shines through them. */
  draw(node, figure) {
    const color = getComputedStyle(this.root).getPropertyValue("--ink").trim();
    return super.draw(node, { ...figure, data: figure.data.map((trace) => (trace.texttemplate ? { ...trace, textfont: { color } } : trace)) });
  }

  // Files

  files(controls) {
    this.command = make("code");
    this.copy = make("button", { type: "button", onclick: () => this.copyCommand() }, "Copy command");
    this.write = make("button", { type: "button", class: "main", onclick: () => this.writeFiles(false) }, "Write the files");
    this.replace = make("button", { type: "button", onclick: () => this.writeFiles(true) }, "Replace its files");
    this.exists = make("span");
    this.offer = make("span", { class: "offer", hidden: true }, this.exists, this.replace);
    this.progress = make("progress", { hidden: true, "aria-label": "Files written" });
    this.said = make("span", { role: "status", class: "said" });
    const line = make("div", { class: "bar" }, ...controls.map((control) => this.control(control)), this.write, this.offer, this.progress, this.said);
    return make("section", { class: "files", "aria-label": "Files" }, line,
      make("div", { class: "command" }, make("span", { class: "hint" }, "The same from a shell:"), make("pre", { tabindex: "0", "aria-label": "Command" }, this.command), this.copy));
  }

  async copyCommand() {
    const done = await this.copied(this.command.textContent, this.command);
    this.say(done ? "Command copied." : "Press Ctrl+C to copy the command.");
  }

  /** Write what is shown, or what will be once the settings are solved: a click that ends typing comes before the answer to what was typed. */
  writeFiles(replace) {
    const { problem, writing } = this.state;
    if (problem || writing) return;
    this.toWrite = { replace };
    this.said.textContent = "written as soon as this is solved …";
    this.writeWhenCurrent();
  }

  writeWhenCurrent() {
    const wanted = this.toWrite;
    if (!wanted || !(this.state.problem || this.root.hasAttribute("data-current"))) return;
    this.toWrite = null;
    this.said.textContent = "";
    if (!this.state.problem) this.startWriting(wanted.replace);
  }

  async startWriting(replace) {
    const answer = await this.act("write", { replace });
    if (!answer) return;
    if (!answer.exists) return this.withdraw();
    this.exists.textContent = answer.exists;
    this.offer.hidden = false;
    this.replace.focus();
  }

  /** Offer no longer to replace files; the focus stays in the panel. */
  withdraw() {
    if (this.offer.contains(document.activeElement)) this.write.focus();
    this.offer.hidden = true;
  }

  showWriting({ name, done, total }) {
    Object.assign(this.state, { writing: true });
    Object.assign(this.progress, { hidden: false, max: total, value: done });
    this.said.textContent = `writing ${name}, ${done + 1} of ${total}`;
    this.mark();
  }

  showWritten({ line, problem }) {
    Object.assign(this.state, { writing: false });
    this.progress.hidden = true;
    this.withdraw();
    this.said.textContent = line;
    this.say(problem, true);
    this.mark();
  }
}

function table(caption, { columns, rows }, texts) {
  const side = (at) => (at < texts ? null : "number");
  return make("table", {}, make("caption", {}, caption),
    make("thead", {}, make("tr", {}, ...columns.map((name, at) => make("th", { scope: "col", class: side(at) }, name)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text, at) => (at ? make("td", { class: side(at) }, text) : make("th", { scope: "row" }, text)))))));
}

function run([kind, text]) {
  return kind ? make(kind, {}, text) : text;
}

export default face(SelectionScreen);
