import { answer, posts, request } from "./api.js";
import { show } from "./work.js";

const by = (id) => document.getElementById(id);
const form = by("settings").elements;
const kept = ["temperature", "top_p", "max_tokens", "seed", "system"];
let turns = [];
let stop = null;

function say(id, text) {
  by(id).textContent = text;
  by(id).hidden = text === "";
}

function element(tag, text, name = "") {
  const it = document.createElement(tag);
  it.textContent = text;
  it.className = name;
  return it;
}

function add(role, content) {
  const turn = { role, content };
  const box = element("div", "", `turn ${role}`), text = element("p", content), copy = element("button", "Copy");
  copy.type = "button";
  copy.onclick = () => navigator.clipboard?.writeText(turn.content).catch((error) => say("error", error.message));
  box.append(element("span", role === "user" ? "You" : "Model", "who"), text, copy);
  by("turns").append(box);
  turns.push(turn);
  const grow = (more) => {
    turn.content += more;
    text.textContent = turn.content;
    by("turns").scrollTop = by("turns").scrollHeight;
  };
  const remove = () => {
    box.remove();
    turns = turns.filter((one) => one !== turn);
  };
  return { turn, grow, remove };
}

// An answer of which nothing came leaves no turn, and what was said can be said again.
function takeBack(said, answered) {
  const shown = turns.includes(said.turn);
  said.remove();
  answered.remove();
  if (shown && by("text").value === "") by("text").value = said.turn.content;
}

function settings() {
  const out = {};
  for (const name of kept.slice(0, 4)) if (form[name].value !== "") out[name] = Number(form[name].value);
  return out;
}

async function ask(messages, grow, signal) {
  const body = { ...settings(), stream: true };
  const options = { key: form.key.value, signal };
  try {
    for await (const text of answer("v1/chat/completions", { ...options, body: { ...body, messages } })) grow(text);
  } catch (error) {
    if (!/chat template/.test(error.message)) throw error;
    say("note", "The model has no chat template that is known here: it goes on from the plain text.");
    const prompt = messages.map((message) => message.content).join("\n");
    for await (const text of answer("v1/completions", { ...options, body: { max_tokens: 256, ...body, prompt } })) grow(text);
  }
}

async function send() {
  const text = by("text").value;
  if (stop || text.trim() === "" || !by("settings").reportValidity()) return;
  const mine = new AbortController();
  stop = mine;
  say("error", "");
  const said = add("user", text);
  by("text").value = "";
  const system = form.system.value === "" ? [] : [{ role: "system", content: form.system.value }];
  const messages = [...system, ...turns], answered = add("assistant", "");
  by("send").disabled = true;
  by("stop").disabled = false;
  try {
    await ask(messages, answered.grow, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") say("error", error.message);
    if (answered.turn.content === "") takeBack(said, answered);
  }
  stop = null;
  by("send").disabled = false;
  by("stop").disabled = true;
}

function restore() {
  for (const name of kept) {
    const value = localStorage.getItem(`dilmodeli.${name}`);
    if (value !== null) form[name].value = value;
  }
}

// Watches for as long as the page is open; a server that went away is asked again.
async function watch() {
  for (;;) {
    const key = form.key.value;
    try {
      const { data } = await (await request("v1/models", { key })).json();
      by("model").textContent = `${data[0].id}, ${data[0].meta.context} tokens of context`;
      for await (const post of posts({ key })) show(post);
    } catch (error) {
      by("busy").textContent = error.message;
    }
    await new Promise((done) => setTimeout(done, 2000));
  }
}

by("ask").onsubmit = (event) => { event.preventDefault(); send(); };
by("settings").onsubmit = (event) => event.preventDefault();
by("settings").oninput = ({ target }) => { if (kept.includes(target.name)) localStorage.setItem(`dilmodeli.${target.name}`, target.value); };
by("text").onkeydown = (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
};
by("stop").onclick = () => stop?.abort();
by("new").onclick = () => {
  stop?.abort();
  turns = [];
  by("turns").replaceChildren();
  say("note", ""); say("error", "");
  by("text").focus();
};
restore();
watch();
