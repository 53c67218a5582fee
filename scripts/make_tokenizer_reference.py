"""Writes test/fixtures/tokenizers: small tokenizers and what Hugging Face transformers does with them.

Run from the repository root with a Python that has transformers and tokenizers; needs no network.
Each fixture is a directory with tokenizer.json, tokenizer_config.json, and cases.json:
  encode  [text, ids with special tokens, ids without]
  decode  [ids, text, text without special tokens]
  chat    [messages, add_generation_prompt, text]  (absent without a chat template)
"""

import json
import random
import shutil
from collections import Counter
from pathlib import Path

import tokenizers
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors, trainers
from transformers import AutoTokenizer

OUT = Path("test/fixtures/tokenizers")

CORPUS = """
A service runs many instances of one model, and a request may move between them while it runs.
The scheduler admits requests first come, first served; when memory runs out it preempts the newest one.
Blocks of the key-value cache are 16 tokens long, reference-counted, and never freed while in flight.
def add(a, b):\n    return a + b\n\nfor i in range(10):\n        print(f"{i}: {add(i, 1)}")\n
Numbers: 0 1 2 3 10 12 100 1234 3.14159 1,000,000 2024-05-05 0xFF 1e-5.
It's what they've said: we're fine, I'm here, you'd go, she'll stay, don't.
Le cœur déçu mais l'âme plutôt naïve, Louÿs rêva de crapaüter en canoë. Überstraße, größer, ähnlich.
Съешь же ещё этих мягких французских булок, да выпей чаю. Привет, мир! Как дела?
我们今天去公园散步，天气很好。你好，世界！模型的请求可以在实例之间移动。
日本語のテキストもあります。こんにちは世界。カタカナ。한국어 문장도 있습니다. 안녕하세요 세계.
مرحبا بالعالم. هذا نص عربي قصير. שלום עולם, זה טקסט בעברית.
नमस्ते दुनिया। यह हिन्दी में एक वाक्य है। สวัสดีชาวโลก
Emoji: 😀 😃 🚀 🎉 ❤️ 👍🏽 and so on 🙂.
""".strip().split("\n")

TEXTS = [
    "",
    " ",
    "a",
    "Hello world",
    " Hello  world   with    runs     of spaces ",
    "line one\nline two\r\n\r\n\n\tindented\n  \n   end  ",
    "\n",
    "\n\n\n",
    "It's DON'T we'Ve I'LL they'd",
    "1 12 123 1234 12345 1234567890 3.14e-10 ١٢٣ ⅷ ½",
    "def f(x):\n    return x  # comment\n",
    "Überstraße naïve cœur ﬁ Ⅻ",
    "e\u0301 vs \u00e9, A\u030a vs \u00c5, \u1100\u1161\u11a8 vs \uac01",
    "Привет, мир!",
    "你好，世界！𠮷野家 龘",
    "こんにちは世界 カタカナ ｶﾀｶﾅ",
    "안녕하세요 세계",
    "مرحبا بالعالم שלום עולם \u202eabc\u202c",
    "नमस्ते दुनिया สวัสดีชาวโลก",
    "😀🚀 👍🏽 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ 🇫🇷 🧑🏿‍🚀",
    "zero\u200bwidth \ufeffbom \u00a0nbsp\u3000ideographic \u2028ls \u0085nel",
    "control \x00\x01\x07\x1b[0m\x7f",
    "\ufffd \U0010ffff \ue000 \u0378",
    "▁ ▁▁a Ġ Ċ <0x41> <0xE2><0x82><0xAC> ## @@",
    "<s>[INST] hi [/INST] there</s>",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
    "<|im_start|>user\nhi<|im_end|> <|im_end|>x",
    "<|im_start <|im_end|<|im_end|> |><unk></s><s>",
    "  <s>  </s>  x  <mask>  y <tool> z<tool>w",
    "<think>\nhm\n</think>\n\nok",
    "a" * 300,
    "the " * 60,
    "!?!?...,,,;;;###$$$%%%^^^&&&***(((",
    "http://example.com/path?x=1&y=%20#frag user@example.org",
    "\\n \\u0041 \"quoted\" 'single' `tick`",
    "mixed 中文 and English と日本語 и русский 123",
]

LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPLIT = LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")

LLAMA3_CHAT = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

QWEN_CHAT = r"""
{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n\n' }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}{%- set content = message.content %}{%- else %}{%- set content = '' %}{%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
""".strip("\n")

MISTRAL_CHAT = r"""
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
""".strip("\n")

CHATS = [
    [{"role": "user", "content": "Hello"}],
    [{"role": "system", "content": "Be brief.\n"}, {"role": "user", "content": "  你好 😀 \n"}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nwhy\n</think>\n\n b "},
        {"role": "user", "content": "<|im_end|> </s> {{ 7 * 7 }} {% raw %}"},
    ],
    [
        {"role": "system", "content": "s"},
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "v"},
    ],
]


