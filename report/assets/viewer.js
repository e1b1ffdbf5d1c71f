// The comparison of an event's page: two photos and a swipe, zoom, scale bar, overlays, and the values under the pointer.
"use strict";

const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const element = (id) => document.getElementById(id);

function makeViewer(data) {
  const stage = element("stage");
  const frame = element("frame");
  let zoom = 0;

  function showPhoto(side, index) {
    const photo = data.photos[index];
    const image = element(`${side}-photo`);
    image.src = photo.file;
    image.alt = photo.title;
    element(side).value = index;
    element(`${side}-tag`).textContent = photo.title;
    for (const button of document.querySelectorAll(`#strip [data-side=${side}]`)) {
      button.setAttribute("aria-pressed", button.closest("li").dataset.photo === String(index));
    }
  }

  // Scrolls to a part of the image, [left, top, right, bottom] in its pixels, and moves the swipe to the left of it.
  function bringIntoView([left, top, right, bottom]) {
    const [width, height] = data.size;
    frame.scrollLeft = ((left + right) / 2 / width) * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTop = ((top + bottom) / 2 / height) * frame.scrollHeight - frame.clientHeight / 2;
    const margin = 0.03 * frame.clientWidth;
    const edge = (left / width) * stage.clientWidth - margin;
    if (Number(element("swipe").value) / 100 * stage.clientWidth <= edge + margin) return; // it is all on the right
    swipeTo((Math.max(frame.scrollLeft + margin, edge) / stage.clientWidth) * 100);
  }

  // Zooms until a part of the image takes half of the frame, or its pixels are large, and brings it into view.
  function focus(box) {
    const share = Math.max((box[2] - box[0]) / data.size[0], (box[3] - box[1]) / data.size[1]);
    const most = (2 * data.photoWidth) / stage.clientWidth;
    zoomTo(ZOOMS.findLastIndex((one) => one === 1 || (one * share <= 0.5 && one <= most)));
    bringIntoView(box);
  }

  function swipeTo(percent) {
    const value = Math.min(100, Math.max(0, percent));
    stage.style.setProperty("--swipe", `${value}%`);
    element("swipe").value = value;
  }

  function zoomTo(step) {
    zoom = Math.min(ZOOMS.length - 1, Math.max(0, step));
    const centre = [
      (frame.scrollLeft + frame.clientWidth / 2) / frame.scrollWidth,
      (frame.scrollTop + frame.clientHeight / 2) / frame.scrollHeight,
    ];
    stage.style.setProperty("--zoom", ZOOMS[zoom]);
    element("zoom").textContent = `${ZOOMS[zoom]}×`;
    frame.classList.toggle("zoomed", zoom > 0);
    frame.scrollLeft = centre[0] * frame.scrollWidth - frame.clientWidth / 2;
    frame.scrollTop = centre[1] * frame.scrollHeight - frame.clientHeight / 2;
    drawScale(data, stage.clientWidth);
  }

  for (const side of ["left", "right"]) {
    element(side).addEventListener("change", (event) => showPhoto(side, Number(event.target.value)));
    showPhoto(side, Number(element(side).value));
  }
  element("strip").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) showPhoto(button.dataset.side, Number(button.closest("li").dataset.photo));
  });
  element("swipe").addEventListener("input", (event) => swipeTo(Number(event.target.value)));
  swipeTo(50);
  dragHandle(stage, swipeTo);
  dragImage(frame);
  element("zoom-in").addEventListener("click", () => zoomTo(zoom + 1));
  element("zoom-out").addEventListener("click", () => zoomTo(zoom - 1));
  element("zoom-fit").addEventListener("click", () => zoomTo(0));
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom + (event.deltaY < 0 ? 1 : -1));
  }, { passive: false });
  window.addEventListener("resize", () => drawScale(data, stage.clientWidth));
  drawScale(data, stage.clientWidth);
  return { showPhoto, focus, bringIntoView, zoomBy: (steps) => zoomTo(steps ? zoom + steps : 0), isZoomed: () => zoom > 0 };
}

// Draws the scale bar and the north arrow; `width`: of the image on the screen.
function drawScale(data, width) {
  element("scale").hidden = !data.pixelMetres;
  element("north").hidden = !data.lattice;
  if (data.pixelMetres) {
    const metres = (data.pixelMetres * data.size[0]) / width; // per pixel of the screen
    const power = 10 ** Math.floor(Math.log10(140 * metres));
    const length = [5, 2, 1].map((one) => one * power).find((one) => one <= 140 * metres);
    element("scale").lastElementChild.style.width = `${length / metres}px`;
    element("scale").firstElementChild.textContent = length >= 1000 ? `${length / 1000} km` : `${Number(length.toPrecision(1))} m`;
  }
  if (data.lattice) element("north").firstElementChild.style.rotate = `${northAngle(data)}deg`;
}

// Returns the direction of north in the middle of the image, in degrees clockwise from its upper edge.
function northAngle({ lattice, size }) {
  const step = 0.01;
  const at = (across, down) => interpolate(lattice, 0.5 + across, 0.5 + down);
  const change = (axis, ...[across, down]) => at(across, down)[axis] - at(-across, -down)[axis];
  const [lonX, lonY] = [change(0, step, 0) / size[0], change(0, 0, step) / size[1]];
  const [latX, latY] = [change(1, step, 0) / size[0], change(1, 0, step) / size[1]];
  const sign = Math.sign(lonX * latY - lonY * latX); // of the determinant: along (x, y) the longitude stays
  return (Math.atan2(-lonY * sign, -lonX * sign) * 180) / Math.PI;
}

