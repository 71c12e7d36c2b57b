// The stock OpenAI client for Node, unchanged, against a running Tenantry.
// Exits with 0 when every check holds, and otherwise names the check that does not.
//
//   node client.mjs --base-url URL/v1 --key KEY --model MODEL --foreign-model MODEL

import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import OpenAI from 'openai';

const { values: options } = parseArgs({
  options: {
    'base-url': { type: 'string' },
    key: { type: 'string' },
    // A model of the key's tenant.
    model: { type: 'string' },
    // A model that only another tenant has.
    'foreign-model': { type: 'string' },
  },
});
for (const name of ['base-url', 'key', 'model', 'foreign-model']) {
  assert.ok(options[name], `--${name} is missing`);
}
const { model } = options;
const foreign = options['foreign-model'];

const client = new OpenAI({ baseURL: options['base-url'], apiKey: options.key, maxRetries: 0, timeout: 120_000 });
const insult = 'You are a stupid idiot and a worthless fool.';
const greedy = {
  model,
  messages: [{ role: 'user', content: 'Tell me about the sea.' }],
  temperature: 0,
  max_tokens: 24,
};

async function text(changes = {}, via = client) {
  const answer = await via.chat.completions.create({ ...greedy, ...changes });
  return answer.choices[0].message.content;
}

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

// What the call fails with, which must be of exactly that class.
async function failure(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor.name, kind.name, String(error));
    return error;
  }
  throw new assert.AssertionError({ message: `expected ${kind.name}, found no error` });
}

