// Drives a gateway as a program does: node client.mjs URL. It prints "all good", or fails with what is not.
import assert from 'node:assert/strict';
import OpenAI from 'openai';

const baseURL = process.argv[2];
const client = new OpenAI({ baseURL, apiKey: 'any', maxRetries: 0 });
const ask = (text) => [{ role: 'user', content: text }];

const plain = await client.chat.completions.create({ model: 'demo', messages: ask('hello there') });
assert.equal(plain.choices[0].message.content, 'echo: hello there');
assert.equal(plain.usage.total_tokens, 7);
assert.ok(plain._request_id, 'a request id');

const stream = await client.chat.completions.create({ model: 'demo', messages: ask('one two three'), stream: true, stream_options: { include_usage: true } });
let text = '', usage;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? '';
  usage ??= chunk.usage;
}
assert.equal(text, 'echo: one two three');
assert.equal(usage.total_tokens, 7);

const tools = [{ type: 'function', function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } } }];
const called = await client.chat.completions.create({ model: 'demo', messages: ask('weather?'), tools });
assert.deepEqual(JSON.parse(called.choices[0].message.tool_calls[0].function.arguments), { city: 'Rome' });
const calling = client.chat.completions.stream({ model: 'demo', messages: ask('weather?'), tools });
const assembled = await calling.finalChatCompletion();
assert.deepEqual(JSON.parse(assembled.choices[0].message.tool_calls[0].function.arguments), { city: 'Rome' });

const schema = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'], additionalProperties: false };
const structured = await client.chat.completions.parse({
  model: 'demo', messages: ask('where?'), response_format: { type: 'json_schema', json_schema: { name: 'place', strict: true, schema } },
});
assert.deepEqual(structured.choices[0].message.parsed ?? JSON.parse(structured.choices[0].message.content), { city: 'Rome' });

const image = await client.chat.completions.create({
  model: 'demo', messages: [{ role: 'user', content: [{ type: 'text', text: 'what?' }, { type: 'image_url', image_url: { url: 'data:image/png;base64,' + 'A'.repeat(200000) } }] }],
});
assert.equal(image.choices[0].message.content, 'image of 200022');

const vectors = await client.embeddings.create({ model: 'demo', input: ['a', 'b'] });
assert.deepEqual(vectors.data.map((one) => Array.from(one.embedding)), [[0.5, -1], [0.5, -1]]);

const response = await client.responses.create({ model: 'demo', input: 'hi' });
assert.equal(response.output_text, 'echo: hi');
const events = await client.responses.create({ model: 'demo', input: 'hi', stream: true });
let delta = '', last;
for await (const event of events) {
  if (event.type === 'response.output_text.delta') delta += event.delta;
  last = event.type;
}
assert.equal(delta, 'echo: hi');
assert.equal(last, 'response.completed');

const completion = await client.completions.create({ model: 'demo', prompt: 'say' });
assert.equal(completion.choices[0].text, 'echo: say');

const list = await client.models.list();
assert.ok(list.data.some((model) => model.id === 'demo'));
assert.equal((await client.models.retrieve('demo')).id, 'demo');

const failing = async (model, kind, status) => {
  for (const streamed of [false, true]) {
    if (streamed && model === 'limited') model = 'limited-stream'; // for the other one the server is left alone now
    await assert.rejects(client.chat.completions.create({ model, messages: ask('x'), stream: streamed }), (err) => {
      assert.ok(err instanceof kind, `${model}: ${err}`);
      assert.equal(err.status, status);
      return true;
    });
  }
};
await failing('bad', OpenAI.BadRequestError, 400);
await failing('limited', OpenAI.RateLimitError, 429);
await failing('unknown', OpenAI.NotFoundError, 404);
await failing('dead', OpenAI.InternalServerError, 500);

const broken = await client.chat.completions.create({ model: 'cut', messages: ask('x'), stream: true });
await assert.rejects(async () => { for await (const _ of broken); }, /interrupted/);

const abort = new AbortController();
const endless = await client.chat.completions.create({ model: 'endless', messages: ask('x'), stream: true }, { signal: abort.signal });
let seen = 0;
for await (const _ of endless) if (++seen === 3) break;
assert.equal(seen, 3);
abort.abort();

const many = await Promise.all(Array.from({ length: 200 }, async (_, i) => {
  let text = '';
  for await (const chunk of await client.chat.completions.create({ model: 'demo', messages: ask(`stream ${i}`), stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
  }
  return text;
}));
many.forEach((text, i) => assert.equal(text, `echo: stream ${i}`));
console.log('all good');
