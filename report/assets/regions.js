// The regions of an event's page: table, filters, selection, and what is known of the selected region.
"use strict";

const ROWS = 200; // table rows that are added at a time

// Returns the box of every region in pixels of the image, [left, top, right, bottom]; the first entry is unused.
function findBoxes(rasters, count) {
  const boxes = Array.from({ length: count + 1 }, () => [Infinity, Infinity, -1, -1]);
  const [rows, columns] = rasters.small.shape;
  for (let y = 0, i = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++, i++) {
      if (!rasters.regions[i]) continue;
      const box = boxes[rasters.regions[i]];
      if (x < box[0]) box[0] = x;
      if (y < box[1]) box[1] = y;
      if (x > box[2]) box[2] = x;
      if (y > box[3]) box[3] = y;
    }
  }
  const { columnEdges, rowEdges } = rasters.small;
  return boxes.map((box) => box[2] < 0 ? null :
    [columnEdges[box[0]], rowEdges[box[1]], columnEdges[box[2] + 1], rowEdges[box[3] + 1]]);
}

// Returns the regions of a page's data as objects.
function listRegions(data, rasters) {
  if (!data.regions) return [];
  const { mean, max, pixels, x, y, novelty, last } = data.regions;
  const boxes = findBoxes(rasters, mean.length);
  return mean.map((score, i) => ({
    number: i + 1,
    score,
    max: max[i],
    pixels: pixels[i],
    area: data.pixelArea ? pixels[i] * data.pixelArea : pixels[i],
    x: x[i],
    y: y[i],
    place: placeOf(data, x[i], y[i]),
    novelty: novelty ? novelty[i] : null,
    last: last[i],
    box: boxes[i + 1],
  }));
}

const areaText = (data, area) =>
  !data.pixelArea ? `${WHOLE.format(area)} px` : area >= 1e6 ? `${(area / 1e6).toFixed(2)} km²` : `${WHOLE.format(area)} m²`;

// The texts of the table's cells, by column.
const COLUMNS = {
  number: (region) => region.number,
  score: (region) => region.score.toFixed(3),
  novelty: (region) => (region.novelty === null ? "" : region.novelty.toFixed(2)),
  area: (region) => areaText(DATA, region.area),
  verdict: (region, review) => VERDICTS[review.of(region)?.verdict]?.sign ?? "",
};

// Makes the table of the regions; returns {refresh, rows, reveal, update}. `step`: returns the chosen threshold's index.
function makeTable(regions, review, step, select) {
  const table = element("regions");
  const body = table.tBodies[0];
  const more = element("more-regions");
  let order = { column: "number", descending: false };
  let rows = []; // the regions that pass the filters, in order
  let built = 0;
  let selected = null;

  const lowest = (name) => {
    const text = element(`least-${name}`)?.value.trim();
    return text ? Number(text) : -Infinity;
  };

  function passes(region) {
    const wanted = element("verdict-filter").value;
    const verdict = review.of(region)?.verdict ?? "open";
    return region.last >= step() && region.score >= lowest("score") && region.area >= lowest("area") &&
      (region.novelty ?? Infinity) >= lowest("novelty") && (!wanted || wanted === verdict);
  }

  function fill(region, row) {
    for (const [name, text] of Object.entries(COLUMNS)) {
      const cell = row.querySelector(`[data-column=${name}]`);
      if (!cell) continue;
      const target = name === "number" ? cell.firstChild : cell;
      target.textContent = text(region, review);
      if (name === "verdict") cell.title = review.of(region)?.verdict ?? "";
    }
    const chosen = region === selected;
    row.classList.toggle("selected", chosen);
    row.querySelector("button").setAttribute("aria-pressed", chosen);
  }

  function addRows(least = 0) {
    const end = Math.min(rows.length, Math.max(built + ROWS, least));
    const fragment = document.createDocumentFragment();
    for (; built < end; built++) {
      const row = element("region-row").content.firstElementChild.cloneNode(true);
      row.dataset.region = rows[built].number;
      row.querySelector("button").setAttribute("aria-label", `Region ${rows[built].number}`);
      fill(rows[built], row);
      fragment.append(row);
    }
    body.append(fragment);
    more.hidden = built >= rows.length;
    more.textContent = `Show ${Math.min(ROWS, rows.length - built)} more`;
  }

  function sorted(kept) {
    const { column, descending } = order;
    const rank = (region) => column === "verdict" ? Object.keys(VERDICTS).indexOf(review.of(region)?.verdict) : region[column] ?? -Infinity;
    return kept.sort((a, b) => (descending ? rank(b) - rank(a) : rank(a) - rank(b)) || a.number - b.number);
  }

  function refresh() {
    rows = sorted(regions.filter(passes));
    body.replaceChildren();
    built = 0;
    addRows();
    element("regions-shown").textContent = rows.length < regions.length
      ? `${WHOLE.format(rows.length)} of ${WHOLE.format(regions.length)}` : WHOLE.format(regions.length);
    for (const pin of document.querySelectorAll("#pins button")) {
      pin.hidden = !rows.includes(regions[Number(pin.textContent) - 1]);
    }
  }

  function rowOf(region) {
    return body.querySelector(`[data-region="${region.number}"]`);
  }

  // Marks the row of the selected region, and scrolls the table to it.
  function reveal(region) {
    const before = selected;
    selected = region;
    for (const one of [before, region]) {
      const row = one && rowOf(one);
      if (row) fill(one, row);
    }
    const index = region ? rows.indexOf(region) : -1;
    if (index < 0) return;
    if (index >= built) addRows(index + 1);
    const [row, box] = [rowOf(region), body.closest(".scroller")];
    fill(region, row);
    if (row.offsetTop < box.scrollTop + 32 || row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) {
      box.scrollTop = row.offsetTop - 40;
    }
  }

  for (const heading of table.tHead.querySelectorAll("th")) {
    heading.querySelector("button").addEventListener("click", () => {
      const column = heading.dataset.column;
      order = { column, descending: order.column === column ? !order.descending : column !== "number" };
      for (const one of table.tHead.querySelectorAll("th")) one.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", order.descending ? "descending" : "ascending");
      refresh();
    });
  }
  for (const input of document.querySelectorAll("#region-filters input, #region-filters select")) {
    input.addEventListener("input", refresh);
  }
  more.addEventListener("click", () => addRows());
  body.addEventListener("click", (event) => select(regions[Number(event.target.closest("tr").dataset.region) - 1]));
  return { refresh, rows: () => rows, reveal, update: (region) => rowOf(region) && fill(region, rowOf(region)) };
}

