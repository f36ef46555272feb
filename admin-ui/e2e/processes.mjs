// Processes of a test: started with free ports in folders of their own, waited for, and ended by whoever started them.
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";

export const ROOT = resolve(import.meta.dirname, "../..");
const PROFILE = process.env.PROFILE ?? "fast";
export const BIN = join(ROOT, "target", PROFILE === "dev" ? "debug" : PROFILE);
export const MODULE = join(ROOT, "target/module/pinned");
export const PARTNER_KEY = "sk-browser-test-partner";

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

export async function until(what, check, ms = 30_000) {
  const end = Date.now() + ms;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${ms} ms for ${what}`);
    await sleep(50);
  }
}

function bound(port) {
  return new Promise((done, failed) => {
    const server = createServer().once("error", failed).listen(port, "127.0.0.1", () => {
      const { port: found } = server.address();
      server.close(() => done(found));
    });
  });
}

export const freePort = () => bound(0);

/** A free port with others free at these distances. */
export async function freePorts(distances) {
  for (;;) {
    const first = await freePort();
    if (first + Math.max(...distances) > 65_535) continue;
    if (await Promise.all(distances.map((d) => bound(first + d))).then(() => true, () => false)) return first;
  }
}

export const listens = (port) =>
  new Promise((done) => {
    const socket = connect(port, "127.0.0.1").once("connect", () => { socket.destroy(); done(true); }).once("error", () => done(false));
  });

/** The nginx that the module was built for. */
export const nginxBinary = () => /^NGINX_BINARY=(.*)$/m.exec(readFileSync(join(MODULE, "tree.env"), "utf8"))[1];

/** Puts values for the names between @ into a text. */
export function fill(text, values) {
  const all = {
    MODULE: join(MODULE, "ngx_http_tollgate_module.so"), ROOT, USER: process.getuid() === 0 ? "user root root;" : "",
    PARTNER_KEY_SHA256: createHash("sha256").update(PARTNER_KEY).digest("hex"), ...values,
  };
  return text.replaceAll(/@([A-Z0-9_]+)@/g, (whole, name) => all[name] ?? whole);
}

/** The sample's documents by their kinds, to be written or published. */
export function sampleDocuments(values) {
  const folder = join(ROOT, "nginx-conf/sample/config");
  return Object.fromEntries(readdirSync(folder).map((name) => [name.split(".")[1], JSON.parse(fill(readFileSync(join(folder, name), "utf8"), values))]));
}

/** Writes documents into a folder, as the daemon reads and publishes them. */
export function writeDocuments(folder, documents) {
  mkdirSync(folder, { recursive: true });
  for (const [name, document] of Object.entries(documents)) writeFileSync(join(folder, `tollgate.${name}.json`), JSON.stringify(document, null, 2));
}

const ended = (child) => child.exitCode !== null || child.signalCode !== null;

export class Processes {
  constructor() {
    this.running = [];
    this.folders = [];
    /** What they all have said. */
    this.said = "";
  }

  folder(where = tmpdir()) {
    const made = mkdtempSync(join(where, "tollgate-ui-"));
    this.folders.push(made);
    return made;
  }

  /** A folder for a region: in memory, where there is one. */
  region() {
    return this.folder(readdirSync("/dev").includes("shm") ? "/dev/shm" : tmpdir());
  }

  run(command, args, options = {}) {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"], ...options });
    const take = (data) => { this.said += data; };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    this.running.push(child);
    return child;
  }

  async end(child, signal = "SIGTERM") {
    if (ended(child)) return;
    child.kill(signal);
    await until("a process to end", () => ended(child), 10_000).catch(() => child.kill("SIGKILL"));
  }

  async endAll() {
    for (const child of this.running.reverse()) await this.end(child);
    for (const folder of this.folders) rmSync(folder, { recursive: true, force: true });
  }
}

/** Requests to a gateway at an address. */
export function client(address) {
  const ask = (headers, body) =>
    fetch(`http://${address}/v1/chat/completions`, { method: "POST", headers: { "content-type": "application/json", ...headers }, body: JSON.stringify(body) });
  const messages = [{ role: "user", content: "How cold is the water?" }];
  return {
    /** Sends a chat request and answers with its status and body. */
    async chat(headers, body) {
      const response = await ask(headers, { model: "chat-small", max_tokens: 16, messages, ...body });
      return { status: response.status, headers: response.headers, body: await response.json().catch(() => null) };
    },
    /** Begins a stream and answers, once its head is there, with its status and what becomes of its text. */
    async stream(headers, body) {
      const response = await ask(headers, { model: "chat-small", stream: true, messages, ...body });
      return { status: response.status, text: response.text() };
    },
  };
}
