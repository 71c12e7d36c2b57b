"""The stock OpenAI client for Python, unchanged, against a running Tenantry.

Exits with 0 when every check holds, and otherwise names the check that does not.
"""

import argparse
import asyncio
import concurrent.futures
import sys
import time
import traceback

import openai
from openai import AsyncOpenAI, OpenAI

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
INSULT = "You are a stupid idiot and a worthless fool."
GREEDY = {"messages": MESSAGES, "temperature": 0, "max_tokens": 24}
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def expect_equal(found, expected, what):
    expect(found == expected, f"{what}: expected {expected!r}, found {found!r}")


def expect_error(kind, call):
    """What `call` raises, which must be of exactly that class."""
    try:
        call()
    except openai.OpenAIError as error:
        expect(type(error) is kind, f"expected {kind.__name__}, found {type(error).__name__}: {error}")
        return error
    raise AssertionError(f"expected {kind.__name__}, found no error")


def text_of(client, model, **changes):
    return client.chat.completions.create(model=model, **{**GREEDY, **changes}).choices[0].message.content


@check
def chat(client, options):
    raw = client.chat.completions.with_raw_response.create(model=options.model, **GREEDY)
    answer = raw.parse()
    choice = answer.choices[0]
    expect_equal(answer.object, "chat.completion", "object")
    expect_equal(answer.model, options.model, "model")
    expect_equal(answer.id, raw.headers.get("x-generation-id"), "id")
    expect(raw.headers.get("x-request-id"), "no x-request-id")
    expect_equal(choice.message.role, "assistant", "role")
    expect(choice.message.content, "the answer is empty")
    expect(choice.finish_reason in ("stop", "length"), f"finish_reason {choice.finish_reason!r}")
    usage = answer.usage
    expect(usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24, f"usage {usage}")
    expect_equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total_tokens")


@check
def a_stream_says_what_the_whole_answer_says(client, options):
    whole = client.chat.completions.create(model=options.model, **GREEDY)
    with client.chat.completions.create(
        model=options.model, stream=True, stream_options={"include_usage": True}, **GREEDY
    ) as stream:
        chunks = list(stream)
    expect_equal({chunk.object for chunk in chunks}, {"chat.completion.chunk"}, "object")
    expect_equal(len({chunk.id for chunk in chunks}), 1, "ids of one stream")
    *parts, last = chunks
    expect_equal(last.choices, [], "choices of the usage chunk")
    expect_equal(last.usage.model_dump(), whole.usage.model_dump(), "usage")
    expect(all(part.usage is None for part in parts), "usage before the last chunk")
    expect_equal(parts[0].choices[0].delta.role, "assistant", "role of the first delta")
    text = "".join(part.choices[0].delta.content or "" for part in parts)
    expect_equal(text, whole.choices[0].message.content, "joined deltas")
    endings = [part.choices[0].finish_reason for part in parts if part.choices[0].finish_reason]
    expect_equal(endings, [whole.choices[0].finish_reason], "finish reasons")


@check
def usage_stays_away_unless_asked_for(client, options):
    with client.chat.completions.create(model=options.model, stream=True, **GREEDY) as stream:
        expect(all(chunk.choices and not chunk.usage for chunk in stream), "a usage chunk nobody asked for")


@check
def completions(client, options):
    arguments = {"model": options.model, "prompt": "The sea is", "temperature": 0, "max_tokens": 8}
    whole = client.completions.create(**arguments)
    expect_equal(whole.object, "text_completion", "object")
    expect(whole.choices[0].text, "the text is empty")
    with client.completions.create(stream=True, **arguments) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream)
    expect_equal(text, whole.choices[0].text, "joined texts")


@check
def models(client, options):
    names = [model.id for model in client.models.list()]
    expect(options.model in names, f"{options.model} is not among {names}")
    expect(options.foreign_model not in names, f"{options.foreign_model} is another tenant's")
    card = client.models.retrieve(options.model)
    expect_equal((card.id, card.object), (options.model, "model"), "model card")
    expect(card.created > 0 and card.owned_by, f"model card {card}")


