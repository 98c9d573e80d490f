// The pictures of scripts/screenshots. usage: screenshots.mjs REPORT.html ADDRESS OUT_FOLDER
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { chromium } = createRequire(new URL("../tests/page/", import.meta.url))("playwright-core");
const [report, address, out] = process.argv.slice(2);
const views = [["", "light", 900], ["-dark", "dark", 900], ["-phone", "light", 360]];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

async function pictures(name, height, visit) {
  for (const [suffix, colorScheme, width] of views) {
    const page = await browser.newPage({ colorScheme, viewport: { width, height: width < 400 ? 2 * width : height } });
    page.setDefaultTimeout(120000);
    await visit(page);
    await page.evaluate(() => document.activeElement.blur());
    await page.screenshot({ path: `${out}/${name}${suffix}.png` });
    await page.close();
  }
}

const section = (title) => (page) => page.evaluate((words) => {
  [...document.querySelectorAll("h2")].find((one) => one.textContent === words).scrollIntoView();
}, title);

try {
  const open = (then) => async (page) => {
    await page.goto(pathToFileURL(report).href);
    await then(page);
  };
  await pictures("report", 600, open(section("Training")));
  await pictures("flock", 540, open(async (page) => {
    await page.locator('input[type="range"]').fill("100");
    await section("The flock")(page);
  }));
  await pictures("chat", 600, async (page) => {
    await page.addInitScript(() => Object.entries({ temperature: 0.6, max_tokens: 45, seed: 7 })
      .forEach(([name, value]) => localStorage.setItem(`dilmodeli.${name}`, value)));
    await page.goto(address);
    await page.waitForFunction(() => document.getElementById("model").textContent.includes("context"));
    // Others ask meanwhile, so that the model is seen at work.
    await page.evaluate(() => {
      const body = JSON.stringify({ prompt: "fgets(3)\n\nNAME\n", max_tokens: 200, ignore_eos: true, n: 2 });
      const ask = () => fetch("v1/completions", { method: "POST", headers: { "Content-Type": "application/json" }, body }).then(ask, () => {});
      ask();
    });
    await page.fill("#text", "harbor\n    n 1:");
    await page.press("#text", "Enter");
    await page.waitForFunction(() => document.getElementById("stop").disabled && !/^0/.test(document.getElementById("busy").textContent) &&
      Number(document.getElementById("speed").textContent) > 0);
  });
} finally {
  await browser.close();
}
