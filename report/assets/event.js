// An event's page: the threshold and its scores, the regions, the pointer, and the keys.
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
  const metres = DATA.pixelArea && pixels * DATA.pixelArea;
  const area = metres ? (metres >= 1e6 ? `${(metres / 1e6).toFixed(2)} km²` : `${WHOLE.format(metres)} m²`) : "";
  return [`${(100 * share).toFixed(2)} %`, area].filter(Boolean).join(", ");
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
  return `Looks least unlike ${dates[best]} (${similarities[best].toFixed(2)}). ${score}`;
}

// Returns a function that explains a region below the table, or none (0), and compares its most similar date with the
// monitor image.
function makeExplanation(viewer) {
  if (!DATA.explanation) return () => {};
  const { dates, regions } = DATA.explanation;
  const limit = Number((1 - DATA.curve.thresholds[DATA.curve.default]).toFixed(4));
  return (region) => {
    element("explanation-chart").hidden = !region;
    element("explanation-text").hidden = !region;
    if (!region) return;
    const { similarities, best } = regions[region - 1];
    element("explanation-title").textContent = `Region ${region}`;
    element("explanation-words").textContent = explainInWords(regions[region - 1], dates);
    drawSimilarities(element("similarities"), region, dates, similarities, best, limit);
    element("no-data-key").hidden = !similarities.includes(null);
    if (best === null) return;
    viewer.showPhoto("left", best);
    viewer.showPhoto("right", DATA.photos.length - 1);
  };
}

// Connects the table and the numbers in the image; returns a function that selects a region, or none (0).
function makeRegions(rasters, explain) {
  const canvas = document.createElement("canvas");
  canvas.id = "layer-marked";
  element("overlays").append(canvas);
  let selected = 0;

  function select(region) {
    selected = region === selected ? 0 : region;
    for (const row of document.querySelectorAll("#regions tbody tr")) {
      const chosen = Number(row.dataset.region) === selected;
      row.classList.toggle("selected", chosen);
      row.querySelector("button").setAttribute("aria-pressed", chosen);
      const box = row.closest(".scroller");
      if (chosen && (row.offsetTop < box.scrollTop + 32 || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight)) {
        box.scrollTop = row.offsetTop - 40;
      }
    }
    for (const pin of document.querySelectorAll("#pins button")) {
      pin.classList.toggle("selected", Number(pin.textContent) === selected);
    }
    canvas.hidden = !selected;
    if (selected) paintClasses(canvas, rasters, "marked", classify(rasters, "marked", 0, selected));
    explain(selected);
  }

  DATA.pins.forEach(([across, down], index) => {
    const pin = document.createElement("button");
    pin.textContent = index + 1;
    pin.tabIndex = -1; // the table has the same buttons
    pin.style.left = `${across * 100}%`;
    pin.style.top = `${down * 100}%`;
    pin.addEventListener("click", () => select(index + 1));
    element("pins").append(pin);
  });
  element("show-pins")?.addEventListener("change", (event) => (element("pins").hidden = !event.target.checked));
  element("regions")?.tBodies[0].addEventListener("click", (event) => {
    select(Number(event.target.closest("tr").dataset.region));
    if (selected) element("explanation")?.scrollIntoView({ block: "nearest" });
  });
  return select;
}

function makePointer(rasters, select) {
  const stage = element("stage");
  const readout = element("readout");
  const relativePosition = (event) => {
    const box = stage.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  };
  const showReadout = (across, down) => {
    const parts = probe(DATA, rasters, across, down).parts.map((part) => {
      const span = document.createElement("span");
      span.textContent = part;
      return span;
    });
    readout.replaceChildren(...parts);
  };
  let pressed = null;
  let cursor = [0.5, 0.5];
  stage.addEventListener("pointermove", (event) => showReadout(...(cursor = relativePosition(event))));
  stage.addEventListener("pointerdown", (event) => (pressed = event));
  stage.addEventListener("click", (event) => {
    const still = pressed && Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) < 5;
    const { region } = probe(DATA, rasters, ...relativePosition(event));
    if (still && region && !event.target.closest("button, .handle")) select(region);
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
}

function listenToKeys(viewer, select) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.shiftKey && event.key !== "+") return;
    if (event.target.closest("input, select, textarea")) return;
    const scrolls = viewer.isZoomed() && event.target.closest("#frame");
    if (event.key === "ArrowLeft" && !scrolls && !element("previous").hidden) element("previous").click();
    if (event.key === "ArrowRight" && !scrolls && !element("next").hidden) element("next").click();
    if (event.key === "+") viewer.zoomBy(1);
    if (event.key === "-") viewer.zoomBy(-1);
    if (event.key === "0") viewer.zoomBy(0);
    if (event.key === "Escape") select(0);
  });
}

async function start() {
  makeNavigation();
  const viewer = makeViewer(DATA);
  const rasters = await unpack(DATA);
  let repaint = () => {};
  const step = makeThreshold(() => repaint("binary", "verdict"));
  repaint = makeLayers(rasters, step);
  const select = makeRegions(rasters, makeExplanation(viewer));
  makePointer(rasters, select);
  listenToKeys(viewer, select);
  document.body.dataset.ready = "yes";
}

start();
