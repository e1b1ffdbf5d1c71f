// Unpacks the rasters of an event's page and paints them on canvases.
"use strict";

const COLORS = {
  binary: [[255, 60, 160]],
  label: [[255, 255, 255]],
  outcome: OUTCOMES, // true positive, false positive, missed
  marked: [[255, 255, 255]],
};
const FILL = { binary: 40, label: 60, outcome: 70, marked: 0 }; // alpha inside; outlines are opaque

async function inflate(text) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = characters.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

// Unpacks a page's data: {width, height, maps, label, masks, stride, regions, ...}, with arrays instead of text.
async function unpack(data) {
  const [height, width] = data.grid;
  const rasters = { width, height, rows: data.rows, columns: data.columns, maps: {} };
  const jobs = Object.entries(data.maps).map(async ([name, text]) => {
    rasters.maps[name] = new Float32Array(await inflate(text));
  });
  if (data.label) jobs.push(inflate(data.label).then((bits) => (rasters.label = new Uint8Array(bits))));
  if (data.binary) {
    rasters.small = data.binary;
    jobs.push(inflate(data.binary.regions).then((numbers) => (rasters.regions = new Uint32Array(numbers))));
    jobs.push(inflate(data.binary.masks).then((bits) => unpackMasks(rasters, new Uint8Array(bits))));
  }
  await Promise.all(jobs);
  return rasters;
}

// Each mask is stored as the exclusive or with the one before.
function unpackMasks(rasters, bits) {
  const [rows, columns] = rasters.small.shape;
  rasters.stride = Math.ceil((rows * columns) / 8);
  for (let i = rasters.stride; i < bits.length; i++) bits[i] ^= bits[i - rasters.stride];
  rasters.masks = bits;
}

const bit = (bits, i) => (bits[i >> 3] >> (7 - (i & 7))) & 1;

// Calls `each(i, small)` for every pixel of the grid, with its index in the small map.
function eachPixel(rasters, each) {
  const { width, height, small } = rasters;
  for (let y = 0, i = 0; y < height; y++) {
    const row = small.rows[y] * small.shape[1];
    for (let x = 0; x < width; x++, i++) each(i, row + small.columns[x]);
  }
}

function smallMask(rasters, step) {
  const [rows, columns] = rasters.small.shape;
  const bits = rasters.masks.subarray(step * rasters.stride, (step + 1) * rasters.stride);
  const mask = new Uint8Array(rows * columns);
  for (let i = 0; i < mask.length; i++) mask[i] = bit(bits, i);
  return mask;
}

// Returns the class of each pixel of the grid in a layer at a threshold: 0, or the number of its colour from 1.
function classify(rasters, layer, step, region) {
  const classes = new Uint8Array(rasters.width * rasters.height);
  if (layer === "label") {
    for (let i = 0; i < classes.length; i++) classes[i] = bit(rasters.label, i);
    return classes;
  }
  if (layer === "marked") {
    if (region) eachPixel(rasters, (i, small) => (classes[i] = rasters.regions[small] === region ? 1 : 0));
    return classes;
  }
  const mask = smallMask(rasters, step);
  const scores = rasters.maps.anomaly;
  eachPixel(rasters, (i, small) => {
    if (Number.isNaN(scores[i])) return; // without data: neither flagged nor missed
    if (layer === "binary") classes[i] = mask[small];
    else if (mask[small]) classes[i] = bit(rasters.label, i) ? 1 : 2;
    else classes[i] = bit(rasters.label, i) ? 3 : 0;
  });
  return classes;
}

function paintClasses(canvas, rasters, layer, classes) {
  const { width, height } = rasters;
  const picture = new ImageData(width, height);
  const pixels = new Uint32Array(picture.data.buffer);
  const pack = ([red, green, blue], alpha) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const edges = COLORS[layer].map((color) => pack(color, 255));
  const fills = COLORS[layer].map((color) => pack(color, FILL[layer]));
  const border = Math.max(1, Math.round(Math.max(width, height) / 700)) * (layer === "marked" ? 2 : 1);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const own = classes[i];
      if (!own) continue;
      const edge =
        (x >= border && classes[i - border] !== own) ||
        (x + border < width && classes[i + border] !== own) ||
        (y >= border && classes[i - border * width] !== own) ||
        (y + border < height && classes[i + border * width] !== own);
      pixels[i] = (edge ? edges : fills)[own - 1];
    }
  }
  show(canvas, picture);
}

// Paints scores above 0 in viridis from 0 to `top`, and pixels without data as grey stripes.
function paintScores(canvas, rasters, values, top) {
  const picture = new ImageData(rasters.width, rasters.height);
  const stripe = Math.max(4, Math.round(rasters.width / 100));
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    if (value > 0) {
      picture.data.set(VIRIDIS[Math.min(255, Math.floor((value / top) * 256))], 4 * i);
      picture.data[4 * i + 3] = 255;
    } else if (Number.isNaN(value)) {
      const striped = ((i % rasters.width) + Math.floor(i / rasters.width)) % (2 * stripe) < stripe;
      picture.data.fill(striped ? 150 : 90, 4 * i, 4 * i + 3);
      picture.data[4 * i + 3] = 200;
    }
  }
  show(canvas, picture);
}

function show(canvas, picture) {
  canvas.width = picture.width;
  canvas.height = picture.height;
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

// Returns the end of a map's colour scale: its highest score, rounded up to a tenth.
function topScore(values) {
  let highest = 0;
  for (const value of values) if (value > highest) highest = value;
  return Math.max(1, Math.ceil(highest * 10 - 1e-4)) / 10;
}
