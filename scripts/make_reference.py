"""Writes test/fixtures/models/*.json: what Hugging Face transformers computes on torch (CPU) for
small random models, to which the executors' tests compare.

    python scripts/make_reference.py
    python scripts/make_reference.py --out DIR --seed-offset 100   # other models, elsewhere

Needs torch and transformers, and `deno` on PATH: the models themselves are remade from their
arguments by scripts/make_model.ts, here and in the tests. With --out torch computes on the GPU, if
there is one.
"""

import argparse
import base64
import json
import pathlib
import random
import re
import subprocess
import tempfile

import torch
import transformers

ROOT = pathlib.Path(__file__).parent.parent
OUT = ROOT / "test" / "fixtures" / "models"
PROMPT_TOKENS = 24
OUTPUT_TOKENS = 64
# Rows of the prompt whose logits are kept.
ROWS = [0, 1, 7, 15, 16, 23]
# Models whose tokens do not vary, or are decided by rounding, are made anew with another seed.
TRIES = 5

# Fixture name: arguments of make_model.ts.
MODELS = {
    "llama": "--family llama --seed 1",
    "llama_tied": "--family llama --seed 2 --tied --kv-heads 1 --layers 3",
    "llama3": "--family llama3 --seed 3 --hidden 96 --heads 6 --kv-heads 2 --vocab 400",
    "mistral": "--family mistral --seed 4 --hidden 128 --heads 4 --kv-heads 2 --intermediate 256",
    "qwen2": "--family qwen2 --seed 5 --hidden 112 --heads 7 --kv-heads 1",
    "qwen2_tied": "--family qwen2 --seed 6 --tied --kv-heads 4",
    "qwen3": "--family qwen3 --seed 7 --head-dim 32 --layers 3",
}


DEVICE = "cpu"


class UnfitModel(Exception):
    pass


def load(directory, dtype):
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=dtype, attn_implementation="eager"
    )
    return model.eval().to(DEVICE)


def logits_of(model, tokens):
    with torch.inference_mode():
        ids = torch.tensor([tokens], device=DEVICE)
        return model(ids, use_cache=False).logits[0].float().cpu()


def greedy(model, prompt):
    """Output tokens, and the smallest distance between the best and the second best logit."""
    tokens, gap = list(prompt), float("inf")
    for _ in range(OUTPUT_TOKENS):
        best = torch.topk(logits_of(model, tokens)[-1], 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
    return tokens[len(prompt) :], gap


def relative_error(value, truth):
    return (torch.linalg.norm(value - truth) / torch.linalg.norm(truth)).item()


def encode(logits):
    return base64.b64encode(logits[ROWS].contiguous().numpy().tobytes()).decode()


def make(directory, arguments, dtype):
    command = ["deno", "run", "-A", str(ROOT / "scripts" / "make_model.ts")]
    command += ["--out", directory, "--dtype", dtype, *arguments.split()]
    subprocess.run(command, check=True)


def reference(arguments):
    with tempfile.TemporaryDirectory() as directory:
        make(directory, arguments, "f32")
        exact = load(directory, torch.float32)
        prompt_source = random.Random(arguments)
        prompt = [prompt_source.randrange(exact.config.vocab_size) for _ in range(PROMPT_TOKENS)]
        tokens, gap = greedy(exact, prompt)
        # A test of tokens is meaningful only if they vary and rounding does not decide them.
        if len(set(tokens)) < 16 or gap <= 5e-4:
            raise UnfitModel(f"{arguments}: {len(set(tokens))} tokens, gap {gap}")
        f32 = {"logits": encode(logits_of(exact, prompt)), "tokens": tokens}

        # The truth for bfloat16 is float32 arithmetic over the bfloat16 weights.
        make(directory, arguments, "bf16")
        truth = logits_of(load(directory, torch.float32), prompt)
        rounded = logits_of(load(directory, torch.bfloat16), prompt)
        error = relative_error(rounded[ROWS], truth[ROWS])
        bf16 = {"logits": encode(truth), "torchRelativeError": error}
    print(f"distinct tokens {len(set(tokens))}, gap {gap:.4f}, torch's bf16 error {error:.4f}")
    return {"arguments": arguments, "prompt": prompt, "rows": ROWS, "f32": f32, "bf16": bf16}


def with_other_seed(arguments, offset):
    return re.sub(r"--seed (\d+)", lambda seed: f"--seed {int(seed[1]) + offset}", arguments)


def reference_of(arguments, offset):
    for attempt in range(TRIES if offset > 0 else 1):
        try:
            return reference(with_other_seed(arguments, offset + 1000 * attempt))
        except UnfitModel as error:
            last = error
    raise last


def main():
    global DEVICE
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--seed-offset", type=int, default=0)
    given = parser.parse_args()
    if given.out is not None and torch.cuda.is_available():
        DEVICE = "cuda"
    torch.set_num_threads(1)
    out = given.out or OUT
    out.mkdir(parents=True, exist_ok=True)
    for name, arguments in MODELS.items():
        fixture = json.dumps(reference_of(arguments, given.seed_offset), indent=1)
        (out / f"{name}.json").write_text(fixture + "\n")


if __name__ == "__main__":
    main()
