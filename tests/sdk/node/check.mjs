// The official OpenAI Node SDK, unmodified, against a hub. IDLEWATT_SERVER is the model server behind it.
// Prints one line a claim and, last, `N passed, N failed`.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import OpenAI from 'openai';

const { IDLEWATT_HUB, IDLEWATT_KEY, IDLEWATT_POOR_KEY, IDLEWATT_MODEL, IDLEWATT_SERVER } = process.env;
const baseURL = `${IDLEWATT_HUB}/v1`;
const hub = new OpenAI({ baseURL, apiKey: IDLEWATT_KEY });
const server = new OpenAI({ baseURL: `${IDLEWATT_SERVER}/v1`, apiKey: 'none' });
const asked = {
  model: IDLEWATT_MODEL,
  messages: [{ role: 'user', content: 'Why is the sky blue?' }],
  max_tokens: 40,
  temperature: 0,
};

const raises = (kind, status, call) =>
  assert.rejects(call, (error) => {
    assert(error instanceof kind, `${error.constructor.name} is no ${kind.name}`);
    assert.equal(error.status, status);
    assert(error.requestID, "the error carries the request's id");
    return true;
  });

const claims = {
  'models are listed': async () => {
    const listed = [];
    for await (const model of hub.models.list()) listed.push(model.id);
    assert(listed.some((name) => name.startsWith(IDLEWATT_MODEL)), listed.join());
  },
  "a whole answer is the server's own": async () => {
    const [ours, theirs] = [await hub.chat.completions.create(asked), await server.chat.completions.create(asked)];
    assert.equal(ours.choices[0].message.content, theirs.choices[0].message.content);
    for (const count of ['prompt_tokens', 'completion_tokens', 'total_tokens'])
      assert.equal(ours.usage[count], theirs.usage[count], count);
  },
  "a streamed answer is the server's own": async () => {
    const theirs = await server.chat.completions.create(asked);
    let [text, usage] = ['', null];
    for await (const chunk of await hub.chat.completions.create({
      ...asked,
      stream: true,
      stream_options: { include_usage: true },
    })) {
      text += chunk.choices[0]?.delta.content ?? '';
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, theirs.choices[0].message.content);
    assert.equal(usage.completion_tokens, theirs.usage.completion_tokens);
    assert.equal(usage.prompt_tokens, theirs.usage.prompt_tokens);
  },
  "the SDK's own accumulator reads the stream": async () => {
    const stream = hub.chat.completions.stream(asked);
    const theirs = await server.chat.completions.create(asked);
    assert.equal(await stream.finalContent(), theirs.choices[0].message.content);
  },
  'completions work whole and streamed': async () => {
    const body = { model: IDLEWATT_MODEL, prompt: 'Once upon a time', max_tokens: 20, temperature: 0 };
    const whole = await hub.completions.create(body);
    let text = '';
    for await (const chunk of await hub.completions.create({ ...body, stream: true })) text += chunk.choices[0]?.text ?? '';
    assert.equal(text, whole.choices[0].text);
    assert.equal(text, (await server.completions.create(body)).choices[0].text);
  },
  'a wrong key is an authentication error': () =>
    raises(OpenAI.AuthenticationError, 401, () =>
      new OpenAI({ baseURL, apiKey: 'iw-wrong' }).chat.completions.create(asked)),
  'an unknown model is not found': () =>
    raises(OpenAI.NotFoundError, 404, () => hub.chat.completions.create({ ...asked, model: 'no-such-model' })),
  'a rejected field is a bad request': () =>
    raises(OpenAI.BadRequestError, 400, () => hub.chat.completions.create({ ...asked, surprise: 1 })),
  'no credit is an error with its code': async () => {
    const poor = new OpenAI({ baseURL, apiKey: IDLEWATT_POOR_KEY });
    await raises(OpenAI.APIError, 402, () => poor.chat.completions.create(asked));
  },
  'leaving a stream leaves nothing behind': async () => {
    const stream = await hub.chat.completions.create({ ...asked, max_tokens: 1500, stream: true });
    for await (const _ of stream) break;
    assert((await hub.chat.completions.create(asked)).choices[0].message.content);
  },
};

let failed = 0;
for (const [name, claim] of Object.entries(claims)) {
  try {
    await claim();
    console.log('ok     ', name);
  } catch (error) {
    failed += 1;
    console.log('FAILED ', name, '\n', error);
  }
}
const { version } = JSON.parse(readFileSync(new URL('./node_modules/openai/package.json', import.meta.url)));
console.log(`openai ${version} for Node ${process.versions.node}`);
console.log(`${Object.keys(claims).length - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
