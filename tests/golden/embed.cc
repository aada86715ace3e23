// Two generated libraries in one C++17 program, as an application embeds them: sizes are constants, the caller owns every byte,
// threads are lent. Prints "same" when one thread, a pool and two calls at once give the same logits, from weights packed here or
// copied from where they were packed.
#include "text.h"
#include "attention.h"
#include "text_pool.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

struct Block {
    size_t bytes;
    void *at;
    explicit Block(size_t size) : bytes(size), at(std::aligned_alloc(64, (size + 63) / 64 * 64 + 64)) { std::memset(at, 0, size); }
    ~Block() { std::free(at); }
    Block(const Block &) = delete;
    Block &operator=(const Block &) = delete;
};

constexpr size_t logit_count = size_t{TEXT_BATCH} * TEXT_LENGTH * TEXT_VOCAB;

std::vector<float> logits_of(void *weights, void *packed, const std::vector<int32_t> &tokens, const hd_threads *threads)
{
    Block scratch(size_t{TEXT_FORWARD_SCRATCH_BYTES} + size_t(threads ? threads->count : 1) * TEXT_FORWARD_THREAD_BYTES);
    text_memory memory = {};
    memory.weights = weights, memory.packed = packed, memory.scratch = scratch.at, memory.scratch_bytes = scratch.bytes;
    std::vector<float> logits(logit_count);
    if (text_forward(&memory, threads, tokens.data(), logits.data(), 0, 0) != 0) std::exit(2);
    return logits;
}

}  // namespace

int main()
{
    Block weights(TEXT_WEIGHTS_BYTES);
    for (size_t i = 0; i < TEXT_WEIGHTS_BYTES / 4; i++) static_cast<float *>(weights.at)[i] = float((i * 2654435761u) % 1000) / 5000.0f - 0.1f;
    std::vector<int32_t> tokens(size_t{TEXT_BATCH} * TEXT_LENGTH);
    for (size_t i = 0; i < tokens.size(); i++) tokens[i] = int32_t(i * 7 % TEXT_VOCAB);

    text_pool *pool = text_pool_new(3);
    Block packed(TEXT_PACKED_BYTES), copied(TEXT_PACKED_BYTES);
    Block some(size_t{TEXT_FORWARD_SCRATCH_BYTES} + TEXT_FORWARD_THREAD_BYTES);
    text_memory unpacked = {}, packing = {};
    unpacked.weights = packing.weights = weights.at, packing.packed = packed.at, unpacked.scratch = some.at, unpacked.scratch_bytes = some.bytes;
    std::vector<float> logits(logit_count);
    const bool needs_packed = TEXT_PACKED_BYTES > 0 && text_pack(&unpacked, nullptr) == HD_ERROR_MEMORY && text_forward(&unpacked, nullptr, tokens.data(), logits.data(), 0, 0) == HD_ERROR_MEMORY;
    if (text_pack(&packing, text_pool_threads(pool)) != 0) std::exit(3);
    std::memcpy(copied.at, packed.at, TEXT_PACKED_BYTES);

    const std::vector<float> alone = logits_of(weights.at, packed.at, tokens, nullptr);
    const std::vector<float> pooled = logits_of(weights.at, copied.at, tokens, text_pool_threads(pool));
    std::vector<float> first, second;
    std::thread a([&] { first = logits_of(weights.at, packed.at, tokens, nullptr); }), b([&] { second = logits_of(weights.at, packed.at, tokens, nullptr); });
    a.join();
    b.join();

    const hd_threads none = { nullptr, 0, nullptr };
    Block scratch(size_t{ATTENTION_SCRATCH_BYTES} + ATTENTION_THREAD_BYTES);
    attention_memory memory = {};
    memory.scratch = scratch.at, memory.scratch_bytes = scratch.bytes;
    const bool refuses = attention_pack(&memory, nullptr) == 0 && attention_pack(&memory, &none) == HD_ERROR_THREADS && attention_forward(&memory, &none, nullptr, nullptr, nullptr, nullptr, nullptr) == HD_ERROR_THREADS;
    text_pool_free(pool);
    const bool same = alone == pooled && alone == first && alone == second && alone[5] != alone[6];
    std::puts(!same ? "different" : !refuses ? "takes no threads" : !needs_packed ? "takes no packed weights" : "same");
    return 0;
}
