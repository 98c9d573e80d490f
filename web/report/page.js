"use strict";
/* The page is whole without this: it adds a switch between light and dark, hover values, and tokens that move over the flock. */
(function () {
  const root = document.documentElement, content = document.getElementById("content");

  function themeSwitch() {
    const button = document.getElementById("theme");
    const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    const label = () => { button.textContent = dark() ? "Light" : "Dark"; };
    button.hidden = false;
    button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; label(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
    label();
  }

  /* Titles become a box beside the pointer: at once, and by touch too. */
  function hoverValues() {
    const tip = document.createElement("div");
    let shown = null;
    tip.id = "tip";
    tip.hidden = true;
    document.body.append(tip);
    const texts = new WeakMap();
    function adopt() {
      for (const title of content.querySelectorAll(".chart title")) {
        texts.set(title.parentNode, title.textContent.trim());
        title.remove();
      }
      tip.hidden = true;
      shown = null;
    }
    function show(event) {
      let at = event.target instanceof Element ? event.target : null;
      while (at !== null && !texts.has(at)) { at = at.parentElement; }
      if (shown !== at) {
        if (shown !== null) { shown.classList.remove("on"); }
        if (at !== null) { at.classList.add("on"); tip.textContent = texts.get(at); }
        shown = at;
        tip.hidden = at === null;
      }
      if (at !== null) {
        const box = tip.getBoundingClientRect();
        const left = event.clientX + 16 + box.width > innerWidth ? event.clientX - 16 - box.width : event.clientX + 16;
        tip.style.left = Math.max(4, left) + "px";
        tip.style.top = Math.max(4, Math.min(event.clientY + 16, innerHeight - box.height - 4)) + "px";
      }
    }
    document.addEventListener("pointermove", show);
    document.addEventListener("pointerdown", show);
    document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
    adopt();
    return adopt;
  }

  /* ---- The flight of tokens ---- */

  const SVG = "http://www.w3.org/2000/svg";
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  function make(name, attributes, parent) {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) { element.setAttribute(key, attributes[key]); }
    parent.append(element);
    return element;
  }

  /* A layer's picture, and a bird on it that flies from each token's first expert to the next one's. */
  function layerPicture(name, choices) {
    const svg = document.querySelector("#chart-" + name + " svg");
    const nodes = Array.from(svg.querySelectorAll(".node"));
    const places = nodes.map((node) => {
      const circle = node.querySelector("circle");
      return [Number(circle.getAttribute("cx")), Number(circle.getAttribute("cy"))];
    });
    const path = make("path", { class: "path" }, svg);
    const bird = make("circle", { class: "bird", r: 5 }, svg);
    const first = (t) => t >= 0 && choices[t].length > 0 ? places[choices[t][0]] : null;
    return function show(token, share) {
      const to = first(token), from = first(token - 1) || to;
      nodes.forEach((node, e) => node.classList.toggle("chosen", choices[token].includes(e)));
      bird.style.display = path.style.display = to ? "" : "none";
      if (to) {
        const x = from[0] + (to[0] - from[0]) * share, y = from[1] + (to[1] - from[1]) * share;
        bird.setAttribute("cx", x);
        bird.setAttribute("cy", y);
        path.setAttribute("d", "M" + from[0] + " " + from[1] + "L" + x + " " + y);
      }
    };
  }

  function flight(box) {
    const data = JSON.parse(box.querySelector("script").textContent);
    const pictures = data.layers.map((layer) => layerPicture(layer.chart, layer.experts));
    const controls = document.createElement("div"), text = document.createElement("div");
    const play = document.createElement("button"), slider = document.createElement("input"), count = document.createElement("output");
    const last = data.tokens.length - 1;
    let now = 0, since = 0, playing = false;
    controls.className = "controls";
    text.className = "text";
    play.type = "button";
    slider.type = "range";
    slider.max = last;
    slider.value = 0;
    slider.setAttribute("aria-label", "Token of the text");
    controls.append(play, slider, count);
    box.append(controls, text);
    const words = data.tokens.map((word, t) => {
      const span = document.createElement("span");
      span.textContent = word;
      span.addEventListener("click", () => { stop(); go(t, 1); });
      text.append(span);
      return span;
    });
    function go(token, share) {
      if (token !== now || words[token].className !== "now") {
        words.forEach((word, t) => { word.className = t === token ? "now" : t < token ? "before" : "after"; });
        text.scrollTop = words[token].offsetTop - text.clientHeight / 2;
        slider.value = token;
        count.textContent = (token + 1) + " of " + (last + 1);
      }
      now = token;
      pictures.forEach((show) => show(token, share));
    }
    /* A token takes 0.6 seconds, of which it flies the first half; where motion is not wanted it jumps. */
    function frame(time) {
      if (!playing) { return; }
      since = since || time;
      const share = (time - since) / 600;
      if (share >= 1 && now === last) { stop(); return; }
      if (share >= 1) {
        since = time;
        go(now + 1, calm.matches ? 1 : 0);
      } else if (!calm.matches) {
        const part = Math.min(1, share * 2);
        go(now, part * part * (3 - 2 * part));
      }
      requestAnimationFrame(frame);
    }
    function stop() { playing = false; play.textContent = "Play"; }
    play.addEventListener("click", () => {
      if (playing) { stop(); return; }
      if (now === last) { go(0, 1); }
      playing = true;
      since = 0;
      play.textContent = "Pause";
      requestAnimationFrame(frame);
    });
    slider.addEventListener("input", () => { stop(); go(Number(slider.value), 1); });
    stop();
    go(0, 1);
  }

  /* Of a run that is under way: the content comes anew whenever there is more. Tables that are open stay so. */
  function watch(adopt) {
    const source = new EventSource(content.dataset.events);
    source.onmessage = (event) => {
      const open = Array.from(content.querySelectorAll("figure:has(details[open])"), (figure) => figure.id);
      content.innerHTML = event.data;
      for (const id of open) { document.getElementById(id)?.querySelector("details").setAttribute("open", ""); }
      adopt();
    };
  }

  themeSwitch();
  const adopt = hoverValues();
  document.querySelectorAll(".flight").forEach(flight);
  if (content.dataset.events) { watch(adopt); }
})();