@check
def a_length_limit_ends_the_answer(client, options):
    answer = client.chat.completions.create(model=options.model, **{**GREEDY, "max_tokens": 3})
    expect_equal(answer.choices[0].finish_reason, "length", "finish_reason")
    expect_equal(answer.usage.completion_tokens, 3, "completion_tokens")


@check
def a_stop_string_ends_the_answer_before_itself(client, options):
    text = text_of(client, options.model)
    stop = text[len(text) // 2 :][:3]
    answer = client.chat.completions.create(model=options.model, stop=[stop], **GREEDY)
    expect_equal(answer.choices[0].message.content, text[: text.index(stop)], "text before the stop string")
    expect_equal(answer.choices[0].finish_reason, "stop", "finish_reason")


@check
def logprobs(client, options):
    answer = client.chat.completions.create(
        model=options.model, logprobs=True, top_logprobs=2, **{**GREEDY, "max_tokens": 4}
    )
    entries = answer.choices[0].logprobs.content
    expect_equal(len(entries), answer.usage.completion_tokens, "entries")
    for entry in entries:
        expect(entry.logprob <= 0, f"logprob {entry.logprob}")
        expect_equal(len(entry.top_logprobs), 2, "top_logprobs")
        expect_equal(entry.top_logprobs[0].token, entry.token, "the likeliest token at temperature 0")
    spelt = b"".join(bytes(entry.bytes) for entry in entries)
    expect_equal(spelt.decode(errors="ignore"), answer.choices[0].message.content, "bytes of all tokens")


@check
def several_choices(client, options):
    choices = client.chat.completions.create(model=options.model, n=2, **GREEDY).choices
    expect_equal(sorted(choice.index for choice in choices), [0, 1], "indices")
    expect_equal(choices[0].message.content, choices[1].message.content, "two greedy choices")


@check
def a_seed_makes_sampling_repeatable(client, options):
    sampled = {"temperature": 1.0, "seed": 7}
    expect_equal(text_of(client, options.model, **sampled), text_of(client, options.model, **sampled), "same seed")


@check
def a_crowd_gets_the_answer_that_one_gets(client, options):
    alone = text_of(client, options.model)

    async def crowd():
        async with AsyncOpenAI(base_url=options.base_url, api_key=options.key, max_retries=0) as many:
            calls = [many.chat.completions.create(model=options.model, **GREEDY) for _ in range(4)]
            return [answer.choices[0].message.content for answer in await asyncio.gather(*calls)]

    expect_equal(asyncio.run(crowd()), [alone] * 4, "answers")


@check
def a_bad_key_is_an_authentication_error(client, options):
    stranger = client.with_options(api_key="sk-unknown")
    for call in (lambda: text_of(stranger, options.model), lambda: stranger.models.list()):
        error = expect_error(openai.AuthenticationError, call)
        expect_equal((error.status_code, error.code), (401, "invalid_api_key"), "status and code")
        expect(error.request_id, "no request id")


@check
def another_tenants_model_is_like_one_that_does_not_exist(client, options):
    bodies = []
    for name in ("no-such-model", options.foreign_model):
        for call in (lambda: text_of(client, name), lambda: client.models.retrieve(name)):
            error = expect_error(openai.NotFoundError, call)
            expect_equal(error.code, "model_not_found", "code")
            bodies.append(str(error.body).replace(f"`{name}`", "`NAME`"))
    expect_equal(bodies[:2], bodies[2:], "bodies but for the name")


@check
def bad_requests_name_the_parameter(client, options):
    for field, value in (("temperature", 2.5), ("top_p", -1), ("max_tokens", 0), ("messages", []), ("n", 0)):
        error = expect_error(openai.BadRequestError, lambda: text_of(client, options.model, **{field: value}))
        expect_equal(error.param, field, "param")
        expect_equal(error.type, "invalid_request_error", "type")
    roles = [{"role": "jester", "content": "Ha."}]
    error = expect_error(openai.BadRequestError, lambda: text_of(client, options.model, messages=roles))
    expect_equal(error.param, "messages[0].role", "param")


@check
def an_error_before_a_stream_is_a_status(client, options):
    error = expect_error(openai.BadRequestError, lambda: client.chat.completions.create(
        model=options.model, stream=True, **{**GREEDY, "temperature": 2.5}
    ))
    expect_equal(error.param, "temperature", "param")


@check
def an_unknown_path_is_not_found(client, options):
    error = expect_error(openai.NotFoundError, lambda: client.get("/nowhere", cast_to=object))
    expect_equal(error.code, "unknown_url", "code")


@check
def the_clients_timeout_is_its_own(client, options):
    hasty = client.with_options(timeout=0.005)
    expect_error(openai.APITimeoutError, lambda: text_of(hasty, options.model, max_tokens=200))


@check
def a_stream_can_be_left_in_the_middle(client, options):
    with client.chat.completions.create(model=options.model, stream=True, **{**GREEDY, "max_tokens": 200}) as stream:
        for chunk in stream:
            if chunk.choices[0].delta.content:
                break
    expect(text_of(client, options.model), "no answer afterwards")


@check
def a_blocked_prompt_is_a_bad_request(client, options):
    ask = lambda: client.chat.completions.create(
        model=options.model, messages=[{"role": "user", "content": INSULT}], max_tokens=4
    )
    error = expect_error(openai.BadRequestError, ask)
    expect_equal((error.code, error.param), ("content_filter", "messages[0].content"), "what is told")
    expect("idiot" not in error.message, "the prompt is quoted")
    expect_equal(error.response.headers["x-should-retry"], "false", "x-should-retry")


@check
def moderations_tell_what_was_looked_for(client, options):
    answer = client.moderations.create(input=["What do rabbits eat?", INSULT], model="omni-moderation-latest")
    expect_equal([result.flagged for result in answer.results], [False, True], "what is flagged")
    insult = answer.results[1]
    expect(insult.categories.harassment and insult.category_scores.harassment > 0.5, "it is an insult")
    expect("sexual" not in insult.categories.model_dump(exclude_unset=True), "what was not looked for is told")
    expect(answer.id.startswith("gen_"), "the id")


@check
def a_limit_makes_the_client_back_off(client, options):
    limited = client.with_options(api_key=options.limited_key)
    ask = lambda of: of.chat.completions.with_raw_response.create(model=options.limited_model, **GREEDY)
    first = ask(limited)
    expect_equal(first.headers["x-ratelimit-limit-requests"], "2", "limit")
    # On a slow machine the limit is whole again before the answer is there.
    left = int(first.headers["x-ratelimit-remaining-requests"])
    expect(left < 2 or first.headers["x-ratelimit-reset-requests"] == "0s", "nothing was counted")

    # At once, or a slow machine has answered each before the next one comes.
    def hurry():
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            for answer in [threads.submit(ask, limited) for _ in range(6)]:
                answer.result()

    error = expect_error(openai.RateLimitError, hurry)
    expect_equal((error.type, error.code), ("requests", "rate_limit_exceeded"), "what is told")
    expect(float(error.response.headers["retry-after-ms"]) <= 1000, "the wait is longer than the limit's period")
    # The same, with the client's own retries: it waits as it is told, and nothing fails.
    patient, since = limited.with_options(max_retries=10), time.monotonic()
    for _ in range(6):
        ask(patient)
    expect(time.monotonic() - since >= 1.5, "six requests at two a second took less than a second and a half")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--base-url", required=True, help="ends with /v1")
    arguments.add_argument("--key", required=True)
    arguments.add_argument("--model", required=True, help="a model of the key's tenant")
    arguments.add_argument("--foreign-model", required=True, help="a model that only another tenant has")
    arguments.add_argument("--limited-key", required=True, help="of a tenant that may send two requests a second")
    arguments.add_argument("--limited-model", required=True, help="a model of that tenant")
    options = arguments.parse_args()

    failed = 0
    with OpenAI(base_url=options.base_url, api_key=options.key, max_retries=0, timeout=120) as client:
        for function in CHECKS:
            try:
                function(client, options)
            except AssertionError as mismatch:
                failed += 1
                print(f"{function.__name__}: {mismatch}", file=sys.stderr)
            except Exception:  # Whatever else the client raises is a failed check too.
                failed += 1
                print(f"{function.__name__}: {traceback.format_exc()}", file=sys.stderr)
    print(f"openai {openai.__version__} for Python: {len(CHECKS) - failed} checks held, {failed} did not")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
