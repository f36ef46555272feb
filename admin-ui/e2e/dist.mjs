// The dashboard's files from `dist` in front of a daemon's API, so that a change of the pages needs no build of the daemon:
// TOLLGATE_UI=dist npm run e2e
import { createReadStream, existsSync } from "node:fs";
import { createServer, request } from "node:http";
import { extname, join, normalize } from "node:path";

const DIST = join(import.meta.dirname, "../dist");
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".woff2": "font/woff2" };

/** Serves on a port of its own; resolves to its address and the way to end it. */
export function serveDist(port, api) {
  const server = createServer((incoming, outgoing) => {
    const { pathname } = new URL(incoming.url, "http://127.0.0.1");
    if (pathname.startsWith("/api/") || pathname === "/metrics") {
      const onward = request({ host: "127.0.0.1", port: api, path: incoming.url, method: incoming.method, headers: incoming.headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      onward.on("error", () => outgoing.destroy());
      outgoing.on("close", () => onward.destroy());
      incoming.pipe(onward);
      return;
    }
    const asked = join(DIST, normalize(pathname));
    const file = extname(asked) && existsSync(asked) ? asked : join(DIST, "index.html");
    outgoing.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
    createReadStream(file).pipe(outgoing);
  });
  return new Promise((done) => {
    server.listen(port, "127.0.0.1", () => done({
      console: `http://127.0.0.1:${port}`,
      stop: () => new Promise((ended) => { server.closeAllConnections(); server.close(ended); }),
    }));
  });
}
