/*
 * A decoder-only transformer (Llama, Mistral, Qwen2, Qwen3) as one call. Otherwise a step needs 330
 * calls from JavaScript, which took 0.15 of 8 ms (135M, 1 row). kernels.c includes this file after
 * the operations, which it calls.
 */

/* Words of 64 bits throughout, written by decoder.ts. */
struct linear {
  address weights, bias; /* bias may be 0 */
};
struct decoder_layer {
  address input_norm;
  struct linear qkv;
  address query_norm, key_norm; /* 0 without */
  struct linear output;
  address post_attention_norm;
  struct linear gate_up, down;
};
struct decoder {
  int64_t type, rounds, layers, hidden, heads, kv_heads, head_dim, intermediate, vocab;
  double eps, scale;
  address embedding, final_norm, lm_head, rope_table;
  address cache;
  int64_t cache_type, block_bytes, layer_bytes, block_size;
  /* Activations, float32: residual, normed, projected [m, hidden], qkv [m, (heads + 2 kv_heads)
   * head_dim], attended [m, heads head_dim], gate_up [m, 2 intermediate], activated [m, intermediate] */
  address residual, normed, projected, qkv, attended, gate_up, activated;
  struct decoder_layer layer[];
};

/* The batch as `DecoderBatch` has it, words of 64 bits. */
struct decoder_batch {
  int64_t tokens, sequences, max_blocks, max_context;
  address token_ids, positions, slots, query_starts, context_lens, block_tables;
};

/* y [m, n] = x [m, k] W^T + bias; the weights `next` [next_n, next_k] are multiplied by after it. */
static int32_t apply_linear(address handle, const struct decoder *d, int64_t m, address x,
                            struct linear linear, int64_t n, int64_t k, address y, address next,
                            int64_t next_n, int64_t next_k) {
  double next_bytes = (double)packed_bytes_of((enum storage)d->type, (int)next_n, (int)next_k);
  return gemm(handle, x, (int32_t)k, linear.weights, (int32_t)d->type, (int32_t)n, (int32_t)k,
              linear.bias, y, (int32_t)n, (int32_t)m, (int32_t)d->rounds, next, next_bytes);
}

/* normed -> projected */
static int32_t attend_layer(address handle, const struct decoder *d, int64_t index,
                            const struct decoder_batch *b) {
  const struct decoder_layer *layer = &d->layer[index];
  int32_t m = (int32_t)b->tokens, heads = (int32_t)d->heads, kv_heads = (int32_t)d->kv_heads;
  int32_t head_dim = (int32_t)d->head_dim, width = (heads + 2 * kv_heads) * head_dim;
  int64_t queries_width = d->heads * d->head_dim, keys_width = d->kv_heads * d->head_dim;
  address queries = d->qkv, keys = queries + queries_width * sizeof(float);
  address values = keys + keys_width * sizeof(float);
  uint64_t layer_offset = (uint64_t)(d->layer_bytes * index);
  float eps = (float)d->eps;

  if (!apply_linear(handle, d, m, d->normed, layer->qkv, width, d->hidden, d->qkv,
                    layer->output.weights, d->hidden, queries_width)) {
    return 0;
  }
  if (layer->query_norm) {
    head_rmsnorm(handle, queries, width, layer->query_norm, m, heads, head_dim, eps);
    head_rmsnorm(handle, keys, width, layer->key_norm, m, kv_heads, head_dim, eps);
  }
  /* Keys lie behind the queries, so one call rotates both. */
  rope(handle, queries, width, b->positions, d->rope_table, m, heads + kv_heads, head_dim);
  kv_write(handle, d->cache, (int32_t)d->cache_type, (uint64_t)d->block_bytes, layer_offset,
           kv_heads, head_dim, (int32_t)d->block_size, keys, values, width, b->slots, m);
  if (!attention(handle, d->cache, (int32_t)d->cache_type, (uint64_t)d->block_bytes, layer_offset,
                 kv_heads, head_dim, (int32_t)d->block_size, queries, width, d->attended,
                 (int32_t)queries_width, heads, (int32_t)b->sequences, b->query_starts,
                 b->context_lens, b->block_tables, (int32_t)b->max_blocks, (int32_t)b->max_context,
                 (float)d->scale)) {
    return 0;
  }
  return apply_linear(handle, d, m, d->attended, layer->output, d->hidden, queries_width,
                      d->projected, layer->gate_up.weights, 2 * d->intermediate, d->hidden);
}

/* normed -> projected */
static int32_t feed_forward(address handle, const struct decoder *d, int64_t index, int64_t m) {
  const struct decoder_layer *layer = &d->layer[index];
  int is_last = index + 1 == d->layers;
  address next = is_last ? d->lm_head : layer[1].qkv.weights;
  int64_t next_n = is_last ? d->vocab : (d->heads + 2 * d->kv_heads) * d->head_dim;
  if (!apply_linear(handle, d, m, d->normed, layer->gate_up, 2 * d->intermediate, d->hidden,
                    d->gate_up, layer->down.weights, d->hidden, d->intermediate)) {
    return 0;
  }
  silu_mul(handle, d->gate_up, d->activated, (int32_t)m, (int32_t)d->intermediate);
  return apply_linear(handle, d, m, d->activated, layer->down, d->hidden, d->intermediate,
                      d->projected, next, next_n, d->hidden);
}

/* Leaves the final hidden states in `normed`; 0 if there is no scratch memory. */
EXPORT(decoder_forward)
int32_t decoder_forward(address handle, address decoder, address batch) {
  const struct decoder *d = pointer(decoder);
  const struct decoder_batch *b = pointer(batch);
  int32_t m = (int32_t)b->tokens, hidden = (int32_t)d->hidden;
  float eps = (float)d->eps;
  embed(handle, d->embedding, (int32_t)d->type, hidden, b->token_ids, d->residual, m);
  rmsnorm(handle, d->residual, 0, d->layer[0].input_norm, d->normed, m, hidden, eps);
  for (int64_t index = 0; index < d->layers; index++) {
    const struct decoder_layer *layer = &d->layer[index];
    address next_norm = index + 1 < d->layers ? layer[1].input_norm : d->final_norm;
    if (!attend_layer(handle, d, index, b)) return 0;
    rmsnorm(handle, d->residual, d->projected, layer->post_attention_norm, d->normed, m, hidden,
            eps);
    if (!feed_forward(handle, d, index, m)) return 0;
    rmsnorm(handle, d->residual, d->projected, next_norm, d->normed, m, hidden, eps);
  }
  return 1;
}
