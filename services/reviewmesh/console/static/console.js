// The moving parts of a screen come as HTML that the server made; records of a tail come as data
// and become text here, never markup.
const ROWS_KEPT = 500;
// A stream that is refused is not asked for again.
const ENDED = "The console refuses to go on. Load the page again; you may have to sign in.";

function inWords(seconds) {
  if (seconds < 1) return `${Math.round(1000 * seconds)} ms`;
  for (const [size, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 2 * size) return `${(seconds / size).toFixed(1)} ${unit}`;
  return `${seconds.toFixed(1)} s`;
}

function showTimes(within) {
  for (const time of within.querySelectorAll("time[data-ms]")) {
    const moment = new Date(Number(time.dataset.ms));
    if (Number.isNaN(moment.getTime())) continue;
    time.title = moment.toISOString();
    time.dateTime = moment.toISOString();
    time.textContent = moment.toLocaleString();
  }
}

function showAges() {
  const now = Date.now();
  for (const age of document.querySelectorAll("[data-age]"))
    age.textContent = inWords(Math.max(0, now - Number(age.dataset.age)) / 1000);
}

function followPart(place) {
  const events = new EventSource(place.dataset.events);
  events.addEventListener("part", (event) => {
    // Who reads or selects in it is not disturbed; the next part comes soon.
    const selected = document.getSelection();
    const reads = selected && !selected.isCollapsed && place.contains(selected.anchorNode);
    if (reads || (place.contains(document.activeElement) && document.activeElement.matches("a")))
      return;
    const regions = [...place.querySelectorAll(".scroll")];
    const focused = regions.indexOf(document.activeElement);
    const moved = regions.map((region) => region.scrollLeft);
    place.innerHTML = event.data;
    place.querySelectorAll(".scroll").forEach((region, number) => {
      region.scrollLeft = moved[number] ?? 0;
      if (number === focused) region.focus();
    });
    showTimes(place);
  });
  events.addEventListener("error", () => {
    place.classList.add("old");
    if (events.readyState !== EventSource.CLOSED) return;
    const ended = document.createElement("p");
    ended.setAttribute("role", "status");
    ended.textContent = ENDED;
    place.prepend(ended);
  });
  events.addEventListener("open", () => place.classList.remove("old"));
}

function followTail(rows) {
  const state = document.getElementById("tail-state");
  const pause = document.getElementById("pause");
  let events = null;
  let seen = 0;
  function cell(row, text, kind) {
    const made = document.createElement(kind);
    if (kind === "th") made.scope = "row";
    made.dir = "auto";
    made.textContent = text;
    row.append(made);
    return made;
  }
  function add(line) {
    const row = document.createElement("tr");
    const time = document.createElement("time");
    time.dataset.ms = Date.parse(line.at);
    cell(row, "", "td").append(time);
    cell(row, line.place, "td");
    const review = cell(row, "", "th");
    const link = document.createElement("a");
    link.href = `/review?${new URLSearchParams({ id: line.review_id })}`;
    link.textContent = line.review_id;
    review.append(link);
    cell(row, line.text, "td");
    showTimes(row);
    rows.prepend(row);
  }
  function begin() {
    events = new EventSource(rows.dataset.tail);
    events.addEventListener("lines", (event) => {
      const lines = JSON.parse(event.data);
      seen += lines.length;
      for (const line of lines.slice(-ROWS_KEPT)) add(line);
      while (rows.childElementCount > ROWS_KEPT) rows.lastElementChild.remove();
      state.textContent = `${seen.toLocaleString()} records; the newest ${ROWS_KEPT} are kept.`;
    });
    events.addEventListener("problem", (event) => {
      if (event.data) state.textContent = event.data;
    });
    events.addEventListener("refused", (event) => {
      stop();
      state.textContent = event.data;
    });
    events.addEventListener("error", () => {
      const ended = events.readyState === EventSource.CLOSED;
      state.textContent = ended ? ENDED : "The console does not answer; trying again.";
    });
  }
  function show(paused) {
    pause.setAttribute("aria-pressed", String(paused));
    pause.textContent = paused ? "Go on" : "Pause";
  }
  function stop() {
    events.close();
    events = null;
    show(true);
  }
  pause.addEventListener("click", () => {
    if (events !== null) return stop();
    show(false);
    begin();
  });
  begin();
}

showTimes(document);
setInterval(showAges, 1000);
for (const place of document.querySelectorAll("[data-events]")) followPart(place);
const tail = document.querySelector("[data-tail]");
if (tail) followTail(tail);