function dragHandle(stage, swipeTo) {
  const handle = element("handle");
  handle.addEventListener("pointerdown", (event) => {
    handle.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const box = stage.getBoundingClientRect();
    swipeTo(((event.clientX - box.left) / box.width) * 100);
  });
}

// Lets the mouse pan the zoomed image; touch scrolls it without a script.
function dragImage(frame) {
  let last = null;
  frame.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse" && event.button === 0 && !event.target.closest(".handle, button")) last = event;
  });
  window.addEventListener("pointermove", (event) => {
    if (!last) return;
    frame.scrollLeft -= event.clientX - last.clientX;
    frame.scrollTop -= event.clientY - last.clientY;
    last = event;
  });
  window.addEventListener("pointerup", () => (last = null));
}

// Creates a canvas per overlay, painted when first shown; returns `repaint`, which paints the named overlays again.
function makeLayers(rasters, currentStep) {
  const canvases = {};
  const stale = new Set();

  function paint(name) {
    stale.delete(name);
    const values = rasters.maps[name];
    if (values) paintScores(canvases[name], rasters, values, topScore(values));
    else paintClasses(canvases[name], rasters, name, classify(rasters, name, currentStep()));
  }

  for (const box of document.querySelectorAll("[data-layer]:not(:disabled)")) {
    const name = box.dataset.layer;
    const slider = document.querySelector(`[data-opacity=${name}]`);
    canvases[name] = document.createElement("canvas");
    canvases[name].id = `layer-${name}`;
    element("overlays").append(canvases[name]);
    stale.add(name);
    const update = () => {
      canvases[name].hidden = !box.checked;
      canvases[name].style.opacity = slider.value / 100;
      element(`legend-${name}`).hidden = !box.checked;
      if (box.checked && stale.has(name)) paint(name);
    };
    box.addEventListener("change", update);
    slider.addEventListener("input", update);
    if (rasters.maps[name]) drawLegend(name, topScore(rasters.maps[name]));
    update();
  }
  return function repaint(...names) {
    for (const name of names.filter((one) => canvases[one])) {
      stale.add(name);
      if (!canvases[name].hidden) paint(name);
    }
  };
}

function drawLegend(name, top) {
  const legend = element(`legend-${name}`);
  const picture = new ImageData(256, 1);
  VIRIDIS.forEach((color, i) => picture.data.set([...color, 255], 4 * i));
  show(legend.querySelector("canvas"), picture);
  legend.querySelector(".top-score").textContent = top.toFixed(1);
}

// Returns longitude and latitude at a share of the image's width and height, from the lattice of known points.
function interpolate(lattice, across, down) {
  const last = lattice.length - 1;
  const column = Math.min(last - 1, Math.floor(across * last));
  const row = Math.min(last - 1, Math.floor(down * last));
  const [x, y] = [across * last - column, down * last - row];
  return [0, 1].map((axis) =>
    (1 - y) * ((1 - x) * lattice[row][column][axis] + x * lattice[row][column + 1][axis]) +
    y * ((1 - x) * lattice[row + 1][column][axis] + x * lattice[row + 1][column + 1][axis]));
}

// Returns latitude and longitude of a pixel, [latitude, longitude]; null without georeferencing.
function placeOf(data, x, y) {
  if (!data.lattice) return null;
  const [longitude, latitude] = interpolate(data.lattice, x / data.size[0], y / data.size[1]);
  return [latitude, longitude];
}

const placeText = ([latitude, longitude]) => `${degrees(latitude, "NS")}, ${degrees(longitude, "EW")}`;
const copiedText = (place) => place.map((value) => value.toFixed(6)).join(", ");

function mapAddress(place) {
  const [latitude, longitude] = place.map((value) => value.toFixed(6));
  return `https://www.openstreetmap.org/?mlat=${latitude}&mlon=${longitude}#map=17/${latitude}/${longitude}`;
}

const degrees = (value, [positive, negative]) => `${Math.abs(value).toFixed(5)}° ${value < 0 ? negative : positive}`;

// Returns the values at a share of the image's width and height: {parts, region, place}.
function probe(data, rasters, across, down) {
  const x = Math.min(rasters.width - 1, Math.max(0, Math.floor(across * rasters.width)));
  const y = Math.min(rasters.height - 1, Math.max(0, Math.floor(down * rasters.height)));
  const [column, row] = [rasters.columns[x], rasters.rows[y]];
  const parts = [`x ${column}, y ${row}`];
  const place = placeOf(data, column + 0.5, row + 0.5);
  if (place) parts.push(placeText(place));
  if (data.transform) {
    const [x0, xx, xy, y0, yx, yy] = data.transform;
    const [px, py] = [column + 0.5, row + 0.5];
    const digits = Math.abs(xx) < 0.01 ? 6 : 1;
    parts.push(`(${(x0 + xx * px + xy * py).toFixed(digits)}, ${(y0 + yx * px + yy * py).toFixed(digits)})`);
  }
  for (const [name, title] of [["change", "change"], ["filtered", "filtered"], ["anomaly", "anomaly"]]) {
    const value = rasters.maps[name]?.[y * rasters.width + x];
    if (value !== undefined) parts.push(`${title} ${Number.isNaN(value) ? "no data" : value.toFixed(4)}`);
  }
  const small = rasters.small;
  const region = small ? rasters.regions[small.rows[y] * small.shape[1] + small.columns[x]] : 0;
  if (region) parts.push(`region ${region}`);
  return { parts, region, place };
}
