// Draws one run: from a server's events, or from the record that stands in the page. Whatever others have written
// (names, notes, reasons) becomes text, never markup.
"use strict";

(() => {
  const byId = (id) => document.getElementById(id);
  const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
  const numberOr = (value, other) => (isNumber(value) ? value : other);
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const listOf = (value) => (Array.isArray(value) ? value : []);
  const recorded = byId("recorded-run");

  function make(tag, className, text) {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  }
  function setText(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }
  function setClass(element, name) {
    if (element.className !== name) element.className = name;
  }
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // ---- Numbers as people read them ----

  const percent = (value, digits = 2) => (isNumber(value) ? `${(100 * value).toFixed(digits)} %` : "–");
  const decimal = (value, digits = 4) => (isNumber(value) ? value.toFixed(digits) : "–");
  function bytes(value) {
    if (!isNumber(value)) return "–";
    if (value < 1e3) return `${value} B`;
    const [unit, name] = value < 1e6 ? [1e3, "kB"] : value < 1e9 ? [1e6, "MB"] : value < 1e12 ? [1e9, "GB"] : [1e12, "TB"];
    const scaled = value / unit;
    return `${scaled.toFixed(scaled < 10 ? 2 : scaled < 100 ? 1 : 0)} ${name}`;
  }
  function duration(seconds) {
    if (!isNumber(seconds)) return "–";
    const whole = Math.max(0, Math.round(seconds));
    const two = (value) => String(value).padStart(2, "0");
    if (whole >= 86400) return `${Math.floor(whole / 86400)} d ${two(Math.floor(whole / 3600) % 24)} h`;
    if (whole >= 3600) return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
    return `${Math.floor(whole / 60)}:${two(whole % 60)}`;
  }
  function seconds(value) {
    if (!isNumber(value)) return "";
    return value < 100 ? `${value.toFixed(1)} s` : duration(value);
  }
  const isRatio = (metric) => /accuracy|recall|precision|sensitivity|specificity/.test(metric);
  const metricText = (metric, value) => (isRatio(metric) ? percent(value) : decimal(value));
  const metricName = (metric) => metric.charAt(0).toUpperCase() + metric.slice(1).replaceAll("_", " ");
  function count(value, one, many) {
    return `${value} ${value === 1 ? one : many}`;
  }
  function someOf(names, most = 5) {
    const shown = names.slice(0, most).join(", ");
    return names.length > most ? `${shown} and ${names.length - most} more` : shown;
  }

  // ---- What is known of the run ----

  const emptyRun = () => ({
    name: "", facts: {}, rounds: [], notes: [], firstNote: 0, status: {}, newest: {}, end: null, partition: null,
    reference: null, now: 0, seconds: 0, receivedAt: 0, hasFiles: true,
  });
  let run = emptyRun();
  let chosenReference = null;  // by the reader; in place of the server's
  let metric = "accuracy";
  let isLive = false;

  const serverNow = () => run.now + (isLive && !run.end ? (performance.now() - run.receivedAt) / 1000 : 0);
  const reference = () => chosenReference || run.reference;

  function take(message) {
    if (message.first) run = emptyRun();
    run.name = String(message.run || "");
    run.now = numberOr(message.now, 0);
    run.seconds = numberOr(message.seconds, 0);
    run.receivedAt = performance.now();
    if (message.partition !== undefined) run.partition = message.partition;
    if (message.reference !== undefined) run.reference = message.reference;
    if (message.facts) run.facts = message.facts;
    if (message.rounds) run.rounds = run.rounds.slice(0, message.rounds_from).concat(message.rounds);
    if (message.newest) run.newest = message.newest;
    if (message.notes) run.notes = run.notes.concat(message.notes).slice(-500);
    if (message.status) run.status = message.status;
    if (message.end) run.end = message.end;
    if (message.has_files === false) run.hasFiles = false;
    draw();
  }

  // ---- Curves ----

  /// What of a round is drawn under one metric's name: central, at the clients, validation, each silo's own model.
  const sources = {
    own: (metricKey) => (point) =>
      metricKey === "accuracy" || metricKey === "loss" ? point[metricKey] : valueIn(point.metrics, "central", metricKey),
    clients: (metricKey) => (point) =>
      numberOr(isObject(point.federated) ? point.federated[metricKey] : undefined,
               valueIn(point.metrics, "federated", metricKey)),
    silo: (metricKey) => (point) => valueIn(point.metrics, "own", metricKey),
    checked: (metricKey) => (point) => (metricKey === "accuracy" ? point.validation_accuracy : undefined),
  };
  function valueIn(metrics, group, key) {
    return isObject(metrics) && isObject(metrics[group]) ? metrics[group][key] : undefined;
  }
  function curveOf(rounds, value) {
    return new Map(rounds.filter((point) => isNumber(value(point))).map((point) => [point.round, value(point)]));
  }
  /// The curve that rounds are counted by: of the test set, or else of the clients' held-out data.
  function mainCurve(rounds, metricKey) {
    const central = curveOf(rounds, sources.own(metricKey));
    return central.size > 0 ? central : curveOf(rounds, sources.clients(metricKey));
  }
  function metricNames() {
    const names = new Set(["accuracy"]);
    for (const point of run.rounds) {
      if (!isObject(point.metrics)) continue;
      for (const group of Object.values(point.metrics)) {
        if (isObject(group)) Object.keys(group).forEach((name) => name !== "loss" && names.add(name));
      }
    }
    return [...names];
  }

  const seriesKinds = [
    ["own", "--own", "test set"], ["clients", "--clients", "at the clients"], ["silo", "--silo", "silos' own models"],
    ["checked", "--checked", "validation"], ["reference", "--reference", "reference"],
  ];

  class Chart {
    constructor(place, key) {
      this.place = place;
      this.key = key;
      this.plot = null;
      this.hasZoom = false;
      new ResizeObserver(() => this.resize()).observe(place);
    }

    update(metricKey) {
      const curves = seriesKinds.map(([kind]) =>
        kind === "reference" ? (reference() ? mainCurve(reference().rounds, metricKey) : new Map())
                             : curveOf(run.rounds, sources[kind](metricKey)));
      const shown = seriesKinds.map((_, i) => i).filter((i) => curves[i].size > 0);
      const rounds = [...new Set(shown.flatMap((i) => [...curves[i].keys()]))].sort((a, b) => a - b);
      this.data = [rounds, ...shown.map((i) => rounds.map((round) => (curves[i].has(round) ? curves[i].get(round) : null)))];
      this.targets = metricKey === "accuracy" ? listOf(run.facts.targets).filter(isNumber) : [];
      const layout = `${metricKey} ${shown.join(" ")}`;
      if (layout !== this.layout || !this.plot) this.build(metricKey, shown, layout);
      else this.plot.setData(this.data, !this.hasZoom);
      this.describe(null);
    }

    build(metricKey, shown, layout) {
      if (this.plot) this.plot.destroy();
      this.place.replaceChildren();
      this.plot = null;
      this.layout = layout;
      this.hasZoom = false;
      this.metricKey = metricKey;
      this.shown = shown;
      if (shown.length === 0) {
        this.place.append(make("p", "empty", run.end ? "The run has no such measurements." : "Nothing is measured yet."));
        return;
      }
      const axis = { stroke: () => colour("--quiet"), font: "12px system-ui, sans-serif", gap: 4,
                     grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
      const onePercent = (self, values) => values.map((value) => (isRatio(metricKey) ? `${+(100 * value).toFixed(2)} %` : `${+value.toFixed(4)}`));
      this.plot = new uPlot({
        ...this.size(), legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { sync: { key: "rounds" }, points: { size: 6 }, drag: { x: true, y: false },
                  dataIdx: (self, series, index) => this.nearest(series, index) },
        scales: { x: { time: false, range: (self, low, high) => (this.hasZoom ? [low, high] : this.extent()) },
                  y: { range: (self, low, high) => this.range(low, high) } },
        axes: [{ ...axis, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] },
               { ...axis, size: 56, values: onePercent }],
        series: [{}, ...shown.map((i) => ({
          stroke: () => colour(seriesKinds[i][1]), width: i === 0 || shown[0] === i ? 2 : 1.5, spanGaps: true,
          dash: seriesKinds[i][0] === "reference" ? [6, 4] : undefined,
          points: { show: (self) => self.data[0].length < 40 && seriesKinds[i][0] !== "reference", size: 5, fill: () => colour(seriesKinds[i][1]) },
        }))],
        hooks: {
          draw: [(self) => this.drawTargets(self)],
          setCursor: [(self) => this.describe(self.cursor.idx)],
          setSelect: [(self) => { this.hasZoom = self.select.width > 0; }],
        },
      }, this.data, this.place);
      this.plot.over.addEventListener("dblclick", () => { this.hasZoom = false; });
    }

    size() {
      return { width: Math.max(200, this.place.clientWidth), height: Math.max(120, this.place.clientHeight) };
    }
    resize() {
      if (this.plot) this.plot.setSize(this.size());
    }
    extent() {
      const last = this.data[0].length ? this.data[0][this.data[0].length - 1] : 0;
      return [0, Math.max(last, Math.min(10, numberOr(run.facts.rounds, 10)), 1)];
    }
    range(low, high) {
      const all = [low, high, ...this.targets].filter(isNumber);
      if (all.length === 0) return [0, 1];
      const least = Math.min(...all);
      const most = Math.max(...all);
      const room = Math.max((most - least) * 0.06, Math.abs(most) * 0.01, 1e-6);
      return [least >= 0 ? Math.max(0, least - room) : least - room, isRatio(this.metricKey) ? Math.min(1, most + room) : most + room];
    }
    /// A curve that lacks a value at `index` shows the one before.
    nearest(series, index) {
      const values = this.data[series];
      for (let i = index; i >= 0; --i) if (values && values[i] !== null && values[i] !== undefined) return i;
      return index;
    }
    drawTargets(self) {
      const { ctx, bbox } = self;
      ctx.save();
      ctx.strokeStyle = ctx.fillStyle = colour("--quiet");
      ctx.lineWidth = devicePixelRatio;
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      ctx.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
      ctx.textAlign = "left";
      ctx.textBaseline = "bottom";
      for (const target of this.targets) {
        const y = Math.round(self.valToPos(target, "y", true));
        if (y < bbox.top || y > bbox.top + bbox.height) continue;
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
        ctx.fillText(`target ${+(100 * target).toFixed(2)} %`, bbox.left + 6 * devicePixelRatio, y - devicePixelRatio);
      }
      ctx.restore();
    }
    /// The figures of the round under the cursor, or of the newest.
    describe(index) {
      if (!this.plot) return this.key.replaceChildren();
      const at = isNumber(index) ? index : this.data[0].length - 1;
      const entries = this.shown.map((i, place) => {
        const [kind, , name] = seriesKinds[i];
        const value = this.data[place + 1][this.nearest(place + 1, at)];
        const entry = make("span", kind === "reference" ? "reference dashed" : kind, `${name} `);
        entry.append(make("i", "", metricText(this.metricKey, value)));
        return entry;
      });
      if (isNumber(index)) entries.unshift(make("em", "", `round ${this.data[0][at]}`));
      this.key.replaceChildren(...entries);
    }
  }

  const charts = { score: new Chart(byId("score"), byId("score-key")), loss: new Chart(byId("loss"), byId("loss-key")) };

  function drawMetricMenu() {
    const menu = byId("metric");
    const names = metricNames();
    if (!names.includes(metric)) metric = "accuracy";
    if (menu.dataset.names === names.join(" ")) return;
    menu.dataset.names = names.join(" ");
    menu.replaceChildren(...names.map((name) => {
      const option = make("option", "", metricName(name));
      option.value = name;
      option.selected = name === metric;
      return option;
    }));
  }

  // ---- Head ----

  function drawFacts() {
    const facts = run.facts;
    const start = facts.start_used && facts.start_used !== facts.start ? `${facts.start} (${facts.start_used})` : facts.start;
    const words = [
      facts.dataset, facts.architecture, facts.start && `start ${start}${facts.head === "sums" ? "+head" : ""}`,
      facts.strategy, isNumber(facts.clients) && count(facts.clients, "client", "clients"),
      isNumber(facts.seed) && `seed ${facts.seed}`,
    ];
    setText(byId("facts"), words.filter(Boolean).join("  ·  "));
    setText(byId("name"), run.name || "Headstart");
    setText(byId("version"), facts.version ? `Headstart ${facts.version}` : "");
  }

  function drawPhase() {
    const { status, end } = run;
    const share = end && !end.failed ? 1 : numberOr(status.progress, numberOr(status.server_progress, 0));
    setText(byId("phase"), end ? (end.failed ? "The run ended early" : "The run is finished") : status.phase || "no news yet");
    setText(byId("phase-time"), end ? `${duration(end.seconds)} in all` : isNumber(status.since) ? duration(serverNow() - status.since) : "");
    byId("bar").firstElementChild.style.width = `${(100 * Math.min(1, share)).toFixed(1)}%`;
    byId("bar").setAttribute("aria-valuenow", (100 * share).toFixed(0));
    const [words, isLate] = whoIsAwaited();
    setText(byId("waits"), words);
    setClass(byId("waits"), isLate ? "late" : "");
  }

  function whoIsAwaited() {
    const { status, end } = run;
    if (end) return [end.stopped_because || "", Boolean(end.failed)];
    const silos = listOf(status.silos);
    if (status.kind === "lobby") {
      const there = silos.filter((silo) => silo.state !== "away").length;
      const missing = numberOr(status.expected, 0) - there;
      return [missing > 0 ? `Waits for ${missing} more of ${count(status.expected, "client", "clients")} to join.`
                          : "All clients are there.", false];
    }
    const asked = silos.filter((silo) => silo.asked);
    if (asked.length === 0) return [isNumber(status.since) ? "Waits for no silo: the server is at work." : "", false];
    const lost = asked.filter((silo) => silo.state === "awaited" || silo.state === "away");
    const working = asked.filter((silo) => silo.state !== "awaited" && silo.state !== "away")
      .sort((a, b) => numberOr(a.progress, 0) - numberOr(b.progress, 0));
    const parts = [];
    if (lost.length) parts.push(`${someOf(lost.map((silo) => silo.name))} (connection lost)`);
    if (working.length) {
      parts.push(someOf(working.map((silo) =>
        isNumber(silo.progress) ? `${silo.name} (${percent(silo.progress, 0)})` : silo.name)));
    }
    return [`Waits for ${asked.length} of ${count(silos.length, "silo", "silos")}: ${parts.join("; ")}`, lost.length > 0];
  }

  function figure(name, value, under) {
    const box = make("div");
    box.append(make("span", "", name), make("b", "", value), make("span", "", under || "\u00a0"));
    return box;
  }

  function median(values) {
    const sorted = values.filter(isNumber).sort((a, b) => a - b);
    if (sorted.length === 0) return undefined;
    const middle = sorted.length >> 1;
    return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  }

  function drawFigures() {
    const { facts, rounds, end, status } = run;
    const last = rounds[rounds.length - 1];
    const curve = [...mainCurve(rounds, metric)];
    const [lastRound, lastValue] = curve[curve.length - 1] || [];
    const [bestRound, bestValue] = curve.reduce((best, one) => (best.length === 0 || one[1] > best[1] ? one : best), []);
    const before = curve.length > 1 ? lastValue - curve[curve.length - 2][1] : undefined;
    const change = isNumber(before)
      ? `${before < 0 ? "−" : "+"}${isRatio(metric) ? `${Math.abs(100 * before).toFixed(2)} points` : Math.abs(before).toFixed(4)}` : "";
    const done = last ? last.round : 0;
    const total = end ? numberOr(end.rounds, done) : numberOr(facts.rounds, status.rounds);
    const lengths = rounds.slice(1).map((point, i) => point.seconds - rounds[i].seconds);
    const pace = median(lengths.slice(-9));
    const losses = [...mainCurve(rounds, "loss").values()];
    const sum = (key) => rounds.reduce((all, point) => all + numberOr(point[key], 0), numberOr(beforeRounds(run)[key], 0));
    const elapsed = end ? end.seconds : run.seconds + (isLive ? serverNow() - run.now : 0);
    const left = end || !isNumber(pace) || !isNumber(facts.rounds) ? "" : `about ${duration(pace * (facts.rounds - done))} left`;
    byId("figures").replaceChildren(
      figure("Round", last ? `${done}${isNumber(total) ? ` / ${total}` : ""}` : "–", left || (end ? "done" : "")),
      figure(metricName(metric), metricText(metric, lastValue), isNumber(lastRound) && curve.length > 1 ? change : ""),
      figure("Best", metricText(metric, bestValue), isNumber(bestRound) ? `round ${bestRound}` : ""),
      figure("Loss", decimal(losses[losses.length - 1], 3), losses.length > 1 ? `best ${decimal(Math.min(...losses), 3)}` : ""),
      figure("Time", duration(elapsed), isNumber(pace) ? `${seconds(pace)} a round` : ""),
      figure("Bytes up", bytes(sum("bytes_up")), `${bytes(sum("bytes_down"))} down`),
      figure("Rounds saved", savedNow(), reference() ? `against ${reference().name}` : "no reference"));
  }

  // ---- Rounds saved ----

  const beforeRounds = (of) => (isObject(of.before_rounds) ? of.before_rounds
    : isObject(of.facts) && isObject(of.facts.before_rounds) ? of.facts.before_rounds
    : isObject(of.end) && isObject(of.end.before_rounds) ? of.end.before_rounds : {});

  function firstAt(curve, value) {
    for (const [round, score] of curve) if (score >= value - 1e-12) return round;
    return undefined;
  }
  /// What the start cost, in rounds: its bytes by the median bytes of a round, rounded up. Undefined: not known.
  function chargeOf(of) {
    const start = beforeRounds(of);
    const cost = numberOr(start.bytes_up, 0) + numberOr(start.bytes_down, 0);
    if (!isNumber(start.bytes_up)) return undefined;
    if (cost === 0) return 0;
    const round = median(of.rounds.filter((point) => point.round > 0).map((point) => point.bytes_up + point.bytes_down));
    return isNumber(round) && round > 0 ? Math.max(1, Math.ceil(cost / round)) : undefined;
  }
  function savings() {
    if (!reference()) return [];
    const own = mainCurve(run.rounds, metric);
    const other = mainCurve(reference().rounds, metric);
    if (own.size === 0 || other.size === 0) return [];
    const best = Math.max(...own.values());
    const charge = chargeOf(run);
    const otherCharge = chargeOf(reference());
    const rows = (metric === "accuracy" ? listOf(run.facts.targets).filter(isNumber) : []).map((target) => ({ target }));
    rows.push({ target: best, isBest: true });
    const lastOther = Math.max(...other.keys());
    return rows.map((row) => {
      const at = firstAt(own, row.target);
      const otherAt = firstAt(other, row.target);
      const saved = isNumber(at) ? numberOr(otherAt, lastOther) - at : undefined;
      const charged = isNumber(charge) && isNumber(otherCharge) && isNumber(saved) ? saved - charge + otherCharge : undefined;
      return { ...row, at, otherAt, lastOther, saved, charged, isLeast: !isNumber(otherAt) };
    });
  }
  const savedText = (value, isLeast) => (isNumber(value) ? `${isLeast ? "≥ " : ""}${value < 0 ? "−" : ""}${Math.abs(value)}` : "–");
  function savedNow() {
    const rows = savings();
    const now = rows.find((row) => row.isBest);
    return now ? savedText(now.saved, now.isLeast) : "–";
  }
  function drawSaved() {
    const rows = savings();
    setText(byId("reference-name"), reference() ? `against ${reference().name}, ${reference().rounds.length - 1} rounds` : "");
    byId("reference-none").hidden = !chosenReference;
    byId("saved").hidden = rows.length === 0;
    const now = rows.find((row) => row.isBest);
    setText(byId("saved-words"), !reference()
      ? "Choose the rounds.jsonl of another run, with its summary.json for what its start cost."
      : !now ? "There is no round yet to compare."
      : now.isLeast
        ? `The best so far, ${metricText(metric, now.target)}, came in round ${now.at}. The reference did not reach it in ${now.lastOther} rounds.`
        : `The best so far, ${metricText(metric, now.target)}, came in round ${now.at}. The reference reached it in round ${now.otherAt}.`);
    fillTable(byId("saved"), [["Score", "text"], ["This run", ""], ["Reference", ""], ["Saved", "strong"], ["With starts charged", ""]],
      rows.map((row) => [
        `${metricText(metric, row.target)}${row.isBest ? " (best so far)" : ""}`,
        isNumber(row.at) ? `round ${row.at}` : "not yet",
        isNumber(row.otherAt) ? `round ${row.otherAt}` : `not in ${row.lastOther}`,
        savedText(row.saved, row.isLeast), savedText(row.charged, row.isLeast)]));
  }
  function fillTable(table, heads, rows) {
    const line = make("tr");
    for (const [name, kind] of heads) line.append(make("th", kind === "text" ? "text" : "", name));
    table.tHead.replaceChildren(line);
    table.tBodies[0].replaceChildren(...rows.map((cells) => {
      const row = make("tr");
      cells.forEach((text, i) => row.append(make("td", heads[i][1], text)));
      return row;
    }));
  }

  async function chooseReference(files) {
    const found = { name: "", rounds: [] };
    try {
      for (const file of files) {
        const text = await file.text();
        if (file.name.endsWith(".jsonl")) {
          found.rounds = text.split("\n").filter((line) => line.trim()).map((line) => JSON.parse(line))
            .filter((point) => isObject(point) && isNumber(point.round));
          found.name = found.name || file.name;
        } else {
          const summary = JSON.parse(text);
          if (isObject(summary) && isObject(summary.before_rounds)) found.before_rounds = summary.before_rounds;
        }
      }
    } catch (error) {
      return setText(byId("saved-words"), `The file cannot be read: ${error.message}`);
    }
    if (found.rounds.length === 0) {
      return setText(byId("saved-words"), "There are no rounds in it: choose the rounds.jsonl of a run's folder.");
    }
    chosenReference = found;
    draw();
  }

  // ---- Silos ----

  const stateWords = { ready: "ready", asked: "waits for its turn", awaited: "connection lost", away: "away" };
  let siloOrder = { key: "name", isDown: false };
  const siloRows = new Map();

  function siloMetrics() {
    const all = run.newest.silo_metrics;
    if (!isObject(all)) return [];
    return [...new Set(Object.values(all).filter(isObject).flatMap((one) => Object.keys(one)))].slice(0, 6);
  }
  function refusedOf(silo) {
    return isObject(silo.refused) ? Object.values(silo.refused).filter(isNumber).reduce((a, b) => a + b, 0) : 0;
  }
  function lastTask(silo) {
    const tasks = isObject(silo.tasks) ? silo.tasks : {};
    const kind = tasks.train ? "train" : Object.keys(tasks)[0];
    return kind ? { kind, ...tasks[kind] } : null;
  }
  function excludedOf(name) {
    const last = run.rounds[run.rounds.length - 1];
    return last && isObject(last.excluded) && last.excluded[name] ? `not in round ${last.round}: ${last.excluded[name]}` : "";
  }
  function siloColumns() {
    const newest = run.newest;
    const columns = [{ key: "name", head: "Silo", kind: "text", value: (silo) => silo.name, cell: (silo) => silo.name, extra: "name" }];
    // When the run is over nobody is connected, and that is no news.
    if (!run.end && listOf(run.status.silos).some((silo) => silo.state)) {
      columns.push({ key: "state", head: "State", kind: "text", value: (silo) => `${silo.asked ? 0 : 1}${silo.state}` });
    }
    const has = (test) => listOf(run.status.silos).some(test);
    if (has((silo) => isObject(silo.tasks))) {
      columns.push({ key: "seconds", head: "Last task", value: (silo) => numberOr((lastTask(silo) || {}).last, -1),
                     cell: (silo) => (lastTask(silo) ? `${lastTask(silo).kind} ${seconds(lastTask(silo).last)}` : "") });
    }
    for (const name of siloMetrics()) {
      const value = (silo) => valueIn(newest.silo_metrics, silo.name, name);
      columns.push({ key: `metric ${name}`, head: metricName(name), value: (silo) => numberOr(value(silo), -Infinity),
                     cell: (silo) => (isNumber(value(silo)) ? metricText(name, value(silo)) : "") });
    }
    columns.push({ key: "up", head: "Up", value: (silo) => numberOr(silo.up, 0), cell: (silo) => bytes(silo.up) },
                 { key: "down", head: "Down", value: (silo) => numberOr(silo.down, 0), cell: (silo) => bytes(silo.down) });
    if (has((silo) => silo.examples > 0)) {
      columns.push({ key: "examples", head: "Examples", extra: "wide", value: (silo) => numberOr(silo.examples, 0),
                     cell: (silo) => (silo.examples ? silo.examples.toLocaleString("en") : "") });
    }
    if (isObject(newest.norms) && Object.keys(newest.norms).length) {
      columns.push({ key: "norm", head: "Update norm", extra: "wide", value: (silo) => numberOr(newest.norms[silo.name], -1),
                     cell: (silo) => (isNumber(newest.norms[silo.name]) ? newest.norms[silo.name].toPrecision(3) : "") });
    }
    columns.push({ key: "connections", head: "Connections", extra: "wide", value: (silo) => numberOr(silo.connections, 0),
                   cell: (silo) => String(numberOr(silo.connections, "")) },
                 { key: "refused", head: "Refused", value: refusedOf, cell: (silo) => (refusedOf(silo) ? String(refusedOf(silo)) : ""),
                   extra: "bad" });
    if (has((silo) => excludedOf(silo.name))) {
      columns.push({ key: "why", head: "Remark", kind: "text", extra: "why", value: (silo) => excludedOf(silo.name),
                     cell: (silo) => excludedOf(silo.name) });
    }
    return columns;
  }

  function stateCell(cell, silo) {
    if (!cell.firstChild) {
      const bar = make("span", "share");
      bar.append(make("i"));
      cell.append(make("span"), bar, make("span", "quiet"));
    }
    const [words, bar, time] = cell.children;
    const isAtWork = silo.state === "working";
    setText(words, isAtWork ? silo.task : stateWords[silo.state] || silo.state);
    setClass(words, `state ${Object.hasOwn(stateWords, silo.state) || isAtWork ? silo.state : ""}`);
    bar.hidden = !isAtWork || !isNumber(silo.progress);
    if (!bar.hidden) bar.firstChild.style.width = `${(100 * silo.progress).toFixed(0)}%`;
    setText(time, isAtWork && isNumber(silo.since) ? ` ${duration(serverNow() - silo.since)}` : "");
  }

  function drawSilos() {
    const silos = [...listOf(run.status.silos)];
    const columns = siloColumns();
    const order = columns.find((column) => column.key === siloOrder.key) || columns[0];
    const sign = siloOrder.isDown ? -1 : 1;
    const byName = (a, b) => a.name.localeCompare(b.name, "en", { numeric: true });
    silos.sort((a, b) => {
      if (order.key === "name") return sign * byName(a, b);
      const [left, right] = [order.value(a), order.value(b)];
      return left === right ? byName(a, b) : sign * (left < right ? -1 : 1);
    });
    const table = byId("silos");
    const layout = columns.map((column) => column.key).join("|");
    if (table.dataset.layout !== layout) {
      table.dataset.layout = layout;
      siloRows.clear();
    }
    drawSiloHead(table, columns);
    const rows = silos.map((silo) => siloRow(silo, columns));
    const body = table.tBodies[0];
    if (rows.length !== body.rows.length || rows.some((row, i) => body.rows[i] !== row)) body.replaceChildren(...rows);
    const there = silos.filter((silo) => silo.state && silo.state !== "away" && silo.state !== "awaited").length;
    const expected = numberOr(run.status.expected, silos.length);
    setText(byId("silo-count"), run.end || !run.status.phase ? String(silos.length) : `${there} of ${expected} connected`);
  }
  function drawSiloHead(table, columns) {
    const state = `${table.dataset.layout} ${siloOrder.key} ${siloOrder.isDown}`;
    if (table.dataset.head === state) return;
    table.dataset.head = state;
    const line = make("tr");
    for (const column of columns) {
      const head = make("th", [column.kind, column.extra === "wide" ? "wide" : ""].filter(Boolean).join(" "));
      if (column.key === siloOrder.key) head.setAttribute("aria-sort", siloOrder.isDown ? "descending" : "ascending");
      const button = make("button", "", column.head);
      button.type = "button";
      button.addEventListener("click", () => {
        siloOrder = { key: column.key, isDown: siloOrder.key === column.key ? !siloOrder.isDown : column.kind !== "text" };
        draw();
      });
      head.append(button);
      line.append(head);
    }
    table.tHead.replaceChildren(line);
  }
  function siloRow(silo, columns) {
    let row = siloRows.get(silo.name);
    if (!row) {
      row = make("tr");
      for (const column of columns) row.append(make("td", [column.kind, column.extra].filter(Boolean).join(" ")));
      siloRows.set(silo.name, row);
    }
    columns.forEach((column, i) => {
      const cell = row.cells[i];
      if (column.key === "state") return stateCell(cell, silo);
      const text = column.cell(silo);
      setText(cell, text);
      if ((column.extra === "why" || column.extra === "name") && cell.title !== text) cell.title = text;
      if (column.key === "refused" && isObject(silo.refused)) {
        cell.title = Object.entries(silo.refused).map(([kind, times]) => `${kind} ${times}`).join(", ");
      }
    });
    return row;
  }

  // ---- Classes, partition, log, files ----

  const className = (index) => String(listOf(run.facts.classes)[index] ?? `class ${index}`);

  function drawClasses() {
    const recalls = listOf(run.newest.class_accuracy);
    byId("classes-part").hidden = recalls.length === 0;
    setText(byId("classes-round"), isNumber(run.newest.round) ? `round ${run.newest.round}` : "");
    const place = byId("classes");
    if (place.children.length !== recalls.length) {
      place.replaceChildren(...recalls.map(() => {
        const line = make("div", "class");
        const bar = make("div");
        bar.append(make("i"));
        line.append(make("span"), bar, make("span"));
        return line;
      }));
    }
    recalls.forEach((recall, i) => {
      const [name, bar, value] = place.children[i].children;
      setText(name, className(i));
      bar.firstChild.style.width = `${100 * numberOr(recall, 0)}%`;
      setText(value, percent(recall, 1));
    });
  }

  function drawPartition() {
    const counts = listOf(run.partition).filter(Array.isArray);
    byId("partition-part").hidden = counts.length === 0;
    if (counts.length === 0) return;
    const canvas = byId("partition");
    const numClasses = Math.max(...counts.map((row) => row.length));
    const most = Math.max(1, ...counts.flat().filter(isNumber));
    const rowHeight = counts.length <= 24 ? 20 : counts.length <= 60 ? 10 : 6;
    const width = Math.max(200, canvas.parentElement.clientWidth - 4);
    const hasNames = numClasses <= 30;
    const [left, top] = [58, hasNames ? 56 : 20];
    const cell = (width - left - (hasNames ? 24 : 0)) / numClasses;
    const height = top + rowHeight * counts.length + 2;
    const scale = devicePixelRatio;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    pen.font = "11px system-ui, sans-serif";
    pen.textBaseline = "middle";
    const [strong, quiet, text, ground] = [colour("--own"), colour("--quiet"), colour("--text"), colour("--card")];
    counts.forEach((row, share) => {
      const y = top + share * rowHeight;
      pen.textAlign = "left";
      pen.fillStyle = quiet;
      if (rowHeight >= 12 || share % 10 === 0) pen.fillText(`share ${share}`, 0, y + rowHeight / 2);
      row.forEach((samples, label) => {
        if (!isNumber(samples) || samples <= 0) return;
        const strength = Math.sqrt(samples / most);
        pen.globalAlpha = 0.08 + 0.92 * strength;
        pen.fillStyle = strong;
        pen.fillRect(left + label * cell, y, Math.max(1, cell - 1), rowHeight - 1);
        pen.globalAlpha = 1;
        if (cell < 30 || rowHeight < 16) return;
        pen.textAlign = "center";
        pen.fillStyle = strength > 0.55 ? ground : text;
        pen.fillText(String(samples), left + (label + 0.5) * cell, y + rowHeight / 2);
      });
    });
    pen.fillStyle = quiet;
    pen.textAlign = hasNames ? "left" : "center";
    for (let label = 0; label < numClasses; label += Math.ceil((hasNames ? 12 : 24) / cell)) {
      pen.save();
      pen.translate(left + (label + 0.5) * cell, top - (hasNames ? 6 : 10));
      if (hasNames) pen.rotate(-Math.PI / 4);
      const name = className(label);
      pen.fillText(hasNames ? (name.length > 10 ? `${name.slice(0, 9)}…` : name) : String(label), 0, 0);
      pen.restore();
    }
    setText(byId("partition-words"), `${count(counts.length, "share", "shares")} of the manifest, samples by class`);
  }

  function drawLog() {
    const lines = run.notes.slice().reverse();
    const log = byId("log");
    setText(byId("log-count"), lines.length ? "newest first" : "");
    const state = `${run.notes.length} ${lines.length ? lines[0].at : ""} ${lines.length ? lines[0].text : ""}`;
    if (log.dataset.state === state) return;
    log.dataset.state = state;
    log.replaceChildren(...(lines.length ? lines.map((note) => {
      const line = make("li");
      const at = new Date(note.at);
      const time = make("time", "", Number.isNaN(at.getTime()) ? "" : at.toLocaleTimeString("en-GB"));
      time.title = String(note.at);
      line.append(time, make("span", "", String(note.text)));
      return line;
    }) : [make("li", "empty", "Nothing was noted.")]));
  }

  function drawFiles() {
    const place = byId("files");
    const isDone = run.end && !run.end.failed;
    const state = `${isDone} ${run.hasFiles}`;
    if (place.dataset.state === state) return;
    place.dataset.state = state;
    const names = [["rounds.jsonl", true], ["run.json", true], ["summary.json", isDone], ["final.safetensors", isDone]];
    place.replaceChildren(...(run.hasFiles ? names.map(([name, isThere]) => {
      const link = make("a", isThere ? "" : "none", name);
      if (isThere) link.href = recorded ? name : `run/${name}`;
      if (!isThere) link.title = "written when the run is finished";
      link.download = name;
      return link;
    }) : []));
  }

  // ---- Drawing, at most once a frame ----

  let isDue = false;
  function draw() {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      drawFacts();
      drawPhase();
      drawMetricMenu();
      drawFigures();
      charts.score.update(metric);
      charts.loss.update("loss");
      drawSaved();
      drawSilos();
      drawClasses();
      drawPartition();
      drawLog();
      drawFiles();
      const curve = [...mainCurve(run.rounds, metric).values()];
      const score = curve.length ? `${metricText(metric, curve[curve.length - 1])} · ` : "";
      document.title = run.name ? `${score}${run.end ? (run.end.failed ? "ended early" : "finished") : run.status.phase || ""} · ${run.name}` : "Headstart";
      document.body.dataset.drawn = String(run.rounds.length);
    });
  }
  function tick() {
    if (!isLive || run.end || document.hidden) return;
    drawPhase();
    drawFigures();
    drawSilos();
  }

  // ---- Where the run comes from ----

  function say(words, kind) {
    setText(byId("link"), words);
    setClass(byId("link"), `link ${kind}`);
  }
  function connect() {
    const events = new EventSource("events");
    events.onmessage = (event) => {
      isLive = true;
      take(JSON.parse(event.data));
      say(run.end ? "over" : "live", run.end ? "" : "live");
    };
    events.onerror = () => {
      isLive = false;
      if (run.end && !run.end.failed) {
        events.close();
        return say("the run is over and the server has ended; its results lie in the run's folder", "");
      }
      say("no connection to the server; trying again", "lost");
      if (events.readyState === EventSource.CLOSED) setTimeout(connect, 5000);
    };
  }

  byId("metric").addEventListener("change", (event) => {
    metric = event.target.value;
    draw();
  });
  byId("reference-file").addEventListener("change", (event) => {
    chooseReference([...event.target.files]);
    event.target.value = "";
  });
  byId("reference-none").addEventListener("click", () => {
    chosenReference = null;
    draw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    for (const chart of Object.values(charts)) chart.layout = "";
    draw();
  });
  new ResizeObserver(draw).observe(document.body);

  if (recorded) {
    take(JSON.parse(recorded.textContent));
    say("a recorded run", "");
  } else {
    connect();
    setInterval(tick, 1000);
  }
})();
