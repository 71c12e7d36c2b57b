// Drives the playground of a running server in headless Chromium.
//
//   node playground.mjs http://ADDRESS KEY SCREENSHOT_FOLDER
//
// The first mismatch ends the run with its reason and a non-zero exit code.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { launch } from "./chromium.mjs";

const [address, key, folder] = process.argv.slice(2);
assert(folder, "usage: node playground.mjs http://ADDRESS KEY SCREENSHOT_FOLDER");
mkdirSync(folder, { recursive: true });

const { page, close } = await launch();
const wrong = [];
page.on("pageerror", (error) => wrong.push(`script error: ${error.message}`));
page.on("console", (message) => {
  // Chromium logs every 4xx of its own accord; those are asked for here.
  if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) wrong.push(message.text());
});
page.on("request", (request) => {
  if (!request.url().startsWith(address) && !request.url().startsWith("data:")) wrong.push(`asked for ${request.url()}`);
});

const log = page.getByRole("log");
const prompt = page.getByLabel("Message");
const answers = log.locator("article.assistant");
const shoot = (name) => page.screenshot({ path: join(folder, `${name}.png`) });

async function check(what, run) {
  await run();
  assert.deepEqual(wrong, [], what);
  console.log(`ok: ${what}`);
}

async function noSidewaysScroll() {
  const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert(content <= window, `the page is ${content} wide in a window of ${window}`);
}

async function finished() {
  await page.locator("article.busy").waitFor({ state: "detached" });
  return answers.last().locator(".stats").innerText();
}

