// A whole gateway for browser tests: mock LLM, daemon and nginx with the sample configuration, on free ports, in a folder of
// its own. Every process it starts is ended by it.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, connect } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { serveDist } from "./dist.mjs";

const ROOT = resolve(import.meta.dirname, "../..");
const PROFILE = process.env.PROFILE ?? "fast";
const BIN = join(ROOT, "target", PROFILE === "dev" ? "debug" : PROFILE);
const MODULE = join(ROOT, "target/module/pinned");
export const PARTNER_KEY = "sk-browser-test-partner";

function freePort() {
  return new Promise((done, failed) => {
    const server = createServer().once("error", failed).listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(what, check, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(50);
  }
}
export { until, sleep };

const listens = (port) =>
  new Promise((done) => {
    const socket = connect(port, "127.0.0.1").once("connect", () => { socket.destroy(); done(true); }).once("error", () => done(false));
  });

/**
 * Starts one. `documents` may add documents to the sample's or, as null, take them away; `channels` adds so many channels.
 */
export async function startGateway({ documents = {}, channels: many = 0 } = {}) {
  const dir = mkdtempSync(join(tmpdir(), "tollgate-ui-"));
  const region = mkdtempSync(join(readdirSync("/dev").includes("shm") ? "/dev/shm" : tmpdir(), "tollgate-ui-"));
  const [listen, api, mock] = [await freePort(), await freePort(), await freePort()];
  for (const folder of ["config", "state", "proxy", "client_body", "logs"]) mkdirSync(join(dir, folder));
  const env = Object.fromEntries(readFileSync(join(MODULE, "tree.env"), "utf8").split("\n").filter((l) => l.includes("=")).map((l) => [l.slice(0, l.indexOf("=")), l.slice(l.indexOf("=") + 1)]));
  const fill = (text) =>
    text
      .replaceAll("@MODULE@", join(MODULE, "ngx_http_tollgate_module.so")).replaceAll("@RUN@", dir).replaceAll("@REGION@", region).replaceAll("@ROOT@", ROOT)
      .replaceAll("@LISTEN@", `127.0.0.1:${listen}`).replaceAll("@MOCK@", `127.0.0.1:${mock}`).replaceAll("@USER@", process.getuid() === 0 ? "user root root;" : "")
      .replaceAll("@PARTNER_KEY_SHA256@", createHash("sha256").update(PARTNER_KEY).digest("hex"));
  const sample = join(ROOT, "nginx-conf/sample");
  for (const name of readdirSync(join(sample, "config"))) writeFileSync(join(dir, "config", name), fill(readFileSync(join(sample, "config", name), "utf8")));
  // Somebody who is always let through: the sample's channels soon meet their limits.
  const channels = join(dir, "config", "tollgate.channels.json");
  const listed = JSON.parse(readFileSync(channels, "utf8"));
  listed.channels.push({ code: "busy001", name: "Always busy", trusted: true });
  for (let n = 0; n < many; n += 1) listed.channels.push({ code: `many${String(n).padStart(5, "0")}`, name: `Channel number ${n}`, extends: "standard", trusted: true });
  writeFileSync(channels, JSON.stringify(listed, null, 2));
  for (const [name, document] of Object.entries(documents)) {
    const path = join(dir, "config", `tollgate.${name}.json`);
    if (document === null) rmSync(path, { force: true });
    else writeFileSync(path, JSON.stringify(typeof document === "function" ? document({ mock: `http://127.0.0.1:${mock}` }) : document, null, 2));
  }
  writeFileSync(join(dir, "nginx.conf"), fill(readFileSync(join(sample, "nginx.conf"), "utf8")));

  const running = [];
  let said = "";
  function run(command, args) {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    const take = (data) => { said += data; };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    running.push(child);
    return child;
  }
  const ended = (child) => child.exitCode !== null || child.signalCode !== null;
  async function end(child) {
    if (ended(child)) return;
    child.kill("SIGTERM");
    await until("a process to end", () => ended(child), 10_000).catch(() => child.kill("SIGKILL"));
  }
  let pages = null;
  async function stop() {
    await pages?.stop();
    for (const child of running.reverse()) await end(child);
    rmSync(dir, { recursive: true, force: true });
    rmSync(region, { recursive: true, force: true });
  }
  const daemonArgs = ["serve", "--config", join(dir, "config"), "--state", join(dir, "state"), "--region", region, "--listen", `127.0.0.1:${api}`, "--instance", "gateway-1"];
  try {
    run(join(BIN, "mock-llm"), ["--listen", `127.0.0.1:${mock}`]);
    await until("the mock LLM", () => listens(mock));
    let daemon = run(join(BIN, "tollgate"), daemonArgs);
    await until("the daemon", () => listens(api));
    writeFileSync(join(dir, "error.log"), "");
    run(env.NGINX_BINARY, ["-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf"), "-g", "daemon off;"]);
    await until("nginx", () => listens(listen));
    const password = await until("the first password", () => /as admin with the password (\S+)/.exec(said)?.[1], 10_000);
    if (process.env.TOLLGATE_UI === "dist") pages = await serveDist(await freePort(), api);
    return {
      console: pages?.console ?? `http://127.0.0.1:${api}`,
      mock: `http://127.0.0.1:${mock}`,
      password,
      /** Sends a chat request and answers with its status and body. */
      async chat(headers, body) {
        const response = await fetch(`http://127.0.0.1:${listen}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json", ...headers },
          body: JSON.stringify({ model: "chat-small", max_tokens: 16, messages: [{ role: "user", content: "How cold is the water?" }], ...body }),
        });
        return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
      },
      /** Begins a stream and answers, once its head is there, with its status and what becomes of its text. */
      async stream(headers, body) {
        const response = await fetch(`http://127.0.0.1:${listen}/v1/chat/completions`, {
          method: "POST",
          headers: { "content-type": "application/json", ...headers },
          body: JSON.stringify({ model: "chat-small", stream: true, messages: [{ role: "user", content: "How cold is the water?" }], ...body }),
        });
        return { status: response.status, text: response.text() };
      },
      async killDaemon() {
        daemon.kill("SIGKILL");
        await until("the daemon to be gone", () => ended(daemon));
      },
      async startDaemon() {
        daemon = run(join(BIN, "tollgate"), daemonArgs);
        await until("the daemon", () => listens(api));
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw new Error(`${error.message}\n${said.slice(-2_000)}`);
  }
}
