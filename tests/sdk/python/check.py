"""The official OpenAI Python SDK, unmodified, against a hub. `IDLEWATT_SERVER` is the model server behind it.

Prints one line a claim and, last, `N passed, N failed`.
"""

import os
import sys
import traceback

import openai

HUB = os.environ["IDLEWATT_HUB"] + "/v1"
KEY = os.environ["IDLEWATT_KEY"]
POOR = os.environ["IDLEWATT_POOR_KEY"]
MODEL = os.environ["IDLEWATT_MODEL"]

hub = openai.OpenAI(base_url=HUB, api_key=KEY)
server = openai.OpenAI(base_url=os.environ["IDLEWATT_SERVER"] + "/v1", api_key="none")
asked = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Why is the sky blue?"}],
    "max_tokens": 40,
    "temperature": 0,
}


def models_are_listed():
    listed = [model.id for model in hub.models.list()]
    assert any(name.startswith(MODEL) for name in listed), listed


def a_whole_answer_is_the_servers_own():
    ours, theirs = hub.chat.completions.create(**asked), server.chat.completions.create(**asked)
    assert ours.choices[0].message.content == theirs.choices[0].message.content
    assert ours.choices[0].finish_reason == theirs.choices[0].finish_reason
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens
    assert ours.usage.completion_tokens == theirs.usage.completion_tokens
    assert ours.usage.total_tokens == theirs.usage.total_tokens


def a_streamed_answer_is_the_servers_own():
    theirs = server.chat.completions.create(**asked)
    text, usage = "", None
    for chunk in hub.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        usage = chunk.usage or usage
    assert text == theirs.choices[0].message.content, text
    assert usage.completion_tokens == theirs.usage.completion_tokens
    assert usage.prompt_tokens == theirs.usage.prompt_tokens


def completions_work_whole_and_streamed():
    body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 20, "temperature": 0}
    whole = hub.completions.create(**body)
    streamed = "".join(chunk.choices[0].text for chunk in hub.completions.create(**body, stream=True) if chunk.choices)
    assert whole.choices[0].text == streamed == server.completions.create(**body).choices[0].text


def an_answer_names_its_request_and_receipt():
    raw = hub.chat.completions.with_raw_response.create(**asked)
    assert raw.headers["x-request-id"].startswith("req_"), raw.headers
    assert raw.headers["x-idlewatt-receipt"], raw.headers
    assert raw.parse().choices[0].message.role == "assistant"


def raises(error, call, status):
    try:
        call()
    except error as raised:
        assert raised.status_code == status, raised.status_code
        assert raised.request_id, "the exception carries the request's id"
        assert raised.message
        return raised
    raise AssertionError(f"{error.__name__} was not raised")


def a_wrong_key_is_an_authentication_error():
    stranger = openai.OpenAI(base_url=HUB, api_key="iw-wrong")
    raises(openai.AuthenticationError, lambda: stranger.chat.completions.create(**asked), 401)


def an_unknown_model_is_not_found():
    raised = raises(openai.NotFoundError, lambda: hub.chat.completions.create(**{**asked, "model": "no-such-model"}), 404)
    assert raised.code == "model_not_found", raised.code


def a_rejected_field_is_a_bad_request_that_names_it():
    raised = raises(openai.BadRequestError, lambda: hub.chat.completions.create(**asked, extra_body={"surprise": 1}), 400)
    assert raised.param == "surprise", raised.param


def no_credit_is_an_error_with_its_code():
    poor = openai.OpenAI(base_url=HUB, api_key=POOR)
    raised = raises(openai.APIStatusError, lambda: poor.chat.completions.create(**asked), 402)
    assert raised.code == "insufficient_quota", raised.code


def leaving_a_stream_leaves_nothing_behind():
    stream = hub.chat.completions.create(**{**asked, "max_tokens": 1500}, stream=True)
    next(iter(stream))
    stream.close()
    assert hub.chat.completions.create(**asked).choices[0].message.content


CLAIMS = [value for name, value in list(globals().items()) if callable(value) and getattr(value, "__code__", None)
          and value.__module__ == "__main__" and value.__code__.co_argcount == 0]

failed = 0
for claim in CLAIMS:
    try:
        claim()
        print("ok     ", claim.__name__.replace("_", " "))
    except Exception:
        failed += 1
        print("FAILED ", claim.__name__.replace("_", " "))
        traceback.print_exc(limit=3, file=sys.stdout)
print(f"openai {openai.__version__} for Python")
print(f"{len(CLAIMS) - failed} passed, {failed} failed")
sys.exit(failed > 0)
