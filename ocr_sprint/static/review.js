// The screen of the review panel. It shows worksheets, collects operations and sends messages; what they mean is decided in Python
// (panels.session). Text from letters goes through text nodes only, never through innerHTML.

const IDLE_MS = 5000; // a pause that does not count as work
const AHEAD = 2; // letters that are fetched before they are needed
const KEPT = 12; // letters whose pictures stay in memory
const NEAR = 20; // letters before the end of the list at which its next part is asked for

/** A field path as its steps: personel[0].nrp is ["personel", 0, "nrp"]. */
const steps = (path) => path.match(/[^.[\]]+|\[\d+\]/g).map((part) => (part[0] === "[" ? Number(part.slice(1, -1)) : part));
const valueAt = (root, path) => steps(path).reduce((part, step) => (part === null || part === undefined ? null : part[step]), root);
const shown = (value) => (value === null || value === undefined ? "" : String(value));
const spoken = (text) => text.replace(/(?<=\w)\[(\d+)\](\.?)/g, (_, n, dot) => ` row ${Number(n) + 1}${dot && ", "}`); // people count from 1
const percent = (value) => `${Math.round(100 * value)} %`;
const listOf = (path) => (path.includes("[") ? path.slice(0, path.indexOf("[")) : null);
const same = (left, right) => JSON.stringify(left) === JSON.stringify(right);

/** Do one operation on a copy of a result, and note for each row which row of the worksheet it was. */
function perform(work, rows, op) {
  const way = steps(op.path);
  const last = way.pop();
  const holder = way.reduce((part, step) => part[step], work);
  const keys = typeof last === "number" ? rows[listOf(op.path)] : null;
  if (op.op === "set") holder[last] = op.value;
  else if (op.op === "add") {
    holder.splice(last, 0, structuredClone(op.value));
    keys.splice(last, 0, null);
  } else {
    const [row] = holder.splice(last, 1);
    const [key] = keys.splice(last, 1);
    if (op.op === "move") {
      holder.splice(op.value, 0, row);
      keys.splice(op.value, 0, key);
    }
  }
}

/** A letter in sight with the work that is done on it. */
class Desk {
  constructor(sheet, ops = []) {
    this.sheet = sheet;
    this.ops = ops;
    this.rebuild();
  }

  rebuild() {
    this.work = structuredClone(this.sheet.result);
    this.rows = {};
    const walk = (value, path) => {
      if (Array.isArray(value)) this.rows[path] = value.map((_, n) => `${path}[${n}]`);
      else if (value && typeof value === "object") {
        for (const [key, part] of Object.entries(value)) walk(part, path ? `${path}.${key}` : key);
      }
    };
    walk(this.work, "");
    for (const op of this.ops) perform(this.work, this.rows, op);
  }

  /** The path that a field had on the worksheet; null for a field of a new row. */
  known(path) {
    const list = listOf(path);
    if (list === null) return path;
    const [row] = path.slice(list.length).match(/^\[\d+\]/);
    const key = this.rows[list][Number(row.slice(1, -1))];
    return key && key + path.slice(list.length + row.length);
  }

  /** Keep an operation; typing twice into a field is one operation, and typing the old value is none. */
  record(op) {
    const list = listOf(op.path);
    for (let n = this.ops.length - 1; op.op === "set" && n >= 0; n -= 1) {
      const earlier = this.ops[n];
      if (earlier.op === "set" && earlier.path === op.path) {
        earlier.value = op.value;
        if (same(shown(earlier.old), shown(op.value))) this.ops.splice(n, 1);
        perform(this.work, this.rows, op);
        return earlier;
      }
      if (earlier.op === "add" && op.path.startsWith(`${earlier.path}.`)) {
        earlier.value[op.path.slice(earlier.path.length + 1)] = op.value;
        perform(this.work, this.rows, op);
        return earlier;
      }
      if (earlier.op !== "set" && listOf(earlier.path) === list) break;
    }
    this.ops.push(op);
    perform(this.work, this.rows, op);
    return op;
  }
}

const plain = ({ op, path, old, value, reason }) => ({ op, path, old: old ?? null, value: value ?? null, reason: reason ?? null });
const kept = (op) => ({ ...plain(op), ...(op.about ? { about: op.about } : {}) }); // as a draft
const seconds = (value) => (value === null ? "–" : `${Math.round(value)} s`);

class Screen {
  constructor(model, host) {
    this.model = model;
    this.uid = `osr${Math.random().toString(36).slice(2, 8)}`;
    Object.assign(this, { letters: [], at: -1, form: [], reasons: [], wanted: {}, current: null, after: null, total: null, asking: false });
    Object.assign(this, { desk: null, generation: 0, zoom: 1, fit: false, page: 1, focus: null, wide: false, saving: null });
    this.cache = new Map(); // by letter: {sheet, pictures}
    this.drafts = new Map(); // by letter: work that is not handed in
    this.waiting = new Set(); // letters whose unsaved work the kernel keeps, not fetched yet
    Object.assign(this, { told: 0, heard: 0 }); // drafts that were sent, and up to which one they are kept
    this.work = new Map(); // by letter: milliseconds of work on what is not handed in
    this.pending = new Map(); // by id of the message: work that is not acknowledged
    this.states = new Map(); // by letter: what was done to it here
    this.problems = new Map(); // by letter: why it was refused
    this.choices = { flags: new Map(), units: new Map(), more: 0 }; // by value: letters of the whole list; null where that is not known
    this.active = 0;
    this.lastSign = performance.now();
    this.build(host);
    this.onMessage = (message, buffers) => safely(this, () => this.hear(message, buffers));
    model.on("msg:custom", this.onMessage);
    this.send({ kind: "hello" });
    this.helloTimer = setTimeout(() => this.say("The kernel does not answer. Run the notebook's cells again.", true), SILENCE_MS);
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
    removeEventListener("beforeunload", this.onUnload);
    for (const id of this.cache.keys()) this.forget(id);
    this.cache.clear(); // a picture that is decoded later finds no letter
    this.observer.disconnect();
    clearTimeout(this.helloTimer);
    for (const { timer } of this.pending.values()) clearTimeout(timer);
  }

  send(message) {
    this.model.send(message);
  }

  // ---------------------------------------------------------------- the frame

