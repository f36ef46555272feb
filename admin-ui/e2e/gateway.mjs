// A whole gateway for browser tests: mock LLM, daemon and nginx with the sample configuration, on free ports, in a folder of
// its own. Every process it starts is ended by it.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { serveDist } from "./dist.mjs";
import { BIN, client, fill, freePort, listens, nginxBinary, Processes, ROOT, sampleDocuments, until, writeDocuments } from "./processes.mjs";

export { PARTNER_KEY, sleep, until } from "./processes.mjs";

/**
 * Starts one. `documents` may add documents to the sample's or, as null, take them away; `channels` adds so many channels.
 */
export async function startGateway({ documents = {}, channels: many = 0 } = {}) {
  const processes = new Processes();
  const [dir, region] = [processes.folder(), processes.region()];
  const [listen, api, mock] = [await freePort(), await freePort(), await freePort()];
  for (const folder of ["state", "proxy", "client_body", "logs"]) mkdirSync(join(dir, folder));
  const values = { RUN: dir, REGION: region, LISTEN: `127.0.0.1:${listen}`, MOCK: `127.0.0.1:${mock}` };
  const all = sampleDocuments(values);
  // Somebody who is always let through: the sample's channels soon meet their limits.
  all.channels.channels.push({ code: "busy001", name: "Always busy", trusted: true });
  for (let n = 0; n < many; n += 1) all.channels.channels.push({ code: `many${String(n).padStart(5, "0")}`, name: `Channel number ${n}`, extends: "standard", trusted: true });
  for (const [name, document] of Object.entries(documents)) {
    if (document === null) delete all[name];
    else all[name] = typeof document === "function" ? document({ mock: `http://127.0.0.1:${mock}` }) : document;
  }
  writeDocuments(join(dir, "config"), all);
  writeFileSync(join(dir, "nginx.conf"), fill(readFileSync(join(ROOT, "nginx-conf/sample/nginx.conf"), "utf8"), values));

  let pages = null;
  async function stop() {
    await pages?.stop();
    await processes.endAll();
  }
  const daemonArgs = ["serve", "--config", join(dir, "config"), "--state", join(dir, "state"), "--region", region, "--listen", `127.0.0.1:${api}`, "--instance", "gateway-1"];
  try {
    processes.run(join(BIN, "mock-llm"), ["--listen", `127.0.0.1:${mock}`]);
    await until("the mock LLM", () => listens(mock));
    let daemon = processes.run(join(BIN, "tollgate"), daemonArgs);
    await until("the daemon", () => listens(api));
    writeFileSync(join(dir, "error.log"), "");
    processes.run(nginxBinary(), ["-p", dir, "-e", join(dir, "error.log"), "-c", join(dir, "nginx.conf"), "-g", "daemon off;"]);
    await until("nginx", () => listens(listen));
    const password = await until("the first password", () => /as admin with the password (\S+)/.exec(processes.said)?.[1], 10_000);
    if (process.env.TOLLGATE_UI === "dist") pages = await serveDist(await freePort(), api);
    return {
      console: pages?.console ?? `http://127.0.0.1:${api}`,
      mock: `http://127.0.0.1:${mock}`,
      password,
      /** The folder that it runs in. */
      dir,
      ...client(`127.0.0.1:${listen}`),
      killDaemon: () => processes.end(daemon, "SIGKILL"),
      async startDaemon() {
        daemon = processes.run(join(BIN, "tollgate"), daemonArgs);
        await until("the daemon", () => listens(api));
      },
      stop,
    };
  } catch (error) {
    await stop();
    throw new Error(`${error.message}\n${processes.said.slice(-2_000)}`);
  }
}
