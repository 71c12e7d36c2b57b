// Drives the status page of a running server in headless Chromium.
//
//   node status.mjs http://ADDRESS KEY http://OPS_ADDRESS ADMIN_KEY SCREENSHOT_FOLDER
//
// The server is the tests' quickstart with an admin key. The first mismatch ends the
// run with its reason and a non-zero exit code.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { launch } from "./chromium.mjs";

const [gateway, key, ops, adminKey, folder] = process.argv.slice(2);
assert(folder, "usage: node status.mjs http://ADDRESS KEY http://OPS_ADDRESS ADMIN_KEY SCREENSHOT_FOLDER");
mkdirSync(folder, { recursive: true });
const { page, close } = await launch();
page.setDefaultTimeout(30_000);
const wrong = [];
page.on("pageerror", (error) => wrong.push(`script error: ${error.message}`));
page.on("request", (request) => {
  if (!request.url().startsWith(ops) && !request.url().startsWith("data:")) wrong.push(`asked for ${request.url()}`);
});
const shoot = (name) => page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
const row = (section, text) => page.locator(`#${section} tbody tr`, { hasText: text }).first();

async function chat(model) {
  const answer = await fetch(`${gateway}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify({ model, max_tokens: 4, messages: [{ role: "user", content: "Hi" }] }),
  });
  assert.equal(answer.status, 200, await answer.text());
}

await page.goto(`${ops}/status`);
await page.getByLabel("Admin key").fill("wrong");
await page.getByRole("button", { name: "Look" }).click();
await page.getByRole("alert").filter({ hasText: "asks for its key" }).waitFor();
await shoot("key");
assert(!(await page.content()).includes("acme"), "without the key nothing is shown");

await page.getByLabel("Admin key").fill(adminKey);
await page.getByRole("button", { name: "Look" }).click();
await row("workers", "local").getByText("healthy").waitFor();
await page.locator("#ready", { hasText: /^ready$/ }).waitFor();
await row("models", "acme-only").waitFor();
await row("queues", "smollm2-135m").waitFor();
// Live: what happens now is shown without loading the page again.
await page.getByRole("img", { name: /acme\/pirate@\d+: not on local/ }).waitFor();
await chat("acme-only");
await page.getByRole("img", { name: /acme\/pirate@\d+: resident on local/ }).waitFor();
for (let asked = 0; asked < 3; asked += 1) await chat("acme-only");
await row("limits", "acme").getByText("requests per minute").waitFor();
await page.locator("#sinks tbody tr", { hasText: "file" }).waitFor();
await shoot("light");
await page.emulateMedia({ colorScheme: "dark" });
await shoot("dark");
await page.setViewportSize({ width: 390, height: 844 });
const [content, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
assert(content <= window, `the page is ${content} wide in a window of ${window}`);
await shoot("narrow");
assert.deepEqual(wrong, []);
await close();
console.log("ok: the status page");
