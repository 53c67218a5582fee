import assert from "node:assert/strict";
import { ModelError, RequestError } from "../../src/core/errors.ts";
import { ChatTemplate, selectChatTemplate } from "../../src/frontend/chat_template.ts";

const render = (source: string, ...contents: string[]) =>
  new ChatTemplate(source, { bos_token: "<s>" })
    .render(contents.map((content) => ({ role: "user", content })), false);

Deno.test("special tokens and the generation prompt are variables", () => {
  const template = new ChatTemplate(
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] }}\n{% endfor %}" +
      "{% if add_generation_prompt %}>{% endif %}{{ pad_token }}",
    { bos_token: "<s>" },
  );
  const messages = [{ role: "user", content: "hi" }];
  assert.equal(template.render(messages, true), "<s>user: hi\n>");
  assert.equal(template.render(messages, false), "<s>user: hi\n");
});

Deno.test("what the template refuses is the client's fault", () => {
  assert.throws(
    () => render("{{ raise_exception('roles must alternate') }}", "x"),
    (error) =>
      error instanceof RequestError && error.param === "messages" &&
      /refuses these messages: roles must alternate/.test(error.message),
  );
  assert.throws(() => render("{{ messages[0].content.nothing() }}", "x"), RequestError);
});

Deno.test("a template that cannot be parsed is the model's fault", () => {
  assert.throws(() => new ChatTemplate("{% for %}", {}), ModelError);
});

Deno.test("messages are data, not template", () => {
  assert.equal(
    render("{{ messages[0].content }}", "{{ bos_token }}{% raw %}"),
    "{{ bos_token }}{% raw %}",
  );
});

Deno.test("strip methods heed their characters, as Python's do", () => {
  const content = "messages[0].content";
  assert.equal(render(`{{ ${content}.lstrip('\\n') }}`, "\n\n a \n"), " a \n");
  assert.equal(render(`{{ ${content}.rstrip('\\n') }}`, "\n a \n\n"), "\n a ");
  assert.equal(render(`{{ ${content}.strip('ab😀') }}`, "b😀 x ab"), " x ");
  assert.equal(render(`{{ ${content}.strip() }}`, " \n x \n"), "x");
  assert.equal(render(`{{ ${content}.split('|')[0].strip('.').lstrip('-') }}`, ".--x.|y"), "x");
  assert.equal(render(`{{ ${content}.lstrip(none) }}`, "  x "), "x ");
  assert.throws(() => render(`{{ messages[0].missing.strip('x') }}`, "x"), RequestError);
});

Deno.test("chooses the template named default", () => {
  assert.equal(selectChatTemplate(undefined), null);
  assert.equal(selectChatTemplate(null), null);
  assert.equal(selectChatTemplate("x"), "x");
  const named = (...names: string[]) => names.map((name) => ({ name, template: `t-${name}` }));
  assert.equal(selectChatTemplate(named("tool_use", "default")), "t-default");
  assert.throws(() => selectChatTemplate(named("tool_use", "rag")), /tool_use, rag; .*default/);
  assert.throws(() => selectChatTemplate(3), ModelError);
});

Deno.test("arguments of a request are variables of the template, and cannot replace the messages", () => {
  const template = new ChatTemplate(
    "{% if enable_thinking is defined and not enable_thinking %}<off>{% endif %}" +
      "{% for m in messages %}{{ m.content }}{{ m.reasoning_content }}{% endfor %}",
    {},
  );
  const messages = [{ role: "user", content: "a", reasoning_content: "r" }];
  assert.equal(
    template.render(messages, true, { enable_thinking: false, messages: [] }),
    "<off>ar",
  );
  assert.equal(template.render(messages, true), "ar");
});
