"""Drives a running server with a gRPC client that is not ours.

    client.py ADDRESS KEY MODEL

The stubs are generated from `proto/` at run time. Prints one line a check;
the first mismatch ends the run with its reason and a non-zero exit code.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[3] / "proto"
SERVICES = {"tenantry.v1.Inference", "grpc.health.v1.Health"}
SECONDS = 60


def stubs():
    """The messages and stubs of `tenantry.v1`."""
    out = tempfile.mkdtemp(prefix="tenantry-stubs-")
    source = "tenantry/v1/inference.proto"
    wrong = protoc.main(["protoc", f"-I{PROTO}", f"--python_out={out}", f"--grpc_python_out={out}", source])
    check(not wrong, f"protoc refuses {source}")
    sys.path.insert(0, out)
    return import_module("tenantry.v1.inference_pb2"), import_module("tenantry.v1.inference_pb2_grpc")


def check(holds, otherwise):
    if not holds:
        sys.exit(f"FAILED: {otherwise}")


def fails_with(code, call):
    """The error of `call`, which must have this code."""
    try:
        call()
    except grpc.RpcError as error:
        check(error.code() == code, f"expected {code}, got {error.code()}: {error.details()}")
        return error
    sys.exit(f"FAILED: expected {code}, but the call succeeded")


def main():
    check(len(sys.argv) == 4, "usage: client.py ADDRESS KEY MODEL")
    address, key, model = sys.argv[1:]
    messages, services = stubs()
    with grpc.insecure_channel(address) as channel:
        inference = services.InferenceStub(channel)
        credentials = [("authorization", f"Bearer {key}")]
        health(channel)
        reflection(channel)
        list_models(inference, messages, credentials, model)
        generate(inference, messages, credentials, model)
        cancel(inference, messages, credentials, model)
        refusals(inference, messages, credentials, model)
    print("all checks passed")


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ["", "tenantry.v1.Inference"]:
        answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=SECONDS, wait_for_ready=True)
        serving = health_pb2.HealthCheckResponse.SERVING
        check(answer.status == serving, f"health of {service!r} is {answer.status}, not SERVING")
    unknown = health_pb2.HealthCheckRequest(service="tenantry.v1.Nothing")
    fails_with(grpc.StatusCode.NOT_FOUND, lambda: stub.Check(unknown, timeout=SECONDS))
    print("health: SERVING")


def reflection(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    names = set(database.get_services())
    check(SERVICES <= names, f"reflection names {names}, which lacks {SERVICES - names}")
    file = database.FindFileContainingSymbol("tenantry.v1.Inference")
    methods = [method.name for service in file.service for method in service.method]
    check("Generate" in methods, f"reflection shows the methods {methods}")
    print("reflection:", ", ".join(sorted(names)))


def list_models(inference, messages, credentials, model):
    answer = inference.ListModels(messages.ListModelsRequest(), metadata=credentials, timeout=SECONDS)
    names = [known.id for known in answer.models]
    check(model in names, f"{model} is not among the models {names}")
    print("models:", ", ".join(names))


def chat(messages, model, **fields):
    message = messages.Message(role="user", content="Say hello.")
    return messages.GenerateRequest(model=model, messages=[message], temperature=0, **fields)


def generate(inference, messages, credentials, model):
    stream = inference.Generate(chat(messages, model, max_tokens=24), metadata=credentials, timeout=SECONDS)
    id = dict(stream.initial_metadata()).get("x-generation-id", "")
    check(id.startswith("gen_"), f"the initial metadata has the generation id {id!r}")
    text, finish, usage = "", None, None
    for event in stream:
        check((event.id, event.model) == (id, model), f"an event of {event.id} and {event.model}")
        check(usage is None, "an event after the usage")
        kind = event.WhichOneof("event")
        if kind == "delta":
            check(finish is None, "text after the end of its choice")
            text += event.delta.content
        elif kind == "finish":
            finish = event.finish.finish_reason
        elif kind == "usage":
            usage = event.usage
    check(text, "no text came")
    check(finish in ("stop", "length"), f"the finish reason is {finish!r}")
    check(usage is not None, "no usage came")
    check(0 < usage.completion_tokens <= 24, f"{usage.completion_tokens} tokens, where 24 were allowed")
    check(usage.prompt_tokens > 0, "the prompt had no tokens")
    check(usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, f"the sum is wrong: {usage}")
    print(f"generated: {text!r} ({finish}, {usage.completion_tokens} tokens)")


def cancel(inference, messages, credentials, model):
    endless = chat(messages, model, max_tokens=512, ignore_eos=True)
    stream = inference.Generate(endless, metadata=credentials, timeout=SECONDS)
    first = next(stream)
    stream.cancel()
    fails_with(grpc.StatusCode.CANCELLED, lambda: list(stream))
    print("cancelled:", first.id)


def refusals(inference, messages, credentials, model):
    def call(request, metadata=credentials):
        return lambda: list(inference.Generate(request, metadata=metadata, timeout=SECONDS))

    wrong_key = [("authorization", "Bearer sk-nobodys")]
    error = fails_with(grpc.StatusCode.UNAUTHENTICATED, call(chat(messages, model), wrong_key))
    check(error.details() == "Incorrect API key provided.", f"the refusal says {error.details()!r}")
    fails_with(grpc.StatusCode.UNAUTHENTICATED, call(chat(messages, model), []))

    error = fails_with(grpc.StatusCode.NOT_FOUND, call(chat(messages, "nobodys-model")))
    expected = "The model `nobodys-model` does not exist or you do not have access to it."
    check(error.details() == expected, f"the refusal says {error.details()!r}")
    told = dict(error.trailing_metadata())
    check(told.get("tenantry-error-code") == "model_not_found", f"the metadata is {told}")

    error = fails_with(grpc.StatusCode.INVALID_ARGUMENT, call(chat(messages, model, n=17)))
    told = dict(error.trailing_metadata())
    check(told.get("tenantry-error-param") == "n", f"the metadata is {told}")
    print("refused: unknown key, no key, unknown model, value out of range")


main()
