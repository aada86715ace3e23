// Two models in one program, each on two threads of its own, at the same time: `text` on the pool that comes with its sources, `gpt2` on a
// pool of the application, lent as an hd_threads. The weights are random, so both lose about log(vocabulary) at each position.
#include "gpt2.h"
#include "text.h"
#include "text_pool.h"

#include <cmath>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

// An application's own threads: what a model needs of them is that every slot runs once, and that run() returns afterwards.
class Pool {
public:
    explicit Pool(int count) : threads_{ this, count, run }
    {
        for (int thread = 1; thread < count; thread++) workers_.emplace_back([this, thread] { work(thread); });
    }
    ~Pool()
    {
        { std::lock_guard<std::mutex> hold(lock_); stop_ = true; }
        begin_.notify_all();
        for (std::thread &worker : workers_) worker.join();
    }
    const hd_threads *threads() const { return &threads_; }

private:
    static void run(void *context, void (*task)(void *, int, int), void *argument, int slots)
    {
        Pool &pool = *static_cast<Pool *>(context);
        std::unique_lock<std::mutex> hold(pool.lock_);
        pool.task_ = [=](int slot, int thread) { task(argument, slot, thread); };
        pool.next_ = 0, pool.slots_ = pool.left_ = slots;
        pool.begin_.notify_all();
        pool.take(hold, 0);
        pool.end_.wait(hold, [&] { return pool.left_ == 0; });
    }
    void take(std::unique_lock<std::mutex> &hold, int thread)
    {
        while (next_ < slots_) {
            const int slot = next_++;
            hold.unlock();
            task_(slot, thread);
            hold.lock();
            if (--left_ == 0) end_.notify_all();
        }
    }
    void work(int thread)
    {
        std::unique_lock<std::mutex> hold(lock_);
        while (!stop_) {
            take(hold, thread);
            if (!stop_) begin_.wait(hold);
        }
    }
    std::mutex lock_;
    std::condition_variable begin_, end_;
    std::function<void(int, int)> task_;
    int next_ = 0, slots_ = 0, left_ = 0;
    bool stop_ = false;
    hd_threads threads_;
    std::vector<std::thread> workers_;
};

// A block as models want it.
struct Block {
    size_t bytes;
    std::unique_ptr<void, void (*)(void *)> at;
    explicit Block(size_t size) : bytes((size + 63) / 64 * 64), at(std::aligned_alloc(64, bytes ? bytes : 64), std::free)
    {
        if (!at) std::abort();
    }
};

static void randomise(Block &weights, unsigned seed)
{
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, 0.02f);
    for (size_t i = 0; i < weights.bytes / sizeof(float); i++) static_cast<float *>(weights.at.get())[i] = normal(generator);
}

// The functions and sizes of a model, so that what follows is written once for both.
template <class Memory> struct Model {
    const char *name;
    size_t weights_bytes, packed_bytes, scratch_bytes, thread_bytes;
    int batch, length, vocab;
    int (*pack)(const Memory *, const hd_threads *);
    int (*loss)(const Memory *, const hd_threads *, const int32_t *tokens, const int32_t *targets, float *loss, float *nll, int sequences, int used);
    const char *(*error)(int);
};
static const Model<text_memory> text = { "text", TEXT_WEIGHTS_BYTES, TEXT_PACKED_BYTES, TEXT_LOSS_SCRATCH_BYTES, TEXT_LOSS_THREAD_BYTES, TEXT_BATCH, TEXT_LENGTH, TEXT_VOCAB, text_pack, text_loss, text_error };
static const Model<gpt2_memory> gpt2 = { "gpt2", GPT2_WEIGHTS_BYTES, GPT2_PACKED_BYTES, GPT2_LOSS_SCRATCH_BYTES, GPT2_LOSS_THREAD_BYTES, GPT2_BATCH, GPT2_LENGTH, GPT2_VOCAB, gpt2_pack, gpt2_loss, gpt2_error };

template <class Memory> static void run(const Model<Memory> &model, const hd_threads *threads)
{
    Block weights(model.weights_bytes), packed(model.packed_bytes), scratch(model.scratch_bytes + static_cast<size_t>(threads->count) * model.thread_bytes);
    randomise(weights, 1);
    Memory memory = {};
    memory.weights = weights.at.get(), memory.packed = packed.at.get(), memory.scratch = scratch.at.get(), memory.scratch_bytes = scratch.bytes;

    const size_t positions = static_cast<size_t>(model.batch) * static_cast<size_t>(model.length);
    std::vector<int32_t> tokens(positions), targets(positions);
    for (size_t i = 0; i < positions; i++) tokens[i] = static_cast<int32_t>(i * 31 % static_cast<size_t>(model.vocab)), targets[i] = static_cast<int32_t>((i + 1) * 31 % static_cast<size_t>(model.vocab));
    std::vector<float> nll(positions);
    float loss = 0;
    int error = model.pack(&memory, threads);
    for (int i = 0; i < 10 && !error; i++) error = model.loss(&memory, threads, tokens.data(), targets.data(), &loss, nll.data(), 0, 0);
    if (error) std::printf("%s: %s\n", model.name, model.error(error));
    else std::printf("%s: loss %.4f, log(%d) = %.4f\n", model.name, static_cast<double>(loss), model.vocab, std::log(model.vocab));
}

int main()
{
    Pool own(2);
    text_pool *pool = text_pool_new(2);
    if (!pool) return 1;
    std::thread one([&] { run(text, text_pool_threads(pool)); }), other([&] { run(gpt2, own.threads()); });
    one.join();
    other.join();
    text_pool_free(pool);
}