const checks = {
  async chat() {
    const { data: answer, response } = await client.chat.completions.create(greedy).withResponse();
    assert.equal(answer.object, 'chat.completion');
    assert.equal(answer.model, model);
    assert.equal(answer.id, response.headers.get('x-generation-id'));
    assert.ok(response.headers.get('x-request-id'));
    assert.equal(answer.choices[0].message.role, 'assistant');
    assert.ok(answer.choices[0].message.content.length > 0);
    const { usage } = answer;
    assert.ok(usage.prompt_tokens > 0 && usage.completion_tokens > 0);
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
  },

  async 'a stream says what the whole answer says'() {
    const whole = await client.chat.completions.create(greedy);
    const asked = { ...greedy, stream: true, stream_options: { include_usage: true } };
    const chunks = await collect(await client.chat.completions.create(asked));
    const last = chunks.pop();
    assert.deepEqual(last.choices, []);
    assert.deepEqual(last.usage, whole.usage);
    assert.equal(new Set(chunks.map((chunk) => chunk.id)).size, 1);
    assert.ok(chunks.every((chunk) => chunk.usage === null));
    assert.equal(chunks[0].choices[0].delta.role, 'assistant');
    const joined = chunks.map((chunk) => chunk.choices[0].delta.content ?? '').join('');
    assert.equal(joined, whole.choices[0].message.content);
    const endings = chunks.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean);
    assert.deepEqual(endings, [whole.choices[0].finish_reason]);
  },

  async 'usage stays away unless asked for'() {
    const chunks = await collect(await client.chat.completions.create({ ...greedy, stream: true }));
    assert.ok(chunks.every((chunk) => chunk.choices.length === 1 && !chunk.usage));
  },

  async 'the streaming helper adds the deltas up'() {
    const whole = await text();
    const stream = client.chat.completions.stream(greedy);
    assert.equal(await stream.finalContent(), whole);
  },

  async completions() {
    const asked = { model, prompt: 'The sea is', temperature: 0, max_tokens: 8 };
    const whole = await client.completions.create(asked);
    assert.equal(whole.object, 'text_completion');
    const chunks = await collect(await client.completions.create({ ...asked, stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(''), whole.choices[0].text);
  },

  async models() {
    const names = [];
    for await (const card of client.models.list()) names.push(card.id);
    assert.ok(names.includes(model), `${model} is not among ${names}`);
    assert.ok(!names.includes(foreign), `${foreign} is another tenant's`);
    const card = await client.models.retrieve(model);
    assert.equal(card.id, model);
    assert.equal(card.object, 'model');
  },

  async 'a length limit ends the answer'() {
    const answer = await client.chat.completions.create({ ...greedy, max_tokens: 3 });
    assert.equal(answer.choices[0].finish_reason, 'length');
    assert.equal(answer.usage.completion_tokens, 3);
  },

  async logprobs() {
    const asked = { ...greedy, max_tokens: 4, logprobs: true, top_logprobs: 2 };
    const answer = await client.chat.completions.create(asked);
    const entries = answer.choices[0].logprobs.content;
    assert.equal(entries.length, answer.usage.completion_tokens);
    for (const entry of entries) {
      assert.ok(entry.logprob <= 0);
      assert.equal(entry.top_logprobs.length, 2);
      assert.equal(entry.top_logprobs[0].token, entry.token);
    }
  },

  async 'several choices'() {
    const { choices } = await client.chat.completions.create({ ...greedy, n: 2 });
    assert.deepEqual(choices.map((choice) => choice.index).sort(), [0, 1]);
    assert.equal(choices[0].message.content, choices[1].message.content);
  },

  async 'a crowd gets the answer that one gets'() {
    const alone = await text();
    assert.deepEqual(await Promise.all([text(), text(), text(), text()]), Array(4).fill(alone));
  },

  async 'a bad key is an authentication error'() {
    const stranger = client.withOptions({ apiKey: 'sk-unknown' });
    const error = await failure(OpenAI.AuthenticationError, () => text({}, stranger));
    assert.equal(error.status, 401);
    assert.equal(error.code, 'invalid_api_key');
    assert.ok(error.requestID);
  },

  async 'another tenant\'s model is like one that does not exist'() {
    const bodies = [];
    for (const name of ['no-such-model', foreign]) {
      for (const call of [() => text({ model: name }), () => client.models.retrieve(name)]) {
        const error = await failure(OpenAI.NotFoundError, call);
        assert.equal(error.code, 'model_not_found');
        bodies.push(JSON.stringify(error.error).replaceAll(`\`${name}\``, '`NAME`'));
      }
    }
    assert.deepEqual(bodies.slice(0, 2), bodies.slice(2));
  },

  async 'bad requests name the parameter'() {
    const wrong = { temperature: 2.5, top_p: -1, max_tokens: 0, messages: [], n: 0 };
    for (const [field, value] of Object.entries(wrong)) {
      const error = await failure(OpenAI.BadRequestError, () => text({ [field]: value }));
      assert.equal(error.param, field);
      assert.equal(error.type, 'invalid_request_error');
    }
  },

  async 'an error before a stream is a status'() {
    const asked = { ...greedy, stream: true, temperature: 2.5 };
    const error = await failure(OpenAI.BadRequestError, () => client.chat.completions.create(asked));
    assert.equal(error.param, 'temperature');
  },

  async 'a blocked prompt is a bad request and is not quoted'() {
    const messages = [{ role: 'user', content: insult }];
    const error = await failure(OpenAI.BadRequestError, () => text({ messages }));
    assert.equal(error.code, 'content_filter');
    assert.equal(error.param, 'messages[0].content');
    assert.ok(!error.message.includes('idiot'));
  },

  async 'moderations tell what was looked for'() {
    const answer = await client.moderations.create({ input: ['What do rabbits eat?', insult] });
    assert.deepEqual(answer.results.map((result) => result.flagged), [false, true]);
    assert.ok(answer.results[1].categories.harassment);
    assert.equal(answer.results[1].categories.sexual, undefined);
  },

  async 'an unknown path is not found'() {
    const error = await failure(OpenAI.NotFoundError, () => client.get('/nowhere'));
    assert.equal(error.code, 'unknown_url');
  },

  async 'the client\'s timeout is its own'() {
    const hasty = client.withOptions({ timeout: 5 });
    await failure(OpenAI.APIConnectionTimeoutError, () => text({ max_tokens: 200 }, hasty));
  },

  async 'a request can be aborted'() {
    const leaving = new AbortController();
    const asked = client.chat.completions.create({ ...greedy, max_tokens: 200 }, { signal: leaving.signal });
    setTimeout(() => leaving.abort(), 5);
    await failure(OpenAI.APIUserAbortError, () => asked);
    assert.ok(await text());
  },

  async 'a stream can be left in the middle'() {
    const stream = await client.chat.completions.create({ ...greedy, stream: true, max_tokens: 200 });
    for await (const chunk of stream) {
      if (chunk.choices[0].delta.content) break;
    }
    assert.ok(stream.controller.signal.aborted);
    assert.ok(await text());
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  try {
    await check();
  } catch (error) {
    failed += 1;
    console.error(`${name}: ${error.stack}`);
  }
}
const held = Object.keys(checks).length - failed;
console.log(`openai for Node: ${held} checks held, ${failed} did not`);
process.exitCode = failed ? 1 : 0;