  build(host) {
    const button = (label, title, action) => make("button", { type: "button", title, onclick: action }, label);
    this.progress = make("progress", { "aria-label": "Letters done", max: 1, value: 0 });
    this.where = make("span", { class: "where" });
    this.title = make("strong", { class: "name" });
    this.selects = make("span", { class: "selects" });
    this.page_tabs = make("span", { class: "tabs" });
    this.picture = make("div", { class: "paper" });
    this.viewer = make("div", { class: "viewer", tabindex: 0, role: "group", "aria-label": "Page of the letter" }, this.picture);
    this.crop = make("div", { class: "crop", role: "img", "aria-label": "Where the field was read" });
    this.detail = make("div", { class: "detail" });
    this.fields = make("div", { class: "fields" });
    this.approve = button("Approve", "Ctrl+Enter", () => this.handIn(true));
    this.approve.className = "approve";
    this.saveOnly = button("Save only", "Ctrl+S", () => this.handIn(false));
    this.status = make("div", { class: "status", role: "status" });
    this.alert = make("div", { class: "alert", role: "alert" });
    this.notices = make("div", { class: "notices", "aria-live": "assertive" }); // about letters that are not in sight
    const zoomed = (factor) => () => this.setZoom(factor);
    const tools = make("div", { class: "tools" }, this.page_tabs, make("span", { class: "grow" }),
      button("−", "Zoom out (Esc, then -)", zoomed(1 / 1.25)), button("+", "Zoom in (Esc, then +)", zoomed(1.25)), button("Whole page", "Esc, then f", zoomed(0)));
    tools.querySelectorAll("button").forEach((each, n) => each.setAttribute("aria-label", ["Zoom out", "Zoom in", "Whole page"][n]));
    this.help = make("div", { class: "help", hidden: true, role: "note" }, ...[
      ["Enter", "accept and go to the next doubtful field"], ["Shift+Enter", "back to the doubtful field before"], ["Tab", "next field"],
      ["Ctrl+Enter", "approve, and next letter"], ["Ctrl+S", "save without approving"], ["Alt+1 … 6", "why the value was changed"],
      ["Alt+N, Alt+Backspace", "add a row, delete this row"], ["Alt+↑, Alt+↓", "move this row"], ["Alt+PageDown, Alt+PageUp", "next, previous letter"],
      ["Esc", "to the page: j, k next and previous letter; + - f zoom; u undo; Enter back to the fields"],
    ].map(([keys, what]) => make("div", {}, make("kbd", {}, keys), ` ${what}`)));
    this.own = make("div", { class: "own", hidden: true, role: "note", "aria-label": "Your own figures" });
    this.practice = make("div", { class: "practice", role: "status" });
    this.ownButton = button("Yours", "How you work; only you see it", () => this.toggle(this.own, this.ownButton));
    this.keysButton = button("Keys", "Which keys do what", () => this.toggle(this.help, this.keysButton));
    this.ownButton.setAttribute("aria-expanded", "false");
    this.keysButton.setAttribute("aria-expanded", "false");
    const bar = make("div", { class: "bar" }, button("◀", "Alt+PageUp", () => this.step(-1)), button("▶", "Alt+PageDown", () => this.step(1)),
      this.title, this.where, this.progress, make("span", { class: "grow" }), this.selects,
      this.ownButton, this.keysButton);
    bar.children[0].setAttribute("aria-label", "Previous letter");
    bar.children[1].setAttribute("aria-label", "Next letter");
    const actions = make("div", { class: "actions" }, this.approve, this.saveOnly, this.status);
    this.root = make("div", { class: "ocr-sprint-panel ocr-sprint-review", "data-lm-suppress-shortcuts": "true", role: "region", "aria-label": "Review of letters" },
      bar, this.help, this.own, this.alert, this.notices, this.practice,
      make("div", { class: "panes" }, make("div", { class: "left" }, tools, this.viewer),
        make("div", { class: "right" }, this.crop, this.detail, this.fields, actions)));
    this.root.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["keyup", "keypress"]) this.root.addEventListener(kind, (event) => event.stopPropagation());
    for (const kind of ["keydown", "pointermove", "wheel"]) this.root.addEventListener(kind, () => this.tick(), { capture: true, passive: true });
    this.onUnload = (event) => {
      this.commit();
      if (this.pending.size || this.told !== this.heard) event.preventDefault(); // the kernel does not have it yet
    };
    addEventListener("beforeunload", this.onUnload);
    this.observer = new ResizeObserver(() => this.place());
    this.observer.observe(this.viewer);
    host.append(this.root);
    this.message("Waiting for letters …");
  }

  /** Count the time in which somebody works; a longer pause is none. */
  tick() {
    const now = performance.now();
    if (now - this.lastSign < IDLE_MS) this.active += now - this.lastSign;
    this.lastSign = now;
  }

  toggle(node, button) {
    if (node.hidden) this.folded();
    node.hidden = !node.hidden;
    button.setAttribute("aria-expanded", String(!node.hidden));
  }

  /** Keep the keys in here when what has the focus goes away: outside they mean something else. */
  hold(within = this.root) {
    if (within.contains(document.activeElement)) this.viewer.focus({ preventScroll: true });
  }

  message(text) {
    this.hold(this.fields);
    this.fields.replaceChildren(make("p", { class: "message" }, text));
    this.picture.replaceChildren();
    this.detail.replaceChildren();
    this.crop.style.backgroundImage = "";
    this.crop.classList.remove("filled");
    this.crop.textContent = "";
    this.page_tabs.replaceChildren();
    this.approve.disabled = this.saveOnly.disabled = true;
  }

  say(text, urgent = false, ...more) {
    if (urgent) this.alert.replaceChildren(text ? make("span", {}, text) : "", ...more);
    else this.status.textContent = text;
  }

  /** A line about a letter that is not in sight; it stays until it is closed or the letter is opened. */
  notice(id, text) {
    this.dropNotice(id);
    const go = () => {
      const at = this.letters.findIndex((letter) => letter.job_id === id);
      if (at >= 0) this.go(at);
      else this.say("That letter is not in this list: choose its kind of review, every flag and every unit.");
    };
    const close = () => {
      this.hold();
      this.dropNotice(id);
    };
    this.notices.append(make("div", { class: "notice", "data-letter": id }, make("span", { class: "grow" }, text), make("button", { type: "button", onclick: go }, "Go to it"),
      make("button", { type: "button", class: "small", "aria-label": "Close this line", onclick: close }, "×")));
  }

  dropNotice(id) {
    [...this.notices.children].find((each) => each.dataset.letter === id)?.remove();
  }

  // ---------------------------------------------------------------- messages

  hear(message, buffers) {
    clearTimeout(this.helloTimer);
    const hearers = { letters: this.gotLetters, sheet: this.gotSheet, no_sheet: this.gotNone, picture: this.gotPicture, checked: this.gotCheck, kept: this.gotKept, more: this.gotMore, own: this.gotOwn, choices: this.gotChoices };
    if (message.kind === "saved" || message.kind === "refused") this.gotAnswer(message);
    else if (message.kind === "problem") this.say(message.message, true);
    else hearers[message.kind]?.call(this, message, buffers);
  }

  gotLetters(message) {
    if (message.wanted.mode !== this.wanted.mode) for (const id of [...this.cache.keys()]) this.forget(id); // chosen in another view
    Object.assign(this, { form: message.form, reasons: message.reasons, wanted: message.wanted, letters: message.letters, after: message.after, total: message.total });
    this.reviewer = message.reviewer;
    this.waiting = new Set(message.drafts);
    this.asking = false;
    this.say("", true);
    this.learn(this.letters);
    this.choose();
    const place = this.letters.findIndex((letter) => letter.job_id === message.current);
    this.at = -1;
    if (this.letters.length) this.go(Math.max(place, 0));
    else {
      this.desk = null;
      this.title.textContent = "";
      this.message(this.wanted.mode === "second" ? "No letters wait here. Your own are not among them: somebody else reviews those a second time." : "No letters wait here.");
      this.count();
    }
  }

  /** The next part of a long list. */
  gotMore({ letters, after }) {
    const known = new Set(this.letters.map((letter) => letter.job_id));
    this.letters.push(...letters.filter((letter) => !known.has(letter.job_id)));
    Object.assign(this, { after, asking: false });
    if (this.learn(letters)) this.choose();
    if (this.finished) this.next();
    else {
      this.want();
      this.count();
    }
  }

  askMore() {
    if (this.asking || !this.after) return;
    this.asking = true;
    this.send({ kind: "more", after: this.after });
  }

  /** Note which flags and units stand in letters, in case nobody tells of the whole list; true when there are new ones. */
  learn(letters) {
    const { flags, units } = this.choices;
    const before = flags.size + units.size;
    const note = (found, value) => found.has(value) || found.set(value, null);
    for (const letter of letters) {
      if (letter.satuan) note(units, letter.satuan);
      letter.review_flags.forEach((flag) => note(flags, flag.split(/[@:]/)[0]));
    }
    return flags.size + units.size > before;
  }

  /** What the whole list can be narrowed to, with the number of letters. */
  gotChoices({ wanted, flags, units, more }) {
    if (!same(wanted, this.wanted)) return; // another list is in sight
    const counted = (found) => new Map(found.map(({ value, jobs }) => [value, jobs]));
    this.choices = { flags: counted(flags), units: counted(units), more };
    this.choose();
  }

  /** How the reviewer works: for their eyes only, and on request. */
  gotOwn({ own }) {
    const { changed, unchanged } = own.pace;
    const row = (label, { letters, median, p90 }) => make("tr", {}, make("th", { scope: "row" }, label),
      ...[String(letters), seconds(median), seconds(p90)].map((text) => make("td", { class: "number" }, text)));
    const head = make("tr", {}, make("td", {}), ...["letters", "median", "9 in 10 within"].map((label) => make("th", { scope: "col", class: "number" }, label)));
    const table = make("table", {}, make("caption", {}, "How long you work on a letter"), make("thead", {}, head),
      make("tbody", {}, row("with corrections", changed), row("without", unchanged)));
    const whose = own.by_name ? `There are no tokens here: whoever opens this panel under the name ${this.reviewer} sees these figures, and adds to them.` : "Only you see these figures.";
    const parts = [make("p", {}, `${whose} Pauses of more than five seconds do not count.`), table];
    if (own.caught) {
      const { planted, caught, low, high } = own.caught;
      parts.push(make("p", {}, planted ? `You caught ${caught} of ${planted} planted errors: ${percent(caught / planted)}, with 95 % confidence between ${percent(low)} and ${percent(high)}.`
        : "These letters are there to practise on: some values were made wrong on purpose. How many you catch will stand here."));
    }
    this.own.replaceChildren(...parts);
  }

  /** What became of the errors that were planted in a letter to practise on. */
  showPractice(filename, outcome) {
    const errors = outcome ?? [];
    const missed = errors.filter((error) => !error.caught);
    const items = missed.map(({ field_path: path, planted, right }) => make("li", {}, make("strong", {}, spoken(path)), `: “${planted}” stood there for “${right}”`));
    const told = !outcome ? [] : [make("span", {}, !errors.length ? `${filename}: nothing was planted here.` : missed.length ? `${filename}: you missed ${missed.length} of ${errors.length} planted error${errors.length === 1 ? "" : "s"}.`
      : `${filename}: you caught ${errors.length === 1 ? "the planted error" : `all ${errors.length} planted errors`}.`), ...(items.length ? [make("ul", {}, ...items)] : [])];
    this.practice.className = missed.length ? "practice missed" : "practice";
    const close = make("button", { type: "button", class: "small", "aria-label": "Close what was missed", onclick: () => { this.hold(); this.practice.replaceChildren(); } }, "×");
    this.practice.replaceChildren(...(told.length ? [make("div", {}, ...told), close] : []));
  }

  /** The selection of what is shown: first, second and deciding reviews; by flag; by unit. */
  choose() {
    const select = (label, name, options) => {
      const node = make("select", { "aria-label": label, onchange: () => this.list({ [name]: node.value || null }) },
        ...options.map(([value, text]) => make("option", { value, selected: (this.wanted[name] ?? "") === value }, text)));
      return node;
    };
    const modes = [["first", "First review"], ["second", "Second review, blind"], ["conflict", "Conflicts"]];
    const text = (value, jobs) => (jobs === null ? value : `${value} (${jobs.toLocaleString("en")})`);
    const all = (word, values) => [["", word], ...[...values].sort(([left], [right]) => (left < right ? -1 : 1)).map(([value, jobs]) => [value, text(value, jobs)])];
    const done = make("input", { type: "checkbox", checked: this.wanted.approved, onchange: () => this.list({ approved: done.checked }) });
    const { flags, units, more } = this.choices;
    const here = [...this.selects.querySelectorAll("select, input")].indexOf(document.activeElement);
    this.selects.replaceChildren(select("Kind of review", "mode", modes), select("Flag", "flag", all("every flag", flags)),
      select("Satuan", "satuan", all("every unit", units)), make("label", {}, done, " approved too"),
      ...(more ? [make("span", { class: "rare" }, `and ${more.toLocaleString("en")} rarer`)] : []));
    if (here >= 0) this.selects.querySelectorAll("select, input")[here].focus();
  }

  list(change) {
    this.leave();
    this.practice.replaceChildren();
    this.drafts.clear(); // the kernel has them
    this.problems.clear();
    this.desk = null;
    this.states.clear();
    for (const id of [...this.cache.keys()]) this.forget(id);
    this.send({ kind: "list", ...this.wanted, ...change });
  }

  /** Ask for what is missing of the letter in sight and of those behind it. */
  want() {
    const near = [this.letters[this.at], ...this.letters.slice(this.at + 1).filter((each) => !this.states.has(each.job_id)).slice(0, AHEAD)];
    const jobs = near.filter((each) => each && !this.complete(each.job_id)).map((each) => each.job_id);
    if (jobs.length) this.send({ kind: "want", jobs, mode: this.wanted.mode });
  }

  /** How many of the letters behind this one are here. */
  tellAhead() {
    const behind = this.letters.slice(this.at + 1).filter((each) => !this.states.has(each.job_id)).slice(0, AHEAD);
    this.root.dataset.ahead = behind.filter((each) => this.complete(each.job_id)).length;
  }

  complete(id) {
    const kept = this.cache.get(id);
    return kept && kept.sheet.pages.every((page) => kept.pictures.has(page.page));
  }

  forget(id) {
    for (const picture of this.cache.get(id)?.pictures.values() ?? []) if (picture.url) URL.revokeObjectURL(picture.url);
    this.cache.delete(id);
  }

  gotSheet({ sheet, draft }) {
    const id = sheet.job_id;
    const saving = this.locked && this.saving?.id === id ? this.saving : null;
    if (sheet.mode !== this.wanted.mode || (saving && (saving.version === null || sheet.version < saving.version))) return; // was on its way before the save
    this.adopt(sheet, draft);
    const pictures = this.cache.get(id)?.pictures ?? new Map();
    this.cache.delete(id);
    this.cache.set(id, { sheet, pictures });
    for (const old of [...this.cache.keys()].slice(0, -KEPT)) if (old !== this.letters[this.at]?.job_id) this.forget(old);
    if (this.finished || id !== this.letters[this.at]?.job_id) return;
    // A late copy must not repaint over unsaved work; a stale version is found out when it is handed in.
    if (this.desk && this.desk.sheet.job_id === id && (this.desk.ops.length || this.desk.sheet.version === sheet.version) && !this.locked) return;
    this.show();
    if (saving?.approve) this.approveSaved(sheet, saving);
  }

  /** Take up work that this page does not have: it was reloaded, or somebody has changed the letter since. */
  adopt(sheet, draft) {
    const id = sheet.job_id;
    this.waiting.delete(id);
    const here = this.desk?.sheet.job_id === id && this.desk.ops.length && !this.locked;
    const mine = this.drafts.get(id);
    if (!draft || here || (mine && mine.sheet.version === sheet.version)) return;
    const fresh = new Desk(sheet, draft.kept.map((op) => ({ ...op })));
    this.drafts.delete(id);
    if (fresh.ops.length) this.drafts.set(id, fresh);
    this.work.set(id, draft.active);
    if (draft.clashing.length) this.problems.set(id, { message: "this letter was changed by somebody else while you worked on it", clashing: draft.clashing });
  }

  gotNone({ job_id: id, message }) {
    this.states.set(id, "not for you");
    if (!this.finished && id === this.letters[this.at]?.job_id) {
      this.desk = null;
      this.message(message);
      this.count();
    }
  }

  async gotPicture({ job_id: id, page, problem }, buffers) {
    const kept = this.cache.get(id);
    if (!kept) return;
    const picture = { problem, url: null, image: null };
    if (!problem) {
      picture.url = URL.createObjectURL(new Blob([buffers[0]], { type: "image/jpeg" }));
      picture.image = make("img", { src: picture.url, alt: "" });
      await picture.image.decode().catch(() => {}); // before it is needed
    }
    const now = this.cache.get(id); // it may have been let go of, or come anew, while the picture was decoded
    if (now?.pictures !== kept.pictures) {
      if (picture.url) URL.revokeObjectURL(picture.url);
      return;
    }
    kept.pictures.set(page, picture);
    this.tellAhead();
    if (id === this.letters[this.at]?.job_id && page === this.page && this.desk) this.draw();
  }

  // ---------------------------------------------------------------- from letter to letter

  go(index) {
    if (index < 0 || index >= this.letters.length) return;
    this.leave();
    this.finished = false;
    this.at = index;
    this.started = performance.now();
    const id = this.letters[index].job_id;
    if (this.cache.has(id)) this.show();
    else {
      this.desk = null;
      this.message("Fetching the letter …");
      this.title.textContent = this.letters[index].filename;
    }
    this.want();
    this.tellAhead();
    if (this.letters.length - index < NEAR) this.askMore();
    this.count();
  }

  step(by) {
    this.go(this.at + by);
  }

  /** The next letter that nothing was done to; afterwards those before it. */
  next() {
    const open = (letter) => !this.states.has(letter.job_id);
    const after = this.letters.findIndex((letter, n) => n > this.at && open(letter));
    const found = after >= 0 ? after : this.letters.findIndex(open);
    if (found >= 0) return this.go(found);
    this.leave();
    this.finished = true;
    this.desk = null;
    this.title.textContent = "";
    if (this.after) {
      this.message("Fetching more letters …");
      this.askMore();
      return this.count();
    }
    this.message("Done: nothing waits in this list.");
    this.fields.append(make("button", { type: "button", class: "again", onclick: () => this.list({}) }, "Look for more"));
    this.fields.querySelector("button").focus();
    return this.count();
  }

  /** Keep unsaved work when another letter comes into sight. */
  leave() {
    if (!this.desk) return;
    this.commit();
    const id = this.desk.sheet.job_id;
    this.tick();
    if (this.desk.ops.length && !this.locked) this.drafts.set(id, this.desk);
    else this.drafts.delete(id);
    if (!this.locked) this.work.set(id, this.active);
    if (this.locked && this.saving?.approve) this.notice(id, `${this.desk.sheet.filename} is not approved: you left it before it was saved.`);
    this.generation += 1;
    this.locked = false;
    this.saving = null;
  }

  count() {
    const done = this.letters.filter((letter) => this.states.has(letter.job_id) && this.states.get(letter.job_id) !== "refused").length;
    const total = this.after ? this.total : this.letters.length;
    this.progress.max = Math.max(total, 1);
    this.progress.value = done;
    const drafts = new Set([...this.drafts.keys(), ...this.waiting, ...(this.desk?.ops.length ? [this.desk.sheet.job_id] : [])]).size;
    this.where.textContent = total ? `${this.at + 1} of ${total} · ${done} done${drafts ? ` · ${drafts} not saved` : ""}` : "";
    this.where.title = `You review as ${this.reviewer}`;
  }

  show() {
    const id = this.letters[this.at].job_id;
    const { sheet } = this.cache.get(id);
    const draft = this.drafts.get(id);
    this.dropNotice(id);
    this.generation += 1;
    this.locked = false;
    this.saving = null;
    this.desk = draft && draft.sheet.version === sheet.version ? draft : new Desk(sheet);
    this.fields.inert = false;
    this.active = this.work.get(id) ?? 0;
    this.focus = null;
    this.page = sheet.pages[0]?.page ?? 1;
    this.title.textContent = sheet.filename;
    this.approve.disabled = this.saveOnly.disabled = false;
    this.approve.textContent = sheet.mode === "second" ? "Hand in second review" : sheet.mode === "conflict" ? "Decide and approve" : "Approve";
    this.saveOnly.hidden = sheet.mode === "second";
    this.renderForm();
    this.fields.scrollTop = this.viewer.scrollTop = 0; // each letter begins at its head
    this.draw();
    this.say("", true);
    const problem = this.problems.get(id);
    if (problem) this.say(`Not saved: ${spoken(problem.message)}`, true);
    this.focusFirst(problem?.message.split(":")[0]);
    const from = this.started;
    requestAnimationFrame(() => requestAnimationFrame(() => {
      this.root.dataset.painted = id;
      this.root.dataset.ms = Math.round(performance.now() - from);
    }));
  }

  focusFirst(path) {
    const differs = this.desk.sheet.mode === "conflict" ? this.fields.querySelector("[data-choice]") : null;
    const target = (path && this.input(path)) || differs || this.input(this.doubtful()[0]) || this.approve;
    const elsewhere = !this.root.contains(document.activeElement) && document.activeElement?.matches("input, textarea, select, [contenteditable='true']");
    if (!elsewhere) target.focus({ preventScroll: target === this.approve }); // not from who types in a cell or in another view
    if (elsewhere || target === this.approve) this.look(target.dataset.path ?? null);
  }

  // ---------------------------------------------------------------- the form

  input(path) {
    return path ? this.fields.querySelector(`[data-path="${CSS.escape(path)}"]`) : null;
  }

  /** The doubtful fields as they stand on the screen. */
  doubtful() {
    const marked = new Set(this.desk.sheet.doubtful);
    return [...this.fields.querySelectorAll("[data-path]")].map((node) => node.dataset.path).filter((path) => marked.has(this.desk.known(path)));
  }

  renderForm() {
    const { sheet } = this.desk;
    const parts = [];
    if (sheet.approved) parts.push(make("p", { class: "note" }, `Approved by ${sheet.reviewed_by}; a correction takes the approval back.`));
    if (sheet.notes.length) parts.push(make("ul", { class: "notes", "aria-label": "About this letter" }, ...sheet.notes.map((note) => make("li", {}, note))));
    if (this.problems.get(sheet.job_id)?.clashing?.length) parts.push(this.clashes(sheet));
    if (sheet.conflict) parts.push(this.conflict(sheet.conflict));
    for (const section of this.form) parts.push(this.section(section));
    this.trail = make("section", { class: "trail", "aria-label": "Audit trail" });
    this.fields.replaceChildren(...parts, this.trail);
    this.renderTrail();
  }

  /** Render again after rows moved or work was undone, and stay where the reviewer was. */
  again(path) {
    this.generation += 1;
    const top = this.fields.scrollTop;
    this.renderForm();
    this.fields.scrollTop = top;
    (this.input(path) ?? this.fields.querySelector("[data-path]"))?.focus();
  }

  section(section) {
    const value = valueAt(this.desk.work, section.path);
    const heading = make("h3", {}, section.label);
    if (section.shape === "table") return this.table(section, value ?? [], heading);
    if (section.shape === "texts") return this.texts(section, value ?? [], heading);
    if (section.shape === "text") {
      const field = { name: "", label: section.label, kind: "text", long: true };
      return make("section", {}, heading, this.control(field, section.path, section.label));
    }
    return make("section", {}, heading, make("div", { class: "grid" }, ...section.fields.map((field) => {
      const path = `${section.path}.${field.name}`;
      const control = this.control(field, path);
      return make("div", { class: field.long ? "field long" : "field" }, make("label", { for: `${this.uid}-${path}` }, field.label), control);
    })));
  }

  table(section, rows, heading) {
    const filled = (field) => this.wide || ["no", "nama", "pangkat", "nrp", "jabatan"].includes(field.name) || rows.some((row) => row[field.name] !== null);
    const columns = section.fields.filter(filled);
    const hidden = section.fields.length - columns.length;
    const head = make("tr", {}, ...columns.map((field) => make("th", { scope: "col" }, field.label)), make("th", { scope: "col" }, "row"));
    const body = rows.map((row, n) => make("tr", {},
      ...columns.map((field) => make("td", { class: field.name }, this.control(field, `${section.path}[${n}].${field.name}`, `${field.label}, row ${n + 1}`))),
      make("td", { class: "buttons" }, ...this.rowButtons(section.path, n, rows.length))));
    const more = hidden ? make("button", { type: "button", onclick: () => { this.wide = true; this.again(this.focus); } }, `${hidden} empty columns`) : null;
    const add = make("button", { type: "button", title: "Alt+N", onclick: () => this.addRow(section.path, rows.length) }, "Add a row");
    return make("section", {}, heading, make("div", { class: "scroll rows" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body))), add, " ", more);
  }

  texts(section, rows, heading) {
    const field = { name: "", label: section.label, kind: "text", long: true };
    const items = rows.map((_, n) => make("div", { class: "item" }, this.control(field, `${section.path}[${n}]`, `${section.label}, line ${n + 1}`),
      make("span", { class: "buttons" }, ...this.rowButtons(section.path, n, rows.length))));
    const add = make("button", { type: "button", title: "Alt+N", onclick: () => this.addRow(section.path, rows.length) }, "Add a line");
    return make("section", {}, heading, ...items, add);
  }

  rowButtons(list, n, size) {
    const button = (sign, label, off, action) => make("button", { type: "button", class: "small", "aria-label": `${label} row ${n + 1} of ${list}`, title: label, disabled: off, tabindex: -1, onclick: action }, sign);
    return [button("↑", "Move up", n === 0, () => this.moveRow(list, n, n - 1)), button("↓", "Move down", n === size - 1, () => this.moveRow(list, n, n + 1)),
      button("×", "Delete", false, () => this.deleteRow(list, n))];
  }

  control(field, path, label) {
    const { sheet } = this.desk;
    const known = this.desk.known(path);
    const value = valueAt(this.desk.work, path);
    const why = (known && sheet.flags[known]) || [];
    const sure = known ? sheet.sure[known] : undefined;
    const doubtful = known !== null && sheet.doubtful.includes(known);
    const changed = this.desk.ops.some((op) => op.path === path || (op.op === "add" && path.startsWith(op.path)));
    const generation = this.generation;
    const attributes = { id: `${this.uid}-${path}`, "data-path": path, "aria-label": label, autocomplete: "off", spellcheck: "false",
      class: `${doubtful ? "doubtful" : ""} ${changed ? "changed" : ""}`, onfocus: () => this.look(path), onblur: () => this.commit(node, generation) };
    let node;
    if (field.kind === "choice") {
      const options = ["", ...field.choices, ...(value !== null && !field.choices.includes(value) ? [value] : [])];
      node = make("select", attributes, ...options.map((each) => make("option", { value: each, selected: shown(value) === each }, each || "–")));
    } else if (field.kind === "yes_no") node = make("input", { ...attributes, type: "checkbox", checked: value === true });
    else if (field.long) {
      node = make("textarea", { ...attributes, rows: 1 });
      node.value = shown(value);
    } else {
      const placeholder = field.kind === "date" ? "YYYY-MM-DD" : null;
      node = make("input", { ...attributes, type: "text", placeholder, inputmode: field.kind === "number" ? "numeric" : null });
      node.value = shown(value);
    }
    if (!doubtful) return node;
    const text = [this.sureness(sure), ...why].filter(Boolean).join("; ");
    const note = make("span", { class: "why", id: `${node.id}-why`, title: text }, "!", sure ? make("span", { class: "sure" }, ` ${percent(sure)}`) : "", make("span", { class: "hidden" }, ` ${why.join("; ")}`));
    node.setAttribute("aria-describedby", note.id);
    return make("span", { class: "marked" }, node, note);
  }

  sureness(sure) {
    return sure === undefined ? null : sure ? `${percent(sure)} sure` : "was not read";
  }

  raw(node) {
    return node.type === "checkbox" ? node.checked : node.value.replace(/\s+/g, " ").trim();
  }

  /** Take over what was typed. An input that is gone blurs late: its generation is an older one. */
  commit(node = this.fields.contains(document.activeElement) ? document.activeElement : null, generation = this.generation) {
    const path = node?.dataset?.path;
    if (!this.desk || !path || generation !== this.generation || this.locked) return;
    const old = valueAt(this.desk.work, path);
    const value = this.raw(node);
    if (typeof value === "boolean" ? value === (old === true) : value === shown(old).replace(/\s+/g, " ").trim()) return;
    const op = this.desk.record({ op: "set", path, old, value: value === "" ? null : value });
    node.classList.toggle("changed", this.desk.ops.includes(op));
    if (this.desk.ops.includes(op)) this.check(op);
    else this.tell();
    this.renderTrail();
  }

  check(op) {
    op.n = this.tell("check", { at: this.desk.ops.indexOf(op) });
  }

  /** Let the kernel keep what was done so far, for a page that is reloaded. Gives the number of the message. */
  tell(kind = "draft", more = {}) {
    this.told += 1;
    const n = `${this.uid}/${this.told}`; // another view of the panel hears the answer too
    const { job_id, version, run, mode } = this.desk.sheet;
    this.send({ kind, n, job_id, version, run, mode, ops: this.desk.ops.map(kept), active: Math.round(this.active), ...more });
    this.count();
    return n;
  }

  gotKept({ n }) {
    const [view, number] = n.split("/");
    if (view === this.uid) this.heard = Math.max(this.heard, Number(number));
  }

  gotCheck({ n, reason, odd, wrong }) {
    this.gotKept({ n });
    const op = this.desk?.ops.find((each) => each.n === n);
    if (!op) return;
    Object.assign(op, { guess: reason, odd, wrong });
    if (!this.desk.ops.some((each) => each.wrong)) this.say("", true);
    this.input(op.path)?.classList.toggle("odd", odd.length > 0);
    if (this.focus === op.path) this.describe(op.path);
    else if (odd.length) this.say(`${spoken(op.path)}: ${odd.join("; ")}`);
    this.renderTrail();
  }

  // ---------------------------------------------------------------- rows

  addRow(list, at) {
    this.commit();
    const section = this.form.find((each) => each.path === list);
    const value = section.shape === "table" ? Object.fromEntries(section.fields.map((field) => [field.name, null])) : "";
    this.check(this.desk.record({ op: "add", path: `${list}[${at}]`, old: null, value }));
    this.again(section.shape === "table" ? `${list}[${at}].nama` : `${list}[${at}]`);
  }

  deleteRow(list, n) {
    this.commit();
    const old = structuredClone(valueAt(this.desk.work, `${list}[${n}]`));
    this.check(this.desk.record({ op: "remove", path: `${list}[${n}]`, old, value: null }));
    const left = valueAt(this.desk.work, list).length;
    const near = `${list}[${Math.min(n, left - 1)}]`;
    this.again(typeof old === "object" && old !== null ? `${near}.nama` : near);
  }

  moveRow(list, from, to) {
    if (to < 0 || to >= valueAt(this.desk.work, list).length) return;
    this.commit();
    const old = structuredClone(valueAt(this.desk.work, `${list}[${from}]`));
    this.check(this.desk.record({ op: "move", path: `${list}[${from}]`, old, value: to }));
    const cell = this.focus?.startsWith(`${list}[${from}]`) ? this.focus.slice(`${list}[${from}]`.length) : typeof old === "object" ? ".nama" : "";
    this.again(`${list}[${to}]${cell}`);
  }

  undo() {
    if (!this.desk?.ops.length) return this.say("Nothing to undo that is not saved; what is saved is taken back in the audit trail.");
    const op = this.desk.ops.pop();
    this.desk.rebuild();
    this.tell();
    this.again(op.path);
    return this.say(`Undone: ${spoken(op.path)}`);
  }

  // ---------------------------------------------------------------- what happened, and where people differ

  renderTrail() {
    if (!this.desk || !this.trail) return;
    const { sheet, ops } = this.desk;
    const words = { set: (op) => `${shown(op.old) || "–"} → ${shown(op.value) || "–"}`, add: () => "added", remove: () => "deleted", move: (op) => `moved to ${op.value + 1}` };
    const unsaved = ops.map((op) => make("li", { class: "unsaved" }, make("strong", {}, `${spoken(op.path)}: ${words[op.op](op)}`), ` (${op.reason ?? op.guess ?? "…"}) not saved`,
      ...(op.odd ?? []).map((text) => make("em", {}, ` ${text}`))));
    const saved = sheet.trail.map((entry) => make("li", {}, `${entry.at.slice(0, 16).replace("T", " ")} ${entry.by}: ${entry.what}`));
    const standing = sheet.trail.some((entry) => entry.kind === "events");
    this.trail.replaceChildren(make("h3", {}, "What happened"), make("ol", {}, ...saved, ...unsaved),
      ...(ops.length ? [make("button", { type: "button", onclick: () => this.undo() }, "Undo the last unsaved change")] : []),
      ...(standing && !ops.length ? [make("button", { type: "button", onclick: () => this.takeBack() }, "Take back the last saved corrections")] : []));
  }

  clashes(sheet) {
    const { clashing } = this.problems.get(sheet.job_id);
    const rows = clashing.map((op) => make("li", {}, make("strong", {}, spoken(op.path)), ` you: ${shown(op.value) || op.op}; now: ${shown(valueAt(sheet.result, op.path)) || "–"}`));
    return make("section", { class: "clash", "aria-label": "Changed by somebody else" }, make("h3", {}, "Somebody else was faster"),
      make("p", {}, "These of your changes do not fit any more. Do again what still holds."), make("ul", {}, ...rows));
  }

  conflict({ first_by: first, second_by: second, fields }) {
    const text = (value) => make("td", {}, value === null ? "–" : typeof value === "object" ? Object.values(value).filter(Boolean).join(" · ") : String(value));
    const rows = fields.map((field) => {
      const taken = () => this.desk.ops.find((op) => op.about === field.field_path);
      const choice = (label, other) => make("button", { type: "button", class: "small", "aria-pressed": String(Boolean(taken()) === other), "aria-label": `${label}: ${field.field_path}`,
        "data-choice": `${label}: ${field.field_path}`, onfocus: () => this.look(field.field_path), onclick: () => { this.take(field, other); } }, label);
      const name = spoken(field.field_path).split(/(?=\.)/).flatMap((part) => [make("wbr"), part]);
      return make("tr", {}, make("th", { scope: "row" }, ...name), text(field.pipeline), text(field.first), text(field.second),
        make("td", { class: "buttons" }, choice("First", false), choice("Second", true)));
    });
    const head = ["field", "pipeline", `first: ${first}`, `second: ${second}`, "what is right"].map((label) => make("th", { scope: "col" }, label));
    return make("section", { class: "conflict", "aria-label": "Where two people differ" }, make("h3", {}, `Two people differ on ${fields.length} field${fields.length === 1 ? "" : "s"}`),
      make("p", {}, "Take an answer for each, or type a third one into the form below. Approving decides it; the first answer stays where you change nothing."),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows))));
  }

  take(field, second) {
    this.commit();
    const before = this.desk.ops.findIndex((op) => op.about === field.field_path);
    if (before >= 0 && !second) {
      this.desk.ops.splice(before, 1);
      this.desk.rebuild();
      this.tell();
    } else if (before < 0 && second) {
      const { op, old, value } = field.take;
      // Rows may have moved since the worksheet was made.
      const rows = Object.entries(this.desk.rows).flatMap(([list, keys]) => keys.map((key, n) => [key, `${list}[${n}]`]));
      const row = op === "add" ? undefined : rows.find(([key]) => key && field.field_path.startsWith(key));
      const path = row ? row[1] + field.field_path.slice(row[0].length) : field.field_path;
      this.desk.ops.push({ op, path, old, value, about: field.field_path });
      this.desk.rebuild();
      this.check(this.desk.ops.at(-1));
    }
    this.again(null);
    this.fields.querySelector(`[data-choice="${CSS.escape(`${second ? "Second" : "First"}: ${field.field_path}`)}"]`)?.focus({ preventScroll: true });
  }

  // ---------------------------------------------------------------- the page

  boxes(path) {
    const { places } = this.desk.sheet;
    const known = path && this.desk.known(path);
    if (!known) return [];
    if (places[known]) return places[known];
    const row = known.match(/^(.*?\[\d+\])(\.|$)/)?.[1]; // the place of its row, when the cell itself was not read
    const beside = row ? Object.entries(places).filter(([each]) => each.startsWith(`${row}.`)).flatMap(([, boxes]) => boxes) : [];
    const here = beside.filter((box) => box[0] === beside[0][0]);
    const edge = (pick, n) => pick(...here.map((box) => box[n]));
    return here.length ? [[here[0][0], edge(Math.min, 1), edge(Math.min, 2), edge(Math.max, 3), edge(Math.max, 4)]] : [];
  }

  /** Draw the page with its boxes. */
  draw() {
    const { sheet } = this.desk;
    const kept = this.cache.get(sheet.job_id);
    const picture = kept?.pictures.get(this.page);
    const frame = sheet.pages.find((page) => page.page === this.page) ?? {};
    this.size = { width: frame.width ?? picture?.image?.naturalWidth ?? 1000, height: frame.height ?? picture?.image?.naturalHeight ?? 1414 };
    this.page_tabs.replaceChildren(...(sheet.pages.length < 2 ? [] : sheet.pages.map(({ page }) =>
      make("button", { type: "button", "aria-pressed": String(page === this.page), onclick: () => { this.page = page; this.draw(); } }, `Page ${page}`))));
    this.viewer.setAttribute("aria-label", `Page ${this.page} of ${sheet.pages.length} of ${sheet.filename}`);
    const overlay = make("svg", { viewBox: `0 0 ${this.size.width} ${this.size.height}`, "aria-hidden": "true" });
    const marked = new Set(sheet.doubtful);
    for (const [path, places] of Object.entries(sheet.places)) {
      for (const [page, left, top, right, bottom] of places) {
        if (page !== this.page) continue;
        overlay.append(make("rect", { x: left, y: top, width: right - left, height: bottom - top, class: marked.has(path) ? "box doubtful" : "box",
          onclick: () => this.fromBox(path) }));
      }
    }
    this.lens = make("rect", { class: "box focused", width: 0, height: 0 });
    overlay.append(this.lens);
    const paper = picture?.image ?? make("p", { class: "message" }, picture?.problem ?? "The page is being drawn …");
    this.picture.replaceChildren(paper, overlay);
    this.place();
  }

  fromBox(path) {
    const node = [...this.fields.querySelectorAll("[data-path]")].find((each) => this.desk.known(each.dataset.path) === path);
    node?.focus();
  }

  setZoom(factor) {
    this.fit = factor === 0 ? !this.fit : false;
    if (factor) this.zoom = Math.min(Math.max(this.zoom * factor, 0.5), 5);
    this.place();
  }

  /** Lay the page out and bring the field in sight. */
  place() {
    if (!this.desk || !this.size) return;
    const { clientWidth: width, clientHeight: height } = this.viewer;
    const scale = this.fit ? Math.min(width / this.size.width, height / this.size.height) : (width / this.size.width) * this.zoom;
    this.picture.style.width = `${this.size.width * scale}px`;
    this.picture.style.height = `${this.size.height * scale}px`;
    const box = this.boxes(this.focus)[0];
    const here = box && box[0] === this.page;
    if (this.lens) {
      const [left, top, right, bottom] = here ? box.slice(1) : [0, 0, 0, 0];
      for (const [name, value] of Object.entries({ x: left - 4, y: top - 4, width: here ? right - left + 8 : 0, height: here ? bottom - top + 8 : 0 })) this.lens.setAttribute(name, value);
      if (here) this.viewer.scrollTo({ left: ((left + right) / 2) * scale - width / 2, top: ((top + bottom) / 2) * scale - height / 2 });
    }
    this.magnify(box);
  }

  /** The field's own piece of the page, large, right above the field. */
  magnify(box) {
    const url = box && this.cache.get(this.desk.sheet.job_id)?.pictures.get(box[0])?.url;
    this.crop.textContent = box ? "" : this.focus ? "No place on the page is known for this field." : "";
    this.crop.style.backgroundImage = url ? `url(${url})` : "";
    this.crop.classList.toggle("filled", Boolean(url));
    this.crop.setAttribute("aria-label", box ? `Where ${this.focus} was read` : "No place on the page is known");
    if (!url) return;
    const frame = this.desk.sheet.pages.find((page) => page.page === box[0]);
    const [left, top, right, bottom] = box.slice(1);
    const { clientWidth: width, clientHeight: height } = this.crop;
    const scale = Math.min((width - 24) / (right - left), (height - 16) / (bottom - top), 2.5);
    this.crop.style.backgroundSize = `${(frame.width ?? this.size.width) * scale}px auto`;
    this.crop.style.backgroundPosition = `${width / 2 - ((left + right) / 2) * scale}px ${height / 2 - ((top + bottom) / 2) * scale}px`;
  }

  /** A field has the focus: its place, its crop, and what is known about it. */
  look(path) {
    this.focus = path;
    const box = this.boxes(path)[0];
    if (box && box[0] !== this.page) {
      this.page = box[0];
      this.draw();
    } else this.place();
    this.describe(path);
  }

  describe(path) {
    if (!path || !this.desk) return this.detail.replaceChildren("Nothing in this letter is doubtful. Look at the page; Enter approves.");
    const { sheet, ops } = this.desk;
    const known = this.desk.known(path);
    const sure = known ? sheet.sure[known] : undefined;
    const op = ops.find((each) => each.path === path);
    const parts = [make("strong", {}, spoken(path)), sure === undefined ? "" : ` ${this.sureness(sure)}`];
    for (const why of (known && sheet.flags[known]) || []) parts.push(make("span", { class: "flag" }, why));
    for (const why of op?.odd ?? []) parts.push(make("span", { class: "flag" }, why));
    if (known && sheet.corrected.includes(known)) parts.push(make("span", { class: "tag" }, "corrected before"));
    if (op) {
      const select = make("select", { "aria-label": "Why the value was changed", title: "Alt+1 … 6", onchange: () => { op.reason = select.value; this.tell(); this.renderTrail(); } },
        ...this.reasons.map((reason, n) => make("option", { value: reason, selected: (op.reason ?? op.guess) === reason }, `${n + 1} ${reason}`)));
      parts.push(" because ", select);
    }
    return this.detail.replaceChildren(...parts);
  }

  reason(n) {
    this.commit();
    const op = this.desk?.ops.find((each) => each.path === this.focus || (each.op === "add" && this.focus?.startsWith(each.path)));
    if (!op || !this.reasons[n]) return;
    op.reason = this.reasons[n];
    this.tell();
    this.describe(this.focus);
    this.renderTrail();
  }

  // ---------------------------------------------------------------- handing in

  handIn(approve) {
    if (!this.desk) return undefined;
    if (this.locked) return this.afterSaving(approve);
    this.commit();
    this.tick();
    const { sheet, ops } = this.desk;
    if (!approve && sheet.mode === "second") return this.say("A second review is handed in as a whole: Ctrl+Enter. Until then your work is kept here.");
    if (!approve && !ops.length) return this.say("Nothing to save.");
    const wrong = ops.find((op) => op.wrong);
    if (wrong) {
      this.say(`Not saved: ${spoken(wrong.path)}: ${wrong.odd.join("; ")}`, true);
      return this.input(wrong.path)?.focus();
    }
    const id = `${this.uid}-${Date.now()}-${this.pending.size}`;
    const message = { kind: "save", id, job_id: sheet.job_id, mode: sheet.mode, version: sheet.version, run: sheet.run, approve, ops: ops.map(plain), seconds: Math.round(this.active / 100) / 10 };
    this.dispatch(message, { desk: this.desk, stay: !approve });
    if (approve) this.work.delete(sheet.job_id);
    else this.work.set(sheet.job_id, this.active);
    this.drafts.delete(sheet.job_id);
    this.problems.delete(sheet.job_id);
    if (!approve) return this.lock({ id: sheet.job_id, approve: false, version: null });
    this.states.set(sheet.job_id, "sent");
    this.forget(sheet.job_id);
    this.generation += 1;
    this.desk = null;
    return this.next();
  }

  /** The letter in sight is being saved: approve it as soon as that is done. */
  afterSaving(approve) {
    if (!approve || this.saving?.approve) return;
    if (this.saving) this.saving.approve = true;
    this.say(this.saving ? `Saving ${this.desk.sheet.filename} …; then it is approved.` : "Corrections are being taken back: approve when that is done.");
  }

  approveSaved(sheet, { version }) {
    if (sheet.version === version) this.handIn(true);
    else this.say(`${sheet.filename} is saved and not approved: somebody else has changed it since. Look at it, then approve.`, true);
  }

  takeBack() {
    const { sheet } = this.desk;
    const id = `${this.uid}-${Date.now()}-${this.pending.size}`;
    this.dispatch({ kind: "undo", id, job_id: sheet.job_id, mode: sheet.mode, version: sheet.version }, { desk: this.desk, stay: true });
    this.lock();
  }

  lock(saving = null) {
    this.locked = true;
    this.saving = saving;
    this.hold();
    this.fields.inert = true;
    this.approve.disabled = this.saveOnly.disabled = true;
  }

  unlock() {
    this.locked = false;
    this.saving = null;
    this.fields.inert = false;
    this.approve.disabled = this.saveOnly.disabled = !this.desk;
  }

  dispatch(message, about) {
    const timer = setTimeout(() => this.silence(message.id), SILENCE_MS);
    this.pending.set(message.id, { message, timer, ...about });
    this.say(`Saving ${about.desk.sheet.filename} …`);
    this.send(message);
  }

  /** No answer: say so, keep the work, and offer to send it again. The kernel answers the same message only once. */
  silence(id) {
    const waiting = this.pending.get(id);
    if (!waiting) return;
    const { filename } = waiting.desk.sheet;
    const again = make("button", { type: "button", onclick: () => { this.pending.forEach((each) => this.send(each.message)); } }, "Send again");
    const names = this.pending.size > 1 ? `${this.pending.size} letters` : filename;
    this.say(`Not saved: ${names}. The kernel does not answer; your work is kept on this page.`, true, again);
    this.say("");
  }

  gotAnswer(message) {
    const waiting = this.pending.get(message.id);
    if (!waiting) return;
    clearTimeout(waiting.timer);
    this.pending.delete(message.id);
    if (!this.pending.size) this.say("", true);
    if (message.kind === "saved") this.gotSaved(message, waiting);
    else this.gotRefused(message, waiting);
    this.count();
  }

  gotSaved({ saved, job_id: id }, { desk, stay }) {
    const { filename } = desk.sheet;
    this.showPractice(filename, saved.practice);
    const differs = saved.differences === null ? "" : saved.differences ? `; it differs from the first review in ${saved.differences}, and somebody will decide` : "; it agrees with the first review";
    this.say(`Saved: ${filename}${saved.approved && saved.differences === null ? ", approved" : ""}${differs}`);
    this.dropNotice(id);
    if (desk.sheet.mode !== this.wanted.mode) return; // another list is in sight
    if (!stay) {
      this.states.set(id, "done");
      return;
    }
    if (this.saving?.id === id) this.saving.version = saved.version;
    this.forget(id);
    this.send({ kind: "want", jobs: [id], mode: this.wanted.mode });
  }

  gotRefused(message, { desk }) {
    const { job_id: id, clashing = [] } = message;
    const { filename, mode } = desk.sheet;
    const listed = mode === this.wanted.mode; // otherwise the kernel has the work
    const at = this.letters.findIndex((letter) => letter.job_id === id);
    this.say("");
    if (listed) {
      const fresh = message.sheet ? new Desk(message.sheet, message.kept) : desk;
      this.states.delete(id);
      this.problems.set(id, { message: message.message, clashing });
      this.cache.set(id, { sheet: fresh.sheet, pictures: this.cache.get(id)?.pictures ?? new Map() });
      if (fresh.ops.length) this.drafts.set(id, fresh);
    }
    if (listed && at >= 0 && (at === this.at || this.finished)) {
      this.unlock();
      this.desk = null;
      this.at = at;
      this.show();
      this.want();
    } else this.notice(id, `Not saved: ${filename}. ${spoken(message.message)}`);
  }

  // ---------------------------------------------------------------- keys

  /** Every key stays in here: the notebook around it would take a letter for a command. */
  key(event) {
    event.stopPropagation();
    if (event.isComposing) return;
    const typing = event.target.matches?.("input, textarea, select");
    const action = event.key === "Escape" && this.folded() ? () => {} : event.ctrlKey || event.metaKey ? this.controlKey(event) : event.altKey ? this.altKey(event) : typing ? this.fieldKey(event) : this.pageKey(event);
    if (action) {
      event.preventDefault();
      if (!event.repeat || action.repeat) action();
    }
  }

  /** Close what lies open above the letter; whether anything did. */
  folded() {
    const open = [[this.help, this.keysButton], [this.own, this.ownButton]].filter(([node]) => !node.hidden);
    for (const [node, button] of open) this.toggle(node, button);
    return open.length > 0;
  }

  controlKey(event) {
    if (event.key === "Enter") return () => this.handIn(true);
    if (event.key.toLowerCase() === "s") return () => this.handIn(false);
    return null;
  }

  altKey(event) {
    const row = this.focus?.match(/^(.*)\[(\d+)\]/);
    const [list, n] = row ? [row[1], Number(row[2])] : [];
    if (event.key === "PageDown") return () => this.step(1);
    if (event.key === "PageUp") return () => this.step(-1);
    if (/^Digit[1-9]$/.test(event.code)) return () => this.reason(Number(event.code.slice(5)) - 1);
    if (event.code === "KeyN") return () => (row ? this.addRow(list, n + 1) : this.addRow("personel", this.desk.work.personel.length));
    if (event.code === "KeyZ") return () => this.undo();
    if (row && event.key === "Backspace") return () => this.deleteRow(list, n);
    if (row && event.key === "ArrowUp") return () => this.moveRow(list, n, n - 1);
    if (row && event.key === "ArrowDown") return () => this.moveRow(list, n, n + 1);
    return null;
  }

  fieldKey(event) {
    if (event.key === "Escape") return () => this.viewer.focus();
    if (event.key === "Enter" && event.target.dataset.path) return () => this.onward(event.shiftKey ? -1 : 1);
    return null;
  }

  /** Accept the field and go to the next doubtful one; behind the last one stands Approve. */
  onward(by) {
    this.commit();
    const all = [...this.fields.querySelectorAll("[data-path]")];
    const doubtful = new Set(this.doubtful());
    const here = all.indexOf(document.activeElement);
    const way = by > 0 ? all.slice(here + 1) : all.slice(0, Math.max(here, 0)).reverse();
    const target = way.find((node) => doubtful.has(node.dataset.path));
    if (target) target.focus();
    else if (by > 0) this.approve.focus();
    if (target?.select) target.select();
  }

  pageKey(event) {
    if (this.locked) return null; // keys that were meant for a field
    const keys = { j: () => this.step(1), k: () => this.step(-1), "+": () => this.setZoom(1.25), "-": () => this.setZoom(0.8), f: () => this.setZoom(0), u: () => this.undo(),
      "?": () => this.toggle(this.help, this.keysButton) };
    if (event.target.tagName === "BUTTON") return event.key === "Escape" ? () => this.viewer.focus() : null;
    if (event.key === "Enter") return () => (this.desk ? this.focusFirst() : null);
    if (event.target === this.viewer && event.key.startsWith("Arrow")) return null; // scrolls the page
    return keys[event.key] ?? null;
  }
}

export default face(Screen);