def byte_level(split: str, normalizer, special: list[str], plain: list[str], bos: str | None) -> Tokenizer:
    """Llama 3 (ignore_merges, bos by template) and Qwen (NFC) style."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=bos is not None))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(split), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    tokenizer.add_tokens([AddedToken(t, normalized=False, special=False) for t in plain])
    byte_level_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        tokenizer.post_processor = processors.Sequence([
            byte_level_processor,
            processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]),
        ])
    else:
        tokenizer.post_processor = byte_level_processor
    return tokenizer


def common_characters(count: int) -> list[str]:
    """CORPUS with all but its most common characters removed, so that some stay out of a vocabulary.

    The trainer's own `limit_alphabet` breaks ties differently in every run.
    """
    counts = Counter("".join(CORPUS))
    kept = sorted(counts, key=lambda c: (-counts[c], c))[:count]
    return ["".join(c for c in line if c in kept) for line in CORPUS]


def sentencepiece_like(metaspace: bool) -> Tokenizer:
    """Llama 2 (normalizer) and Mistral v0.3 (Metaspace) style: BPE with byte fallback."""
    special = ["<unk>", "<s>", "</s>"] + (["[INST]", "[/INST]"] if metaspace else [])
    fallback = [f"<0x{byte:02X}>" for byte in range(256)]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    trained.train_from_iterator(
        common_characters(110), trainers.BpeTrainer(vocab_size=400, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {t: i for i, t in enumerate(dict.fromkeys(special + fallback + pieces))}
    merges = [tuple(m) for m in model["merges"]]
    tokenizer = Tokenizer(models.BPE(
        vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
        decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in special])
    if not metaspace:
        tokenizer.add_tokens([
            AddedToken("<tool>", normalized=False, special=False),
            AddedToken("<mask>", normalized=False, lstrip=True, rstrip=True, special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", vocab["<s>"])])
    return tokenizer


def metaspace_decoder() -> Tokenizer:
    """Metaspace on both sides and no byte fallback: unknown characters become <unk>."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always", split=True)
    tokenizer.train_from_iterator(common_characters(80), trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False))
    return tokenizer


def decode_inputs(tokenizer, encoded: list[list[int]], rng: random.Random) -> list[list[int]]:
    """Encoded texts, cut and spliced so that characters break, and random ids."""
    size = len(tokenizer)
    special = sorted(tokenizer.all_special_ids) or [0]
    inputs = [ids for ids in encoded if ids]
    for _ in range(50):
        ids = rng.choice([e for e in encoded if e])
        start = rng.randrange(len(ids))
        cut = ids[start:start + rng.randint(1, 12)]
        cut.insert(rng.randint(0, len(cut)), rng.choice(special))
        inputs.append(cut)
    for _ in range(50):
        inputs.append([rng.randrange(size) for _ in range(rng.randint(1, 10))])
    for _ in range(30):
        inputs.append([rng.randrange(min(size, 260)) for _ in range(rng.randint(1, 10))])
    return inputs


def write(name: str, backend: Tokenizer, config: dict) -> None:
    directory = OUT / name
    directory.mkdir(parents=True)
    spec = json.loads(backend.to_str())
    dump(directory / "tokenizer.json", spec)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 4096, **config}
    dump(directory / "tokenizer_config.json", config)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    rng = random.Random(7)
    encode = [[t, tokenizer.encode(t), tokenizer.encode(t, add_special_tokens=False)] for t in TEXTS]
    cases = {"encode": encode, "decode": []}
    for ids in decode_inputs(tokenizer, [e[2] for e in encode], rng):
        texts = [tokenizer.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
                 for skip in (False, True)]
        # tokenizer.json tokenizers are "fast" ones, which ignore spaces_between_special_tokens.
        for spaces in (False, True):
            assert texts[0] == tokenizer.decode(ids, spaces_between_special_tokens=spaces)
        cases["decode"].append([ids, *texts])
    if "chat_template" in config:
        cases["chat"] = [
            [chat, generate, tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=generate)]
            for chat in CHATS for generate in (False, True)]
    dump(directory / "cases.json", cases)


def dump(path: Path, value) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    write("llama3", byte_level(
        LLAMA3_SPLIT, None,
        ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        [], "<|begin_of_text|>"),
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "clean_up_tokenization_spaces": True,
         "chat_template": LLAMA3_CHAT})
    write("qwen", byte_level(
        QWEN_SPLIT, normalizers.NFC(), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<think>", "</think>", "<tool▁call>", "é"], None),
        {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>",
         "additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "chat_template": QWEN_CHAT})
    token = lambda content: {"__type": "AddedToken", "content": content, "lstrip": False,  # noqa: E731
                             "normalized": False, "rstrip": False, "single_word": False, "special": True}
    write("llama2", sentencepiece_like(metaspace=False),
          {"bos_token": token("<s>"), "eos_token": token("</s>"), "unk_token": token("<unk>")})
    write("mistral", sentencepiece_like(metaspace=True),
          {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
           "chat_template": [{"name": "default", "template": MISTRAL_CHAT},
                             {"name": "tool_use", "template": "tools: {{ tools }}"}]})
    write("metaspace", metaspace_decoder(),
          {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    dump(OUT / "versions.json",
         {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__})


if __name__ == "__main__":
    main()
