"""The official SDKs, unmodified, where the deployment speaks another protocol than the SDK.

Models of the gateway: `claude` and `gemini` for openai, `gpt` and `gemini` for anthropic, each served by a deployment of
its name's protocol. Answers have 12 tokens and call the first tool that is offered.
"""

import json
import os

import anthropic
import openai
import pytest

URL = os.environ["TOLLGATE_URL"]
KEY = os.environ["TOLLGATE_KEY"]
TEXT = " hello the water is clear and very cold in this small river"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CALLED = {"city": "Paris", "days": 2}

pytestmark = pytest.mark.skipif(
    os.environ.get("TOLLGATE_BARE") == "1", reason="TOLLGATE_BARE=1: the mock alone translates nothing"
)
openai_models = pytest.mark.parametrize("model", ["claude", "gemini"])
anthropic_models = pytest.mark.parametrize("model", ["gpt", "gemini"])

OPENAI_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}]
OPENAI_QUESTION = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How cold is the water?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    }
]
ANTHROPIC_TOOLS = [{"name": "weather", "description": "d", "input_schema": SCHEMA}]
ANTHROPIC_QUESTION = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How cold is the water?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
    }
]


@pytest.fixture
def client():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def claude():
    with anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=30) as client:
        yield client


@openai_models
def test_openai(client, model):
    answer = client.chat.completions.create(model=model, messages=OPENAI_QUESTION, max_tokens=100)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


@openai_models
def test_openai_stream(client, model):
    stream = client.chat.completions.create(
        model=model, messages=OPENAI_QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage.completion_tokens == 12


@openai_models
def test_openai_tools(client, model):
    answer = client.chat.completions.create(model=model, messages=OPENAI_QUESTION, tools=OPENAI_TOOLS)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == CALLED
    # The result goes back in the next turn.
    turn = [
        *OPENAI_QUESTION,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "cold"},
    ]
    answer = client.chat.completions.create(model=model, messages=turn)
    assert answer.choices[0].message.content == TEXT


@openai_models
def test_openai_tools_stream(client, model):
    with client.chat.completions.stream(model=model, messages=OPENAI_QUESTION, tools=OPENAI_TOOLS) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments) == CALLED


@openai_models
def test_openai_refusal_names_the_field(client, model):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=OPENAI_QUESTION, n=2)
    assert caught.value.param == "n"


@anthropic_models
def test_anthropic(claude, model):
    answer = claude.messages.create(model=model, max_tokens=100, messages=ANTHROPIC_QUESTION)
    assert answer.content[0].text == TEXT
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 12


@anthropic_models
def test_anthropic_stream(claude, model):
    with claude.messages.stream(model=model, max_tokens=100, messages=ANTHROPIC_QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == TEXT
    assert final.usage.output_tokens == 12
    assert final.stop_reason == "end_turn"


@anthropic_models
def test_anthropic_tools(claude, model):
    answer = claude.messages.create(
        model=model, max_tokens=100, messages=ANTHROPIC_QUESTION, tools=ANTHROPIC_TOOLS
    )
    assert answer.stop_reason == "tool_use"
    call = answer.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "weather", CALLED)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "cold"}
    turn = [
        *ANTHROPIC_QUESTION,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    answer = claude.messages.create(model=model, max_tokens=100, messages=turn)
    assert answer.content[0].text == TEXT


@anthropic_models
def test_anthropic_tools_stream(claude, model):
    with claude.messages.stream(
        model=model, max_tokens=100, messages=ANTHROPIC_QUESTION, tools=ANTHROPIC_TOOLS
    ) as stream:
        final = stream.get_final_message()
    call = final.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "weather", CALLED)


@anthropic_models
def test_anthropic_system_prompt_and_stop(claude, model):
    answer = claude.messages.create(
        model=model,
        max_tokens=5,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        stop_sequences=["END"],
        messages=ANTHROPIC_QUESTION,
    )
    assert answer.stop_reason == "max_tokens"
    assert answer.usage.output_tokens == 5


@anthropic_models
def test_anthropic_refusal_names_the_field(claude, model):
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude.messages.create(
            model=model, max_tokens=100, messages=ANTHROPIC_QUESTION, extra_body={"container": "c"}
        )
    assert "container" in caught.value.body["error"]["message"]


@anthropic_models
def test_anthropic_error_of_the_deployment(claude, model):
    with pytest.raises(anthropic.APIStatusError) as caught:
        claude.messages.create(model=f"{model}-down", max_tokens=100, messages=ANTHROPIC_QUESTION)
    assert caught.value.status_code == 529
    assert caught.value.body["error"]["type"] == "overloaded_error"


def test_anthropic_count_tokens(claude):
    counted = claude.messages.count_tokens(
        model="gpt", messages=[{"role": "user", "content": "How cold is the water?"}]
    )
    assert counted.input_tokens > 6
