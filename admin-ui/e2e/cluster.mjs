// Several instances for browser tests: HAProxy in front, Redis for limits over all of them, a Nacos server for the documents.
// Redis and an instance can be taken away and come back.
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { randomBytes } from "node:crypto";
import { serveDist } from "./dist.mjs";
import { BIN, client, fill, freePort, freePorts, listens, nginxBinary, Processes, ROOT, sampleDocuments, until, writeDocuments } from "./processes.mjs";

/** Whether what is written to Nacos reads back. Now and then rnacos breaks while it starts, and never answers then. */
async function answers(port) {
  const url = `http://127.0.0.1:${port}/nacos/v1/cs/configs`;
  const id = "dataId=tollgate.ready&group=TOLLGATE_READY";
  const patience = () => ({ signal: AbortSignal.timeout(2_000) });
  const written = await fetch(url, { method: "POST", body: new URLSearchParams(`${id}&content=ready`), ...patience() }).then((a) => a.ok, () => false);
  return written && (await fetch(`${url}?${id}`, patience()).then((a) => a.text(), () => "")) === "ready";
}

async function startNacos(processes) {
  const binary = execFileSync(join(ROOT, "scripts/rnacos.sh"), { encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] }).trim();
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const [port, dir] = [await freePorts([1_000, 2_000]), processes.folder()];
    const child = processes.run(binary, [], {
      cwd: dir,
      env: {
        ...process.env, RNACOS_SDK_HOST: "127.0.0.1", RNACOS_HTTP_PORT: String(port), RNACOS_GRPC_PORT: String(port + 1_000), RNACOS_HTTP_CONSOLE_PORT: String(port + 2_000),
        RNACOS_HTTP_WORKERS: "2", RNACOS_DATA_DIR: join(dir, "data"), RNACOS_NAMING_INSTANCE_METADATA_PERSISTENCE_ENABLE: "false", RUST_LOG: "warn",
      },
    });
    if (await until("Nacos", () => answers(port), 8_000).then(() => true, () => false)) return `127.0.0.1:${port}`;
    await processes.end(child, "SIGKILL");
  }
  throw new Error("Nacos did not start");
}

/** Starts one of so many instances, `gateway1` and on. `settings` go into the documents. */
export async function startCluster({ instances: count = 2, settings = {} } = {}) {
  const processes = new Processes();
  const dir = processes.folder();
  const [front, redis, mock] = [await freePort(), await freePort(), await freePort()];
  const key = join(dir, "master.key");
  writeFileSync(key, randomBytes(32).toString("hex"), { mode: 0o600 });
  let pages = null;
  async function stop() {
    await pages?.stop();
    await processes.endAll();
  }
  let redisServer;
  async function startRedis() {
    redisServer = processes.run("redis-server", ["--bind", "127.0.0.1", "--port", String(redis), "--dir", dir, "--save", "", "--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
    await until("Redis", () => listens(redis));
  }
  try {
    processes.run(join(BIN, "mock-llm"), ["--listen", `127.0.0.1:${mock}`]);
    await Promise.all([startRedis(), until("the mock LLM", () => listens(mock))]);
    const nacos = await startNacos(processes);
    const socket = join(dir, "haproxy.sock");
    const haproxy = readFileSync(join(ROOT, "nginx-conf/cluster/haproxy.cfg"), "utf8");
    writeFileSync(join(dir, "haproxy.cfg"), haproxy.replace("bind :8000", `bind 127.0.0.1:${front}`).replaceAll("/run/haproxy/admin.sock", socket).replace("maxconn 60000", "maxconn 1000").replace("slowstart 5s ", ""));
    processes.run("haproxy", ["-db", "-f", join(dir, "haproxy.cfg")]);
    await until("HAProxy", () => listens(front));

    const documents = sampleDocuments({ MOCK: `127.0.0.1:${mock}` });
    documents.channels.channels.push({ code: "busy001", name: "Always busy", trusted: true, limits: [{ metric: "requests", max: 100_000, window: "10m" }] });
    documents.settings = { settings: { redis: { urls: [`redis://127.0.0.1:${redis}`] }, ...settings } };
    writeDocuments(join(dir, "documents"), documents);
    /** By the first instance, before there is another: whose accounts become everybody's is not left to chance. */
    async function publish({ api, token }) {
      execFileSync(join(BIN, "tollgate"), ["config", "publish", join(dir, "documents"), "-m", "the sample documents", "--url", api, "--token-file", token], { stdio: "pipe" });
      await until("accounts in Redis", () => processes.said.includes("the instances' accounts are in Redis"));
    }

    const instances = [];
    for (let n = 1; n <= count; n += 1) {
      const here = join(dir, `gateway${n}`);
      const [listen, api, region] = [await freePort(), await freePort(), processes.region()];
      for (const folder of ["state", "proxy", "client_body"]) mkdirSync(join(here, folder), { recursive: true });
      const values = { RUN: here, REGION: region, LISTEN: `127.0.0.1:${listen}`, MASTER_KEY: key };
      writeFileSync(join(here, "nginx.conf"), fill(readFileSync(join(ROOT, "nginx-conf/cluster/instance.conf"), "utf8"), values));
      writeFileSync(join(here, "error.log"), "");
      const args = ["serve", "--nacos", `http://${nacos}`, "--instance", `gateway${n}`, "--advertise", `127.0.0.1:${listen}`, "--master-key-file", key, "--state", join(here, "state"), "--region", region, "--listen", `127.0.0.1:${api}`, ...(n === 1 ? ["--haproxy", socket] : [])];
      const daemon = processes.run(join(BIN, "tollgate"), args);
      await until(`the daemon of gateway${n}`, () => listens(api));
      const nginx = processes.run(nginxBinary(), ["-p", here, "-e", join(here, "error.log"), "-c", join(here, "nginx.conf"), "-g", "daemon off;"]);
      await until(`nginx of gateway${n}`, () => listens(listen));
      instances.push({
        name: `gateway${n}`, address: `127.0.0.1:${listen}`, api: `http://127.0.0.1:${api}`, port: api, token: join(here, "state/api.token"), ...client(`127.0.0.1:${listen}`),
        async stop() {
          await processes.end(daemon);
          await processes.end(nginx);
        },
      });
      if (n === 1) await publish(instances[0]);
    }
    const [first] = instances;
    const through = client(`127.0.0.1:${front}`);
    for (const { name, chat } of [...instances, { name: "HAProxy", ...through }]) await until(`${name} to serve`, async () => (await chat({ channelcode: "busy001" }).catch(() => null))?.status === 200);
    const password = await until("the first password", () => /as admin with the password (\S+)/.exec(processes.said)?.[1], 10_000);
    if (process.env.TOLLGATE_UI === "dist") pages = await serveDist(await freePort(), first.port);
    return {
      console: pages?.console ?? first.api,
      mock: `http://127.0.0.1:${mock}`,
      password,
      dir,
      instances,
      /** Through HAProxy. */
      ...through,
      stopRedis: () => processes.end(redisServer, "SIGKILL"),
      startRedis,
      stop,
    };
  } catch (error) {
    await stop();
    rmSync(dir, { recursive: true, force: true });
    throw new Error(`${error.message}\n${processes.said.slice(-3_000)}`);
  }
}
