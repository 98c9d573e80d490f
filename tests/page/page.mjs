// Talks with the server through its page in Chromium. usage: page.mjs ADDRESS REPORT.html [PICTURES_FOLDER]
import assert from "node:assert/strict";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [address, report, pictures] = process.argv.slice(2);
const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args });

function watched(page, allowed) {
  const wrong = [];
  page.on("console", (message) => { if (message.type() === "error") wrong.push(message.text()); });
  page.on("pageerror", (error) => wrong.push(error.message));
  page.on("request", (request) => { if (!request.url().startsWith(allowed) && !request.url().startsWith("data:")) wrong.push(request.url()); });
  return wrong;
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const last = (page) => page.locator(".turn.assistant p").last().textContent();
const longer = (page, length) => page.waitForFunction((n) => [...document.querySelectorAll(".turn.assistant p")].at(-1)?.textContent.length > n, length);

try {
  const page = await browser.newPage({ colorScheme: "light" });
  page.setDefaultTimeout(300000);
  const wrong = watched(page, address);
  const answer = await page.goto(address);
  assert.match(answer.headers()["content-security-policy"], /default-src 'self'/);
  await page.waitForFunction(() => document.getElementById("model").textContent.includes("context"));

  // An answer grows, the pictures move, and it stops when told to.
  const blank = await page.evaluate(() => document.getElementById("loads").toDataURL());
  await say(page, "<b>The history of the kernel</b>");
  await page.waitForFunction(() => document.getElementById("busy").textContent.startsWith("1 of"));
  await longer(page, 0);
  await longer(page, (await last(page)).length);
  await page.waitForFunction((before) => document.getElementById("loads").toDataURL() !== before, blank);
  await page.waitForFunction(() => Number(document.getElementById("speed").textContent) > 0);
  assert.equal(await page.locator(".turn b").count(), 0);
  await page.click("#stop");
  await page.waitForFunction(() => document.getElementById("stop").disabled);
  await page.waitForFunction(() => document.getElementById("busy").textContent.startsWith("0 of"));
  const stopped = await last(page);
  await page.waitForTimeout(300);
  assert.equal(await last(page), stopped);

  // Stopped before anything came it leaves no turn, and the message can be sent again.
  const turnsBefore = await page.locator(".turn").count();
  await page.route(/chat.completions/, () => {});
  await say(page, "Nobody answers");
  await page.waitForFunction((n) => document.querySelectorAll(".turn").length === n + 2, turnsBefore);
  await page.click("#stop");
  await page.waitForFunction((n) => document.querySelectorAll(".turn").length === n, turnsBefore);
  assert.equal(await page.inputValue("#text"), "Nobody answers");
  await page.unroute(/chat.completions/);

  // Settings are sent and kept.
  await page.click("summary");
  await page.fill("[name=max_tokens]", "3");
  await page.fill("[name=temperature]", "0");
  await page.click("#new");
  assert.equal(await page.locator(".turn").count(), 0);
  const [request] = await Promise.all([page.waitForRequest(/chat.completions/), say(page, "A list")]);
  assert.equal(request.postDataJSON().max_tokens, 3);
  assert.equal(request.postDataJSON().temperature, 0);
  await page.waitForFunction(() => document.getElementById("stop").disabled);
  await page.reload();
  assert.equal(await page.inputValue("[name=max_tokens]"), "3");

  // An error is shown, in the server's words.
  assert.deepEqual(wrong, []);
  await page.evaluate(() => { document.querySelector("[name=temperature]").max = "1e9"; });
  await page.click("summary");
  await page.fill("[name=temperature]", "1000");
  await say(page, "Hot");
  await page.waitForSelector("#error:not([hidden])");
  assert.match(await page.textContent("#error"), /temperature/);
  assert.equal(await page.locator(".turn").count(), 0);
  assert.equal(await page.inputValue("#text"), "Hot");
  await page.fill("[name=temperature]", "1");

  await say(page, "Some words");
  await longer(page, 0);
  for (const [name, colorScheme, width] of [["light", "light", 1100], ["dark", "dark", 1100], ["phone", "light", 360]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), `${name}: wider than the window`);
    if (pictures) await page.screenshot({ path: `${pictures}/${name}.png`, fullPage: true });
  }

  const other = await browser.newPage();
  const file = pathToFileURL(report).href;
  const wrongThere = watched(other, file);
  await other.goto(file);
  assert.ok(await other.locator("svg").count() > 0);
  assert.deepEqual(wrongThere, []);
} finally {
  await browser.close();
}
