"""The official SDKs, unmodified, against a running gateway.

The Rust test `python_sdks` starts it and says where it is:
TOLLGATE_URL   http://host:port, without /v1
TOLLGATE_KEY   an API key of the channel `python`
Its model is `chat`, whose answers have 12 tokens unless max_tokens is smaller; those of `caller` call the first tool that
is offered as well.
"""

import asyncio
import json
import os

import anthropic
import openai
import pytest

URL = os.environ["TOLLGATE_URL"]
KEY = os.environ["TOLLGATE_KEY"]
TEXT = " hello the water is clear and very cold in this small river"
QUESTION = [{"role": "user", "content": "How cold is the water?"}]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
CALLED = {"city": "Paris", "days": 2}
OPENAI_TOOLS = [{"type": "function", "function": {"name": "weather", "description": "d", "parameters": SCHEMA}}]
OPENAI_PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How cold is the water?"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
        ],
    }
]
ANTHROPIC_TOOLS = [{"name": "weather", "description": "d", "input_schema": SCHEMA}]
ANTHROPIC_PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "How cold is the water?"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
        ],
    }
]

gateway_only = pytest.mark.skipif(
    os.environ.get("TOLLGATE_BARE") == "1",
    reason="TOLLGATE_BARE=1: the mock alone refuses nobody and has no such model",
)


@pytest.fixture
def client():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def claude():
    with anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0, timeout=30) as client:
        yield client


def test_openai_chat(client):
    answer = client.chat.completions.create(model="chat", messages=QUESTION)
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12


