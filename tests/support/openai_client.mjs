// Asks a gateway by the official openai package, and prints what came of it as JSON: node openai_client.mjs FOLDER URL KEY
// FOLDER: where the package is installed. tests/server/test_javascript_sdk.py reads the output.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [folder, baseURL, apiKey] = process.argv.slice(2);
const require = createRequire(`${folder}/package.json`);
const { default: OpenAI } = await import(pathToFileURL(require.resolve("openai")));
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 20000 });
const messages = [{ role: "user", content: "What is 2+2?" }];
const parameters = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const found = {};

const { data, response } = await client.chat.completions.create({ model: "auto", messages }).withResponse();
found.chat = { model: data.model, text: data.choices[0].message.content, candidate: response.headers.get("x-ipr-candidate") };

const cheap = await client.chat.completions.create({ model: "auto", messages }, { headers: { "x-ipr-tau": "1" } });
found.cheap = cheap.model;

let text = "";
for await (const chunk of await client.chat.completions.create({ model: "auto", messages, stream: true }))
  text += chunk.choices[0]?.delta?.content ?? "";
found.streamed = text;

const asked = [{ role: "user", content: "What is the weather in Bern?" }];
const called = (await client.chat.completions.create({ model: "auto", messages: asked, tools })).choices[0].message;
const call = called.tool_calls[0];
const result = { role: "tool", tool_call_id: call.id, content: "rain" };
const last = await client.chat.completions.create({ model: "auto", messages: [...asked, called, result], tools });
found.tool = { name: call.function.name, arguments: JSON.parse(call.function.arguments), text: last.choices[0].message.content };

const answer = await client.responses.create({ model: "auto", input: "What is 2+2?" });
found.responses = { model: answer.model, text: answer.output_text };
let deltas = "";
for await (const event of await client.responses.create({ model: "auto", input: "What is 2+2?", stream: true }))
  if (event.type === "response.output_text.delta") deltas += event.delta;
found.responsesStreamed = deltas;

found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);

found.errors = [];
const wrong = [
  () => client.chat.completions.create({ model: "auto", messages }, { headers: { "x-ipr-tau": "2" } }),
  () => client.chat.completions.create({ model: "gpt-9", messages }),
  () => new OpenAI({ baseURL, apiKey: "wrong", maxRetries: 0 }).chat.completions.create({ model: "auto", messages }),
];
for (const ask of wrong)
  await ask().then(
    () => found.errors.push(null),
    (error) => found.errors.push({ kind: error.constructor.name, status: error.status, type: error.type, param: error.param }),
  );
console.log(JSON.stringify(found));
