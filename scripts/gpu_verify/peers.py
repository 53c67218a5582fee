"""Decodes a random model with Hugging Face transformers, and with a hand-written loop of one CUDA graph: what
`serving.ts` measures stands beside these, on the same GPU.

    python3 peers.py MODEL_DIRECTORY PROMPT_TOKENS OUTPUT_TOKENS BATCH...

Prints a line of JSON for each finding. Needs torch and transformers.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
import transformers

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def found(name, value):
    print(json.dumps({"name": name, "value": value}), flush=True)


def synchronize():
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds_of(work):
    synchronize()
    start = time.perf_counter()
    work()
    synchronize()
    return time.perf_counter() - start


def of_transformers(model, prompt, output_tokens):
    """Milliseconds a token, greedy, without the prompt's."""

    def generate(count):
        model.generate(
            prompt, max_new_tokens=count, min_new_tokens=count, do_sample=False, use_cache=True
        )

    generate(4)
    first, all_tokens = seconds_of(lambda: generate(1)), seconds_of(lambda: generate(output_tokens))
    return (all_tokens - first) / (output_tokens - 1) * 1000


class GraphLoop:
    """A step of a Llama with a cache of fixed size, without anything that a graph cannot hold."""

    def __init__(self, model, batch, most_tokens):
        config, weights = model.config, model.state_dict()
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.size = config.head_dim
        self.epsilon = config.rms_norm_eps
        self.weights = weights
        self.layers = [
            {
                name.split(f"layers.{i}.")[1]: value
                for name, value in weights.items()
                if f"layers.{i}." in name
            }
            for i in range(config.num_hidden_layers)
        ]
        like = weights["model.embed_tokens.weight"]
        room = (batch, self.kv_heads, most_tokens, self.size)
        self.keys = [like.new_zeros(room) for _ in self.layers]
        self.values = [like.new_zeros(room) for _ in self.layers]
        self.places = torch.arange(most_tokens, device=like.device)
        base = getattr(config, "rope_theta", 10000.0)
        turns = base ** (-torch.arange(0, self.size, 2, device=like.device) / self.size)
        angles = torch.outer(self.places.float(), turns).repeat(1, 2)
        self.cosines, self.sines = angles.cos().to(like.dtype), angles.sin().to(like.dtype)
        self.token = torch.zeros(batch, dtype=torch.long, device=like.device)
        self.position = torch.zeros(1, dtype=torch.long, device=like.device)

    def norm(self, x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight, self.epsilon)

    def turned(self, x):
        half = self.size // 2
        other = torch.cat((-x[..., half:], x[..., :half]), -1)
        return x * self.cosines[self.position] + other * self.sines[self.position]

    def step(self):
        batch = self.token.shape[0]
        x = F.embedding(self.token, self.weights["model.embed_tokens.weight"])
        mask = (self.places <= self.position)[None, None, None]
        for layer, keys, values in zip(self.layers, self.keys, self.values):
            h = self.norm(x, layer["input_layernorm.weight"])
            q, k, v = (
                F.linear(h, layer[f"self_attn.{name}_proj.weight"]).view(batch, -1, 1, self.size)
                for name in "qkv"
            )
            keys.index_copy_(2, self.position, self.turned(k))
            values.index_copy_(2, self.position, v)
            attended = F.scaled_dot_product_attention(
                self.turned(q), keys, values, attn_mask=mask, enable_gqa=True
            )
            x = x + F.linear(attended.reshape(batch, -1), layer["self_attn.o_proj.weight"])
            h = self.norm(x, layer["post_attention_layernorm.weight"])
            gate, up = (F.linear(h, layer[f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
            x = x + F.linear(F.silu(gate) * up, layer["mlp.down_proj.weight"])
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        logits = F.linear(self.norm(x, self.weights["model.norm.weight"]), head)
        self.token.copy_(logits.argmax(-1))
        self.position.add_(1)
        return logits


def of_graph_loop(model, prompt, output_tokens):
    """Milliseconds a token of steps at the prompt's length; the prompt itself goes through step by step."""
    loop = GraphLoop(model, prompt.shape[0], prompt.shape[1] + output_tokens + 8)
    with torch.inference_mode():
        for i in range(min(4, prompt.shape[1])):  # the loop is right if its logits are the model's
            loop.token.copy_(prompt[:, i])
            logits = loop.step()
        truth = model(prompt[:, : i + 1]).logits[:, -1]
        error = ((logits - truth).float().norm() / truth.float().norm()).item()
        loop.position.fill_(prompt.shape[1])
        run = loop.step
        if DEVICE == "cuda":
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
            with torch.cuda.stream(stream):
                loop.step()
            synchronize()
            with torch.cuda.graph(graph):
                loop.step()
            run = graph.replay
        loop.position.fill_(prompt.shape[1])
        took = seconds_of(lambda: [run() for _ in range(output_tokens)])
    return took / output_tokens * 1000, error


def main():
    directory, prompt_tokens, output_tokens, *batches = sys.argv[1:]
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    model = model.eval().to(DEVICE)
    for batch in map(int, batches):
        shape = (batch, int(prompt_tokens))
        prompt = torch.randint(0, model.config.vocab_size, shape, device=DEVICE)
        name = f"batch {batch}, context {prompt_tokens}"
        try:
            ms = of_transformers(model, prompt, int(output_tokens))
            found(f"transformers, {name}", f"{ms:.3f} ms a token")
        except Exception as error:  # a peer that fails is a finding
            found(f"transformers, {name}", f"failed: {error}")
        try:
            ms, error = of_graph_loop(model, prompt, int(output_tokens))
            found(f"CUDA graph loop, {name}", f"{ms:.3f} ms a token (logits differ by {error:.1e})")
        except Exception as error:
            found(f"CUDA graph loop, {name}", f"failed: {error}")


if __name__ == "__main__":
    main()
