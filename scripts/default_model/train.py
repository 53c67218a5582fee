"""Trains the default model on the CPU. It saves its state now and then, and goes on from it when started again.

deno run -A scripts/default_model/write_samples.ts WORK/samples.jsonl
python scripts/default_model/train.py WORK [--minutes N] [--workers N]

Each worker is a process with one thread, which computes the gradient of its own rows: on a busy machine
that is several times faster than one process with several threads, which wait for each other all the time.

Needs torch with a C++ compiler, numpy, tokenizers, safetensors, and deno on the path. The result is in WORK/model,
the log in WORK/train.log.
"""

import argparse
import json
import math
import subprocess
import time
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import distributed, multiprocessing, nn
from torch.nn import functional

import tokenizer as text

HIDDEN, FEED_FORWARD, LAYERS, HEADS, KV_HEADS = 128, 320, 4, 4, 2
HEAD_DIM = HIDDEN // HEADS
ROPE_THETA, NORM_EPS = 10_000.0, 1e-5
MAX_POSITIONS = 4096

ROW_TOKENS, ROWS = 192, 20  # a worker's part of a step: rows of packed conversations
MATRIX_RATE, OTHER_RATE, WEIGHT_DECAY = 0.02, 2e-3, 0.02
WARM_UP_STEPS = 100
DECAY = 0.75  # the last share of the time, in which the rates sink
TEST_STORIES = 60
# Share of the rows' tokens by kind of conversation.
MIX = {"arithmetic": 0.3, "facts": 0.08, "story": 0.34, "reading": 0.12, "other": 0.12, "mixed": 0.02, "plain": 0.02}
SEED = 1


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_DIM, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_DIM, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_DIM, HIDDEN, bias=False)

    def forward(self, x, rope, mask, earlier=None):
        """Attention among x's tokens, and to `earlier` ones: a list of keys and values, to which x's are added."""
        rows, tokens, _ = x.shape
        heads = lambda y, n: y.view(rows, tokens, n, HEAD_DIM).transpose(1, 2)
        q = rotate(heads(self.q_proj(x), HEADS), rope)
        k = rotate(heads(self.k_proj(x), KV_HEADS), rope).repeat_interleave(HEADS // KV_HEADS, 1)
        v = heads(self.v_proj(x), KV_HEADS).repeat_interleave(HEADS // KV_HEADS, 1)
        if earlier is not None:
            k, v = (torch.cat(parts, 2) for parts in zip(*earlier, (k, v)))
            earlier[:] = [(k, v)]
        out = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(out.transpose(1, 2).reshape(rows, tokens, HEADS * HEAD_DIM))


class FeedForward(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, FEED_FORWARD, bias=False)
        self.up_proj = nn.Linear(HIDDEN, FEED_FORWARD, bias=False)
        self.down_proj = nn.Linear(FEED_FORWARD, HIDDEN, bias=False)

    def forward(self, x):
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(HIDDEN, NORM_EPS)
        self.self_attn = Attention()
        self.post_attention_layernorm = nn.RMSNorm(HIDDEN, NORM_EPS)
        self.mlp = FeedForward()

    def forward(self, x, rope, mask, earlier=None):
        x = x + self.self_attn(self.input_layernorm(x), rope, mask, earlier)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """Names and arithmetic as LlamaForCausalLM of transformers, with a tied head."""

    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(text.VOCAB_SIZE, HIDDEN)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(HIDDEN, NORM_EPS)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.03)
        for layer in self.layers:
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                weight.data /= math.sqrt(2 * LAYERS)

    def forward(self, tokens, rope, mask=None, earlier=None):
        """The hidden state after each token. `earlier` has a list for each layer: see Attention."""
        x = self.embed_tokens(tokens)
        for layer, keys_and_values in zip(self.layers, earlier or [None] * LAYERS):
            x = layer(x, rope, mask, keys_and_values)
        return self.norm(x)


def rotate(x, rope):
    """Rotary embedding: pairs are (i, i + HEAD_DIM / 2), as in transformers."""
    cos, sin = rope
    low, high = x.chunk(2, -1)
    return x * cos + torch.cat((-high, low), -1) * sin


def rope_table(positions):
    frequencies = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    angles = positions[:, None].float() * frequencies
    angles = torch.cat((angles, angles), -1)
    return angles.cos(), angles.sin()


class Samples:
    """Conversations as token ids, and for each token whether the model shall say it."""

    def __init__(self, path: Path):
        arrays = numpy.load(path)
        self.kinds = sorted({name.partition("/")[0] for name in arrays})
        self._ids = {kind: arrays[f"{kind}/ids"] for kind in self.kinds}
        self._said = {kind: arrays[f"{kind}/said"] for kind in self.kinds}
        self._ends = {kind: arrays[f"{kind}/ends"] for kind in self.kinds}
        mean_length = {kind: self._ends[kind][-1] / self.count(kind) for kind in MIX}
        chances = numpy.array([share / mean_length[kind] for kind, share in MIX.items()])
        self._chances = chances / chances.sum()

    def count(self, kind: str) -> int:
        return len(self._ends[kind])

    def get(self, kind: str, index: int):
        """Token ids and "said" of a conversation."""
        start, end = self._ends[kind][index - 1] if index > 0 else 0, self._ends[kind][index]
        return self._ids[kind][start:end], self._said[kind][start:end]

    def batch(self, step: int, worker: int):
        """Rows of whole conversations, drawn by step and worker alone: a resumed run sees the same."""
        random = numpy.random.default_rng([SEED, step, worker])
        kinds = list(MIX)
        rows, room = [], []
        while True:
            kind = kinds[random.choice(len(kinds), p=self._chances)]
            sample = self.get(kind, random.integers(self.count(kind)))
            length = len(sample[0])
            fit = next((row for row, left in enumerate(room) if left >= length), None)
            if fit is None:
                if len(rows) == ROWS:
                    return pack(rows)
                rows.append([])
                room.append(ROW_TOKENS)
                fit = len(rows) - 1
            rows[fit].append(sample)
            room[fit] -= length


def encode_samples(source: Path, target: Path, tokenizer: Tokenizer) -> None:
    """Writes the conversations of a kind as three arrays: token ids, "said", ends in them."""
    by_kind = {}
    for line in map(json.loads, source.open()):
        by_kind.setdefault(line[0], []).append(line)
    arrays = {}
    for kind, lines in by_kind.items():
        parts = [part or "" for line in lines for part in line[1:]]
        encodings = iter(tokenizer.encode_batch_fast(parts, add_special_tokens=False))
        ids, said, ends = [], [], []
        for line in lines:
            sample_ids, sample_said = encode_conversation(line, encodings)
            if len(sample_ids) <= ROW_TOKENS:
                ids.extend(sample_ids)
                said.extend(sample_said)
                ends.append(len(ids))
        arrays[f"{kind}/ids"] = numpy.array(ids, numpy.int16)
        arrays[f"{kind}/said"] = numpy.array(said, bool)
        arrays[f"{kind}/ends"] = numpy.array(ends, numpy.int64)
    numpy.savez(target, **arrays)


def encode_conversation(line, encodings):
    """Token ids of a line as the chat template gives them, and which of them the model shall say."""
    ids, said = [text.BOS], [False]

    def add(role, content, is_said):
        if role is not None:
            ids.append(role)
            said.append(False)
        ids.extend([*content.ids, text.END])
        said.extend([is_said] * (len(content.ids) + 1))

    if line[0] == "plain":
        add(None, next(encodings), True)
        return ids, said
    system = next(encodings)
    if line[1] is not None:
        add(text.SYSTEM, system, False)
    for index in range(2, len(line)):
        is_answer = index % 2 == 1
        add(text.ASSISTANT if is_answer else text.USER, next(encodings), is_answer)
    return ids, said


def pack(rows):
    """Tokens, ids of conversations and "said" of rows, each [rows, ROW_TOKENS]; padding is conversation -1."""
    tokens = torch.full((len(rows), ROW_TOKENS), text.PAD)
    conversation = torch.full((len(rows), ROW_TOKENS), -1)
    said = torch.zeros((len(rows), ROW_TOKENS), dtype=torch.bool)
    for row, samples in enumerate(rows):
        at = 0
        for number, (ids, is_said) in enumerate(samples):
            end = at + len(ids)
            tokens[row, at:end] = torch.from_numpy(ids.astype(numpy.int64))
            conversation[row, at:end] = number
            said[row, at:end] = torch.from_numpy(is_said)
            at = end
    return tokens, conversation, said


CAUSAL = torch.ones(ROW_TOKENS, ROW_TOKENS, dtype=torch.bool).tril()
# Only distances matter to rotary embeddings, so conversations need not begin at position 0.
ROPE = rope_table(torch.arange(ROW_TOKENS))


def predict(model, head, tokens, conversation, said):
    """Logits of the said tokens, and these tokens."""
    mask = CAUSAL & (conversation[:, None, :, None] == conversation[:, None, None, :])
    hidden = model(tokens, ROPE, mask)
    wanted = said[:, 1:]
    return functional.linear(hidden[:, :-1][wanted], head), tokens[:, 1:][wanted]


def exact_share(model, samples: Samples, kind: str, most: int) -> float:
    """Share of conversations of which greedy decoding would give every said token; of `most` at most."""
    indices = range(0, samples.count(kind), math.ceil(samples.count(kind) / most))
    correct = 0
    with torch.no_grad():
        for start in range(0, len(indices), ROWS):
            rows = pack([[samples.get(kind, index)] for index in indices[start : start + ROWS]])
            said = rows[2][:, 1:]
            logits, expected = predict(model, model.embed_tokens.weight, *rows)
            wrong = torch.zeros_like(said)
            wrong[said] = logits.argmax(-1) != expected
            correct += int((~wrong.any(1)).sum())
    return correct / len(indices)


def tell(model, samples: Samples, tokenizer: Tokenizer) -> list[str]:
    """Greedy answers to the test requests for stories. All rows are at one position; requests end at different ones."""
    prompts = [[*samples.get("test stories", index)[0].tolist(), text.ASSISTANT] for index in range(TEST_STORIES)]
    rows = torch.full((len(prompts), ROW_TOKENS), text.END)
    asked = torch.zeros_like(rows, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        rows[row, : len(prompt)] = torch.tensor(prompt)
        asked[row, : len(prompt)] = True
    earlier = [[] for _ in range(LAYERS)]
    with torch.no_grad():
        for at in range(ROW_TOKENS - 1):
            rope = tuple(part[at : at + 1] for part in ROPE)
            hidden = model(rows[:, at : at + 1], rope, earlier=earlier)
            chosen = functional.linear(hidden[:, 0], model.embed_tokens.weight).argmax(-1)
            rows[:, at + 1] = torch.where(asked[:, at + 1], rows[:, at + 1], chosen)
    answers = [row[len(prompt) :] for row, prompt in zip(rows.tolist(), prompts)]
    return [tokenizer.decode(answer[: answer.index(text.END)] if text.END in answer else answer) for answer in answers]


def grammatical_share(stories: list[str]) -> float:
    """Share of the stories that the grammar in grammar.ts makes."""
    script = Path(__file__).with_name("parse_stories.ts")
    command = ["deno", "run", "--no-check", script]
    result = subprocess.run(command, input=json.dumps(stories), stdout=subprocess.PIPE, text=True, check=True)
    return int(result.stdout) / len(stories)


def schedule(step: int, done: float) -> float:
    """Factor of the learning rates: a warm-up, then 1, then linearly down to zero. `done` is the share of the time."""
    return min((step + 1) / WARM_UP_STEPS, 1.0, (1 - done) / DECAY)


class Muon(torch.optim.Optimizer):
    """Momentum whose steps are made orthogonal (Jordan et al., "Muon", 2024), in float32: torch's own
    uses bfloat16, which is slow on processors without it."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": MATRIX_RATE, "momentum": 0.95, "weight_decay": WEIGHT_DECAY})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for weight in group["params"]:
                velocity = self.state[weight].setdefault("velocity", torch.zeros_like(weight))
                velocity.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonal(weight.grad.lerp(velocity, group["momentum"]))
                scale = max(1.0, weight.size(0) / weight.size(1)) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * scale)


def orthogonal(matrix):
    """The nearest orthogonal matrix, roughly, by the Newton-Schulz iteration of Muon."""
    x = matrix / (matrix.norm() + 1e-7)
    is_tall = x.size(0) > x.size(1)
    if is_tall:
        x = x.T
    for _ in range(5):
        product = x @ x.T
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x.T if is_tall else x


def save_model(model, directory: Path) -> None:
    """Writes the weights in bfloat16 and the configuration, as transformers would."""
    weights = {f"model.{name}": value.to(torch.bfloat16).contiguous() for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": text.VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": FEED_FORWARD,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "hidden_act": "silu",
        "rms_norm_eps": NORM_EPS,
        "rope_theta": ROPE_THETA,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "bos_token_id": text.BOS,
        "eos_token_id": text.END,
        "torch_dtype": "bfloat16",
    }
    text.write_json(directory / "config.json", config)
    generation = {"bos_token_id": text.BOS, "eos_token_id": text.END, "pad_token_id": text.PAD}
    text.write_json(directory / "generation_config.json", generation)


class Optimizers:
    """Muon for the layers' matrices, AdamW for embedding and norms."""

    def __init__(self, model):
        matrices = [p for p in model.layers.parameters() if p.dim() == 2]
        others = [p for p in model.parameters() if p.dim() == 1] + [model.embed_tokens.weight]
        adam = torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.98), weight_decay=0.0)
        self.all = [(Muon(matrices), MATRIX_RATE), (adam, OTHER_RATE)]

    def step(self, factor: float) -> None:
        for optimizer, peak in self.all:
            optimizer.param_groups[0]["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad()

    def state_dict(self):
        return [optimizer.state_dict() for optimizer, _ in self.all]

    def load_state_dict(self, states):
        for (optimizer, _), state in zip(self.all, states):
            optimizer.load_state_dict(state)


def average_gradients(model) -> None:
    """Averages the gradients over the workers."""
    gradients = [p.grad for p in model.parameters()]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def train(worker: int, arguments) -> None:
    store = f"file://{arguments.work.absolute()}/rendezvous"
    distributed.init_process_group("gloo", store, rank=worker, world_size=arguments.workers)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    directory = arguments.work / "model"
    samples = Samples(arguments.work / "samples.npz")
    model = Llama()
    optimizers = Optimizers(model)
    log = (arguments.work / "train.log").open("a")

    def say(line):
        if worker == 0:
            print(line, flush=True)
            print(line, file=log, flush=True)

    state_path = arguments.work / "state.pt"
    step, seconds = 0, 0.0
    if state_path.exists():
        state = torch.load(state_path)
        model.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
        step, seconds = state["step"], state["seconds"]
        say(f"resumed at step {step}")
    else:
        say(f"{sum(p.numel() for p in model.parameters())} parameters, torch {torch.__version__}")

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    whole = 60 * arguments.minutes
    compiled = torch.compile(model)
    losses = []
    while seconds < whole:
        started = time.monotonic()
        logits, expected = predict(compiled, model.embed_tokens.weight, *samples.batch(step, worker))
        loss = functional.cross_entropy(logits, expected)
        loss.backward()
        average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(schedule(step, seconds / whole))
        step += 1
        losses.append(loss.item())
        seconds = agreed(seconds + time.monotonic() - started)
        is_last = seconds >= whole
        if worker > 0 or (step % 100 > 0 and not is_last):
            continue
        shown = ["test sums", "test differences", "facts", "reading", "other"]
        scores = [f"{kind} {exact_share(model, samples, kind, 150):.1%}" for kind in shown]
        stories = tell(model, samples, tokenizer)
        (arguments.work / "stories.txt").write_text("\n".join(stories))
        scores.insert(0, f"stories {grammatical_share(stories):.1%}")
        say(f"step {step}, {seconds:.0f} s, loss {sum(losses) / len(losses):.4f}, right: {', '.join(scores)}")
        losses = []
        state = {"model": model.state_dict(), "optimizers": optimizers.state_dict()}
        torch.save({**state, "step": step, "seconds": seconds}, state_path.with_suffix(".new"))
        state_path.with_suffix(".new").replace(state_path)
        save_model(model, directory)
    distributed.destroy_process_group()


def agreed(seconds: float) -> float:
    """The first worker's clock, so that all workers have the same rate and end at the same step."""
    value = torch.tensor(seconds, dtype=torch.float64)
    distributed.broadcast(value, 0)
    return value.item()


def prepare(work: Path) -> None:
    """Makes the tokenizer, and encodes the samples with it."""
    if (work / "samples.npz").exists():
        return
    lines = [json.loads(line) for line in (work / "samples.jsonl").open()]
    sample = lines[:: max(1, len(lines) // 100_000)]
    path = work / "model" / "tokenizer.json"
    if not path.exists():
        tokenizer = text.train_tokenizer(part for line in sample for part in line[1:] if part)
        text.save_tokenizer(tokenizer, work / "model", MAX_POSITIONS)
    tokenizer = Tokenizer.from_file(str(path))
    encode_samples(work / "samples.jsonl", work / "samples.npz", tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=90)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    (arguments.work / "model").mkdir(parents=True, exist_ok=True)
    (arguments.work / "rendezvous").unlink(missing_ok=True)
    prepare(arguments.work)
    multiprocessing.spawn(train, (arguments,), arguments.workers)


if __name__ == "__main__":
    main()
