// What the server does meanwhile, from its posts: see docs/serving.md.
const by = (id) => document.getElementById(id);
let last = null;

// What the style sheet of charts fills a class with.
function colour(name) {
  const probe = document.createElement("i");
  probe.className = name;
  document.body.append(probe);
  const fill = getComputedStyle(probe).fill;
  probe.remove();
  return fill;
}

// Loads since the post before; where nothing went on, the picture stays.
function paint(loads) {
  const change = loads.map((row, l) => row.map((n, e) => Math.max(0, n - (last?.loads[l]?.[e] ?? 0))));
  const most = Math.max(0, ...change.map((row) => Math.max(...row)));
  if (most === 0) return;
  const canvas = by("loads"), cell = 12, scale = Array.from({ length: 8 }, (_, step) => colour(`q${step}`));
  canvas.width = change[0].length * cell;
  canvas.height = change.length * cell;
  const pen = canvas.getContext("2d");
  change.forEach((row, l) => row.forEach((n, e) => {
    pen.fillStyle = scale[Math.round((n / most) * (scale.length - 1))];
    pen.fillRect(e * cell, l * cell, cell - 1, cell - 1);
  }));
  by("legend").textContent = `${change.length} layers, ${change[0].length} experts each; the strongest colour is ${most} tokens since the post before.`;
}

export function show(post) {
  const { slots, routing, loads } = post;
  const busy = slots.filter((slot) => slot.state !== "free").length;
  by("busy").textContent = `${busy} of ${slots.length}` + (post.waiting ? `, ${post.waiting} wait` : "");
  by("experts").textContent = routing.decode_experts_per_step.toFixed(1);
  by("hits").textContent = routing.hit_rate === null ? "all in memory" : `${(100 * routing.hit_rate).toFixed(1)} %`;
  if (last && post.time > last.time) {
    by("speed").textContent = (Math.max(0, post.decoded - last.decoded) / (post.time - last.time)).toFixed(1);
  }
  if (loads.length > 0) paint(loads);
  last = post;
}
