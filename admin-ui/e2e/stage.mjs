// What a file of tests plays on: a gateway, a browser, and the admin signed in with a password of their own.
import { launch, open } from "./browser.mjs";
import { sleep, startGateway } from "./gateway.mjs";
import { Console } from "./pages/console.mjs";

export const PASSWORD = "a-browser-test-password-1";

/** Signs a context in by the API, as the login page would; with `next` the generated password is changed at once. */
export async function signIn(context, base, name, password, next) {
  const answer = await context.request.post(`${base}/api/v1/login`, { data: { name, password } });
  if (!answer.ok()) throw new Error(`login of ${name}: ${answer.status()} ${await answer.text()}`);
  if (!next) return;
  const { csrf } = await answer.json();
  const changed = await context.request.put(`${base}/api/v1/session/password`, { data: { current: password, new: next }, headers: { "x-csrf-token": csrf } });
  if (!changed.ok()) throw new Error(`new password of ${name}: ${changed.status()} ${await changed.text()}`);
}

/** `start` starts something else than one gateway. */
export async function stage(options = {}) {
  const gateway = await (options.start ?? startGateway)(options.gateway);
  let browser;
  try {
    browser = await launch();
    return await on(gateway, browser);
  } catch (error) {
    // What runs on would keep the file of tests from ending.
    await browser?.close();
    await gateway.stop();
    throw error;
  }
}

async function on(gateway, browser) {
  const opened = [];
  /** Another window, of the admin unless told otherwise. */
  async function window(looks = {}, account = { name: "admin", password: PASSWORD }) {
    const view = await open(browser, gateway.console, looks);
    if (account) await signIn(view.context, gateway.console, account.name, account.password);
    opened.push(view);
    return { ...view, frame: new Console(view.page, gateway.console) };
  }
  const first = await open(browser, gateway.console);
  await signIn(first.context, gateway.console, "admin", gateway.password, PASSWORD);
  opened.push(first);
  const { page } = first;
  const frame = new Console(page, gateway.console);

  /** Calls the admin API as the page's account does. */
  async function api(method, path, body, etag) {
    const session = await (await first.context.request.get(`${gateway.console}/api/v1/session`)).json();
    const headers = { "x-csrf-token": session.csrf ?? "", ...(etag ? { "if-match": etag } : {}) };
    const answer = await first.context.request.fetch(`${gateway.console}/api/v1${path}`, { method, headers, ...(body === undefined ? {} : { data: body }) });
    return { status: answer.status(), body: await answer.json().catch(() => null), headers: answer.headers() };
  }

  let sending = false;
  let running = Promise.resolve();
  /** Requests of two callers to two models, until the end. */
  function traffic() {
    sending = true;
    running = (async () => {
      for (let n = 1; sending; n += 1) {
        await gateway.chat({ channelcode: n % 4 ? "busy001" : "wechat001" }, n % 3 ? {} : { model: "chat-large" }).catch(() => null);
        await sleep(120);
      }
    })();
  }
  async function end() {
    sending = false;
    await running;
    await browser.close();
    await gateway.stop();
  }
  /** What pages complained of, all of them. */
  const complaints = () => opened.flatMap((view) => view.trouble);
  return { gateway, browser, page, frame, context: first.context, window, api, traffic, end, complaints };
}
