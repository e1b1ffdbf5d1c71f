// The charts of an event's page: the scores over the threshold, and the similarities of a region.
"use strict";

function draw(parent, tag, attributes, content = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.textContent = content;
  parent.append(made);
  return made;
}

const PLOT = { left: 26, right: 352, top: 8, bottom: 128 };
const plotX = (value) => PLOT.left + value * (PLOT.right - PLOT.left);
const plotY = (value) => PLOT.bottom - value * (PLOT.bottom - PLOT.top);

// Draws the scores (without a label, the flagged share) over the threshold; returns the line at the current threshold.
function drawCurve(svg, { thresholds, scores, flagged, valid }) {
  for (const value of [0, 0.5, 1]) {
    draw(svg, "path", { class: "rule", d: `M${PLOT.left} ${plotY(value)}H${PLOT.right}` });
    draw(svg, "text", { x: PLOT.left - 4, y: plotY(value) + 4, class: "end" }, value);
    draw(svg, "text", { x: plotX(value), y: PLOT.bottom + 14, class: value === 1 ? "end" : "" }, value);
  }
  draw(svg, "text", { x: plotX(0.75), y: PLOT.bottom + 14 }, "threshold");
  draw(svg, "text", { x: PLOT.right, y: PLOT.top + 12, class: "end" }, scores ? "scores of stage 2" : "share of the image flagged");
  const series = scores
    ? ["recall", "precision", "f1"].map((name, i) => [name, scores.map((one) => one[i])])
    : [["share", flagged.map((pixels) => pixels / (valid || 1))]];
  for (const [name, values] of series) {
    const points = values.map((value, i) => `${plotX(Math.min(1, thresholds[i])).toFixed(1)} ${plotY(value).toFixed(1)}`);
    draw(svg, "path", { class: `line ${name}`, d: `M${points.join("L")}` });
  }
  return draw(svg, "path", { class: "current" });
}

const DATES = { left: 34, right: 350, top: 22, bottom: 150 }; // the area of the similarities

// Returns the lower end of an axis that ends at 1 and shows all values, and the distance between its ticks.
function chooseAxis(values) {
  const lowest = Math.min(...values, 0.98);
  const span = 1.05 * (1 - lowest);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((one) => span / one <= 5);
  return { low: 1 - Math.ceil(span / step) * step, step };
}

// Draws the similarity of a region with each date, the most similar one (`best`) marked, and a line at `limit`. A date
// that was not compared (null) is a hollow mark on the axis.
function drawSimilarities(svg, region, dates, similarities, best, limit) {
  const { left, right, top, bottom } = DATES;
  const { low, step } = chooseAxis([...similarities.filter((value) => value !== null), limit]);
  const toY = (value) => bottom - ((value - low) / (1 - low)) * (bottom - top);
  svg.replaceChildren();
  draw(svg, "text", { x: 0, y: 9, class: "start" }, "Similarity");
  for (let value = 1; value > low - step / 2; value -= step) {
    draw(svg, "path", { class: "rule", d: `M${left} ${toY(value)}H${right}` });
    draw(svg, "text", { x: left - 6, y: toY(value) + 4, class: "end" }, value.toFixed(step < 0.1 ? 2 : 1));
  }
  const toX = (index) => left + ((index + 0.5) / dates.length) * (right - left);
  drawDates(svg, dates, best, toX);
  draw(svg, "path", { class: "limit", d: `M${left} ${toY(limit)}H${right}` });
  draw(svg, "text", { x: right, y: toY(limit) - 4, class: "limit end" }, `1 − threshold = ${limit}`);
  const facts = similarities.map((value, i) => {
    const name = value === null ? "gap" : i === best ? "best" : "other";
    const y = value === null ? bottom : toY(value);
    if (value !== null) draw(svg, "path", { class: "rule", d: `M${toX(i)} ${y}V${bottom}` });
    const fact = `${dates[i]}: ${value === null ? "no data" : value.toFixed(2)}`;
    draw(draw(svg, "circle", { class: `mark ${name}`, cx: toX(i), cy: y, r: i === best ? 5 : 4 }), "title", {}, fact);
    return fact;
  });
  const title = `Similarity of region ${region} with the historical dates`;
  svg.setAttribute("aria-label", `${title}. ${facts.join(", ")}. Line at ${limit}: 1 − threshold.`);
}

// Writes the dates below the axis: horizontally, else slanted, and only as many as fit, with the most similar one (`best`).
function drawDates(svg, dates, best, toX) {
  const texts = dates.map((date) => (date.length > 12 ? `${date.slice(0, 11)}…` : date));
  const longest = Math.max(...texts.map((text) => text.length));
  const spacing = toX(1) - toX(0);
  const slanted = spacing < 7 * longest;
  const every = Math.ceil(15 / spacing);
  const fits = (i) => i % every === 0 && (best === null || Math.abs(i - best) >= every);
  svg.setAttribute("viewBox", `0 0 360 ${DATES.bottom + (slanted ? 14 + 5.8 * longest : 22)}`);
  texts.forEach((text, i) => {
    if (i !== best && !fits(i)) return;
    const place = slanted
      ? { transform: `translate(${toX(i) + 4} ${DATES.bottom + 14}) rotate(-60)`, class: "date end" }
      : { x: toX(i), y: DATES.bottom + 18, class: "date" };
    draw(svg, "text", place, text).classList.toggle("best", i === best);
  });
}
