// The review of an event's regions: verdicts and notes, kept in the browser and exported as GeoJSON.
"use strict";

const VERDICTS = {
  accepted: { sign: "✓", key: "a" },
  rejected: { sign: "✗", key: "r" },
  uncertain: { sign: "?", key: "u" },
};
const SAME_SHAPE = 0.5; // least overlap of the boxes, and least ratio of the areas, of a region before and after a rerun

function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (width * height) / (area(a) + area(b) - width * height);
}

// Returns the region that a stored entry belongs to by place and shape, not by its number; undefined if none fits.
function findRegion(regions, { box, pixels }) {
  let [best, most] = [undefined, 0];
  for (const region of regions) {
    const ratio = Math.min(pixels, region.pixels) / Math.max(pixels, region.pixels);
    const shared = ratio >= SAME_SHAPE ? overlap(box, region.box) : 0;
    if (shared > most) [best, most] = [region, shared];
  }
  return most >= SAME_SHAPE ? best : undefined;
}

function readStored(key) {
  try {
    const stored = JSON.parse(localStorage.getItem(key));
    return stored && Array.isArray(stored.entries) ? stored : { reviewer: "", entries: [] };
  } catch {
    return { reviewer: "", entries: [] }; // no storage, or not ours
  }
}

// Returns the review: {of, show, decide, attach}. Entries are {box, pixels, verdict, note, time}; those of the polygons'
// file also have its reviewers, {filed}, and are neither stored nor exported.
function makeReview(data) {
  const stored = readStored(data.reviewKey);
  const entries = new Map(); // by region
  let homeless = []; // entries of an earlier run that fit no region
  let table = null;
  let current = null;

  function save() {
    const all = [...entries.values(), ...homeless].filter((entry) => !entry.filed);
    try {
      localStorage.setItem(data.reviewKey, JSON.stringify({ reviewer: element("reviewer").value, entries: all }));
      element("review-problem").hidden = true;
    } catch {
      element("review-problem").hidden = false;
    }
    summarize();
  }

  function summarize() {
    const verdicts = [...entries.values()].map((entry) => entry.verdict);
    const counts = Object.keys(VERDICTS).map((name) => `${verdicts.filter((one) => one === name).length} ${name}`);
    element("review-summary").textContent = `Reviewed ${verdicts.filter(Boolean).length} of ${table.regions.length}: ${counts.join(", ")}.`;
    element("homeless").hidden = !homeless.length;
    element("homeless-title").textContent = `${homeless.length} verdict${homeless.length === 1 ? "" : "s"} of an earlier run fit no region`;
    element("homeless-list").replaceChildren(...homeless.map((entry) => {
      const item = document.createElement("li");
      const place = `x ${Math.round((entry.box[0] + entry.box[2]) / 2)}, y ${Math.round((entry.box[1] + entry.box[3]) / 2)}`;
      item.textContent = [entry.verdict || "no verdict", place, entry.note].filter(Boolean).join(": ");
      return item;
    }));
  }

  function change(region, values) {
    const before = entries.get(region)?.filed ? {} : entries.get(region);
    const { verdict, note } = { verdict: "", note: "", ...before, ...values };
    if (verdict || note) entries.set(region, { box: region.box, pixels: region.pixels, verdict, note, time: new Date().toISOString() });
    else entries.delete(region);
    save();
    table.update(region);
    show(region);
  }

  // Gives the selected region a verdict; the same one again takes it back.
  function decide(verdict) {
    if (!current) return;
    const entry = entries.get(current);
    const same = entry?.verdict === verdict && !entry.filed;
    change(current, { verdict: same ? "" : verdict });
  }

  function show(region) {
    current = region;
    if (!region) return;
    const entry = entries.get(region);
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", button.dataset.verdict === entry?.verdict && !entry.filed);
    }
    const note = entry?.filed ? "" : entry?.note ?? "";
    if (element("note").value !== note) element("note").value = note;
    const said = entry?.filed ? [`In the polygons' file: ${entry.verdict}, by ${entry.filed}`, entry.note] : [];
    element("filed").textContent = said.filter(Boolean).join(": ");
  }

  async function exportReview() {
    await loadOutlines(data);
    const features = [...entries].filter(([, entry]) => entry.verdict && !entry.filed).map(([region, entry]) => ({
      type: "Feature",
      geometry: OUTLINES[region.number - 1],
      properties: {
        event: data.name,
        region: region.number,
        verdict: entry.verdict,
        note: entry.note,
        reviewer: element("reviewer").value.trim(),
        time: entry.time,
        mean_score: region.score,
      },
    }));
    const content = { type: "FeatureCollection", coordinates: data.lattice ? "WGS 84" : "pixels", features };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/geo+json" }));
    link.download = `review_${data.slug}.geojson`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  // Takes what is stored, and else what the polygons' file says, to the regions of this page.
  function attach(made) {
    table = made;
    for (const [number, verdict, note, filed] of data.regions.verdicts) {
      entries.set(table.regions[number - 1], { verdict, note, filed });
    }
    const byBox = new Map(table.regions.map((region) => [`${region.box} ${region.pixels}`, region]));
    for (const entry of stored.entries) {
      const region = byBox.get(`${entry.box} ${entry.pixels}`) ?? findRegion(table.regions, entry);
      if (region) entries.set(region, { ...entry, box: region.box, pixels: region.pixels });
      else homeless.push(entry);
    }
    element("reviewer").value = stored.reviewer;
    element("reviewer").addEventListener("input", save);
    element("note").addEventListener("input", (event) => current && change(current, { note: event.target.value }));
    element("export").addEventListener("click", exportReview);
    element("discard").addEventListener("click", () => {
      homeless = [];
      save();
    });
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.addEventListener("click", () => decide(button.dataset.verdict));
    }
    summarize();
    table.redraw();
  }

  return { of: (region) => entries.get(region), show, decide, attach };
}

// Loads the regions' outlines, which only an export needs.
function loadOutlines(data) {
  if (typeof OUTLINES !== "undefined") return Promise.resolve();
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = `${data.slug}/outlines.js`;
    script.addEventListener("load", resolve);
    script.addEventListener("error", reject);
    document.head.append(script);
  });
}
