// A first configuration to look around in: the mock LLM of the repository (`mock-llm --listen 127.0.0.1:9190`) and a caller.
import { ApiError } from "@/api/http";
import { channels, models, providers, rules, templates, type Resource } from "@/api/resources";

export const SAMPLE_URL = "http://127.0.0.1:9190";

/** Adds an entry, unless one of that name is there already. */
async function put<V>(resource: Resource<V>, id: string, value: V): Promise<void> {
  const there = await resource.read(id).then(() => true, (error: unknown) => {
    if (error instanceof ApiError && error.status === 404) return false;
    throw error;
  });
  if (!there) await resource.create(value);
}

export async function addSample(): Promise<void> {
  await put(providers, "sample", { id: "sample", protocol: "openai", base_url: SAMPLE_URL, credentials: { type: "bearer", key: "sample-provider-key" } });
  await put(models, "sample-chat", {
    name: "sample-chat", tokenizer: "o200k_base", default_max_tokens: 256, price: { input: 0.15, output: 0.6, currency: "USD" },
    deployments: [
      { id: "sample-chat/stable", provider: "sample", upstream_model: "mock-small?tokens=40", version: "v1", weight: 90 },
      { id: "sample-chat/canary", provider: "sample", upstream_model: "mock-small?tokens=40", version: "v2", weight: 10 },
    ],
  });
  await put(templates, "sample-standard", {
    name: "sample-standard", models: { allow: ["sample-*"], deny: [] },
    limits: [{ metric: "connections", max: 100 }, { metric: "input_tokens", max: 10_000, window: "10m" }, { metric: "output_tokens", max: 8_000, window: "10m" }],
  });
  await put(channels, "sample001", { code: "sample001", name: "Sample", extends: "sample-standard", trusted: true });
  await put(rules, "sample: no huge answers", {
    name: "sample: no huge answers", priority: 100, enabled: true,
    when: { all: [{ field: "channel", op: "matches", value: "sample*" }, { field: "body.max_tokens", op: "gt", value: 4096 }] },
    then: { deny: { status: 400, code: "max_tokens_exceeded", message: "at most 4096 tokens per answer" } },
  });
}