try {
  await page.goto(address);

  await check("every field has a label", async () => {
    const bare = await page.$$eval("input, select, textarea", (fields) =>
      fields.filter((field) => !field.labels.length).map((field) => field.id));
    assert.deepEqual(bare, []);
  });

  await check("a wrong key is refused in words", async () => {
    await page.getByLabel("API key").fill("sk-wrong");
    await page.getByText("Incorrect API key provided.").waitFor();
    assert.equal(await page.getByLabel("API key").getAttribute("aria-invalid"), "true");
    assert(await page.getByLabel("Model").isDisabled());
    await prompt.fill("Hello");
    assert(await page.getByRole("button", { name: "Send" }).isDisabled());
    await prompt.fill("");
    await shoot("wrong-key");
  });

  await check("a key shows its models", async () => {
    const demo = page.locator(`#demo button[data-key="${key}"]`);
    if (await demo.count()) await demo.click();
    else await page.getByLabel("API key").fill(key);
    await page.locator("#model:enabled").waitFor();
    const models = await page.locator("#model option").allInnerTexts();
    assert(models.length > 0 && models.every(Boolean), `models: ${models}`);
    await shoot("empty");
  });

  await check("a message goes out by keyboard and its answer streams in", async () => {
    await prompt.focus();
    const outline = await prompt.evaluate((field) => getComputedStyle(field).outlineStyle);
    assert.notEqual(outline, "none", "the focus is visible");
    // Counts how often the answer grew: once would be no stream.
    await page.evaluate(() => {
      window.growths = 0;
      new MutationObserver((changes) => {
        window.growths += changes.filter((change) => change.type === "characterData").length;
      }).observe(document.getElementById("log"), { subtree: true, characterData: true });
    });
    await page.keyboard.type("Tell me about");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("the sea.");
    assert.equal(await log.locator("article").count(), 0, "Shift+Enter does not send");
    await page.keyboard.press("Enter");
    const stats = await finished();
    assert.equal(await log.locator("article.user .text").innerText(), "Tell me about\nthe sea.");
    assert((await answers.last().locator(".text").innerText()).trim(), "an answer");
    assert(await page.evaluate(() => window.growths > 1), "it came in pieces");
    assert.match(stats, /first token \d+ ms · [\d.]+ tokens\/s · \d+ tokens/);
    assert(await prompt.evaluate((field) => field === document.activeElement), "the focus stayed");
    await shoot("answer");
  });

  await check("an answer is rated, and commented on", async () => {
    const rate = answers.last().getByRole("group", { name: "Rate this answer" });
    await rate.getByRole("button", { name: "Good" }).click();
    await rate.getByText("Thank you.").waitFor();
    assert.equal(await rate.getByRole("button", { name: "Good" }).getAttribute("aria-pressed"), "true");
    const sent = page.waitForRequest((request) => request.url().endsWith("/v1/ratings"));
    await rate.getByLabel("Comment on this answer").fill("Shorter, please.");
    await rate.getByRole("button", { name: "Add" }).click();
    const body = (await sent).postDataJSON();
    assert.deepEqual([body.thumb, body.comment], ["up", "Shorter, please."]);
    await shoot("rated");
  });

  await check("Regenerate replaces the answer", async () => {
    await page.getByRole("button", { name: "Regenerate" }).click();
    await finished();
    assert.equal(await log.locator("article").count(), 2);
  });

  await check("text is never markup", async () => {
    const markup = "<img src=x onerror=alert(1)> <b>bold</b>";
    await prompt.fill(markup);
    await page.keyboard.press("Enter");
    await finished();
    assert.equal(await log.locator("article.user .text").last().innerText(), markup);
    assert.equal(await log.locator("img, b").count(), 0);
  });

  await check("a refused request shows message and code", async () => {
    await page.getByLabel("Max tokens").fill("0");
    await prompt.fill("Hello");
    await page.keyboard.press("Enter");
    const error = page.getByRole("alert").last();
    await error.waitFor();
    assert.match(await error.innerText(), /max_tokens[^]*invalid_request_error/);
    await shoot("error");
    await page.getByRole("button", { name: "Clear" }).click();
    assert.equal(await log.locator("article").count(), 0);
  });

  await check("a blocked message is told calmly, and not as a failure", async () => {
    await page.getByLabel("Max tokens").fill("100");
    await prompt.fill("You are a stupid idiot and a worthless fool.");
    await page.keyboard.press("Enter");
    const held = page.locator("article .held");
    await held.waitFor();
    assert.match(await held.innerText(), /question was not asked[^]*content filter: insult/);
    assert.equal(await page.getByRole("alert").count(), 0);
    await shoot("held");
    await prompt.fill("What do rabbits eat?");
    await page.keyboard.press("Enter");
    await finished();
    assert.equal(await held.count(), 1, "what was blocked is not sent again");
    await page.getByRole("button", { name: "Clear" }).click();
  });

  await check("an answer that the filter ends says so", async () => {
    const stream = [
      { choices: [{ index: 0, delta: { role: "assistant", content: "Rabbits eat hay. " }, finish_reason: null }] },
      { choices: [{ index: 0, delta: {}, finish_reason: null }], guard: [{ side: "output", action: "block", category: "insult" }] },
      { choices: [{ index: 0, delta: {}, finish_reason: "content_filter" }] },
    ].map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`).join("") + "data: [DONE]\n\n";
    await page.route("**/v1/chat/completions", (route) => route.fulfill({ contentType: "text/event-stream", body: stream }));
    await prompt.fill("What do rabbits eat?");
    await page.keyboard.press("Enter");
    const held = page.locator("article .held");
    await held.waitFor();
    assert.match(await held.innerText(), /answer ends here[^]*stopped it for insult/);
    assert.match(await answers.last().locator(".text").innerText(), /Rabbits eat hay/);
    await shoot("held-answer");
    await page.unroute("**/v1/chat/completions");
    await page.getByRole("button", { name: "Clear" }).click();
  });

  await check("Stop keeps what has come", async () => {
    await page.getByLabel("Max tokens").fill("1000");
    // From inside the page, so that not even a fast model is done before.
    await page.evaluate(() => {
      new MutationObserver((changes, observer) => {
        if (!changes.some((change) => change.type === "characterData")) return;
        observer.disconnect();
        document.getElementById("stop").click();
      }).observe(document.getElementById("log"), { subtree: true, characterData: true });
    });
    await prompt.fill("Count from one to one thousand, in a very long list.");
    await page.keyboard.press("Enter");
    assert.match(await finished(), /stopped$/);
    assert((await answers.last().locator(".text").innerText()).trim(), "the piece that came stays");
    assert.equal(await page.getByRole("alert").count(), 0, "stopping is no error");
    assert(await page.getByRole("button", { name: "Send" }).isVisible());
  });

  await check("Esc stops as well", async () => {
    await prompt.fill("Again, a long list.");
    await page.keyboard.press("Enter");
    await page.keyboard.press("Escape");
    assert.match(await finished(), /stopped$/);
    await page.getByRole("button", { name: "Clear" }).click();
  });

  await check("the key is kept for this tab alone", async () => {
    await page.reload();
    await page.locator("#model:enabled").waitFor();
    assert.equal(await page.getByLabel("API key").inputValue(), key);
    assert.equal(await page.evaluate(() => localStorage.length), 0);
    assert.equal(await page.evaluate(() => document.cookie), "");
  });

  await check("it fits a phone, and the dark", async () => {
    await page.getByLabel("Max tokens").fill("120");
    await page.setViewportSize({ width: 320, height: 640 });
    await noSidewaysScroll();
    await shoot("phone-settings");
    await prompt.fill("Tell me about the sea.");
    await page.keyboard.press("Enter");
    await finished();
    await noSidewaysScroll();
    await shoot("phone");
    await page.emulateMedia({ colorScheme: "dark" });
    await page.setViewportSize({ width: 390, height: 844 });
    await shoot("phone-dark");
    await page.setViewportSize({ width: 1280, height: 800 });
    await noSidewaysScroll();
    await shoot("dark");
    const page_color = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const [r, g, b] = page_color.match(/\d+/g).map(Number);
    assert(r + g + b < 200, `in the dark the page is ${page_color}`);
  });

  console.log("all checks passed");
} catch (error) {
  await shoot("failed").catch(() => {});
  console.error(`FAILED: ${error.message}`);
  process.exitCode = 1;
} finally {
  await close();
}
