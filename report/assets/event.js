// An event's page: the threshold and its scores, the explanation of a region, the pointer, and the keys.
"use strict";

const DATA = JSON.parse(element("data").textContent);
const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

function makeNavigation() {
  const events = typeof EVENTS === "undefined" ? [] : EVENTS;
  const own = events.findIndex(([slug]) => slug === DATA.slug);
  const jump = element("jump");
  events.forEach(([slug, name], index) => jump.add(new Option(name, slug, index === own, index === own)));
  jump.addEventListener("change", () => (location.href = `${jump.value}.html`));
  const neighbours = { previous: events[own - 1], next: own < 0 ? undefined : events[own + 1] };
  for (const [id, event] of Object.entries(neighbours)) {
    if (!event) continue;
    element(id).href = `${event[0]}.html`;
    element(id).title = event[1];
    element(id).hidden = false;
  }
}

function describeArea(pixels) {
  const share = DATA.curve.valid ? pixels / DATA.curve.valid : 0;
  return `${(100 * share).toFixed(2)} %, ${areaText(DATA, pixels * (DATA.pixelArea ?? 1))}`;
}

function makeThreshold(changed) {
  const slider = element("threshold");
  if (!slider) return () => 0;
  const current = drawCurve(element("curve"), DATA.curve);
  let waiting = false;
  const update = () => {
    waiting = false;
    const step = Number(slider.value);
    const { thresholds, scores, flagged } = DATA.curve;
    element("threshold-value").textContent = thresholds[step].toFixed(2);
    ["recall", "precision", "f1"].forEach((name, i) => {
      if (scores) element(name).textContent = scores[step][i].toFixed(3);
    });
    element("flagged").textContent = describeArea(flagged[step]);
    current.setAttribute("d", `M${plotX(thresholds[step])} ${PLOT.top}V${PLOT.bottom}`);
    changed();
  };
  slider.addEventListener("input", () => {
    if (!waiting) requestAnimationFrame(update);
    waiting = true;
  });
  element("threshold-reset").addEventListener("click", () => {
    slider.value = DATA.curve.default;
    update();
  });
  setTimeout(update);
  return () => Number(slider.value);
}

// Returns the comparison of a region with the historical dates, in words.
function explainInWords({ similarities, best, usual }, dates) {
  if (best === null) return "No earlier date could be compared: too little data here.";
  const score = usual === null
    ? "There is no score of earlier dates: no two of them could be compared here."
    : `The highest score this spot had in any earlier date was ${usual.toFixed(2)}.`;
  return `Most similar to ${dates[best]} (${similarities[best].toFixed(2)}). ${score}`;
}

// Returns a function that explains a region, or none (null), and compares its most similar date with the
// monitor image.
function makeExplanation(viewer) {
  if (!DATA.explanation) return () => {};
  const { dates, regions } = DATA.explanation;
  const limit = Number((1 - DATA.curve.thresholds[DATA.curve.default]).toFixed(4));
  return (region) => {
    element("explanation").hidden = !region;
    if (!region) return;
    const explained = regions[region.number - 1];
    const { similarities, best } = explained;
    element("explanation-words").textContent = explainInWords(explained, dates);
    drawSimilarities(element("similarities"), region.number, dates, similarities, best, limit);
    element("no-data-key").hidden = !similarities.includes(null);
    if (best === null) return;
    viewer.showPhoto("left", best);
    viewer.showPhoto("right", DATA.photos.length - 1);
  };
}

// Returns a function that gives the place under the pointer, [latitude, longitude], or null.
function makePointer(rasters, made) {
  const stage = element("stage");
  const readout = element("readout");
  const relativePosition = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const showReadout = (across, down) => {
    const { parts: texts, place } = probe(DATA, rasters, across, down);
    pointed = place;
    const parts = texts.map((part) => {
      const span = document.createElement("span");
      span.textContent = part;
      return span;
    });
    readout.replaceChildren(...parts);
  };
  let pressed = null;
  let pointed = null;
  let cursor = [0.5, 0.5];
  stage.addEventListener("pointermove", (event) => showReadout(...(cursor = relativePosition(event))));
  stage.addEventListener("pointerdown", (event) => (pressed = event));
  stage.addEventListener("click", (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 5;
    const { region } = probe(DATA, rasters, ...relativePosition(event));
    if (still && region && !event.target.closest("button, .handle")) made.select(made.regions[region - 1]);
  });
  // Shift + arrow keys move the readout point, for users without a pointer.
  element("frame").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!event.shiftKey || !step) return;
    event.preventDefault();
    cursor = cursor.map((value, axis) => Math.min(0.9999, Math.max(0, value + step[axis] / 100)));
    readout.setAttribute("aria-live", "polite");
    showReadout(...cursor);
  });
  return () => pointed;
}

async function copyPlace(place) {
  if (!place) return;
  try {
    await navigator.clipboard.writeText(copiedText(place));
    element("copied").textContent = `Copied ${copiedText(place)}`;
  } catch {
    element("copied").textContent = `Not copied, the browser forbids it: ${copiedText(place)}`;
  }
}

function listenToKeys(viewer, made, review, pointed) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey && event.key !== "+") return;
    if (event.target.closest("input, select, textarea")) return;
    const scrolls = viewer.isZoomed() && event.target.closest("#frame");
    if (event.key === "ArrowLeft" && !scrolls && !element("previous").hidden) element("previous").click();
    if (event.key === "ArrowRight" && !scrolls && !element("next").hidden) element("next").click();
    if (event.key === "+") viewer.zoomBy(1);
    if (event.key === "-") viewer.zoomBy(-1);
    if (event.key === "0") viewer.zoomBy(0);
    if (event.key === "Escape" && made.current()) made.select(null);
    if (event.key === "n") made.move(1);
    if (event.key === "p") made.move(-1);
    if (event.key === "c") copyPlace(pointed() ?? made.current()?.place);
    const verdict = Object.keys(VERDICTS).find((name) => VERDICTS[name].key === event.key);
    if (verdict) review.decide(verdict);
  });
}

async function start() {
  makeNavigation();
  const viewer = makeViewer(DATA);
  const rasters = await unpack(DATA);
  let redraw = () => {};
  const step = makeThreshold(() => redraw());
  const repaint = makeLayers(rasters, step);
  const review = makeReview(DATA);
  const made = makeRegions(rasters, viewer, review, step, makeExplanation(viewer));
  if (made.regions.length) review.attach(made);
  redraw = () => {
    repaint("binary", "outcome");
    made.redraw();
  };
  const pointed = makePointer(rasters, made);
  element("region-copy")?.addEventListener("click", () => copyPlace(made.current()?.place));
  listenToKeys(viewer, made, review, pointed);
  if (made.first) {
    viewer.focus(made.first.box);
    made.select(made.first);
  }
  document.body.dataset.ready = "yes";
}

start();
