// Debian's Chromium, and what every test wants of a page: no error in its console, no request to another host.
import { chromium } from "playwright-core";

const ARGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export function launch() {
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ARGS });
}

export async function open(browser, base, { fresh = false, also = [], ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, locale: "en-US", ...options });
  // Whoever tests is not here for the first time, unless they say so.
  if (!fresh) await context.addInitScript(() => localStorage.setItem("tollgate.tour", "done"));
  const page = await context.newPage();
  page.setDefaultTimeout(15_000);
  const trouble = [];
  page.on("pageerror", (error) => trouble.push(`error: ${error.message}`));
  page.on("console", (message) => {
    // A refused call is an answer, not a defect of the page: tests ask for such answers on purpose.
    if (message.type() === "error" && !/Failed to load resource|net::ERR/.test(message.text())) trouble.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (![base, ...also].some((host) => request.url().startsWith(host)) && !/^(data|blob):/.test(request.url())) trouble.push(`request to another host: ${request.url()}`);
  });
  return { page, context, trouble };
}