// Shows what is known of a region, or nothing.
function showDetail(region) {
  element("region-detail").hidden = !region;
  if (!region) return;
  element("region-title").textContent = `Region ${region.number}`;
  element("region-facts").textContent =
    `Mean score ${region.score.toFixed(3)}, highest ${region.max.toFixed(3)}; ${areaText(DATA, region.area)}` +
    (region.novelty === null ? "" : `; novelty ${region.novelty.toFixed(2)}`);
  element("region-position").textContent = region.place ? placeText(region.place) : `x ${Math.round(region.x)}, y ${Math.round(region.y)}`;
  const link = element("region-map");
  link.hidden = !region.place;
  if (region.place) link.href = mapAddress(region.place);
}

// Connects the table, the numbers in the image, the address and the detail; returns {regions, select, redraw, current,
// move, update, first}; `first` is the region that the page opens on.
function makeRegions(rasters, viewer, review, step, explain) {
  const regions = listRegions(DATA, rasters);
  if (!regions.length) return { regions, select: () => {}, redraw: () => {}, current: () => null, move: () => {}, update: () => {} };
  const canvas = document.createElement("canvas");
  canvas.id = "layer-marked";
  element("overlays").append(canvas);
  let selected = null;

  function select(region) {
    selected = region === selected ? null : region ?? null;
    for (const pin of document.querySelectorAll("#pins button")) {
      pin.classList.toggle("selected", Number(pin.textContent) === selected?.number);
    }
    canvas.hidden = !selected;
    if (selected) {
      paintClasses(canvas, rasters, "marked", classify(rasters, "marked", 0, selected.number));
      viewer.bringIntoView(selected.box);
    }
    history.replaceState(null, "", selected ? `#region-${selected.number}` : location.pathname + location.search);
    table.reveal(selected);
    showDetail(selected);
    review.show(selected);
    explain(selected);
  }

  // Selects the next or the previous row of the table.
  function move(steps) {
    const rows = table.rows();
    const next = rows[selected ? rows.indexOf(selected) + steps : 0];
    if (next && next !== selected) select(next);
  }

  const table = makeTable(regions, review, step, select);
  for (const region of regions.slice(0, DATA.pins)) {
    const pin = document.createElement("button");
    pin.textContent = region.number;
    pin.tabIndex = -1; // the table has the same buttons
    pin.style.left = `${(region.x / DATA.size[0]) * 100}%`;
    pin.style.top = `${(region.y / DATA.size[1]) * 100}%`;
    pin.addEventListener("click", () => select(region));
    element("pins").append(pin);
  }
  element("show-pins").addEventListener("change", (event) => (element("pins").hidden = !event.target.checked));
  table.refresh();
  const ofAddress = () => regions[Number(/^#region-(\d+)$/.exec(location.hash)?.[1]) - 1];
  window.addEventListener("hashchange", () => ofAddress() !== selected && select(ofAddress() ?? null));
  return { regions, select, redraw: table.refresh, current: () => selected, move, update: table.update, first: ofAddress() ?? regions[0] };
}
