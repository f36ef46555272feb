"""Google's SDK, unmodified, against a running gateway: model `gemini`, served by a deployment of Gemini's protocol whose
answers have 12 tokens and call the first function that is declared.
"""

import base64
import os

import pytest
from google import genai
from google.genai import errors, types

URL = os.environ["TOLLGATE_URL"]
KEY = os.environ["TOLLGATE_KEY"]
TEXT = " hello the water is clear and very cold in this small river"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
CALLED = {"city": "Paris", "days": 2}

pytestmark = pytest.mark.skipif(
    os.environ.get("TOLLGATE_BARE") == "1", reason="TOLLGATE_BARE=1: the mock alone has no such model"
)

QUESTION = [
    types.Part.from_text(text="How cold is the water?"),
    types.Part.from_bytes(data=base64.b64decode(PNG), mime_type="image/png"),
]
WEATHER = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="weather",
            description="d",
            parameters_json_schema={
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            },
        )
    ]
)
CALLING = types.GenerateContentConfig(
    tools=[WEATHER],
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


def client_with(key):
    return genai.Client(api_key=key, vertexai=False, http_options=types.HttpOptions(base_url=URL))


@pytest.fixture
def client():
    return client_with(KEY)


def test_generate(client):
    answer = client.models.generate_content(model="gemini", contents=QUESTION)
    assert answer.text == TEXT
    assert answer.candidates[0].finish_reason == types.FinishReason.STOP
    assert answer.usage_metadata.candidates_token_count == 12


def test_stream(client):
    chunks = list(client.models.generate_content_stream(model="gemini", contents=QUESTION))
    assert "".join(chunk.text or "" for chunk in chunks) == TEXT
    assert chunks[-1].usage_metadata.candidates_token_count == 12


def test_max_output_tokens(client):
    config = types.GenerateContentConfig(max_output_tokens=5)
    answer = client.models.generate_content(model="gemini", contents=QUESTION, config=config)
    assert answer.candidates[0].finish_reason == types.FinishReason.MAX_TOKENS
    assert answer.usage_metadata.candidates_token_count == 5


def test_functions(client):
    answer = client.models.generate_content(model="gemini", contents=QUESTION, config=CALLING)
    call = answer.function_calls[0]
    assert (call.name, call.args) == ("weather", CALLED)
    turn = [
        types.Content(role="user", parts=QUESTION),
        answer.candidates[0].content,
        types.Content(
            role="user",
            parts=[types.Part.from_function_response(name=call.name, response={"result": "cold"})],
        ),
    ]
    answer = client.models.generate_content(model="gemini", contents=turn)
    assert answer.text == TEXT


def test_functions_stream(client):
    chunks = client.models.generate_content_stream(model="gemini", contents=QUESTION, config=CALLING)
    calls = [call for chunk in chunks for call in chunk.function_calls or []]
    assert [(call.name, call.args) for call in calls] == [("weather", CALLED)]


def test_chat(client):
    chat = client.chats.create(model="gemini")
    assert chat.send_message("How cold?").text == TEXT
    assert chat.send_message("Really?").text == TEXT


def test_count_tokens(client):
    assert client.models.count_tokens(model="gemini", contents="How cold is the water?").total_tokens > 5


def test_models(client):
    assert client.models.get(model="gemini").name == "models/gemini"
    names = [model.name for model in client.models.list()]
    assert "models/gemini" in names and "models/forbidden" not in names
    # Served by deployments that do not speak Gemini's protocol.
    assert "models/gpt" not in names and "models/claude" not in names


def test_errors_are_typed(client):
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="gemni", contents="hi")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    assert 'did you mean "gemini"' in caught.value.message
    # A client that nobody holds closes its connections.
    stranger, blocked = client_with("sk-wrong"), client_with(f"{KEY}-blocked")
    with pytest.raises(errors.ClientError) as caught:
        stranger.models.generate_content(model="gemini", contents="hi")
    assert (caught.value.code, caught.value.status) == (401, "UNAUTHENTICATED")
    with pytest.raises(errors.ClientError) as caught:
        blocked.models.generate_content(model="gemini", contents="hi")
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")
    with pytest.raises(errors.ServerError) as caught:
        client.models.generate_content(model="gemini-down", contents="hi")
    assert caught.value.code == 503
