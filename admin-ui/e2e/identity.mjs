// A small OpenID Connect provider: whoever comes is signed in at once, as `claims` says, or sent back with `error`.
import { createHash, generateKeyPairSync, randomBytes, sign } from "node:crypto";
import { createServer } from "node:http";

export const CLIENT = "tollgate-browser-test";
const coded = (value) => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");

export async function startProvider() {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const codes = new Map();
  const provider = { claims: {}, error: "", stop: null, issuer: "" };

  function token({ nonce }) {
    const now = Math.floor(Date.now() / 1_000);
    const text = `${coded({ alg: "ES256", kid: "one", typ: "JWT" })}.${coded({ iss: provider.issuer, aud: CLIENT, iat: now, exp: now + 300, nonce, ...provider.claims })}`;
    return `${text}.${sign("sha256", Buffer.from(text), { key: privateKey, dsaEncoding: "ieee-p1363" }).toString("base64url")}`;
  }
  function exchange(form) {
    const known = codes.get(form.get("code"));
    codes.delete(form.get("code"));
    const proof = createHash("sha256").update(form.get("code_verifier") ?? "").digest("base64url");
    if (!known || known.challenge !== proof) return [400, { error: "invalid_grant" }];
    return [200, { access_token: "of-no-use", token_type: "Bearer", expires_in: 300, id_token: token(known) }];
  }
  const server = createServer(async (request, response) => {
    const { pathname, searchParams } = new URL(request.url, provider.issuer);
    const json = (status, body) => { response.writeHead(status, { "content-type": "application/json" }); response.end(JSON.stringify(body)); };
    if (pathname === "/.well-known/openid-configuration") {
      json(200, {
        issuer: provider.issuer, authorization_endpoint: `${provider.issuer}/authorize`, token_endpoint: `${provider.issuer}/token`, jwks_uri: `${provider.issuer}/keys`,
        response_types_supported: ["code"], subject_types_supported: ["public"], id_token_signing_alg_values_supported: ["ES256"], token_endpoint_auth_methods_supported: ["none"],
      });
    } else if (pathname === "/keys") {
      json(200, { keys: [{ ...publicKey.export({ format: "jwk" }), kid: "one", use: "sig", alg: "ES256" }] });
    } else if (pathname === "/authorize") {
      const back = new URL(searchParams.get("redirect_uri"));
      back.searchParams.set("state", searchParams.get("state"));
      if (provider.error) back.searchParams.set("error", provider.error);
      else {
        const code = randomBytes(12).toString("hex");
        codes.set(code, { nonce: searchParams.get("nonce"), challenge: searchParams.get("code_challenge") });
        back.searchParams.set("code", code);
      }
      response.writeHead(302, { location: back.href });
      response.end();
    } else if (pathname === "/token") {
      let text = "";
      for await (const piece of request) text += piece;
      json(...exchange(new URLSearchParams(text)));
    } else json(404, {});
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  provider.issuer = `http://127.0.0.1:${server.address().port}`;
  provider.stop = () => new Promise((ended) => { server.closeAllConnections(); server.close(ended); });
  return provider;
}