def test_openai_chat_stream_without_usage(client):
    chunks = list(client.chat.completions.create(model="chat", messages=QUESTION, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    # Nobody asked for usage: no chunk of it, and no chunk without choices.
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_openai_chat_stream_with_usage(client):
    stream = client.chat.completions.create(
        model="chat", messages=QUESTION, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 12


def test_openai_max_tokens(client):
    answer = client.chat.completions.create(model="chat", messages=QUESTION, max_tokens=5)
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


def test_openai_completions(client):
    answer = client.completions.create(model="chat", prompt="The water is")
    assert answer.choices[0].text == TEXT
    assert answer.usage.completion_tokens == 12


def test_openai_responses(client):
    answer = client.responses.create(model="chat", input="How cold is the water?")
    assert answer.output_text == TEXT
    assert answer.usage.output_tokens == 12


def test_openai_responses_stream(client):
    with client.responses.stream(model="chat", input="How cold is the water?") as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert text == TEXT
    assert final.usage.output_tokens == 12


def test_openai_embeddings(client):
    answer = client.embeddings.create(model="chat", input=["cold", "water"], encoding_format="float")
    assert len(answer.data) == 2
    assert answer.usage.prompt_tokens == 2


def test_openai_completions_stream(client):
    chunks = list(client.completions.create(model="chat", prompt="The water is", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == TEXT


@gateway_only
def test_openai_tools_and_images(client):
    answer = client.chat.completions.create(model="caller", messages=OPENAI_PICTURE, tools=OPENAI_TOOLS)
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", CALLED)
    turn = [
        *OPENAI_PICTURE,
        answer.choices[0].message,
        {"role": "tool", "tool_call_id": call.id, "content": "cold"},
    ]
    answer = client.chat.completions.create(model="caller", messages=turn)
    assert answer.choices[0].message.content == TEXT


@gateway_only
def test_openai_tools_and_images_stream(client):
    with client.chat.completions.stream(model="caller", messages=OPENAI_PICTURE, tools=OPENAI_TOOLS) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    call = answer.choices[0].message.tool_calls[0]
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", CALLED)


def test_openai_responses_max_output_tokens(client):
    answer = client.responses.create(model="chat", input="How cold is the water?", max_output_tokens=5)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage.output_tokens == 5


def test_openai_async_streams_side_by_side():
    async def one(client):
        stream = await client.chat.completions.create(model="chat", messages=QUESTION, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def many():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0, timeout=30) as client:
            return await asyncio.gather(*[one(client) for _ in range(20)])

    assert asyncio.run(many()) == [TEXT] * 20


def test_anthropic_messages(claude):
    answer = claude.messages.create(model="chat", max_tokens=100, messages=QUESTION)
    assert answer.content[0].text == TEXT
    assert answer.stop_reason == "end_turn"
    assert answer.usage.output_tokens == 12


def test_anthropic_stream(claude):
    with claude.messages.stream(model="chat", max_tokens=100, messages=QUESTION) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == TEXT
    assert final.usage.output_tokens == 12
    assert final.stop_reason == "end_turn"


@gateway_only
def test_anthropic_tools_and_images(claude):
    answer = claude.messages.create(
        model="caller", max_tokens=100, messages=ANTHROPIC_PICTURE, tools=ANTHROPIC_TOOLS
    )
    call = answer.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "weather", CALLED)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "cold"}
    turn = [
        *ANTHROPIC_PICTURE,
        {"role": "assistant", "content": answer.content},
        {"role": "user", "content": [result]},
    ]
    answer = claude.messages.create(model="caller", max_tokens=100, messages=turn)
    assert answer.content[0].text == TEXT


@gateway_only
def test_anthropic_tools_and_images_stream(claude):
    with claude.messages.stream(
        model="caller", max_tokens=100, messages=ANTHROPIC_PICTURE, tools=ANTHROPIC_TOOLS
    ) as stream:
        final = stream.get_final_message()
    call = final.content[-1]
    assert (call.type, call.name, call.input) == ("tool_use", "weather", CALLED)


def test_anthropic_max_tokens(claude):
    answer = claude.messages.create(model="chat", max_tokens=3, messages=QUESTION)
    assert answer.usage.output_tokens == 3
    assert answer.stop_reason == "max_tokens"


@gateway_only
def test_openai_refusals_are_typed():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key="sk-wrong", max_retries=0, timeout=30) as client:
        with pytest.raises(openai.AuthenticationError):
            client.chat.completions.create(model="chat", messages=QUESTION)


@gateway_only
def test_openai_model_not_permitted(client):
    with pytest.raises((openai.PermissionDeniedError, openai.NotFoundError)):
        client.chat.completions.create(model="forbidden", messages=QUESTION)


@gateway_only
def test_openai_rate_limit_is_typed():
    with openai.OpenAI(base_url=f"{URL}/v1", api_key=f"{KEY}-blocked", max_retries=0, timeout=30) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="chat", messages=QUESTION)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.body["code"]


@gateway_only
def test_anthropic_refusals_are_typed():
    with anthropic.Anthropic(base_url=URL, api_key="sk-wrong", max_retries=0, timeout=30) as client:
        with pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(model="chat", max_tokens=10, messages=QUESTION)
    assert caught.value.body["type"] == "error"


@gateway_only
def test_anthropic_rate_limit_is_typed():
    with anthropic.Anthropic(base_url=URL, api_key=f"{KEY}-blocked", max_retries=0, timeout=30) as client:
        with pytest.raises(anthropic.RateLimitError) as caught:
            client.messages.create(model="chat", max_tokens=10, messages=QUESTION)
    assert caught.value.body["error"]["type"] == "rate_limit_error"


@gateway_only
def test_openai_models(client):
    names = [model.id for model in client.models.list()]
    assert "chat" in names and "forbidden" not in names
    assert client.models.retrieve("chat").id == "chat"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("chatt")
    assert caught.value.code == "model_not_found"
    assert 'did you mean "chat"' in caught.value.body["message"]


@gateway_only
def test_anthropic_models(claude):
    names = [model.id for model in claude.models.list()]
    assert "gpt" in names and "forbidden" not in names
    assert claude.models.retrieve("gpt").id == "gpt"
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("gpp")
