// A gateway with something to see on every page: prices, an experiment, probes, rule templates, former versions.
export const documents = {
  models: {
    models: [
      { name: "chat-small", aliases: ["mini"], deployments: [{ provider: "mock", upstream_model: "mock-small?tokens=40", cost: { input: 0.1, output: 0.4 } }], price: { input: 0.15, output: 0.6 }, default_max_tokens: 256, tokenizer: "o200k_base" },
      {
        name: "chat-large",
        deployments: [
          { id: "chat-large/stable", provider: "mock", upstream_model: "mock-large?tokens=120&interval=10ms", version: "v1", weight: 90, cost: { input: 2, output: 8 }, limits: [{ metric: "requests", max: 500, window: "1m" }] },
          { id: "chat-large/canary", provider: "mock", upstream_model: "mock-large-canary?tokens=120", version: "v2", weight: 10 },
        ],
        price: { input: 2.5, cached_input: 1.25, output: 10 }, default_max_tokens: 512, tokenizer: "o200k_base", fallback: ["chat-small"],
        experiment: { name: "large-ab", by: "header.x-user-id", groups: [{ name: "stable", share: 50, set_version: "v1" }, { name: "canary", share: 50, set_version: "v2" }] },
      },
    ],
  },
  rule_templates: {
    rule_templates: [{
      name: "cap answers", description: "Caps the answers of some channels.", parameters: [{ name: "channels", description: "which, by glob" }, { name: "tokens", description: "at most so many", default: 1024 }],
      when: { field: "channel", op: "matches", value: "${channels}" }, then: { cap_max_tokens: "${tokens}" },
    }],
  },
  rules: {
    rules: [
      { name: "no huge completions", priority: 100, when: { all: [{ field: "header.channelcode", op: "matches", value: "wechat*" }, { field: "body.max_tokens", op: "gt", value: 4096 }] }, then: { deny: { status: 400, code: "max_tokens_exceeded", message: "at most 4096 tokens per answer" } } },
      { name: "visitors are brief", priority: 80, template: "cap answers", with: { channels: "visitor*", tokens: 256 } },
      { name: "nights to the small model", priority: 40, when: { all: [{ field: "model", op: "eq", value: "chat-large" }, { field: "time", op: "in", value: { hours: "22:00-06:00", zone: "Asia/Shanghai" } }] }, then: { shadow: { set_model: "chat-small" } } },
    ],
  },
  tokenizers: { tokenizers: [{ name: "o200k for all", models: ["chat-*"], tokenizer: "o200k_base" }] },
  providers: ({ mock }) => ({ providers: [{ id: "mock", protocol: "openai", base_url: mock, credentials: { type: "bearer", key: "sample-provider-key" }, health_check: { type: "http", path: "/v1/models", interval: "1s" } }] }),
};

/** Some of everything that only comes with use. */
export async function fill({ gateway, api }) {
  for (let n = 0; n < 40; n += 1) {
    await gateway.chat({ channelcode: n % 3 ? "busy001" : "visitor001", "x-user-id": `user-${n}` }, n % 2 ? { model: "chat-large" } : {});
  }
  await gateway.chat({ channelcode: "wechat001" }, { max_tokens: 9_000 });
  await gateway.chat({ channelcode: "nobody" });
  for (const name of ["Mobile app, iOS", "Mobile app, Android"]) {
    const item = (await api("GET", "/channels/mobile002")).body;
    await api("PATCH", "/channels/mobile002", { name }, `"${item.etag}"`);
  }
  await api("POST", "/accounts", { name: "team-lead", display_name: "Lead of the mobile team", roles: ["operator"], channels: ["mobile*"] });
  await api("POST", "/tokens", { label: "nightly report", expires_in: "90d" });
}
